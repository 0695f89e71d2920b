"""What runs of a process share, and what they must not."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from kbench.data import Split
from kbench.model import DownstreamModel
from kbench.model.huggingface import load_folder
from kbench.parts.run_parts import Parts
from kbench.run.session import Session
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
