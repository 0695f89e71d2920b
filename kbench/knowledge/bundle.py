"""The bundle: a knowledge base in a folder.

It holds ``card.json`` (name, version, licence, source, counts, digests), ``entities.arrow``
and ``ids.npy`` (both in the order of the ids, so that an id is found by bisection in a memory
map), ``relations.json``, ``triples.npy`` (``[triples, 3]``: head row, relation, tail row),
``splits.npy`` (which split of its data set each triple is of, where one has splits),
``vectors.npy`` (``[entities, dimension]``, a row of NaN where an entity has none),
``sentences.arrow``, and where words share the space of the vectors ``words.arrow`` and
``word_vectors.npy``. Opening a bundle reads its card alone. Large files are memory-mapped, or (the
vectors) read by the row: memory grows with the rows that are asked for, not with the bundle.
Bundles are written by :mod:`kbench.knowledge.writing`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.data.files import canonical_digest, checked_once, file_digest, remembered
from kbench.data.json_text import read_json
from kbench.data.records import check
from kbench.errors import DataError, Unsupported, first_line
from kbench.knowledge.arrow import (
    Column,
    Sentences,
    entity_batch,
    entity_of,
    made,
    maybe_among,
    open_columns,
    sentence_batch,
    word_batch,
)
from kbench.knowledge.base import (
    Entity,
    KnowledgeBase,
    Marks,
    Rows,
    Sentence,
    Vectors,
    Words,
)
from kbench.knowledge.folding import folded
from kbench.knowledge.matrix import Matrix
from kbench.knowledge.names import names_of
from kbench.knowledge.views import OtherVectors

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FILES", "SCHEMA", "SPLITS", "Bundle", "find_rows"]

SCHEMA = 1
_CARD = {
    "schema": int,
    "name": str,
    "digest": str,
    "files": dict,
    "counts": {"entities": int},
}
_VERIFIED = "bundle, rule 1"
"""What the machine's cache calls bundles that are what their cards state."""
_FEW = 1 << 16
"""Rows that are looked up one by one; for more than these all are looked through, once."""
_NAMED = "named, rule 1"
"""What the machine's cache calls who has a name: another rule of names has another number."""
SPLITS = ("train", "valid", "test")
"""The splits of a graph, by the numbers in ``splits.npy``."""
FILES = (
    "entities.arrow",
    "ids.npy",
    "relations.json",
    "triples.npy",
    "splits.npy",
    "vectors.npy",
    "sentences.arrow",
    "words.arrow",
    "word_vectors.npy",
)


_ALWAYS = frozenset(FILES[:4]) | {"sentences.arrow"}
"""Those of them that every bundle has."""


@final
class Bundle(KnowledgeBase):
    """A knowledge base in a folder.

    Args:
        folder: what an importer or :func:`kbench.knowledge.write_bundle` left.

    Raises:
        DataError: the folder is not a bundle, or its files are not those of its card.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.card = _read_card(self.folder)
        self.name = str(self.card["name"])
        self.digest = str(self.card["digest"])
        self.dimension: int = (self.card.get("vectors") or {}).get("dimension", 0)

    def verify(self) -> None:
        """Reads every file and compares it with the card: its digest, its rows, its ids.

        Raises:
            DataError: a file is missing or has other content, or the ids do not rise.
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
        _check_rows(Bundle(self.folder))  # its maps are let go

    def checked(self) -> Self:
        """Returns the bundle if it is what its card states; costs little the second time.

        What was verified is remembered in the cache while the files stay untouched. Whatever goes
        by the digest of a bundle asks for this first: a digest in a card is only what a card says.

        Raises:
            DataError: as :meth:`verify`.
        """
        files = [self.folder / name for name in ("card.json", *self.card["files"])]
        checked_once(files, _VERIFIED, self.verify)
        return self

    def __len__(self) -> int:
        return int(self.card["counts"]["entities"])

    @cached_property
    def _ids(self) -> NDArray[np.bytes_]:
        return cast("NDArray[np.bytes_]", self._map("ids.npy", "S", len(self)))

    @cached_property
    def _vectors(self) -> Matrix:
        if not self.dimension:
            raise Unsupported(
                f"knowledge base {self.name} has no vectors: run "
                f"`kbench knowledge train {self.folder}` first"
            )
        return Matrix(self._map("vectors.npy", "f", len(self), self.dimension))

    @cached_property
    def _entities(self) -> pa.Table:
        table = open_columns(self.folder / "entities.arrow", entity_batch)
        if table.num_rows != len(self):
            problem = f"has {table.num_rows} rows"
            raise DataError(self.folder / "entities.arrow", problem, f"{len(self)}, as in the card")
        return table

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        triples = cast("NDArray[np.int32]", self._map("triples.npy", "i", None, 3))
        limits = [len(self), len(self.relations), len(self)]

        def within(path: Path) -> str:
            given = np.load(path, mmap_mode="r", allow_pickle=False)  # a map of its own, let go
            if len(given) and ((given.min(0) < 0).any() or (given.max(0) >= limits).any()):
                problem = "names entities or relations that are not there"
                raise DataError(path, problem, "rows of the bundle's own")
            return "sound"

        remembered(self.folder / "triples.npy", f"triples within {limits}", within)
        return triples

    @cached_property
    def splits(self) -> NDArray[np.uint8] | None:
        """The split of each triple, by number in :data:`SPLITS`; None where none is known."""
        if "splits.npy" not in self.card["files"]:
            return None
        splits = cast("NDArray[np.uint8]", self._map("splits.npy", "u", len(self.triples)))
        if len(splits) and splits.max() >= len(SPLITS):
            problem = f"names the split {splits.max()}"
            raise DataError(self.folder / "splits.npy", problem, f"0 to {len(SPLITS) - 1}")
        return splits

    @cached_property
    def relations(self) -> Mapping[str, str]:
        path, expected = self.folder / "relations.json", "a JSON object {relation: text}"
        texts = read_json(path, expected)
        if not isinstance(texts, dict) or not all(isinstance(v, str) for v in texts.values()):
            raise DataError(path, "is none", expected)
        return cast("dict[str, str]", texts)

    @cached_property
    def sentences(self) -> Sequence[Sentence]:
        path = self.folder / "sentences.arrow"
        return Sentences(open_columns(path, sentence_batch), path)

    @property
    def labels(self) -> Sequence[str]:
        return Column[str](self._entities.column("label"))

    @property
    def aliases(self) -> Sequence[Sequence[str]]:
        return Column[list[str]](self._entities.column("aliases"))

    @cached_property
    def types(self) -> Marks:
        import pyarrow.compute as pc

        lists = self._entities.column("types").combine_chunks()
        kinds = pc.dictionary_encode(lists.flatten())
        return Marks(
            pc.list_parent_indices(lists).to_numpy().astype(np.int64),
            kinds.indices.to_numpy().astype(np.int64),
            kinds.dictionary.to_pylist(),
        )

    @property
    def ids(self) -> Sequence[str]:
        return Column[str](self._entities.column("id"))

    @cached_property
    def words(self) -> Words | None:
        if "words.arrow" not in self.card["files"]:
            return None
        table = open_columns(self.folder / "words.arrow", word_batch)
        vectors = self._map("word_vectors.npy", "f", table.num_rows, self.dimension)
        return Words(table.column("word").to_pylist(), cast("Vectors", vectors))

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return OtherVectors(self, rows, vectors)

    def rows(self, ids: Sequence[str | None]) -> Rows:
        return find_rows(self._ids, ids)

    def has_vector(self, rows: Rows) -> NDArray[np.bool_]:
        if not self.dimension:
            return np.zeros(len(rows), dtype=bool)
        some = np.maximum(rows, 0)
        if len(rows) > _FEW:
            return (rows >= 0) & self._with_vector[some]
        return cast("NDArray[np.bool_]", (rows >= 0) & ~np.isnan(self._vectors.column(some, 0)))

    @cached_property
    def _with_vector(self) -> NDArray[np.bool_]:
        """Whether each entity has a vector. ``[entities]``."""

        def look() -> NDArray[np.bool_]:
            first = self._vectors.column(np.arange(len(self), dtype=np.int64), 0)
            known: NDArray[np.bool_] = ~np.isnan(first)
            return known

        return self._remembered("vectors.npy", "present", look)

    def _remembered(
        self, file: str, name: str, look: Callable[[], NDArray[np.bool_]]
    ) -> NDArray[np.bool_]:
        """Keeps what is true of each entity, a bit each, in the machine's cache. ``[entities]``."""

        def packed(_: Path) -> str:
            return base64.b85encode(zlib.compress(np.packbits(look()).tobytes())).decode()

        bits = zlib.decompress(base64.b85decode(remembered(self.folder / file, name, packed)))
        ones = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=len(self))
        true: NDArray[np.bool_] = ones.astype(bool)
        return true

    def vectors(self, rows: Rows) -> Vectors:
        return self._vectors.take(rows)

    @cached_property
    def description_lengths(self) -> NDArray[np.int32]:
        import pyarrow.compute as pc

        chunks = self._entities.column("description").chunks
        lengths = [np.where(_blank(chunk), 0, pc.utf8_length(chunk).to_numpy()) for chunk in chunks]
        return np.concatenate([np.zeros(0, dtype=np.int32), *lengths])

    def has_description(self, rows: Rows) -> NDArray[np.bool_]:
        return _at(self.description_lengths > 0, rows)

    @cached_property
    def _with_name(self) -> NDArray[np.bool_]:
        """Whether each entity has a name. ``[entities]``."""
        return self._remembered("entities.arrow", _NAMED, self._look_for_names)

    def _look_for_names(self) -> NDArray[np.bool_]:
        import pyarrow as pa

        named = [np.zeros(0, dtype=bool)]
        for batch in self._entities.select(["id", "label", "aliases"]).to_batches():
            blank = np.flatnonzero(_blank(batch.column("label")))
            known = np.ones(len(batch), dtype=bool)
            without = batch.take(pa.array(blank)).to_pylist()
            known[blank] = [bool(names_of(e["id"], "", e["aliases"])) for e in without]
            named.append(known)
        return np.concatenate(named)

    def named(self, keys: Collection[str]) -> Iterator[tuple[int, str, bool]]:
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted, start = pa.array(sorted(keys), pa.string()), 0
        for batch in self._entities.to_batches():
            labels, aliases = batch.column("label"), batch.column("aliases")
            several, owners = aliases.flatten(), pc.list_parent_indices(aliases)
            found = [(at, labels[at].as_py(), True) for at in maybe_among(labels, wanted)]
            found += [
                (owners[at].as_py(), several[at].as_py(), False)
                for at in maybe_among(several, wanted)
            ]
            for at in np.flatnonzero(_blank(labels)).tolist():
                names = names_of(batch.column("id")[at].as_py(), "", aliases[at].as_py())
                found += [(at, name, True) for name in names[:1]]
            for at, name, called in found:
                if (name := name.strip()) and folded(name) in keys:
                    yield start + at, name, called
            start += len(batch)

    def has_name(self, rows: Rows) -> NDArray[np.bool_]:
        return _at(self._with_name, rows)

    def entity(self, row: int) -> Entity:
        value = self._entities.slice(row, 1).to_pylist()[0]
        return made(entity_of, value, self.folder / "entities.arrow")

    def each_entity(self) -> Iterator[Entity]:
        """Yields every entity in the order of the rows; faster than one by one."""
        for batch in self._entities.to_batches(max_chunksize=4096):
            for value in batch.to_pylist():
                yield made(entity_of, value, self.folder / "entities.arrow")

    def _map(self, name: str, kind: str, *shape: int | None) -> NDArray[Any]:
        path = self.folder / name
        wanted = f"a .npy matrix of [{', '.join('any' if n is None else str(n) for n in shape)}]"
        try:
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as cause:  # its header is text that NumPy parses, and may be any
            raise DataError(path, f"cannot be read ({first_line(cause)})", wanted) from cause
        fits = isinstance(matrix, np.ndarray) and matrix.ndim == len(shape)
        fits = fits and all(n in (None, m) for n, m in zip(shape, matrix.shape, strict=True))
        if not fits or matrix.dtype.kind != kind or not matrix.dtype.isnative:
            problem = f"has the type {getattr(matrix, 'dtype', '?')} and shape {np.shape(matrix)}"
            raise DataError(path, problem, wanted)
        return cast("NDArray[Any]", matrix)


def _check_rows(bundle: Bundle) -> None:
    """Refuses a bundle whose ids do not rise, or whose tables have other rows than its card says.

    Raises:
        DataError: its ids are no strictly rising list, or not those of its entities: an id would
            not be found, or found as another's.
    """
    ids, start = bundle._ids, 0
    path, expected = bundle.folder / "ids.npy", "the ids of entities.arrow, rising, each once"
    for batch in bundle._entities.select(["id"]).to_batches():
        own = np.array([one.encode() for one in batch.column("id").to_pylist()], dtype=np.bytes_)
        known = ids[start : start + len(own)]
        if not np.array_equal(known, own):
            raise DataError(path, f"is not entities.arrow from row {start} on", expected)
        before = ids[max(0, start - 1) : start + len(own) - 1]
        if not (before < ids[max(1, start) : start + len(own)]).all():
            raise DataError(path, f"does not rise from row {start} on", expected)
        start += len(own)
    if bundle.card.get("vectors") is not None:
        bundle._map("vectors.npy", "f", len(bundle), bundle.dimension)
    counted = {
        "triples": len(bundle.triples),
        "relations": len(bundle.relations),
        "sentences": len(bundle.sentences),
    }
    for name, number in counted.items():
        if bundle.card["counts"].get(name, number) != number:
            problem = f"states {bundle.card['counts'][name]} {name}, and there are {number}"
            raise DataError(bundle.folder / "card.json", problem, "an unedited card")


def _blank(texts: pa.Array) -> NDArray[np.bool_]:
    """Returns whether each text is empty, or blanks alone. ``[texts]``."""
    import pyarrow.compute as pc

    blank: NDArray[np.bool_] = pc.or_(
        pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts)
    ).to_numpy(zero_copy_only=False)
    return blank


def _at(known: NDArray[np.bool_], rows: Rows) -> NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(rows), dtype=bool)
    found = known[rows]
    found &= rows >= 0
    return found


def find_rows(known: NDArray[np.bytes_], ids: Sequence[str | None]) -> Rows:
    """Returns the place of each id among those known, -1 where it is None or not there. ``[ids]``.

    Args:
        known: ids as UTF-8, rising. ``[entities]``.
        ids: what is looked for.
    """
    wanted = [(entity or "").encode("utf-8", "surrogatepass") for entity in ids]
    width = known.dtype.itemsize
    # NumPy drops NULs at the end of bytes, so such an id would find its shorter neighbour.
    fits = np.array([0 < len(w) <= width and w[-1] != 0 for w in wanted], dtype=bool)
    if not len(known) or not fits.any():
        return np.full(len(wanted), -1, dtype=np.int64)
    queries = np.array(wanted, dtype=np.bytes_).astype(known.dtype)
    places = np.minimum(np.searchsorted(known, queries), len(known) - 1)
    return np.where(fits & (known[places] == queries), places, -1).astype(np.int64)


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / "card.json"
    expected = "a knowledge bundle (see `kbench knowledge import --help`)"
    if not path.exists():
        raise DataError(folder, "has no card.json", expected)
    card = read_json(path, expected)
    schema = card.get("schema") if isinstance(card, dict) else None
    if type(schema) is int and schema != SCHEMA:
        raise DataError(path, f"has schema {schema}", f"schema {SCHEMA}; import it again")
    check(card, _CARD, path, "its values")
    for where, counts in (("counts", card["counts"]), ("vectors", card.get("vectors") or {})):
        if not isinstance(counts, dict):
            raise DataError(path, f"{where} is no object", expected)
        for name, value in counts.items():
            counted = where == "counts" or name == "dimension"
            if counted and (type(value) is not int or not 0 <= value < 2**31):
                raise DataError(path, f"{where}.{name} is {str(value)[:40]!r}", "a number of rows")
    files = card["files"]
    if set(files) - set(FILES) or canonical_digest(files) != card["digest"]:
        raise DataError(path, "has a digest that is not that of its files", "an unedited card")
    _check_files(path, card)
    return cast("dict[str, Any]", card)


def _check_files(path: Path, card: Mapping[str, Any]) -> None:
    """Refuses a card by which other files would be read than those that its digest is of."""
    files = card["files"]
    lacking = sorted(_ALWAYS - set(files))
    if lacking:
        raise DataError(path, f"has no digest of {', '.join(lacking)}", "those of all files")
    beside = {"vectors.npy": card.get("vectors"), "word_vectors.npy": files.get("words.arrow")}
    for name, said in beside.items():
        if (name in files) != (said is not None):
            problem = f"has {'a' if name in files else 'no'} digest of {name}, and says otherwise"
            raise DataError(path, problem, "an unedited card")
