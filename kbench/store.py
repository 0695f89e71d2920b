"""Artifacts and results on disk: addressed, checksummed, written whole or not at all."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from kbench.errors import ArtifactError, DataError
from kbench.files import atomic_folder, canonical_digest, file_digest, read_json, write_json
from kbench.result import Predictions, Result, read_predictions, read_result, write_predictions
from kbench.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Artifact", "Artifacts", "DamageWarning", "Results", "address", "result_address"]

_WEIGHTS = "weights.safetensors"
_ABOUT = "artifact.json"
_RESULT = "result.json"
_PREDICTIONS = "predictions.parquet"


class DamageWarning(UserWarning):
    """A stored file was damaged; it is computed again."""


def address(kind: str, inputs: Mapping[str, Any]) -> str:
    """Returns the address of what ``inputs`` determine: a digest of their content."""
    return canonical_digest({"kind": kind, **inputs})[:32]


@dataclass(frozen=True)
class Artifact:
    """Stored weights and what is known of them.

    Attributes:
        tensors: by name.
        about: ``kind``, ``address``, ``inputs`` (what the address is the digest of), ``sha256``
            of the weights file, and whatever the maker added.
    """

    tensors: dict[str, Tensor]
    about: dict[str, Any]


def result_address(
    spec: RunSpec,
    *,
    engine: int,
    task: tuple[str | None, str],
    metrics: Sequence[str],
    method: str,
    linker: str,
    made: Mapping[str, str | None],
) -> str:
    """Returns the address of the result of a run.

    Args:
        spec: the run.
        engine: revision of the engine that made it.
        task: digest of the data and revision of the card.
        metrics: variants, in the order of the task.
        method: its revision.
        linker: the one used.
        made: addresses of the downstream model and the plug.
    """
    inputs = {
        "engine": engine,
        "task": [spec.task, *task],
        "metrics": list(metrics),
        "method": [spec.method, method],
        "setting": str(spec.setting),
        "control": str(spec.control),
        "linker": linker,
        "dtype": spec.dtype,
        "limit": spec.limit,
        **made,
    }
    return address("result", inputs)


class Artifacts:
    """Downstream models and plugs in a folder, by kind and address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str, key: str) -> Path:
        """Returns the folder of an artifact."""
        return self.folder / kind / key

    def __contains__(self, item: tuple[str, str]) -> bool:
        return (self.path(*item) / _ABOUT).is_file()

    @contextmanager
    def making(self, kind: str, key: str) -> Iterator[None]:
        """Holds the lock under which one process makes an artifact and others wait for it."""
        folder = self.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{key}.making"):
            yield

    def load(self, kind: str, key: str) -> Artifact | None:
        """Returns an artifact; None if there is none, or (with a warning) if it is damaged."""
        folder = self.path(kind, key)
        if not folder.is_dir():
            return None
        try:
            about = self.check(folder)
        except ArtifactError as error:
            warnings.warn(f"{error}; it is made again", DamageWarning, stacklevel=2)
            return None
        from safetensors.torch import load_file

        return Artifact(load_file(folder / _WEIGHTS), about)

    def check(self, folder: Path) -> dict[str, Any]:
        """Verifies an artifact's checksum and address.

        Raises:
            ArtifactError: a file is missing or damaged, or lies at a wrong address.
        """
        try:
            about: dict[str, Any] = read_json(folder / _ABOUT)
            right = about["sha256"] == file_digest(folder / _WEIGHTS)
            named = address(about["kind"], about["inputs"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as cause:
            raise ArtifactError(f"artifact {folder} is damaged ({cause})") from None
        if not right:
            raise ArtifactError(f"artifact {folder} is damaged (its checksum does not match)")
        if named != folder.name:
            raise ArtifactError(f"artifact {folder} is not what its address says")
        return about

    def save(
        self, kind: str, inputs: Mapping[str, Any], tensors: Mapping[str, Tensor], **about: Any
    ) -> None:
        """Writes an artifact at the address of its inputs."""
        from safetensors.torch import save_file

        key = address(kind, inputs)
        with atomic_folder(self.path(kind, key)) as scratch:
            save_file({k: v.contiguous() for k, v in tensors.items()}, scratch / _WEIGHTS)
            content = {"kind": kind, "address": key, "inputs": dict(inputs)}
            content |= {"sha256": file_digest(scratch / _WEIGHTS), **about}
            write_json(scratch / _ABOUT, content)

    def all(self) -> Iterator[Path]:
        """Yields the folder of every artifact."""
        for path in sorted(self.folder.glob("*/*")):
            if path.is_dir() and not path.name.startswith("."):
                yield path

    def leftovers(self, older_than: float) -> Iterator[Path]:
        """Yields scratch folders that an interrupted process left more than so many seconds ago."""
        for path in sorted(self.folder.glob("*/.*")):
            scratch = ".tmp-" in path.name or ".old-" in path.name
            if path.is_dir() and scratch and time.time() - path.stat().st_mtime > older_than:
                yield path


class Results:
    """Results in a folder, one subfolder each, by id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str) -> Result | None:
        """Returns a result; None if there is none, or (with a warning) if it is damaged."""
        path = self.folder / key / _RESULT
        if not path.is_file():
            return None
        try:
            result = read_result(path)
            if result.id != key:
                raise DataError(path, f"has the id {result.id}", f"the id {key}")
            if result.predictions and not (self.folder / key / _PREDICTIONS).is_file():
                raise DataError(path, "has lost its predictions", "predictions beside it")
        except DataError as error:
            warnings.warn(f"{error}; the run is repeated", DamageWarning, stacklevel=2)
            return None
        return result

    def save(self, result: Result, predictions: Predictions | None = None) -> Result:
        """Writes a result, replacing an earlier one of the same id; returns it as it is stored."""
        with atomic_folder(self.folder / result.id) as scratch:
            if predictions is not None:
                write_predictions(scratch / _PREDICTIONS, predictions)
                result = result.holding(file_digest(scratch / _PREDICTIONS))
            write_json(scratch / _RESULT, result.as_json())
        return result

    def predictions(self, result: Result) -> Predictions | None:
        """Returns the predictions of a result.

        Raises:
            DataError: they are missing or damaged.
        """
        if not result.predictions:
            return None
        # The name in the file is a stranger's: only the one fixed name is ever opened.
        return read_predictions(self.folder / result.id / _PREDICTIONS)

    def __iter__(self) -> Iterator[Result]:
        for path in sorted(self.folder.glob(f"*/{_RESULT}")):
            if path.parent.name.startswith("."):
                continue
            result = self.load(path.parent.name)
            if result is not None:
                yield result
