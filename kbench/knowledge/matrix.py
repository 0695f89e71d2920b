"""Matrices in ``.npy`` files, read by row: mapped while they are small, by the row if large.

A row of a map that is touched brings its page into memory and, on Linux, fifteen pages around it,
and there they stay: a few per cent of the rows of a large matrix, at random, have all of it
resident. Read one at a time, rows cost about what a first touch of a map does, and leave nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, final
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from kbench.errors import DataError

__all__ = ["Matrix"]

_LARGE = 1 << 26
"""Bytes from which on a matrix is not mapped."""
_BLOCK = 1 << 22
"""Bytes of a large matrix that are looked through at a time."""


@final
class Matrix:
    """The rows of a matrix in a file.

    Args:
        mapped: the file, as NumPy maps it. ``[rows, columns]``.
    """

    def __init__(self, mapped: NDArray[Any]) -> None:
        self._mapped = mapped
        self._file: int | None = None
        offset = getattr(mapped, "offset", None)
        if offset is not None and mapped.nbytes >= _LARGE and hasattr(os, "preadv"):
            self._path, self._start = str(getattr(mapped, "filename", "")), int(offset)
            self._file = os.open(self._path, os.O_RDONLY)
            finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._mapped)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Gathers rows. ``[n] -> [n, columns]``.

        Raises:
            IndexError: there is no such row.
            DataError: the file has become shorter.
        """
        if self._file is None:
            return self._mapped[rows]
        taken = np.empty((len(rows), self._mapped.shape[1]), dtype=self._mapped.dtype)
        self._read(rows, taken)
        return taken

    def column(self, rows: NDArray[np.int64], number: int) -> NDArray[Any]:
        """Gathers one number of each row, holding a block of them at a time. ``[n] -> [n]``."""
        if self._file is None:
            some: NDArray[Any] = self._mapped[rows, number]
            return some
        numbers = np.empty(len(rows), dtype=self._mapped.dtype)
        size = min(len(rows), max(1, _BLOCK // self._mapped[:1].nbytes))
        held = np.empty((size, self._mapped.shape[1]), dtype=self._mapped.dtype)
        for at in range(0, len(rows), max(1, size)):
            part = rows[at : at + size]
            self._read(part, held[: len(part)])
            numbers[at : at + size] = held[: len(part), number]
        return numbers

    def _read(self, rows: NDArray[np.int64], into: NDArray[Any]) -> None:
        assert self._file is not None
        if not len(rows):
            return
        if rows.min() < -len(self) or rows.max() >= len(self):
            raise IndexError(f"a row is not among the {len(self)} of {self._path}")
        target, width = into.data.cast("B"), self._mapped[:1].nbytes
        for first, start, end in _runs(np.where(rows < 0, rows + len(self), rows)):
            done, place = start * width, self._start + first * width
            while done < end * width:
                count = os.preadv(self._file, [target[done : end * width]], place)
                if not count:
                    raise DataError(self._path, "has become shorter", "a file that stays as it is")
                done, place = done + count, place + count


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yields the first of each run of neighbouring rows, and where the run begins and ends."""
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    ends = [*starts[1:].tolist(), len(rows)]
    yield from zip(rows[starts].tolist(), starts.tolist(), ends, strict=True)
