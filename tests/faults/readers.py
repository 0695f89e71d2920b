"""Every reader of outside files, as functions of bytes: they understand them or say why not.

What a sound file looks like is there for each, so that fuzzing begins near what is read.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from kbench.data import Split
from kbench.data.files import canonical_digest, file_digest
from kbench.errors import KbenchError
from kbench.grid.grids import make_grids, read_grid
from kbench.knowledge import Bundle
from kbench.store import Artifacts, Results
from kbench.store.folder import DamageWarning, address
from kbench.store.result import read_predictions, read_result
from kbench.task import Task
from kbench_leaderboard.submission import opened, read
from kbench_leaderboard.verify import verify
from kbench_tasks.custom import Custom
from kbench_tasks.entity_questions import EntityQuestions
from kbench_tasks.fewrel import FewRel
from kbench_tasks.knowledge.tsv import TsvImporter
from kbench_tasks.metaqa import MetaQA
from kbench_tasks.popqa import PopQA
from tests.tasks import test_custom, test_malformed

Check = Callable[[Path, bytes], None]

_KEY = "0" * 32


@dataclass(frozen=True)
class Reader:
    """A reader of outside files.

    Attributes:
        sound: contents that are read well.
        check: writes a content into an empty folder and reads it; raises KbenchError or nothing.
    """

    sound: tuple[bytes, ...]
    check: Check

    def __call__(self, content: bytes) -> str:
        """Reads a content; returns what was wrong with it, in a line, or nothing."""
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DamageWarning)
            folder = Path(scratch) / "inside"
            folder.mkdir()
            try:
                self.check(folder, content)
            except KbenchError as error:
                problem = str(error)
                assert problem
                assert len(problem.splitlines()) == 1, problem
                return problem
            finally:
                assert [*Path(scratch).iterdir()] == [folder], "something was written outside"
        return ""


def _result(folder: Path, content: bytes) -> None:
    (folder / "result.json").write_bytes(content)
    result = read_result(folder / "result.json")
    # What is taken for a result can be written, read again, and repeated.
    again = json.dumps(result.as_json()).encode()
    (folder / "result.json").write_bytes(again)
    assert read_result(folder / "result.json") == result
    assert result.spec.command()


def _stored(folder: Path, content: bytes) -> None:
    (folder / _KEY).mkdir()
    (folder / _KEY / "result.json").write_bytes(content)
    store = Results(folder)
    store.load(_KEY)
    store.finished(_KEY)


def _predictions(folder: Path, content: bytes) -> None:
    (folder / "predictions.parquet").write_bytes(content)
    found = read_predictions(folder / "predictions.parquet")
    # What not every run has is empty in others.
    columns = [column for column in vars(found).values() if column is not None and len(column)]
    assert {len(column) for column in columns} <= {len(found.ids)}
    if found.likelihoods is not None:
        for scorer in found.likelihoods.scorers:
            assert len(found.by(scorer).predictions) == len(found.ids)


def _grid(folder: Path, content: bytes) -> None:
    path = folder / "grid.yaml"
    path.write_bytes(content)
    for grid in make_grids(read_grid(path), str(path), {"seed": "0"}, ["method.none.a=1"]):
        for spec in grid.cells()[:20]:
            assert spec.command()
            address("unaddressed", spec.model_dump(mode="json"))


def _option(folder: Path, content: bytes) -> None:
    text = content.decode(errors="surrogateescape")
    make_grids({"task": "a", "method": "b"}, "options", settings=[f"method.b.c={text}"])


def _bundle(name: str, folder: Path, content: bytes) -> None:
    kb = folder / "kb"
    shutil.copytree(_world(), kb)
    (kb / name).write_bytes(content)
    if name != "card.json":
        card = json.loads((kb / "card.json").read_text())
        card["files"][name] = file_digest(kb / name)
        card["digest"] = canonical_digest(card["files"])
        (kb / "card.json").write_text(json.dumps(card))
    bundle = Bundle(kb)
    bundle.verify()
    _use(bundle)


def _use(bundle: Bundle) -> None:
    rows = bundle.rows(["toy:none", None, *("toy:" + label for label in bundle.labels[:5])])
    known = rows[rows >= 0]
    if len(bundle):
        every = np.arange(len(bundle))
        bundle.has_vector(every)
        bundle.has_description(every)
        assert bundle.vectors(known).shape == (len(known), bundle.dimension)
        for row in (0, len(bundle) - 1, *known):
            assert isinstance(bundle.entity(int(row)).label, str)
    assert all(isinstance(text, str) for text in bundle.relations.values())
    assert bundle.triples.sum() >= 0
    assert len(bundle.degrees) == len(bundle)
    assert len([*bundle.sentences]) == len(bundle.sentences)
    assert len(bundle.aliases) == len(bundle)
    words = bundle.words
    assert words is None or len(words.words) == len(words.vectors)


@cache
def _world() -> Path:
    from kbench.testing.toys import write_world

    folder = Path(tempfile.mkdtemp(prefix="kbench-fuzz-")) / "kb"
    write_world(folder, entities=24, full=True)
    return folder


@cache
def _plug() -> tuple[Path, dict[str, Any]]:
    import torch

    folder, inputs = Path(tempfile.mkdtemp(prefix="kbench-fuzz-")), {"seed": 0}
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True])}
    Artifacts(folder).save("plug", inputs, tensors)
    return folder / "plug" / address("plug", inputs), inputs


def _weights(folder: Path, content: bytes) -> None:
    target = _copied_plug(folder)
    (target / "weights.safetensors").write_bytes(content)
    about = json.loads((target / "artifact.json").read_text())
    about["sha256"] = file_digest(target / "weights.safetensors")
    (target / "artifact.json").write_text(json.dumps(about))
    _load(folder, target)


def _about(folder: Path, content: bytes) -> None:
    target = _copied_plug(folder)
    (target / "artifact.json").write_bytes(content)
    _load(folder, target)


def _copied_plug(folder: Path) -> Path:
    source, _ = _plug()
    return Path(shutil.copytree(source, folder / "plug" / source.name))


def _load(folder: Path, target: Path) -> None:
    found = Artifacts(folder).load("plug", target.name)
    if found is not None:
        assert all(type(value).__name__ == "Tensor" for value in found.tensors.values())
        assert address(found.about["kind"], found.about["inputs"]) == target.name


def _submission(folder: Path, content: bytes) -> None:
    (folder / "results.zip").write_bytes(content)
    with opened(folder / "results.zip") as unpacked:
        inside = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
        assert {path.name for path in inside} <= {"result.json", "predictions.parquet"}
        assert all(len(path.parts) == 2 for path in inside)
        list(verify(read(unpacked)))
    assert not unpacked.exists()


def _task(kind: type[Task], name: str, others: Mapping[str, bytes], folder: Path, c: bytes) -> None:
    for other, content in others.items():
        (folder / other).write_bytes(content)
    (folder / name).write_bytes(c)
    task = kind(str(folder))
    for split in Split:
        for example in task.examples(split):
            assert example.text is not None
            for mention in example.mentions:
                assert 0 <= mention.start < mention.end <= len(example.text)
    assert task.digest


def _import(folder: Path, content: bytes) -> None:
    (folder / "source").mkdir()
    (folder / "source" / "triples.tsv").write_bytes(content)
    bundle, _ = TsvImporter().run(
        folder / "source", folder / "kb", [("triples", "triples.tsv"), ("name", "mine")]
    )
    bundle.verify()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def _tasks() -> dict[str, Reader]:
    found = {}
    for name, (kind, names, rows, in_lines) in test_malformed.LAYOUTS.items():
        sound = test_malformed.text(rows, in_lines).encode()
        others = {names.format(split): sound for split in Split}
        found[f"task {name}"] = Reader(
            (sound,), partial(_task, kind, names.format("train"), others)
        )
    rows = b"".join(_json(test_custom.RELATION) + b"\n" for _ in range(2))
    others = {f"{split}.jsonl": rows for split in Split}
    others["card.yaml"] = test_custom.CARD.encode()
    custom = partial(_task, Custom)
    found["task custom"] = Reader((rows,), partial(custom, "train.jsonl", others))
    found["card of a custom task"] = Reader(
        (others["card.yaml"],), partial(custom, "card.yaml", others)
    )
    popqa = b"subj\tprop\tobj\tquestion\tpossible_answers\n"
    found["task popqa"] = Reader((popqa,), partial(_task, PopQA, "test.tsv", {}))
    hop = b"who directed [Kite]\tAda|Ben\nwhat was [Ada] in\tKite\n"
    others = {"1-hop-train.txt": hop, "1-hop-test.txt": hop}
    found["task metaqa"] = Reader((hop,), partial(_task, MetaQA, "1-hop-dev.txt", others))
    questions = _json([{"question": "Where was Ada born?", "answers": ["London"]}])
    found["task entity-questions"] = Reader(
        (questions,), partial(_task, EntityQuestions, "P19.test.json", {})
    )
    fewrel = _json(
        {"P19": [{"tokens": ["Ada"], "h": ["ada", "Q1", [[0]]], "t": ["x", "Q2", [[0]]]}]}
    )
    found["task fewrel"] = Reader((fewrel,), partial(_task, FewRel, "train_wiki.json", {}))
    return found


@cache
def readers() -> dict[str, Reader]:
    """Returns every reader by what it reads."""
    from tests.store.test_store import PREDICTIONS, outcome

    world = _world()
    scratch = Path(tempfile.mkdtemp(prefix="kbench-fuzz-"))
    from tests.stored import provenance

    result = Results(scratch).save(outcome(provenance=provenance()), PREDICTIONS)
    parquet = (scratch / result.id / "predictions.parquet").read_bytes()
    plug, _ = _plug()
    files = {f"{_KEY}/result.json": _json(result.as_json()), f"{_KEY}/predictions.parquet": parquet}
    grid = (
        b"task: [atlas-qa, 'atlas-*']\nmethod: none,map-tuning\nseed: [0, 1]\nlimit: 3\n"
        b"options: {method: {map-tuning: {general: {epochs: 3, rate: 1e-4}}}}\n"
        b"grids:\n- setting: general\n- {control: 'none,shuffled', dtype: float32}\n"
    )
    found = {
        "result": Reader((_json(result.as_json()),), _result),
        "result in a store": Reader((_json(result.as_json()),), _stored),
        "predictions": Reader((parquet,), _predictions),
        "grid": Reader((grid, b"task: a\nmethod: b\n"), _grid),
        "option": Reader((b"1e-4", b"[1, {a: b}]", b"2001-01-01", b"!!set {a}"), _option),
        "submission": Reader((_zipped(files),), _submission),
        "plug": Reader(((plug / "weights.safetensors").read_bytes(),), _weights),
        "about a plug": Reader(((plug / "artifact.json").read_bytes(),), _about),
        "import": Reader((b"Q1\tP1\tQ2\nQ2\tP1\tQ3\n",), _import),
        **_tasks(),
    }
    for name in ("card.json", *json.loads((world / "card.json").read_text())["files"]):
        content = (world / name).read_bytes()
        found[f"bundle {name}"] = Reader((content,), partial(_bundle, name))
    return found
