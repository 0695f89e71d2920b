"""Results on disk: a folder each, by id; what ended well is never taken away."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kbench.data.files import atomic_folder, file_digest, removed_folder, write_json
from kbench.errors import DataError, VersionError
from kbench.spec import RunSpec
from kbench.store.folder import DamageWarning, address, written
from kbench.store.packed import check_unpacked
from kbench.store.result import (
    Predictions,
    Result,
    Status,
    read_predictions,
    read_result,
    write_predictions,
)

__all__ = ["Results", "result_address"]

_RESULT = "result.json"
_PREDICTIONS = "predictions.parquet"
_TRACE = "trace.txt"
_ID = re.compile(r"[0-9a-f]{32}")


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
        linker: the one used, with its revision where it has one.
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


class _KeptError(Exception):
    """A good result is stored already."""

    def __init__(self, result: Result) -> None:
        self.result = result


class _LeftError(Exception):
    """A result is not removed; says why."""


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
            ArtifactError: it cannot be written, or the folder holds packed results; what was
                there is there still.
            VersionError: what is there is another version's.
        """
        check_unpacked(self.folder)
        path = self.folder / result.id
        try:
            with written(path, self.instead), atomic_folder(path) as scratch:
                stored = self.finished(result.id)
                if stored is not None:
                    raise _KeptError(stored)
                if predictions is not None:
                    write_predictions(scratch / _PREDICTIONS, predictions)
                    result = result.holding(file_digest(scratch / _PREDICTIONS))
                if result.trace:
                    (scratch / _TRACE).write_text(result.trace, "utf-8", "backslashreplace")
                write_json(scratch / _RESULT, result.as_json())
        except _KeptError as kept:
            return kept.result
        return result

    def entries(self) -> Iterator[tuple[str, Result | None, str]]:
        """Yields the id of each result, the result, and why it cannot be read where it cannot."""
        for path in sorted(self.folder.iterdir()):
            if not _ID.fullmatch(path.name) or not path.is_dir():
                continue
            try:
                result = self._opened(path.name)
                problem = "" if result else f"{path}: has no {_RESULT}"
                yield path.name, result, problem
            except DataError as error:
                yield path.name, None, str(error)

    def remove(self, key: str, seen: Result | None) -> str:
        """Removes a result with its predictions, and nothing else.

        Args:
            key: its id.
            seen: the result as it was when it was chosen; None if it could not be read.

        Returns:
            why it was left where it is; empty if it is removed.

        Raises:
            ArtifactError: it cannot be removed.
        """
        path = self.folder / key
        try:
            with written(path, "give yourself leave to write there"), removed_folder(path):
                self._check_removable(path, seen)
        except _LeftError as left:
            return str(left)
        return ""

    def _check_removable(self, path: Path, seen: Result | None) -> None:
        """Looks again, while nobody can write there."""
        if path.is_symlink():
            raise _LeftError("is a link; what it leads to is no part of this folder")
        if not path.is_dir():
            raise _LeftError("is gone already")
        others = sorted({file.name for file in path.iterdir()} - {_RESULT, _PREDICTIONS})
        if others:
            raise _LeftError(f"holds {others[0]!r}, which is no part of a result")
        try:
            now = self._opened(path.name)
        except DataError:
            now = None
        if now != seen:
            raise _LeftError("has changed meanwhile")

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
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith(".") or not path.is_dir():
                continue
            try:
                result = self._opened(path.name)
            except DataError as error:
                warnings.warn(f"left out: {error}", DamageWarning, stacklevel=2)
                continue
            if result is not None:
                yield result
            elif _ID.fullmatch(path.name):
                problem = f"left out: {path}: has no {_RESULT}"
                warnings.warn(problem, DamageWarning, stacklevel=2)
