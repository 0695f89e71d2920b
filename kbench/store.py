"""Artifacts and results on disk: addressed, checksummed, written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from kbench.errors import ArtifactError, DataError, VersionError
from kbench.files import (
    abandoned,
    atomic_folder,
    canonical_digest,
    file_digest,
    read_json,
    write_json,
)
from kbench.result import (
    Predictions,
    Result,
    Status,
    read_predictions,
    read_result,
    write_predictions,
)
from kbench.spec import RunSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ABOUT",
    "WEIGHTS",
    "Artifact",
    "Artifacts",
    "DamageWarning",
    "Results",
    "address",
    "check_writable",
    "result_address",
]

WEIGHTS = "weights.safetensors"
ABOUT = "artifact.json"
_RESULT = "result.json"
_PREDICTIONS = "predictions.parquet"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_PROBE = 1 << 16
"""Bytes that are written to see whether a folder takes any."""


class DamageWarning(UserWarning):
    """A stored file is damaged and computed again, or cannot be read by this version."""


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


def check_writable(folder: Path, instead: str) -> None:
    """Writes something into a folder and takes it away again, before hours are spent for nothing.

    Args:
        folder: made if it is not there.
        instead: what to do if it cannot be written, for the error.

    Raises:
        ArtifactError: it cannot be written.
    """
    with _written(folder, instead):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(b"\0" * _PROBE)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _written(path: Path, instead: str) -> Iterator[None]:
    """Says in one line that a path cannot be written, why, and what to do instead."""
    try:
        yield
    except Exception as cause:
        # pyarrow and safetensors wrap the system's error in errors and texts of their own.
        if not isinstance(cause, OSError) and "os error" not in str(cause).lower():
            raise
        reason = getattr(cause, "strerror", None) or next(iter(str(cause).splitlines()), "")
        raise ArtifactError(f"{path} cannot be written ({reason}); {instead}") from cause


class _KeptError(Exception):
    """A good result is stored already."""

    def __init__(self, result: Result) -> None:
        self.result = result


class Artifacts:
    """Downstream models and plugs in a folder, by kind and address."""

    about = ABOUT
    instead = "free space there, or set KBENCH_CACHE to a folder that can be written"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str, key: str) -> Path:
        """Returns the folder of an artifact."""
        return self.folder / kind / key

    def __contains__(self, item: tuple[str, str]) -> bool:
        return (self.path(*item) / ABOUT).is_file()

    @contextmanager
    def making(self, kind: str, key: str) -> Iterator[None]:
        """Holds the lock under which one process makes an artifact and others wait for it.

        Of a store that cannot be written, what is there is read without a lock.

        Raises:
            ArtifactError: there is nothing, and nothing can be written.
        """
        lock = FileLock(self.folder / kind / f".{key}.making")
        try:
            with _written(self.folder, self.instead):
                (self.folder / kind).mkdir(parents=True, exist_ok=True)
                lock.acquire()
        except ArtifactError as error:
            cause = error.__cause__
            if getattr(cause, "errno", None) not in _READ_ONLY or (kind, key) not in self:
                raise
        try:
            yield
        finally:
            lock.release()

    def load(self, kind: str, key: str) -> Artifact | None:
        """Returns an artifact; None if there is none, or (with a warning) if it is damaged."""
        folder = self.path(kind, key)
        if not folder.is_dir():
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            about = self.check(folder)
            try:
                return Artifact(load_file(folder / WEIGHTS), about)
            except (OSError, SafetensorError) as cause:
                raise ArtifactError(f"artifact {folder} is damaged ({cause})") from None
        except ArtifactError as error:
            warnings.warn(f"{error}; it is made again", DamageWarning, stacklevel=2)
            return None

    def check(self, folder: Path) -> dict[str, Any]:
        """Verifies an artifact's checksum and address.

        Raises:
            ArtifactError: a file is missing or damaged, or lies at a wrong address.
        """
        try:
            about: dict[str, Any] = read_json(folder / ABOUT)
            right = about["sha256"] == file_digest(folder / WEIGHTS)
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
        """Writes an artifact at the address of its inputs.

        Raises:
            ArtifactError: it cannot be written; what was there is there still.
        """
        from safetensors.torch import save_file

        key = address(kind, inputs)
        path = self.path(kind, key)
        with _written(path, self.instead), atomic_folder(path) as scratch:
            save_file({k: v.contiguous() for k, v in tensors.items()}, scratch / WEIGHTS)
            content = {"kind": kind, "address": key, "inputs": dict(inputs)}
            content |= {"sha256": file_digest(scratch / WEIGHTS), **about}
            write_json(scratch / ABOUT, content)

    def all(self) -> Iterator[Path]:
        """Yields the folder of every artifact."""
        for path in sorted(self.folder.glob("*/*")):
            if path.is_dir() and not path.name.startswith("."):
                yield path

    def leftovers(self) -> Iterator[Path]:
        """Yields scratch folders that a killed process left; nobody is writing there any more."""
        for folder in sorted(self.folder.glob("*")):
            yield from abandoned(folder)


class Results:
    """Results in a folder, one subfolder each, by id."""

    instead = "free space there, or give another --out"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str) -> Result | None:
        """Returns a result; None if there is none, or (with a warning) if it is damaged.

        Raises:
            VersionError: another version of kbench wrote it, and this one does not understand it.
        """
        try:
            result = self._opened(key)
            return result and self._whole(result)
        except VersionError:
            raise
        except DataError as error:
            warnings.warn(f"{error}; the run is repeated", DamageWarning, stacklevel=2)
            return None

    def finished(self, key: str) -> Result | None:
        """Returns a result that ended well, if one is there now; says nothing of damage.

        Raises:
            VersionError: as :meth:`load`.
        """
        try:
            result = self._opened(key)
            return self._whole(result) if result and result.status == Status.OK else None
        except VersionError:
            raise
        except DataError:
            return None

    def _opened(self, key: str) -> Result | None:
        path = self.folder / key / _RESULT
        if not path.exists():
            return None
        result = read_result(path)
        if result.id != key:
            raise DataError(path, f"has the id {result.id}", f"the id {key}")
        return result

    def _whole(self, result: Result) -> Result:
        """Returns a result whose predictions are there, and are those that it was stored with.

        Raises:
            DataError: they are not.
        """
        path = self.folder / result.id / _PREDICTIONS
        if not result.predictions:
            return result
        if not path.is_file():
            raise DataError(path.parent, "has lost its predictions", f"{_PREDICTIONS} in it")
        stated = result.provenance and result.provenance.digests.get("predictions")
        if stated and file_digest(path) != stated:
            raise DataError(
                path, "does not have the content its result states", f"SHA-256 {stated[:12]}…"
            )
        return result

    def save(self, result: Result, predictions: Predictions | None = None) -> Result:
        """Writes a result and returns what is stored: an earlier one of the id if it ended well.

        Of several processes on one store two may do the same run, and one fail where the other
        did not: what is good is never taken away again, not even for the blink of a rename.

        Raises:
            ArtifactError: it cannot be written; what was there is there still.
            VersionError: what is there is another version's.
        """
        path = self.folder / result.id
        try:
            with _written(path, self.instead), atomic_folder(path) as scratch:
                stored = self.finished(result.id)
                if stored is not None:
                    raise _KeptError(stored)
                if predictions is not None:
                    write_predictions(scratch / _PREDICTIONS, predictions)
                    result = result.holding(file_digest(scratch / _PREDICTIONS))
                write_json(scratch / _RESULT, result.as_json())
        except _KeptError as kept:
            return kept.result
        return result

    def files(self, result: Result) -> tuple[Path, Path]:
        """Returns where a result and its predictions lie."""
        return self.folder / result.id / _RESULT, self.folder / result.id / _PREDICTIONS

    def predictions(self, result: Result) -> Predictions | None:
        """Returns the predictions of a result.

        Raises:
            DataError: they are missing or damaged.
        """
        if not self._whole(result).predictions:
            return None
        # The name in the file is a stranger's: only the one fixed name is ever opened.
        return read_predictions(self.folder / result.id / _PREDICTIONS)

    def __iter__(self) -> Iterator[Result]:
        for path in sorted(self.folder.glob(f"*/{_RESULT}")):
            if path.parent.name.startswith("."):
                continue
            try:
                result = self._opened(path.parent.name)
            except DataError as error:
                warnings.warn(f"left out: {error}", DamageWarning, stacklevel=2)
                continue
            if result is not None:
                yield result
