"""Entities and sentences as columns on disk, a block at a time: bundles may outgrow memory."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

from kbench.data import Mention
from kbench.data.files import remembered
from kbench.errors import DataError, first_line
from kbench.knowledge.base import Entity, Sentence

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Column",
    "Sentences",
    "entity_batch",
    "entity_of",
    "in_blocks",
    "in_order",
    "made",
    "maybe_among",
    "open_columns",
    "sentence_batch",
    "sentence_of",
    "word_batch",
    "write_columns",
]

_T = TypeVar("_T")
_MAGIC = b"ARROW1\0\0"
_BLOCK = 1 << 16
"""Rows of a batch. Part of the layout: other batches would give the same content another digest."""

_ODD = (
    "[^ -~\u00c0-\u00d6\u00d8-\u00de\u00e0-\u00f6\u00f8-\u012f\u0131\u0134-\u013e\u0141-\u0148"
    "\u014a-\u017e\u0400-\u045f\u3041-\u3094\u30a1-\u30f6\u30fc\u4e00-\u9fff\uac00-\ud7a3]"
    "|  |`|^ | $"
)
"""What may be more than lower case when it is folded; of other characters it certainly is not."""
_READ = 1 << 9
"""Rows read at a time of each run that is merged."""


def in_blocks(items: Iterable[_T], size: int = _BLOCK) -> Iterator[list[_T]]:
    """Yields lists of ``size`` items each, the last of them perhaps shorter."""
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block


def in_order(entities: Iterable[Entity], work: Path) -> Iterator[Entity]:
    """Sorts entities by the bytes of their ids; those of one id stay in the order given.

    An external merge sort: a block is sorted in memory and laid down, then all are merged.

    Args:
        entities: any number, in any order; all of them are read before this returns.
        work: an empty folder for what does not fit in a block.
    """
    runs: list[Iterable[Entity]] = []
    for block in in_blocks(entities):
        block.sort(key=_key)
        small = len(block) < _BLOCK
        runs.append(block if small else _laid_down(work / f"{len(runs)}.arrow", block))
    return heapq.merge(*runs, key=_key)


def _key(entity: Entity) -> bytes:
    return entity.id.encode()


def _laid_down(path: Path, run: list[Entity]) -> Iterator[Entity]:
    write_columns(path, run, entity_batch, _READ)
    return _read_again(path)


def _read_again(path: Path) -> Iterator[Entity]:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:  # not a map: mapped pages count as memory in use
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield from map(entity_of, reader.get_batch(number).to_pylist())


def entity_batch(entities: list[Entity]) -> pa.RecordBatch:
    """Returns entities as columns."""
    import pyarrow as pa

    names = pa.list_(pa.string())
    return pa.record_batch(
        {
            "id": pa.array([e.id for e in entities], pa.string()),
            "label": pa.array([e.label for e in entities], pa.string()),
            "aliases": pa.array([list(e.aliases) for e in entities], names),
            "types": pa.array([list(e.types) for e in entities], names),
            "description": pa.array([e.description for e in entities], pa.string()),
        }
    )


def entity_of(value: dict[str, Any]) -> Entity:
    """Returns the entity of a row of :func:`entity_batch`."""
    return Entity(
        id=value["id"],
        label=value["label"],
        aliases=tuple(value["aliases"]),
        types=tuple(value["types"]),
        description=value["description"],
    )


def sentence_batch(sentences: list[Sentence]) -> pa.RecordBatch:
    """Returns sentences and their mentions as columns."""
    import pyarrow as pa

    mention = pa.struct(
        [
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("entity", pa.string()),
            ("score", pa.float64()),
        ]
    )
    schema = pa.schema([("text", pa.string()), ("mentions", pa.list_(mention))])
    values = [
        {
            "text": sentence.text,
            "mentions": [
                {"start": m.start, "end": m.end, "entity": m.entity, "score": m.score}
                for m in sentence.mentions
            ],
        }
        for sentence in sentences
    ]
    return pa.RecordBatch.from_pylist(values, schema=schema)


def word_batch(words: list[str]) -> pa.RecordBatch:
    """Returns words as a column."""
    import pyarrow as pa

    return pa.record_batch({"word": pa.array(words, pa.string())})


def sentence_of(value: dict[str, Any]) -> Sentence:
    """Returns the sentence of a row of :func:`sentence_batch`."""
    mentions = (
        Mention(m["start"], m["end"], entity=m["entity"], score=m["score"])
        for m in value["mentions"]
    )
    return Sentence(value["text"], tuple(mentions))


def write_columns(
    path: Path,
    rows: Iterable[_T],
    batch: Callable[[list[_T]], pa.RecordBatch],
    size: int = _BLOCK,
) -> None:
    """Writes rows as they come, ``size`` of them at a time.

    Args:
        path: an Arrow file.
        rows: any number.
        batch: makes columns of some; of none it tells the schema.
        size: the rows of a batch.
    """
    import pyarrow as pa

    schema = batch([]).schema
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for block in in_blocks(rows, size):
            writer.write_batch(batch(block))


def open_columns(path: Path, batch: Callable[[list[Any]], pa.RecordBatch]) -> pa.Table:
    """Maps what :func:`write_columns` wrote.

    All of it is checked once, through a map that is then let go: Arrow trusts its files, and
    offsets that a stranger wrote would have it read memory that is not its own.

    Args:
        path: an Arrow file.
        batch: makes such columns; of none it tells the schema.

    Raises:
        DataError: the file is not there or damaged.
    """
    import pyarrow as pa

    try:
        table = _mapped(path)
        wanted = batch([]).schema
        if not table.schema.equals(wanted):
            raise ValueError(f"has the columns {', '.join(table.schema.names)[:200]}")
        remembered(path, "arrow", _checked)
    except (OSError, ValueError, pa.ArrowException) as cause:
        raise DataError(
            path, f"cannot be read ({first_line(cause)})", "an Arrow file of a bundle"
        ) from cause
    return table


def _mapped(path: Path) -> pa.Table:
    """Maps a file, front to back: what is looked at first is then what is read.

    Raises:
        ValueError: a batch of it is compressed, and so may unpack to any size.
    """
    import pyarrow as pa

    source = pa.memory_map(str(path))
    if source.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("not an Arrow file")
    with pa.memory_map(str(path)) as looked_at:
        looked_at.seek(len(_MAGIC))
        for message in pa.ipc.MessageReader.open_stream(looked_at):
            if message.type == "record batch" and _is_compressed(message.metadata.to_pybytes()):
                raise ValueError("a batch of it is compressed, and bundles never are")
    return pa.ipc.open_stream(source).read_all()


def _is_compressed(header: bytes) -> bool:
    """Whether the header of a record batch names a compression, of which Arrow tells nothing.

    It is a table of FlatBuffers in the layout of Arrow's ``Message.fbs``: the batch is the third
    field of the message, and what compresses it the fourth of the batch.

    Raises:
        ValueError: it is no such header.
    """
    try:
        (root,) = struct.unpack_from("<I", header)
        field = _field(header, root, 2)
        if field is None:
            raise ValueError("a batch without a header")
        (ahead,) = struct.unpack_from("<I", header, field)
        return _field(header, field + ahead, 3) is not None
    except struct.error:
        raise ValueError("a damaged header of a batch") from None


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Where a field of a table of FlatBuffers lies; None where it has none."""
    (back,) = struct.unpack_from("<i", buffer, table)
    fields = table - back
    (size,) = struct.unpack_from("<H", buffer, fields)
    entry = 4 + 2 * number
    (ahead,) = struct.unpack_from("<H", buffer, fields + entry) if entry < size else (0,)
    return table + ahead if ahead else None


def _checked(path: Path) -> str:
    table = _mapped(path)
    table.validate(full=True)
    for column in table.columns:
        if column.null_count:
            raise ValueError(f"{column.null_count} of {len(column)} rows are null")
    return "sound"


@final
class Column(Sequence[_T]):
    """A memory-mapped column, its values read as asked for.

    Args:
        values: of :func:`open_columns`.
    """

    def __init__(self, values: pa.ChunkedArray) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        value = self._values[index]
        return value.to_pylist() if isinstance(index, slice) else value.as_py()

    def __iter__(self) -> Iterator[_T]:
        for chunk in self._values.iterchunks():
            yield from chunk.to_pylist()


@final
class Sentences(Sequence[Sentence]):
    """A memory-mapped table of sentences, read as asked for.

    Args:
        table: of :func:`open_columns`.
        path: its file.
    """

    def __init__(self, table: pa.Table, path: Path) -> None:
        self._table = table
        self._path = path

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return [self[i] for i in range(start, stop, step)]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        value = self._table.slice(index % len(self), 1).to_pylist()[0]
        return made(sentence_of, value, self._path)

    def __iter__(self) -> Iterator[Sentence]:
        for batch in self._table.to_batches(max_chunksize=4096):
            for value in batch.to_pylist():
                yield made(sentence_of, value, self._path)


def maybe_among(values: pa.Array, keys: pa.Array) -> list[int]:
    """Returns the places of the names that may be among some when they are folded.

    All others are certainly not, so that few of many have to be folded.

    Args:
        values: names, ``[n]``.
        keys: folded names.
    """
    import pyarrow.compute as pc

    odd = pc.match_substring_regex(values, _ODD)
    some = pc.or_(odd, pc.is_in(pc.utf8_lower(values), value_set=keys))
    return cast("list[int]", pc.indices_nonzero(some).to_pylist())


def made(make: Callable[[dict[str, Any]], _T], value: dict[str, Any], path: Path) -> _T:
    """Makes something of a row; what is null in it, or no span, is for the user to know.

    Raises:
        DataError: it cannot be made of it.
    """
    try:
        return make(value)
    except (TypeError, ValueError, KeyError) as cause:
        problem = f"has a row that cannot be one ({cause})"
        raise DataError(path, problem, "what an importer wrote") from None
