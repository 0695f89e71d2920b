"""Outside data of tasks: a folder of JSON files, or a data set of the Hugging Face hub.

Whatever does not fit ends in a one-line :class:`~kbench.errors.DataError` that says which file,
which line or record, and what was expected; nothing is skipped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard, TypeVar

from kbench.errors import DataError, UsageError
from kbench.records import Record, Shape, check, describe

if TYPE_CHECKING:
    from kbench.task import TaskCard

__all__ = [
    "find_file",
    "find_folder",
    "group",
    "hub_records",
    "is_hub",
    "read_groups",
    "read_json",
    "read_records",
    "take_turns",
]

_HUB = "hf:"
_SPLITS: Mapping[str, Sequence[str]] = {"dev": ("dev", "validation", "valid", "val")}

T = TypeVar("T")


def is_hub(data: str | None) -> TypeGuard[str]:
    """Returns whether ``data`` is an address ``hf:REPOSITORY[@REVISION]``."""
    return data is not None and data.startswith(_HUB)


def find_folder(data: str | None, card: TaskCard, name: str) -> Path:
    """Returns the folder with a task's files.

    It is ``data`` itself, or its subfolder called ``name`` (whatever its case, hyphens and
    underscores) where there is one: so one ``--data`` serves a grid of several tasks.

    Raises:
        UsageError: no data is given.
        DataError: there is no such folder.
    """
    if not data:
        raise UsageError(f"{card.title} needs --data DIR or --data hf:REPOSITORY: {card.obtain}")
    path = Path(data).expanduser()
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise DataError(path, problem, f"a folder: {card.obtain}")
    plain = str.maketrans("", "", "-_")
    try:
        inside = [child for child in sorted(path.iterdir()) if child.is_dir()]
    except OSError as cause:
        raise DataError(path, f"cannot be read ({cause.strerror})", "a readable folder") from cause
    return next((child for child in inside if child.name.lower().translate(plain) == name), path)


def find_file(folder: Path, name: str) -> Path:
    """Returns the path of a ``.json`` file, or of the ``.jsonl`` beside it if that alone exists."""
    path = folder / name
    lines = path.with_suffix(".jsonl")
    return lines if lines.is_file() and not path.exists() else path


def read_json(path: Path, expected: str) -> Any:
    """Parses a UTF-8 JSON file, strictly: no key twice in an object, no NaN.

    Raises:
        DataError: it cannot be read or is not JSON.
    """
    return _parse(_text(path, expected), path, expected)


def read_records(path: Path, shape: Shape) -> list[Record]:
    """Reads a JSON list of objects, or JSON Lines (one object a line; told by the first sign).

    Raises:
        DataError: the file cannot be read, or a record does not have the shape.
    """
    expected = f"a JSON list or JSON Lines of {describe(shape)}"
    text = _text(path, expected)
    if text.lstrip().startswith("{"):
        # Not splitlines(), which also cuts at signs that JSON allows inside a text.
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        return [check(_parse(line, path, expected, n), shape, path, n) for n, line in lines]
    return _checked(_parse(text, path, expected), shape, path, expected)


def read_groups(path: Path, shape: Shape) -> dict[str, list[Record]]:
    """Reads a JSON object of lists of objects, such as ``{relation: [sentence, …]}``.

    Raises:
        DataError: the file cannot be read, or a record does not have the shape.
    """
    expected = f"a JSON object {{name: [{describe(shape)}, …]}}"
    content = read_json(path, expected)
    if not isinstance(content, dict) or not content:
        raise DataError(path, "is not a JSON object with content", expected)
    return {
        name: _checked(values, shape, path, expected, f"{name} ")
        for name, values in content.items()
    }


def hub_records(data: str, split: str, *shapes: Shape) -> list[Record]:
    """Loads a split of ``hf:REPOSITORY[@REVISION]`` by the ``datasets`` library.

    A local data set folder serves as a repository too. No code of a repository is ever run.

    Args:
        data: the address.
        split: its name; ``dev`` also finds ``validation``.
        shapes: of a row; the first whose keys are columns of the data set counts.

    Raises:
        DataError: it cannot be loaded, has no such split, or a row does not have the shape.
    """
    from datasets import load_dataset

    repository, _, revision = data.removeprefix(_HUB).partition("@")
    try:
        found = load_dataset(repository, revision=revision or None)
    except Exception as cause:  # the library's own errors, the hub's, Arrow's, the network's
        reason = next(iter(str(cause).splitlines()), "") or type(cause).__name__
        expected = f"hf:REPOSITORY[@REVISION] with rows {describe(shapes[0])}"
        raise DataError(data, f"cannot be loaded ({reason})", expected) from cause
    names = [name for name in _SPLITS.get(split, (split,)) if name in found]
    if not names:
        raise DataError(data, f"has the splits {', '.join(found)}", f"a split {split}")
    rows, origin = found[names[0]], f"{data} ({names[0]})"
    shape = next((one for one in shapes if one.keys() <= set(rows.column_names)), shapes[0])
    return [check(row, shape, origin, f"record {n}") for n, row in enumerate(rows)]


def group(records: Iterable[Record], key: str) -> dict[str, list[Record]]:
    """Sorts records into groups by the value of a key, in their order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record[key], []).append(record)
    return groups


def take_turns(groups: Iterable[Sequence[T]]) -> list[T]:
    """Returns the first of each group, then the second of each, …: any prefix has all kinds."""
    nothing = object()
    rounds = zip_longest(*groups, fillvalue=nothing)
    return [item for one in rounds for item in one if item is not nothing]  # type: ignore[misc]


def _checked(
    content: Any, shape: Shape, path: Path, expected: str, prefix: str = ""
) -> list[Record]:
    if not isinstance(content, list) or not content:
        raise DataError(path, f"{prefix}is not a JSON list with content", expected)
    return [check(value, shape, path, f"{prefix}record {n}") for n, value in enumerate(content)]


def _text(path: Path, expected: str) -> str:
    if path.is_dir():
        raise DataError(path, "is a folder", expected)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(path, "does not exist", expected) from None
    except OSError as cause:
        raise DataError(path, f"cannot be read ({cause.strerror})", expected) from cause
    # A byte order mark, which some editors put before UTF-8, is no part of the content.
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as cause:
        line = content.count(b"\n", 0, cause.start) + 1
        problem = f"is not UTF-8 (byte 0x{content[cause.start]:02x})"
        raise DataError(path, problem, f"UTF-8: {expected}", line) from None
    if not text.strip():
        raise DataError(path, "is empty", expected)
    return text


def _parse(text: str, path: Path, expected: str, line: int | None = None) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as cause:
        reason = cause.msg.removesuffix(" at")
        problem = f"is not JSON, or is cut off: {reason} at column {cause.colno}"
        raise DataError(path, problem, expected, line or cause.lineno) from None
    except (ValueError, RecursionError) as cause:
        raise DataError(path, f"is not JSON as it should be: {cause}", expected, line) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
