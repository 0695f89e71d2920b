"""What a Parquet file would unpack to, counted before anything of it is made.

The footer says how large each column is, and a reader believes it; what is really unpacked is what
the header before each page says. So footer and headers are read here, by the compact protocol of
Thrift in which they are written, and a page is stepped over. What is left is a text that stands in
a dictionary once and in a table a million times: texts are read as numbers first, and added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.data.files import identity
from kbench.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet as pq

__all__ = ["Budget", "Unpacked", "check_budget", "unpacked"]

_MAGIC = b"PAR1"
_FOOTER = 8 << 20
_COLUMNS, _PAGES = 10_000, 100_000
"""Parts of columns, and pages, that are followed; kbench writes some dozens."""
_OF_FOOTER, _OF_PAGE = 100_000, 1000
"""Fields of a footer and of the header of a page that are followed; a page has a dozen."""
_DEEPEST = 12
_KNOWN = {0, 2, 3, 8, 9}
"""Encodings: plain, dictionaries, runs, numbers byte by byte. What others unpack to does not follow
from a header."""
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_NUMBERS = (4, 5, 6)
_HEADERS = (5, 7, 8)
"""Fields of a header: of a page of data, of a dictionary, of a page of data in the second form."""
_BATCH = 1 << 14


@dataclass(frozen=True)
class Budget:
    """What a table may unpack to.

    Attributes:
        bytes: of all its values as they are read; a text counts wherever it stands.
        rows: of it.
        values: in all columns, those that are null too.
    """

    bytes: int
    rows: int
    values: int

    @classmethod
    def of_own(cls, path: Path) -> Budget:
        """Returns that of a table of one's own: large ones are large on the disk, too."""
        size = 64 * path.stat().st_size
        return cls(max(1 << 30, size), max(10_000_000, size), max(100_000_000, size))


@dataclass
class Unpacked:
    """What all pages of a file are together.

    Attributes:
        bytes: of the pages unpacked.
        values: in them, nulls too.
        pages: their number.
    """

    bytes: int = 0
    values: int = 0
    pages: int = 0


def unpacked(path: Path) -> Unpacked:
    """Adds up what the headers of all pages say.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no Parquet file, or one that kbench would not write.
    """
    total = Unpacked()
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        if content[:4] != _MAGIC or content[-4:] != _MAGIC:
            raise ValueError("no Parquet file")
        length = int.from_bytes(content[-8:-4], "little")
        if not 0 < length <= min(_FOOTER, len(content) - 12):
            raise ValueError(f"a footer of {length:,} bytes")
        reader = _Reader(content)
        try:
            footer, _ = reader.whole(len(content) - 8 - length, _OF_FOOTER)
            for column in _columns(footer):
                _add(reader, column, total)
        except (LookupError, TypeError, AttributeError):  # a field may be of any kind
            raise ValueError("headers of another form") from None
    return total


def check_budget(path: Path, budget: Budget) -> None:
    """Refuses a table that would unpack to more than it may.

    Args:
        path: the file.
        budget: what it may.

    Raises:
        DataError: it would.
        OSError, ValueError, LookupError, TypeError, pyarrow.ArrowException: it is damaged.
    """
    _counted(path, budget, tuple(identity(path)))


@lru_cache(maxsize=10_000)
def _counted(path: Path, budget: Budget, _: tuple[str | int, ...]) -> None:
    """Checks a file once while it stays what it was: a site reads each to judge, and to show."""
    import pyarrow.parquet as pq

    total = unpacked(path)
    if total.values > budget.values:
        problem = f"{path.name} would unpack to {total.values:,} values"
        raise DataError(path, problem, f"at most {budget.values:,} values")
    with pq.ParquetFile(path) as file:
        rows, texts = file.metadata.num_rows, _texts(file)
        _check(path, budget, rows, total.bytes)
        if not texts:
            return
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        size = 0
        for batch in file.iter_batches(batch_size=_BATCH):
            size += sum(map(_bytes, batch.columns))
            _check(path, budget, rows, size)


def _texts(file: pq.ParquetFile) -> list[str]:
    """The columns of text, by their paths."""
    kinds = [file.schema.column(at) for at in range(len(file.schema))]
    return [kind.path for kind in kinds if kind.physical_type == "BYTE_ARRAY"]


def _check(path: Path, budget: Budget, rows: int, size: int) -> None:
    if rows > budget.rows or size > budget.bytes:
        problem = f"{path.name} would unpack to {rows:,} rows and {size:,} bytes"
        raise DataError(path, problem, f"at most {budget.rows:,} rows and {budget.bytes:,} bytes")


def _bytes(column: pa.Array) -> int:
    """What a column takes when it is read; a text counts wherever it stands."""
    import pyarrow as pa
    import pyarrow.compute as pc

    own = int(column.nbytes)
    while isinstance(column, pa.ListArray):
        column = column.flatten()
    if not isinstance(column, pa.DictionaryArray) or not len(column.dictionary):
        return own
    lengths = pc.binary_length(column.dictionary)
    return own + int(pc.sum(lengths.take(column.indices)).as_py() or 0)


def _columns(footer: Mapping[int, Any]) -> list[Mapping[int, Any]]:
    groups = footer.get(4, [])
    columns = [column.get(3) for group in groups for column in group.get(1, [])]
    if len(columns) > _COLUMNS or not all(isinstance(column, dict) for column in columns):
        raise ValueError(f"{len(columns):,} parts of columns")
    return columns


def _add(reader: _Reader, column: Mapping[int, Any], total: Unpacked) -> None:
    """Adds the pages of a part of a column; where they begin is found as Arrow finds it."""
    at, dictionary = column[9], column.get(11, 0)
    at = dictionary if 0 < dictionary < at or not at else at  # of no row, 0 where data would be
    end = at + column[7]
    while at < end:
        header, at = reader.whole(at, _OF_PAGE)
        held: Mapping[int, Any] = next((header[kind] for kind in _HEADERS if kind in header), {})
        encoding = held.get(4 if 8 in header else 2, 0)
        if header[2] < 0 or header[3] < 0 or held.get(1, 0) < 0 or encoding not in _KNOWN:
            raise ValueError(f"a page in encoding {encoding}, of {header[2]:,} bytes")
        at += header[3]
        total.bytes += header[2]
        total.values += held.get(1, 0)
        total.pages += 1
        if total.pages > _PAGES:
            raise ValueError(f"more than {_PAGES:,} pages")


class _Reader:
    """Structs of the compact protocol of Thrift, by the number of each field."""

    def __init__(self, content: mmap) -> None:
        self._content = content
        self._left = 0

    def whole(self, at: int, most: int) -> tuple[dict[int, Any], int]:
        """Returns the fields of a struct that is in no other, and the place behind it.

        Args:
            at: where it begins.
            most: fields of it and of what is in it.

        Raises:
            ValueError: it is none, has more, or ends behind the file.
        """
        self._left = most
        return self._struct(at, 0)

    def _struct(self, at: int, depth: int) -> tuple[dict[int, Any], int]:
        fields: dict[int, Any] = {}
        number = 0
        while sign := self._byte(at):
            at += 1
            if sign >> 4:
                number += sign >> 4
            else:
                number, at = self._number(at)
            fields[number], at = self._value(sign & 15, at, depth)
        return fields, at + 1

    def _value(self, kind: int, at: int, depth: int) -> tuple[Any, int]:
        self._left -= 1
        if self._left < 0:
            raise ValueError("a header of more fields than are followed")
        if depth > _DEEPEST:
            raise ValueError("headers that are nested too deep")
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE, at
        if kind == _BYTE:
            return self._byte(at), at + 1
        if kind in _NUMBERS:
            return self._number(at)
        if kind == _DOUBLE:
            return None, at + 8
        if kind == _BINARY:
            length, at = self._unsigned(at)
            return None, at + length  # no text is needed
        if kind in (_LIST, _SET):
            return self._list(at, depth)
        if kind == _STRUCT:
            return self._struct(at, depth + 1)
        raise ValueError(f"a header with a field of kind {kind}")

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        sign = self._byte(at)
        length, at = (sign >> 4, at + 1) if sign >> 4 < 15 else self._unsigned(at + 1)
        kind, items = sign & 15, []
        for _ in range(length):
            # A truth takes a byte in a list, and none in a struct.
            flag = kind in (_TRUE, _FALSE)
            item, at = self._value(_BYTE if flag else kind, at, depth + 1)
            items.append(item)
        return items, at

    def _number(self, at: int) -> tuple[int, int]:
        value, at = self._unsigned(at)
        return (value >> 1) ^ -(value & 1), at

    def _unsigned(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            sign = self._byte(at)
            at += 1
            value |= (sign & 127) << shift
            if sign < 128:
                return value, at
        raise ValueError("a number of more than ten bytes in a header")

    def _byte(self, at: int) -> int:
        if not 0 <= at < len(self._content):
            raise ValueError("a header that is cut off")
        return self._content[at]
