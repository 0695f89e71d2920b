"""What runs of a process share, and what they must not."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from kbench.data import Split
from kbench.model import DownstreamModel
from kbench.model.candidates import CandidateHead
from kbench.model.huggingface import load_folder
from kbench.parts.run_parts import Parts
from kbench.pipeline.models import tune
from kbench.pipeline.prediction import logits_of
from kbench.pipeline.session import Session
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Artifacts
from kbench.testing.toys import write_backbone


def test_tasks_of_one_data_set_and_other_markers_share_no_inputs(tmp_path: Path) -> None:
    ends = [{"start": 0, "end": 3, "role": "head"}, {"start": 8, "end": 13, "role": "tail"}]
    record = {"text": "red and green", "mentions": ends, "label": "in"}
    backbone = write_backbone(tmp_path / "bert")
    lm = load_folder(backbone)
    session = Session(Artifacts(tmp_path / "artifacts"), torch.device("cpu"))
    read = []
    for name, markers in (("one", "{head: '#', tail: $}"), ("two", "{head: $, tail: '#'}")):
        folder = tmp_path / name
        folder.mkdir()
        card = f"title: t\nfamily: relation classification\nlicence: none\nmarkers: {markers}\n"
        (folder / "card.yaml").write_text(card)
        for split in Split:
            (folder / f"{split}.jsonl").write_text(json.dumps(record))
        spec = RunSpec(
            task="custom",
            data=str(folder),
            backbone=str(backbone),
            tuning="head",
            method="none",
            setting=Setting.GENERAL,
            knowledge=None,
            control=Control.NONE,
            seed=0,
        )
        parts = Parts(spec)
        model = DownstreamModel(lm, parts.task.head(lm.width))
        read.append(session.prepared(parts, Split.TEST, model, injected=False).inputs.ids.tolist())
    assert read[0] != read[1]
    assert sorted(read[0]) == sorted(read[1])


def asked(tmp_path: Path, family: str, records: list[dict[str, object]], **tuning: object) -> Parts:
    """A run on data of one's own that a decoder is asked about."""
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    (folder / "card.yaml").write_text(f"title: t\nfamily: {family}\nlicence: none\n")
    for split in Split:
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))
    if not (tmp_path / "llama").exists():
        write_backbone(tmp_path / "llama", left_to_right=True)
    return Parts(
        RunSpec(
            task="custom",
            data=str(folder),
            backbone=str(tmp_path / "llama"),
            tuning="prompted",
            method="none",
            setting=Setting.GENERAL,
            knowledge=None,
            control=Control.NONE,
            seed=0,
            options={"tuning": {"prompted": tuning}} if tuning else {},
        )
    )


def test_what_is_counted_as_kept_is_what_a_decoder_reads(tmp_path: Path) -> None:
    ends = [{"start": 0, "end": 3, "role": "target"}]
    last = {"text": "red is as .", "mentions": ends, "answers": ["blue"], "blank": 10}
    within = {"text": "red is as it .", "mentions": ends, "answers": ["blue"], "blank": 7}
    parts = asked(tmp_path, "question answering", [last, within, within])
    session = Session(Artifacts(tmp_path / "artifacts"), torch.device("cpu"))
    model, _ = tune(session, parts)
    read = session.prepared(parts, Split.TEST, model, injected=False)
    assert read.counts["test_kept"] == 1
    assert read.counts["test_total"] == 3
    assert session.kept(parts, Split.TEST, model) == 1


def test_a_scorer_does_not_hang_on_who_encoded_the_texts(tmp_path: Path) -> None:
    ends = [{"start": 0, "end": 3, "role": "head"}, {"start": 8, "end": 13, "role": "tail"}]
    text = {"text": "red and green", "mentions": ends}
    records = [{**text, "label": label} for label in ("as it ever", "color")]
    session = Session(Artifacts(tmp_path / "artifacts"), torch.device("cpu"))
    said = {}
    for scorer in ("sum", "mean"):
        parts = asked(tmp_path, "relation classification", records, scorer=scorer)
        model, _ = tune(session, parts)
        inputs = session.prepared(parts, Split.TEST, model, injected=False).inputs
        assert isinstance(model.head, CandidateHead)
        said[scorer] = model.head.scored(logits_of(model, inputs, session.device))
    # Three words and one; the second run takes the texts that the first has encoded.
    torch.testing.assert_close(said["mean"], said["sum"] / torch.tensor([3, 1]))
