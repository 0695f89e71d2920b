"""Outside data of tasks: a folder of JSON files or tables, or a data set of the Hugging Face hub.

Whatever does not fit ends in a one-line :class:`~kbench.errors.DataError` that says which file,
which line or record, and what was expected; nothing is skipped in silence. What is called
``stream_`` holds one record at a time, for data sets of millions.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from kbench.data.files import is_file, is_folder
from kbench.data.json_text import parse_json, read_json, read_text, stream_values
from kbench.data.records import Record, Shape, check, describe
from kbench.errors import AbsentError, DataError, first_line

if TYPE_CHECKING:
    from kbench.data.card import TaskCard

__all__ = [
    "find_file",
    "find_folder",
    "group",
    "hub_records",
    "hub_splits",
    "is_hub",
    "parse_json",
    "read_groups",
    "read_json",
    "read_records",
    "read_table",
    "read_text",
    "stream_hub_records",
    "stream_records",
    "take_turns",
]

_HUB = "hf:"
_INTEGER = re.compile("-?[0-9]{1,18}")
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
        AbsentError: no data is given.
        DataError: there is no such folder.
    """
    if not data:
        raise AbsentError(f"{card.title} needs --data DIR or --data hf:REPOSITORY: {card.obtain}")
    path = Path(data).expanduser()
    if not is_folder(path):
        problem = "is a file" if is_file(path) else "does not exist"
        raise DataError(path, problem, f"a folder: {card.obtain}")
    plain = str.maketrans("", "", "-_")
    try:
        inside = [child for child in sorted(path.iterdir()) if child.is_dir()]
    except OSError as cause:
        problem = f"cannot be read ({first_line(cause)})"
        raise DataError(path, problem, "a readable folder") from cause
    return next((child for child in inside if child.name.lower().translate(plain) == name), path)


def find_file(folder: Path, name: str) -> Path:
    """Returns the path of a ``.json`` file, or of the ``.jsonl`` beside it if that alone exists."""
    path = folder / name
    lines = path.with_suffix(".jsonl")
    return lines if lines.is_file() and not path.exists() else path


def stream_records(path: Path, shape: Shape) -> Iterator[Record]:
    """Reads a JSON list of objects, or JSON Lines (one object a line; told by the first sign).

    Raises:
        DataError: the file cannot be read, or a record does not have the shape.
    """
    expected = f"a JSON list or JSON Lines of {describe(shape)}"
    for place, value in stream_values(path, expected):
        yield check(value, shape, path, place)


def read_records(path: Path, shape: Shape) -> list[Record]:
    """Reads what :func:`stream_records` does, all at once."""
    return list(stream_records(path, shape))


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


def read_table(path: Path, shape: Shape) -> list[Record]:
    """Reads a tab-separated table whose first line names its columns.

    A cell is text, and an integer where the shape has one; a cell in double quotes may hold tabs,
    line ends and doubled quotes.

    Raises:
        DataError: the file cannot be read, or a row does not have the shape.
    """
    expected = f"tab-separated columns {', '.join(shape)}, named in the first line"
    reader = csv.reader(io.StringIO(read_text(path, expected)), delimiter="\t", strict=True)
    records: list[Record] = []
    try:
        names = next(reader)
        for cells in reader:
            if len(cells) != len(names):
                problem = f"has {len(cells)} cells, not {len(names)}"
                raise DataError(path, problem, expected, reader.line_num)
            row = {n: _cell(c, shape.get(n)) for n, c in zip(names, cells, strict=True)}
            records.append(check(row, shape, path, reader.line_num))
    except csv.Error as cause:
        problem = f"is no table, or is cut off: {cause}"
        raise DataError(path, problem, expected, reader.line_num) from None
    if not records:
        raise DataError(path, "has no row", expected)
    return records


def _cell(text: str, shape: Shape) -> str | int:
    if shape is int and _INTEGER.fullmatch(text):
        return int(text)
    return text


def hub_splits(data: str) -> tuple[str, ...]:
    """Returns the names of the splits of ``hf:REPOSITORY[@REVISION]``.

    Raises:
        DataError: it cannot be loaded.
    """
    return tuple(_load(data, "a data set"))


def stream_hub_records(data: str, split: str, *shapes: Shape) -> Iterator[Record]:
    """Loads a split of ``hf:REPOSITORY[@REVISION]`` by the ``datasets`` library.

    A local data set folder serves as a repository too. No code of a repository is ever run.

    Args:
        data: the address.
        split: its name; ``dev`` also finds ``validation``.
        shapes: of a row; the first whose keys are columns of the data set counts.

    Raises:
        DataError: it cannot be loaded, has no such split, or a row does not have the shape.
    """
    splits = _load(data, f"rows {describe(shapes[0])}")
    names = [name for name in _SPLITS.get(split, (split,)) if name in splits]
    if not names:
        raise DataError(data, f"has the splits {', '.join(splits)}", f"a split {split}")
    rows, origin = splits[names[0]], f"{data} ({names[0]})"
    shape = next((one for one in shapes if one.keys() <= set(rows.column_names)), shapes[0])
    for n, row in enumerate(rows):
        yield check(row, shape, origin, f"record {n}")


def hub_records(data: str, split: str, *shapes: Shape) -> list[Record]:
    """Loads what :func:`stream_hub_records` does, all at once."""
    return list(stream_hub_records(data, split, *shapes))


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


def _load(data: str, content: str) -> Mapping[str, Any]:
    from datasets import load_dataset

    repository, _, revision = data.removeprefix(_HUB).partition("@")
    try:
        splits: Mapping[str, Any] = load_dataset(repository, revision=revision or None)
    except Exception as cause:  # the library's own errors, the hub's, Arrow's, the network's
        expected = f"hf:REPOSITORY[@REVISION] with {content}"
        raise DataError(data, f"cannot be loaded ({first_line(cause)})", expected) from cause
    return splits


def _checked(content: Any, shape: Shape, path: Path, expected: str, prefix: str) -> list[Record]:
    if not isinstance(content, list) or not content:
        raise DataError(path, f"{prefix}is not a JSON list with content", expected)
    return [check(value, shape, path, f"{prefix}record {n}") for n, value in enumerate(content)]
