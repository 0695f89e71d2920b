"""Records of outside data, checked against a shape before anything is made of them.

A shape is written the way the data looks: ``str``, ``int`` and ``float`` for single values,
``[shape]`` for a list of any length, ``(shape, shape)`` for a list of exactly these items and
``{key: shape}`` for an object with at least these keys. Each task declares the shape of its
records once; the check and the wording of its errors follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from kbench.errors import DataError

__all__ = ["Record", "Shape", "check", "describe", "encodable"]

Shape: TypeAlias = Any
"""A type, a list of one shape, or a mapping of keys to shapes: see :func:`check`."""

_SHOWN = 12
"""Labels that an error lists."""

_NAMES: Mapping[type, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "list",
    dict: "object",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a file or of a hub data set, known to have its shape.

    Attributes:
        values: the object.
        origin: file or hub address it comes from.
        place: 1-based line number, or words such as ``record 17``.
        shape: what it was checked against.
    """

    values: Mapping[str, Any]
    origin: Path | str
    place: int | str
    shape: Shape

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def error(self, problem: str) -> DataError:
        """Returns the error that says where this record is and what it should look like."""
        return DataError(self.origin, problem, describe(self.shape), self.place)

    def span(self, what: str, start: int, end: int, text: str) -> None:
        """Checks that ``[start, end)`` are characters of ``text``.

        Raises:
            DataError: the span is empty or lies outside the text.
        """
        if not 0 <= start < end <= len(text):
            raise self.error(
                f"{what} is [{start}, {end}), which is no span of its text of "
                f"{len(text)} characters"
            )

    def known(self, what: str, name: str, names: Sequence[str]) -> None:
        """Checks that a name of dev or test is one of those in train.

        Raises:
            DataError: it is not.
        """
        if name not in names:
            listed = ", ".join([*names[:_SHOWN], *(["…"] if len(names) > _SHOWN else [])])
            raise self.error(f"{what} {name!r} is none of those in train ({listed})")


def check(value: Any, shape: Shape, origin: Path | str, place: int | str) -> Record:
    """Returns an object as a record.

    Raises:
        DataError: the value does not have the shape; the message names the offending key.
    """
    fault = _fault(value, shape)
    if fault is not None:
        where, problem = fault
        raise DataError(origin, f"{where} {problem}".lstrip(" ."), describe(shape), place)
    return Record(value, origin, place, shape)


def describe(shape: Shape) -> str:
    """Returns a shape in words: ``{sent: text, labels: [text, …]}``."""
    if isinstance(shape, dict):
        return "{" + ", ".join(f"{key}: {describe(part)}" for key, part in shape.items()) + "}"
    if isinstance(shape, list):
        return f"[{describe(shape[0])}, …]"
    if isinstance(shape, tuple):
        return f"[{', '.join(map(describe, shape))}]"
    return _NAMES[shape]


def _fault(value: Any, shape: Shape) -> tuple[str, str] | None:
    """Returns the path to the first misfit and what is wrong there, or None."""
    wanted = shape if isinstance(shape, type) else {tuple: list}.get(type(shape), type(shape))
    if not _is(value, wanted):
        return "", f"is {_name(value)}, not {_NAMES[wanted]}"
    if isinstance(shape, tuple) and len(value) != len(shape):
        return "", f"has {len(value)} items, not {len(shape)}"
    if isinstance(shape, dict):
        for key in shape:
            if key not in value:
                return "", f"has no key {key!r}"
    for step, part, inner in _parts(value, shape):
        fault = _fault(part, inner)
        if fault is not None:
            return f"{step}{fault[0]}", fault[1]
    return None


def _parts(value: Any, shape: Shape) -> Iterable[tuple[str, Any, Shape]]:
    if isinstance(shape, dict):
        return ((f".{key}", value[key], inner) for key, inner in shape.items())
    if isinstance(shape, list):
        return ((f"[{n}]", part, shape[0]) for n, part in enumerate(value))
    if isinstance(shape, tuple):
        return ((f"[{n}]", value[n], inner) for n, inner in enumerate(shape))
    return ()


def _is(value: Any, wanted: type) -> bool:
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is str:
        return isinstance(value, str) and encodable(value)
    return isinstance(value, wanted)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def encodable(text: str) -> bool:
    """Returns whether a text has no half of a surrogate pair.

    JSON can spell one; no tokenizer, parquet or terminal takes it.
    """
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


def _name(value: Any) -> str:
    if isinstance(value, str):
        return "text with half of a surrogate pair" if not encodable(value) else "text"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return _NAMES.get(type(value), type(value).__name__)
