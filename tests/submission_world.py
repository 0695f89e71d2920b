"""A small submission made by real runs of installed toys, and what a forger does to one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kbench.data.files import file_digest
from kbench.knowledge import KnowledgeSource
from kbench.model import Backbone, LanguageModel
from kbench.model.huggingface import folder_digest, load_folder
from kbench.parts.catalogue import Kind
from kbench.parts.registry import find
from kbench.parts.source_text import constant
from kbench.pipeline.buckets import Popularity, by_entity
from kbench.results.comparison import metrics_of
from kbench.results.rescoring import rescored
from kbench.store import result_address
from kbench.store.result import read_predictions, read_result
from kbench.testing import registered
from tests.conftest import registered_toys

__all__ = [
    "Json",
    "SubmissionBackbone",
    "SubmissionWorld",
    "edit",
    "installed",
    "predict",
    "readdressed",
    "recommanded",
    "rescore",
    "without_scores",
]

Json = dict[str, Any]
_FOLDER = "TEST_TOYS"  # the command asks what reads a variable that begins with KBENCH


class SubmissionBackbone(Backbone):
    """The toy backbone, by a name of its own."""

    name = "toy-bert"

    @property
    def digest(self) -> str:
        return folder_digest(Path(os.environ[_FOLDER]) / "bert")

    def load(self) -> LanguageModel:
        return load_folder(Path(os.environ[_FOLDER]) / "bert")


class SubmissionWorld(KnowledgeSource):
    """The toy knowledge base, by a name of its own."""

    def folder(self) -> Path:
        return Path(os.environ[_FOLDER]) / "kb"


@contextmanager
def installed(toys: Path, *, parts: bool = True) -> Iterator[None]:
    """Offers the toy tasks, and the backbone ``toy-bert`` and the knowledge base ``toy-kb``."""
    before = os.environ.get(_FOLDER)
    os.environ[_FOLDER] = str(toys)
    own = "tests.submission_world"
    try:
        with registered_toys():
            if not parts:
                yield
                return
            with (
                registered(Kind.BACKBONES, toy_bert=f"{own}:SubmissionBackbone"),
                registered(Kind.KNOWLEDGE, toy_kb=f"{own}:SubmissionWorld"),
            ):
                yield
    finally:
        os.environ.pop(_FOLDER)
        if before is not None:
            os.environ[_FOLDER] = before


def edit(folder: Path, change: Callable[[Json], object]) -> None:
    """Changes the JSON of a result as a text editor would."""
    path = folder / "result.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def predict(folder: Path, change: Callable[[Json], object], compression: str = "zstd") -> None:
    """Changes the columns of predictions, and nothing else; new ones are of the type they have."""
    path = folder / "predictions.parquet"
    table = pq.ParquetFile(path).read()
    columns = table.to_pydict()
    change(columns)
    own = {name: columns.pop(name) for name in table.schema.names}
    made = pa.table(own, schema=table.schema)
    for name, values in columns.items():
        made = made.append_column(name, pa.array(values))
    pq.write_table(made, path, compression=compression)


def rescore(folder: Path) -> None:
    """Makes whatever a result says of its predictions follow from them, as a forger would."""
    result = read_result(folder / "result.json")
    told = read_predictions(folder / "predictions.parquet")
    share = sum(map(bool, told.linked)) / max(1, len(told.ids))
    main = next(m for m in metrics_of(result) if m.name == result.main_metric)
    parted = by_entity(main, told, Popularity(2, 4)) if result.coverage else {}

    def change(value: Json) -> None:
        scores = rescored(result, told).items()
        value["metrics"] = {name: score.model_dump() for name, score in scores}
        value["buckets"] = {
            kind: {name: score.model_dump() for name, score in several.items()}
            for kind, several in parted.items()
        }
        if value["coverage"]:
            value["coverage"]["examples"] = share
        number = len(told.ids)
        value["counts"] |= {"test_kept": number, "test_total": number, **told.spread}
        digest = file_digest(folder / "predictions.parquet")
        value["provenance"]["digests"]["predictions"] = digest

    edit(folder, change)


def without_scores(folder: Path, status: str) -> None:
    """Makes a run one that failed or was skipped, and says so."""
    (folder / "predictions.parquet").unlink()
    empty: Json = {"metrics": {}, "buckets": {}, "coverage": None, "frozen": None}
    empty |= {"main_metric": None, "predictions": None, "dev": None}
    edit(folder, lambda value: value.update(status=status, reason="it broke", **empty))


def readdressed(folder: Path, **addresses: str) -> Path:
    """States other addresses of model and plug and the id that follows; returns the folder."""
    edit(folder, lambda value: value["provenance"]["addresses"].update(addresses))
    recommanded(folder)
    result = read_result(folder / "result.json")
    assert result.provenance is not None
    made = result.provenance
    task = registered_task(result.spec.task)
    revision = constant(find(Kind.METHODS, result.spec.method), "revision")
    own = result_address(
        result.spec,
        engine=made.revision,
        task=(made.digests.get("data"), task.card.revision),
        metrics=[score.variant for score in result.metrics.values()],
        method=str(revision),
        linker=result.coverage.linker if result.coverage else task.linking,
        made={name: made.addresses.get(name) for name in ("model", "plug")},
    )
    edit(folder, lambda value: value.update(id=own))
    return folder.rename(folder.parent / own)


def recommanded(folder: Path) -> None:
    """States the command of the spec as it is now."""
    command = read_result(folder / "result.json").spec.command()
    edit(folder, lambda value: value["provenance"].update(command=command))


def registered_task(name: str) -> Any:
    """The class of an installed task."""
    from kbench.parts.find import task_kind

    return task_kind(name)
