"""Results of strangers, read without trust.

Of a folder or archive only two files a result are opened, by names that are fixed here: no path
in a file is followed, nor a link. Sizes are known before anything is read.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from kbench.errors import DataError, first_line
from kbench.store import (
    Budget,
    Predictions,
    Result,
    check_unmixed,
    packs,
    read_predictions,
    read_result,
    unpack,
)

__all__ = [
    "FILES",
    "LAYOUT",
    "Entry",
    "opened",
    "places",
    "predictions_of",
    "read",
    "read_entries",
    "read_results",
]

LAYOUT = (
    "a folder that `kbench run --out` or `kbench leaderboard pack` wrote, one result's folder in "
    "it, or a .zip of either"
)
_ID = re.compile(r"[0-9a-f]{32}")
_RESULT, _PREDICTIONS = "result.json", "predictions.parquet"
FILES = (_RESULT, _PREDICTIONS)
"""The files of a result: all that is ever opened of one."""
_LIMITS = {_RESULT: 4 << 20, _PREDICTIONS: 128 << 20}
"""Bytes that a file may have: some ten times those of a run over 100,000 examples."""
_UNPACKED = 1 << 30
_ROWS = 5_000_000
_VALUES = 100_000_000
_ENTRIES, _WHOLE = 40_000, 2 << 30
"""Files of an archive, and bytes of all of them: those of 20,000 runs."""
_SAID = 200_000
"""Values of one ``result.json``, of which a run has some hundred."""
_ALL_BYTES, _ALL_SAID = 512 << 20, 10_000_000
"""Bytes and values of all of them, which are held together: those of 20,000 runs, twice."""
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
)
"""What a damaged archive may end in; names that are no UTF-8 among them."""


@dataclass(frozen=True)
class Entry:
    """One result of a submission; ``problem`` says why it cannot be read.

    Attributes:
        where: its folder, for messages.
        folder: where its two files lie.
        result: what was read, or None.
        predictions: likewise; None for a run that did not end well.
        problem: one line, or empty.
    """

    where: str
    folder: Path
    result: Result | None = None
    predictions: Predictions | None = None
    problem: str = ""


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Yields the folder of a submission; what is packed is unpacked for as long as it is needed.

    Raises:
        DataError: it is neither a folder of results nor an archive of one, or it holds packed
            results beside others.
    """
    check_unmixed(path)
    if packs(path) or (path.suffix == ".parquet" and path.is_file()):
        with TemporaryDirectory(prefix="kbench-") as scratch:
            unpack(path, Path(scratch))
            yield Path(scratch)
    elif path.is_dir():
        yield path
    elif path.name == _RESULT and path.is_file():
        yield path.parent
    elif path.suffix == ".zip" and path.is_file():
        with TemporaryDirectory(prefix="kbench-") as scratch:
            _unpack(path, Path(scratch))
            yield Path(scratch)
    else:
        raise DataError(path, "is no submission", LAYOUT)


def places(folder: Path) -> list[Path]:
    """Returns the folder of every result in a folder, or the one that it is, by id."""
    if (folder / _RESULT).is_file():
        return [folder]
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return [path for path in sorted(inside) if path.is_symlink() or path.is_dir()]


def predictions_of(place: Path) -> Path:
    """Returns where the predictions of a result's folder are, if there are any."""
    return place / _PREDICTIONS


def read(folder: Path) -> Iterator[Entry]:
    """Reads the results of a folder one after the other: all predictions may outgrow memory."""
    return _entries(folder, predicted=True)


def read_entries(folder: Path) -> Iterator[Entry]:
    """Reads the results of a folder, and leaves their predictions where they are."""
    return _entries(folder, predicted=False)


def read_results(folder: Path) -> Iterator[Result]:
    """Reads the results of a folder that can be read."""
    return (entry.result for entry in read_entries(folder) if entry.result is not None)


def _entries(folder: Path, *, predicted: bool) -> Iterator[Entry]:
    """Reads results while all that is held of them together has a size that can be held."""
    size = values = 0
    for place in places(folder):
        entry, more, said = _entry(place, predicted=predicted)
        size, values = size + more, values + said
        if size > _ALL_BYTES or values > _ALL_SAID:
            problem = (
                f"with this one results have more than {_ALL_BYTES:,} bytes or {_ALL_SAID:,} "
                "values in all; it and what follows was not read"
            )
            yield Entry(place.name, place, problem=problem)
            return
        yield entry


def _entry(folder: Path, *, predicted: bool) -> tuple[Entry, int, int]:
    """Reads a result; and returns how many bytes and values it has, none if it cannot be read."""
    where = folder.name
    try:
        _check_files(folder)
        size, said = _size(folder)
        result = read_result(folder / _RESULT)
        predictions = None
        if predicted and (folder / _PREDICTIONS).is_file():
            budget = Budget(_UNPACKED, _ROWS, _VALUES)
            predictions = read_predictions(folder / _PREDICTIONS, budget)
    except DataError as error:
        return Entry(where, folder, problem=error.problem), 0, 0
    return Entry(where, folder, result, predictions), size, said


def _check_files(folder: Path) -> None:
    for path in (folder, *(folder / name for name in _LIMITS)):
        if path.is_symlink():
            raise DataError(path, "is a link", LAYOUT)
    if not _ID.fullmatch(folder.name):
        raise DataError(folder, "is not the id of a result", LAYOUT)
    if not (folder / _RESULT).is_file():
        raise DataError(folder, f"has no {_RESULT}", LAYOUT)
    for name, limit in _LIMITS.items():
        path = folder / name
        if path.is_file() and (size := path.stat().st_size) > limit:
            raise DataError(path, f"{name} has {size:,} bytes", f"at most {limit:,}")


def _size(folder: Path) -> tuple[int, int]:
    """Counts the bytes and values of a result before it is parsed: a second for a million values.

    Raises:
        DataError: it has too many.
    """
    content = (folder / _RESULT).read_bytes()
    if (values := content.count(b",")) > _SAID:
        raise DataError(folder, f"{_RESULT} has {values:,} values", f"at most {_SAID:,}")
    return len(content), values


def _unpack(path: Path, target: Path) -> None:
    """Writes the two files of each result in an archive to paths made here, none of its own."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries, size = archive.infolist(), 0
            if len(entries) > _ENTRIES:
                raise DataError(path, f"holds {len(entries):,} files", f"at most {_ENTRIES:,}")
            for info in entries:
                hidden = PurePosixPath(info.filename).name.startswith(".")  # locks of the store
                if not (info.is_dir() or hidden):
                    size += _unpack_one(archive, info, target)
                if size > _WHOLE:
                    raise DataError(path, "unpacks to too much", f"at most {_WHOLE:,} bytes")
    except _DAMAGED as cause:
        raise DataError(path, f"cannot be read ({first_line(cause)})", LAYOUT) from None


def _unpack_one(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> int:
    """Unpacks a file; returns its bytes."""
    parts = PurePosixPath(info.filename).parts
    key, name = parts[-2:] if len(parts) > 1 else ("", "")
    good = _ID.fullmatch(key) and name in _LIMITS and not {"..", "/"} & {*parts}
    if not good or "\\" in info.filename:
        raise DataError(archive.filename or "", f"holds {info.filename!r}", LAYOUT)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = f"holds {info.filename!r} in a form of its own"
        raise DataError(archive.filename or "", problem, "files that are stored or deflated")
    limit = _LIMITS[name]
    with archive.open(info) as file:
        content = file.read(limit + 1)  # what the archive says of its size may be a lie
    if len(content) > limit:
        raise DataError(archive.filename or "", f"{info.filename} is larger", f"{limit:,} bytes")
    place = target / key / name
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        raise DataError(archive.filename or "", f"holds {key}/{name} twice", LAYOUT)
    return place.write_bytes(content)
