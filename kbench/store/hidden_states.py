"""Hidden states on disk: memory-mapped, addressed by what they depend on, bounded.

A frozen network gives the same states for the same inputs in every epoch, for every control and
every seed. They are kept in ``cache_home() / "hidden"``, a folder for each address: one array
``[rows, width]`` for each state that is kept, the rows of an item one after the other, and
beside them where each item's rows lie. The folder never takes more bytes than
``KBENCH_HIDDEN_BYTES`` says: what was not used for longest goes first. What has no room there is
kept in memory if it is small, and else not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock
from numpy.lib import format as npy
from numpy.typing import NDArray

from kbench.data.files import atomic_folder, cache_home, canonical_digest, write_json
from kbench.errors import UsageError
from kbench.store.folder import AddressedFolder

__all__ = ["BYTES", "HiddenStateStore", "HiddenStates", "StateRequest", "hidden_bytes"]

BYTES = "KBENCH_HIDDEN_BYTES"
_BOUND = 20 << 30
_MEMORY = 1 << 30
"""Bytes that are held in memory where the disk takes nothing."""
_SPARE = 256 << 20
"""Bytes of the disk that are left to others."""
_ABOUT = "states.json"
_PLACES = "places.npy"
_FORMAT = 1
_FLOAT = np.dtype("<f4")

Rows = Sequence[NDArray[np.float32]]


def hidden_bytes() -> int:
    """Returns how many bytes of hidden states may lie on disk; 0 for none.

    Raises:
        UsageError: the environment says something that is no number of bytes.
    """
    given = os.environ.get(BYTES)
    if not given:
        return _BOUND
    if not given.isascii() or not given.isdigit():
        raise UsageError(
            f"{BYTES} is {given!r}; expected a whole number of bytes, 0 to keep no hidden states"
        )
    return int(given)


@dataclass(frozen=True)
class StateRequest:
    """States to be kept.

    Attributes:
        of: all that they depend on, as JSON values.
        counts: rows of each item. ``[items]``.
        order: the items in the order in which their rows lie. ``[items]``.
        widths: of each kept state.
    """

    of: Mapping[str, Any]
    counts: NDArray[np.int64]
    order: NDArray[np.int64]
    widths: tuple[int, ...]

    @property
    def key(self) -> str:
        """The address."""
        return canonical_digest(dict(self.of))

    @property
    def rows(self) -> int:
        """Of all items."""
        return int(self.counts.sum())

    @property
    def bytes(self) -> int:
        """Of all states."""
        return self.rows * sum(self.widths) * _FLOAT.itemsize

    @property
    def places(self) -> NDArray[np.int64]:
        """First row of each item and the row after its last. ``[items, 2]``."""
        ends = np.cumsum(self.counts[self.order])
        places = np.empty((len(self.counts), 2), dtype=np.int64)
        places[self.order, 1] = ends
        places[self.order, 0] = ends - self.counts[self.order]
        return places


@dataclass(frozen=True)
class HiddenStates:
    """Kept states, mapped from disk or in memory.

    Attributes:
        places: first row of each item and the row after its last. ``[items, 2]``.
        arrays: each state of all items. ``[rows, width]``.
    """

    places: NDArray[np.int64]
    arrays: tuple[NDArray[np.float32], ...]

    def of(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
        """Returns the rows of chosen items, one item after the other. ``[rows, width]`` each."""
        start, end = self.places[chosen].T
        counts = end - start
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(start, counts) + within
        return tuple(np.take(array, at, axis=0) for array in self.arrays)


class HiddenStateStore(AddressedFolder):
    """The folder of hidden states.

    Args:
        folder: where; by default that of the machine's cache.
        most: bytes that it may take; by default what :func:`hidden_bytes` says.
    """

    about = _ABOUT
    noun = "hidden states"
    several = True

    def __init__(self, folder: Path | None = None, most: int | None = None) -> None:
        super().__init__(folder or cache_home() / "hidden")
        self.most = hidden_bytes() if most is None else most

    def kept(
        self, wanted: StateRequest, blocks: Callable[[], Iterable[Rows]], *, keep: bool = True
    ) -> HiddenStates | None:
        """Returns states from disk, or computes them once and keeps them.

        Of several processes one computes and the others wait for it.

        Args:
            wanted: what they are.
            blocks: computes them: rows in the order of :class:`StateRequest`, some at a time.
            keep: False if they are part of more than fits, and only memory may take them.

        Returns:
            None if neither disk nor memory has room for them; then nothing was computed.
        """
        if keep and wanted.bytes <= self.most:
            try:
                return self._on_disk(wanted, blocks)
            except OSError:  # full, or not to be written: what is there is read all the same
                states = self._load(self.folder / wanted.key, wanted)
            if states is not None:
                return states
        if wanted.bytes > _MEMORY:
            return None
        arrays = tuple(np.empty((wanted.rows, width), _FLOAT) for width in wanted.widths)
        at = 0
        for rows in blocks():
            for array, part in zip(arrays, rows, strict=True):
                array[at : at + len(part)] = part
            at += len(rows[0])
        return HiddenStates(wanted.places, arrays)

    def _on_disk(self, wanted: StateRequest, blocks: Callable[[], Iterable[Rows]]) -> HiddenStates:
        folder = self.folder / wanted.key
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{wanted.key}.making"):
            states = self._load(folder, wanted)
            if states is None:
                self._make_room(wanted.bytes)
                with atomic_folder(folder) as scratch:
                    _write(scratch, wanted, blocks())
                    states = self._mapped(scratch, wanted)  # stays open, wherever the files go
                self._shrink(self.most, spared=folder)  # others may have written meanwhile
        return states

    def _load(self, folder: Path, wanted: StateRequest) -> HiddenStates | None:
        """Returns stored states; None if there are none, or (with a warning) if damaged."""
        states = self.sound(folder, lambda _: self._mapped(folder, wanted))
        if states is not None:
            with suppress(OSError):
                os.utime(folder / _ABOUT)
        return states

    def shelves(self) -> Iterator[Path]:
        """Yields the folder itself."""
        yield self.folder

    def sums(self, about: Mapping[str, Any]) -> Mapping[str, str]:
        stated = about["sha256"]
        return {**stated, _PLACES: stated.get(_PLACES, "")}  # of all states there are places

    def named(self, about: Mapping[str, Any]) -> str:
        return canonical_digest(about["inputs"])

    def all(self) -> Iterator[Path]:
        """Yields the folder of every address, those first that were not used for longest."""
        return iter([folder for _, _, folder in sorted(self._sizes())])

    def _mapped(self, folder: Path, wanted: StateRequest) -> HiddenStates:
        """Maps the arrays of a folder.

        Raises:
            ArtifactError: they are not of the shapes that are wanted.
        """
        try:
            places = np.load(folder / _PLACES, allow_pickle=False)
            arrays = tuple(
                np.load(folder / _name(number), mmap_mode="r", allow_pickle=False)
                for number in range(len(wanted.widths))
            )
        except (OSError, ValueError, EOFError) as cause:
            raise self.damaged(folder, str(cause)) from None
        shapes = [(wanted.rows, width) for width in wanted.widths]
        right = [array.shape for array in arrays] == shapes
        if not (right and all(a.dtype == _FLOAT for a in arrays)) or not np.array_equal(
            places, wanted.places
        ):
            raise self.damaged(folder, "their shapes are others")
        return HiddenStates(places, arrays)

    def remove(self, folder: Path) -> None:
        """Takes states away at once, so that nobody finds half of them."""
        with suppress(OSError):
            old = Path(tempfile.mkdtemp(dir=self.folder, prefix=f".{folder.name}.old-"))
            with suppress(OSError):
                os.replace(folder, old / "gone")
            shutil.rmtree(old, ignore_errors=True)

    def _sizes(self) -> Iterator[tuple[float, int, Path]]:
        """Yields when each was used last, its bytes, and its folder."""
        for folder in self.folder.glob("[!.]*"):
            with suppress(OSError):  # another process has just taken it away
                size = sum(file.stat().st_size for file in folder.iterdir())
                marker = folder / _ABOUT
                yield (marker if marker.exists() else folder).stat().st_mtime, size, folder

    def _make_room(self, needed: int) -> None:
        """Removes what was not used for longest until so many bytes more have room.

        Raises:
            OSError: the disk would have none without all the rest either.
        """
        for leftover in self.leftovers():
            shutil.rmtree(leftover, ignore_errors=True)
        lacking = needed - (shutil.disk_usage(self.folder).free - _SPARE)
        if lacking > sum(size for _, size, _ in self._sizes()):
            raise OSError(f"no room for {needed} bytes")
        self._shrink(self.most - needed, lacking)

    def _shrink(self, most: int, lacking: int = 0, spared: Path | None = None) -> None:
        """Removes what was not used for longest until the rest takes at most so many bytes.

        Args:
            most: bytes of the rest.
            lacking: bytes that are removed in any case.
            spared: what stays.
        """
        known = sorted(self._sizes())
        used = sum(size for _, size, _ in known)
        target = min(most, used - lacking)
        for _, size, folder in known:
            if used > target and folder != spared:
                self.remove(folder)
                used -= size


def _write(folder: Path, wanted: StateRequest, blocks: Iterable[Rows]) -> None:
    """Writes states; through files and not through maps, which a full disk would kill us at."""
    names = [_name(number) for number in range(len(wanted.widths))]
    with _opened(folder, [*names, _PLACES]) as (*files, places):
        places.header(np.dtype("<i8"), (len(wanted.counts), 2))
        places.write(wanted.places)
        for file, width in zip(files, wanted.widths, strict=True):
            file.header(_FLOAT, (wanted.rows, width))
        for rows in blocks:
            for file, part in zip(files, rows, strict=True):
                file.write(part)
        sums = {name: file.sha.hexdigest() for name, file in zip(names, files, strict=True)}
        sums[_PLACES] = places.sha.hexdigest()
    about = {"kind": "hidden", "of": wanted.of.get("title", ""), "inputs": dict(wanted.of)}
    write_json(folder / _ABOUT, {**about, "sha256": sums})


class _Array:
    """A file that an array is written to piece by piece, and its digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha = file, hashlib.sha256()

    def header(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self, described)

    def write(self, data: Any) -> int:
        content = data if isinstance(data, bytes) else np.ascontiguousarray(data).data.cast("B")
        self.sha.update(content)
        return self.file.write(content)


@contextmanager
def _opened(folder: Path, names: Sequence[str]) -> Iterator[list[_Array]]:
    files = [(folder / name).open("wb") for name in names]
    try:
        yield [_Array(file) for file in files]
    finally:
        for file in files:
            file.close()


def _name(number: int) -> str:
    return f"state-{number}.npy"
