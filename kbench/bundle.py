"""The bundle: a knowledge base in a folder.

It holds ``card.json`` (name, version, licence, source, counts, digests), ``entities.arrow``
and ``ids.npy`` (both in the order of the ids, so that an id is found by bisection in a memory
map), ``relations.json``, ``triples.npy`` (``[triples, 3]``: head row, relation, tail row),
``vectors.npy`` (``[entities, dimension]``, a row of NaN where an entity has none) and
``sentences.arrow``. Every large file is memory-mapped; opening a bundle reads its card alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.data import Mention
from kbench.errors import DataError, Unsupported
from kbench.files import atomic_folder, canonical_digest, file_digest, read_json, write_json
from kbench.knowledge import Entity, KnowledgeBase, Rows, Sentence, Vectors

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Bundle", "write_bundle", "write_vectors"]

SCHEMA = 1
_FILES = (
    "entities.arrow",
    "ids.npy",
    "relations.json",
    "triples.npy",
    "vectors.npy",
    "sentences.arrow",
)
_BLOCK_ROWS = 1 << 14


@final
class Bundle(KnowledgeBase):
    """A knowledge base in a folder.

    Args:
        folder: what :func:`write_bundle` or an importer left.

    Raises:
        DataError: the folder is not a bundle, or its files are not those of its card.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.card = _read_card(self.folder)
        self.name = str(self.card["name"])
        self.digest = str(self.card["digest"])
        self.dimension = int((self.card.get("vectors") or {}).get("dimension", 0))

    def verify(self) -> None:
        """Compares every file with the digest in the card.

        Raises:
            DataError: a file is missing or has other content.
        """
        for name, expected in self.card["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise DataError(path, "is missing", "the file the card names; build it again")
            if file_digest(path) != expected:
                raise DataError(
                    path,
                    "does not have the content its card states",
                    f"SHA-256 {expected[:12]}…; build the bundle again",
                )

    def __len__(self) -> int:
        return int(self.card["counts"]["entities"])

    @cached_property
    def _ids(self) -> NDArray[np.bytes_]:
        return cast("NDArray[np.bytes_]", self._map("ids.npy"))

    @cached_property
    def _vectors(self) -> Vectors:
        if not self.dimension:
            raise Unsupported(
                f"knowledge base {self.name} has no vectors: run "
                f"`kbench knowledge train {self.folder}` first"
            )
        return cast("Vectors", self._map("vectors.npy"))

    @cached_property
    def _entities(self) -> pa.Table:
        return _open_arrow(self.folder / "entities.arrow")

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        return cast("NDArray[np.int32]", self._map("triples.npy"))

    @cached_property
    def relations(self) -> Mapping[str, str]:
        return cast("dict[str, str]", read_json(self.folder / "relations.json"))

    @cached_property
    def sentences(self) -> Sequence[Sentence]:
        return _Sentences(_open_arrow(self.folder / "sentences.arrow"))

    @cached_property
    def labels(self) -> Sequence[str]:
        return cast("list[str]", self._entities.column("label").to_pylist())

    def rows(self, ids: Sequence[str | None]) -> Rows:
        known = self._ids
        wanted = [(entity or "").encode("utf-8", "surrogatepass") for entity in ids]
        width = known.dtype.itemsize
        # NumPy drops NULs at the end of bytes, so such an id would find its shorter neighbour.
        fits = np.array([0 < len(w) <= width and w[-1] != 0 for w in wanted], dtype=bool)
        if not len(known) or not fits.any():
            return np.full(len(wanted), -1, dtype=np.int64)
        queries = np.array(wanted, dtype=np.bytes_).astype(known.dtype)
        found = np.minimum(np.searchsorted(known, queries), len(known) - 1)
        return np.where(fits & (known[found] == queries), found, -1).astype(np.int64)

    def has_vector(self, rows: Rows) -> NDArray[np.bool_]:
        if not self.dimension:
            return np.zeros(len(rows), dtype=bool)
        first = self._vectors[np.maximum(rows, 0), 0]
        return cast("NDArray[np.bool_]", (rows >= 0) & ~np.isnan(first))

    def vectors(self, rows: Rows) -> Vectors:
        return self._vectors[rows]

    def entity(self, row: int) -> Entity:
        value = self._entities.slice(row, 1).to_pylist()[0]
        return Entity(
            id=value["id"],
            label=value["label"],
            aliases=tuple(value["aliases"]),
            types=tuple(value["types"]),
            description=value["description"],
        )

    def _map(self, name: str) -> NDArray[Any]:
        path = self.folder / name
        try:
            return cast("NDArray[Any]", np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as cause:
            raise DataError(path, f"cannot be read ({cause})", "a .npy matrix") from cause


@final
class _Sentences(Sequence[Sentence]):
    """A memory-mapped table of sentences, read as asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return [self[i] for i in range(start, stop, step)]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return _sentence(self._table.slice(index % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Sentence]:
        for batch in self._table.to_batches(max_chunksize=4096):
            for value in batch.to_pylist():
                yield _sentence(value)


def _sentence(value: dict[str, Any]) -> Sentence:
    mentions = (
        Mention(m["start"], m["end"], entity=m["entity"], score=m["score"])
        for m in value["mentions"]
    )
    return Sentence(value["text"], tuple(mentions))


def write_bundle(
    folder: Path,
    card: Mapping[str, Any],
    entities: Iterable[Entity],
    triples: Iterable[tuple[str, str, str]] = (),
    relations: Mapping[str, str] | None = None,
    sentences: Iterable[Sentence] = (),
) -> Bundle:
    """Writes a bundle without vectors, atomically; the order of what is given does not count.

    Args:
        folder: where to; replaced if it exists.
        card: at least name, version, licence and source.
        entities: all entities that triples or vectors speak of.
        triples: (head id, relation id, tail id).
        relations: labels of relation ids; a relation without one gets its id.
        sentences: the corpus, in the order it is to keep.

    Raises:
        ValueError: an entity occurs twice, a triple names an unknown entity, or the card lacks
            a field.
    """
    missing = {"name", "version", "licence", "source"} - card.keys()
    if missing:
        raise ValueError(f"the card lacks {', '.join(sorted(missing))}")
    ordered = sorted(entities, key=lambda entity: entity.id.encode())
    unfit = [entity.id for entity in ordered if not entity.id or entity.id.endswith("\0")]
    if unfit:
        raise ValueError(f"entity id {unfit[0]!r} is empty or ends in NUL")
    ids = np.array([entity.id.encode() for entity in ordered] or [b""][:0], dtype=np.bytes_)
    if len(ids) > 1 and (ids[1:] == ids[:-1]).any():
        twice = ids[1:][ids[1:] == ids[:-1]][0].decode()
        raise ValueError(f"entity {twice!r} occurs twice")
    row = {entity.id: number for number, entity in enumerate(ordered)}
    facts = sorted(set(triples))
    names = sorted({relation for _, relation, _ in facts} | set(relations or {}))
    number = {name: position for position, name in enumerate(names)}
    try:
        matrix = np.array(
            [(row[h], number[r], row[t]) for h, r, t in facts], dtype=np.int32
        ).reshape(-1, 3)
    except KeyError as cause:
        raise ValueError(f"a triple names the unknown entity {cause.args[0]!r}") from None
    with atomic_folder(folder) as scratch:
        np.save(scratch / "ids.npy", ids)
        np.save(scratch / "triples.npy", matrix)
        labels = {name: (relations or {}).get(name, name) for name in names}
        write_json(scratch / "relations.json", labels)
        _write_entities(scratch / "entities.arrow", ordered)
        count = _write_sentences(scratch / "sentences.arrow", sentences)
        counts = {
            "entities": len(ordered),
            "relations": len(names),
            "triples": len(matrix),
            "sentences": count,
            "types": len({name for entity in ordered for name in entity.types}),
        }
        _write_card(scratch, {**card, "counts": counts, "vectors": None})
    return Bundle(folder)


def write_vectors(
    folder: Path, vectors: Vectors, origin: Mapping[str, Any], order: Rows | None = None
) -> Bundle:
    """Adds or replaces the vectors of a bundle, a block of rows at a time.

    Args:
        folder: the bundle.
        vectors: ``[rows, dimension]``, any floating-point type; may be a memory map larger than
            memory. A row with NaN or infinity counts as no vector.
        origin: how they came about (model, seed, epochs, …), kept in the card.
        order: ``[entities]``, the row of ``vectors`` of each entity, -1 where it has none;
            default: ``vectors`` is in the order of the bundle.
    """
    bundle = Bundle(folder)
    taken = np.arange(len(vectors), dtype=np.int64) if order is None else order
    if vectors.ndim != 2 or len(taken) != len(bundle):
        raise ValueError(f"got vectors {vectors.shape} for {len(bundle)} entities")
    with atomic_folder(folder) as scratch:
        for name in _FILES:
            if name != "vectors.npy":
                shutil.copyfile(folder / name, scratch / name)
        covered = _gather_vectors(scratch / "vectors.npy", vectors, taken)
        about = {**origin, "dimension": vectors.shape[1], "entities": covered}
        _write_card(scratch, {**bundle.card, "vectors": about})
    return Bundle(folder)


def _gather_vectors(path: Path, vectors: Vectors, order: Rows) -> int:
    """Writes ``vectors[order]`` as float32, NaN where there is none; returns how many there are."""
    shape = (len(order), vectors.shape[1])
    if 0 in shape:  # nothing can be mapped
        np.save(path, np.empty(shape, dtype=np.float32))
        return 0
    target = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    covered = 0
    for start in range(0, len(order), _BLOCK_ROWS):
        rows = order[start : start + _BLOCK_ROWS]
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite: no vector
            block = vectors[np.maximum(rows, 0)].astype(np.float32)
        known = (rows >= 0) & np.isfinite(block).all(axis=1)
        block[~known] = np.nan
        target[start : start + len(rows)] = block
        covered += int(known.sum())
    target.flush()
    return covered


def _write_card(folder: Path, card: Mapping[str, Any]) -> None:
    files = {name: file_digest(folder / name) for name in _FILES if (folder / name).exists()}
    content = {key: value for key, value in card.items() if key not in {"files", "digest"}}
    content = {"schema": SCHEMA, **content, "files": files, "digest": canonical_digest(files)}
    write_json(folder / "card.json", content)


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / "card.json"
    expected = "a knowledge bundle (see `kbench knowledge import --help`)"
    try:
        card = read_json(path)
    except OSError:
        raise DataError(folder, "has no card.json", expected) from None
    except ValueError as cause:
        raise DataError(path, f"is not JSON ({cause})", expected) from None
    try:
        schema = card["schema"]
        files = card["files"]
        card["counts"]["entities"], card["name"], card["digest"]
    except (KeyError, TypeError) as cause:
        raise DataError(path, f"lacks {cause}", expected) from None
    if schema != SCHEMA:
        raise DataError(path, f"has schema {schema}", f"schema {SCHEMA}; import it again")
    if set(files) - set(_FILES) or canonical_digest(files) != card["digest"]:
        raise DataError(path, "has a digest that is not that of its files", "an unedited card")
    return cast("dict[str, Any]", card)


def _write_entities(path: Path, entities: Sequence[Entity]) -> None:
    import pyarrow as pa

    names = pa.list_(pa.string())
    table = pa.table(
        {
            "id": pa.array([e.id for e in entities], pa.string()),
            "label": pa.array([e.label for e in entities], pa.string()),
            "aliases": pa.array([list(e.aliases) for e in entities], names),
            "types": pa.array([list(e.types) for e in entities], names),
            "description": pa.array([e.description for e in entities], pa.string()),
        }
    )
    _write_arrow(path, table)


def _write_sentences(path: Path, sentences: Iterable[Sentence]) -> int:
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
    _write_arrow(path, pa.Table.from_pylist(values, schema=schema))
    return len(values)


def _write_arrow(path: Path, table: pa.Table) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=65536)


def _open_arrow(path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as cause:
        raise DataError(path, f"cannot be read ({cause})", "an Arrow file of a bundle") from cause
