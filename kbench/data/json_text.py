"""JSON files from outside, strictly: UTF-8, no key twice in an object, no NaN.

Whatever does not fit ends in a one-line :class:`~kbench.errors.DataError` with file and line.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from kbench.data.files import is_irregular
from kbench.errors import DataError, first_line

__all__ = ["parse_json", "read_json", "read_text", "stream_values"]

_CHUNK = 1 << 20
_FAR = 1 << 20
"""No value of a list is cut off so many signs before the end of what was read."""
_MARK = codecs.BOM_UTF8
"""Some editors put it before UTF-8; it is no part of the content."""
_BLANKS = " \t\n\r"


def read_json(path: Path, expected: str) -> Any:
    """Parses a file as one value.

    Args:
        path: the file.
        expected: what belongs there, for errors.

    Raises:
        DataError: it cannot be read or is not JSON.
    """
    return _parsed(read_text(path, expected), path, expected)


def parse_json(text: str) -> Any:
    """Parses a text as one value.

    Raises:
        ValueError: it is not JSON, or has a key twice in an object.
    """
    return _DECODER.decode(text)


def read_text(path: Path, expected: str) -> str:
    """Reads a file of UTF-8 text.

    Args:
        path: the file.
        expected: what belongs there, for errors.

    Raises:
        DataError: it cannot be read, is not UTF-8, or is empty.
    """
    with _opened(path, expected) as file:
        text = _decoded(file.read().removeprefix(_MARK), path, expected)
    if not text.strip():
        raise DataError(path, "is empty", expected)
    return text


def stream_values(path: Path, expected: str) -> Iterator[tuple[int | str, Any]]:
    """Yields the values of a JSON list, or of JSON Lines of objects, holding one at a time.

    Told apart by the first sign. A list may be one line of gigabytes.

    Args:
        path: the file.
        expected: what belongs there, for errors.

    Yields:
        The place of each value, a line number or ``record N``, and the value.

    Raises:
        DataError: the file cannot be read, is not JSON, or has no value.
    """
    with _opened(path, expected) as file:
        sign = _first_sign(file)
        if sign == b"{":
            yield from _lines(file, path, expected)
            return
        if sign == b"[":
            number = -1
            for number, value in enumerate(_Window(file, path, expected).items()):
                yield f"record {number}", value
            if number >= 0:
                return
    read_json(path, expected)  # says what is wrong with a file that is not even JSON
    raise DataError(path, "is not a JSON list with content", expected)


def _opened(path: Path, expected: str) -> BinaryIO:
    if path.is_dir():
        raise DataError(path, "is a folder", expected)
    if is_irregular(path):
        raise DataError(path, "is no regular file", expected)
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(path, "does not exist", expected) from None
    except OSError as cause:
        raise DataError(path, f"cannot be read ({first_line(cause)})", expected) from cause


def _first_sign(file: BinaryIO) -> bytes:
    """Returns the first byte that is no blank, and goes back to where the content begins."""
    start = len(_MARK) if file.read(len(_MARK)) == _MARK else 0
    file.seek(start)
    while (sign := file.read(1)).isspace():
        pass
    file.seek(start)
    return sign


def _lines(file: BinaryIO, path: Path, expected: str) -> Iterator[tuple[int, Any]]:
    # Only \n ends a line: JSON allows other separators inside a text.
    for number, line in enumerate(file, 1):
        if line.strip():
            yield number, _parsed(_decoded(line, path, expected, number), path, expected, number)


class _Window:
    """The part of a JSON list that is held in memory, moved on through its file."""

    def __init__(self, file: BinaryIO, path: Path, expected: str) -> None:
        self._file, self._path, self._expected = file, path, expected
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._ended = "", 0, False
        self._line, self._column = 1, 0  # where the text begins

    def items(self) -> Iterator[Any]:
        """Yields the items of the list."""
        self._sign()  # the opening bracket
        sign = self._sign()
        if sign == "]":
            return
        self._at -= len(sign)
        while True:
            yield self._value()
            sign = self._sign()
            if sign == "]":
                break
            if sign != ",":
                raise self._fault("Expecting ',' delimiter", self._at - len(sign))
        if sign := self._sign():
            raise self._fault("Extra data", self._at - 1)

    def _sign(self) -> str:
        """Moves behind the next sign that is no blank and returns it; empty at the end."""
        while True:
            while self._at < len(self._text):
                self._at += 1
                if (sign := self._text[self._at - 1]) not in _BLANKS:
                    return sign
            if self._ended:
                return ""
            self._read_on()

    def _value(self) -> Any:
        """Moves behind the next value and returns it."""
        while self._sign():
            start = self._at - 1
            try:
                value, end = _DECODER.raw_decode(self._text, start)
            except json.JSONDecodeError as cause:
                # Reading on mends a value that was cut off, and no fault far from the end.
                if self._ended or cause.pos + _FAR < len(self._text):
                    raise self._fault(cause.msg, cause.pos) from None
            except (ValueError, RecursionError) as cause:
                raise _unfit(cause, self._path, self._expected, self._place(start)[0]) from None
            else:
                # A number may go on two signs behind its end so far: 1 of 1.5 or of 1e-5.
                if self._ended or end + 2 < len(self._text):
                    self._at = end
                    return value
            self._at = start
            self._read_on()
        raise self._fault("Expecting value", self._at)

    def _read_on(self) -> None:
        """Drops what lies behind and reads as much as is held, so that long values stay cheap."""
        self._line, self._column = self._place(self._at)
        self._text, self._at = self._text[self._at :], 0
        content = self._file.read(max(_CHUNK, len(self._text)))
        self._ended = not content
        try:
            self._text += self._decoder.decode(content, final=self._ended)
        except UnicodeDecodeError as cause:
            line = self._place(len(self._text))[0]
            raise _not_utf8(cause, self._path, self._expected, line) from None

    def _place(self, at: int) -> tuple[int, int]:
        """The line, from 1, and the column, from 0, of a position in the text."""
        lines = self._text.count("\n", 0, at)
        if lines:
            return self._line + lines, at - self._text.rindex("\n", 0, at) - 1
        return self._line, self._column + at

    def _fault(self, message: str, at: int) -> DataError:
        line, column = self._place(at)
        return _not_json(message, self._path, self._expected, line, column + 1)


def _decoded(content: bytes, path: Path, expected: str, line: int = 1) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise _not_utf8(cause, path, expected, line) from None


def _parsed(text: str, path: Path, expected: str, line: int | None = None) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as cause:
        raise _not_json(cause.msg, path, expected, line or cause.lineno, cause.colno) from None
    except (ValueError, RecursionError) as cause:
        raise _unfit(cause, path, expected, line) from None


def _not_utf8(cause: UnicodeDecodeError, path: Path, expected: str, line: int) -> DataError:
    """The error of bytes whose first lies in ``line``."""
    line += cause.object.count(b"\n", 0, cause.start)
    problem = f"is not UTF-8 (byte 0x{cause.object[cause.start]:02x})"
    return DataError(path, problem, f"UTF-8: {expected}", line)


def _not_json(message: str, path: Path, expected: str, line: int, column: int) -> DataError:
    problem = f"is not JSON, or is cut off: {message.removesuffix(' at')} at column {column}"
    return DataError(path, problem, expected, line)


def _unfit(cause: Exception, path: Path, expected: str, line: int | None) -> DataError:
    return DataError(path, f"is not JSON as it should be: {cause}", expected, line)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]} is larger than any number that can be held")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)
