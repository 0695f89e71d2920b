"""Vectors in text files: rows of numbers, with or without a name before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kbench.errors import DataError
from kbench.knowledge import Vectors, in_blocks
from kbench.knowledge.importing import Report, read_lines

__all__ = ["KIND", "RowFile", "TextLayout", "read_header", "read_vectors"]

KIND = "vectors"
"""What the rows are called in the report."""

_BLOCK = 1 << 12


@dataclass(frozen=True)
class TextLayout:
    """How a text file of vectors is written: one row a line, one separator between two fields.

    Attributes:
        expected: the format in words, for errors.
        header: number of lines at the top that are no rows.
        dimension: numbers of a row; default: as many as in the first.
        name: makes a name of the first field, or raises ValueError; None if there are numbers
            only.
    """

    expected: str
    header: int = 0
    dimension: int | None = None
    name: Callable[[str], str] | None = None


def read_header(path: Path, count: int, expected: str) -> list[int]:
    """Returns the numbers of the first line of a file.

    Raises:
        DataError: the file is missing, or its first line is not ``count`` numbers.
    """
    _, first = next(read_lines(path, expected), (1, b""))
    numbers = first.split()
    if len(numbers) != count or not all(value.isdigit() for value in numbers):
        raise DataError(path, f"begins with {first.strip()[:40]!r}", expected, line=1)
    return [int(value) for value in numbers]


def read_vectors(
    path: Path, layout: TextLayout, report: Report
) -> Iterator[tuple[list[str], Vectors]]:
    """Yields the names and numbers of some rows at a time, all rows of the file in their order.

    A malformed row is there too, with an empty name and NaN: rows keep their places. A row with
    NaN or infinity keeps its name, and all its numbers become NaN. Both are counted.

    Yields:
        Names, empty where the layout has none, and vectors ``[rows, dimension]``.

    Raises:
        DataError: the file cannot be read, or more of the rows so far are malformed than not.
    """
    read = bad = 0
    lines = (
        (number, line)
        for number, line in read_lines(path, layout.expected)
        if number > layout.header and line.strip()
    )
    parser: _Parser | None = None
    for block in in_blocks(lines, _BLOCK):
        parser = parser or _Parser.of(block[0][1], layout)
        names, vectors, problems = parser.parse([line for _, line in block])
        report.see(KIND, len(block))
        read += len(block)
        for at, problem in sorted(problems.items()):
            report.malformed(KIND, f"{path}, line {block[at][0]}", problem, before=bad)
            bad += 1
        if 2 * bad > read:
            at = min(problems)
            problem = f"{problems[at]} ({bad} of {read} rows)"
            raise DataError(path, problem, layout.expected, line=block[at][0])
        broken = ~np.isfinite(vectors).all(axis=1)
        vectors[broken] = np.nan
        if infinite := int(broken.sum()) - len(problems):
            report.drop(KIND, "NaN or infinite", infinite)
        yield names, vectors


@dataclass(frozen=True)
class _Parser:
    """Reads rows of one layout.

    Attributes:
        name: as in the layout.
        dimension: numbers of a row.
        separator: what stands between two fields.
    """

    name: Callable[[str], str] | None
    dimension: int
    separator: bytes

    @classmethod
    def of(cls, first: bytes, layout: TextLayout) -> _Parser:
        separator = b"\t" if b"\t" in first.strip() else b" "
        count = len(first.strip().split(separator)) - (layout.name is not None)
        return cls(layout.name, layout.dimension or max(1, count), separator)

    def parse(self, lines: list[bytes]) -> tuple[list[str], Vectors, dict[int, str]]:
        """Returns names, vectors, and what is wrong with which rows."""
        names, texts = [""] * len(lines), [b""] * len(lines)
        problems: dict[int, str] = {}
        for at, line in enumerate(lines):
            try:
                names[at], texts[at] = self._split(line)
            except ValueError as cause:
                unreadable = isinstance(cause, UnicodeDecodeError)
                problems[at] = "is not UTF-8" if unreadable else str(cause)
        vectors = np.full((len(lines), self.dimension), np.nan, dtype=np.float32)
        self._fill(vectors, texts, problems, 0)
        for at in problems:
            names[at] = ""
        return names, vectors, problems

    def _split(self, line: bytes) -> tuple[str, bytes]:
        if self.name is None:
            return "", line.strip()
        name, _, text = line.partition(self.separator)
        return self.name(name.decode("utf-8")), text.strip()

    def _fill(
        self, vectors: Vectors, texts: list[bytes], problems: dict[int, str], start: int
    ) -> None:
        """Parses all rows at once or, if one of them is malformed, each half alone.

        So a few bad rows cost little, and one parser says what a number is.
        """
        try:
            vectors[:] = _numbers(texts, self.dimension, self.separator)
        except ValueError:
            if len(texts) == 1:
                problems.setdefault(start, self._problem(texts[0]))
                return
            half = len(texts) // 2
            self._fill(vectors[:half], texts[:half], problems, start)
            self._fill(vectors[half:], texts[half:], problems, start + half)

    def _problem(self, text: bytes) -> str:
        values = text.split(self.separator) if text else []
        if len(values) != self.dimension:
            return f"has {len(values)} numbers where {self.dimension} belong"
        for value in values:
            try:
                _numbers([value], 1, self.separator)
            except ValueError:
                return f"has {value[:20]!r} where a number belongs"
        return "cannot be read"


def _numbers(texts: list[bytes], dimension: int, separator: bytes) -> Vectors:
    """Parses rows of exactly ``dimension`` numbers each. ``[rows, dimension]``.

    Raises:
        ValueError: one of the rows is not such a row.
    """
    import pyarrow as pa
    from pyarrow import csv

    body = b"\n".join(texts) + b"\n"
    if b"" in texts or b"\r" in body:  # Arrow would skip the row, or see two
        raise ValueError("has no numbers")
    columns = [str(column) for column in range(dimension)]
    table = csv.read_csv(
        pa.py_buffer(body),
        csv.ReadOptions(column_names=columns, use_threads=False, block_size=len(body) + 1),
        csv.ParseOptions(delimiter=separator.decode(), quote_char=False),
        csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.float32()), null_values=[]),
    )
    if table.num_rows != len(texts):
        raise ValueError(f"has {table.num_rows} rows")
    return np.stack([column.to_numpy() for column in table.columns], axis=1)


class RowFile:
    """Vectors laid down one after the other, to be mapped once all are there.

    Args:
        path: a file that is not there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dimension = 0
        self._known: list[NDArray[np.bool_]] = []
        path.touch()

    def append(self, vectors: Vectors) -> None:
        """Adds rows. ``[rows, dimension]``."""
        self._dimension = vectors.shape[1]
        self._known.append(~np.isnan(vectors[:, 0]))
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(vectors, dtype=np.float32).data)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each row has a vector. ``[rows]``."""
        return np.concatenate([np.empty(0, dtype=bool), *self._known])

    def __len__(self) -> int:
        return sum(map(len, self._known))

    def matrix(self) -> Vectors:
        """Maps all rows. ``[rows, dimension]``."""
        shape = (len(self), self._dimension)
        if not len(self):  # nothing can be mapped
            return np.empty(shape, dtype=np.float32)
        return np.memmap(self._path, dtype=np.float32, mode="r", shape=shape)
