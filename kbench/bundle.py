"""The bundle: a knowledge base in a folder.

It holds ``card.json`` (name, version, licence, source, counts, digests), ``entities.arrow``
and ``ids.npy`` (both in the order of the ids, so that an id is found by bisection in a memory
map), ``relations.json``, ``triples.npy`` (``[triples, 3]``: head row, relation, tail row),
``vectors.npy`` (``[entities, dimension]``, a row of NaN where an entity has none),
``sentences.arrow``, and where words share the space of the vectors ``words.arrow`` and
``word_vectors.npy``. Every large file is memory-mapped; opening a bundle reads its card alone.
Bundles are written by :mod:`kbench.writing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
from numpy.typing import NDArray

from kbench.columns import entity_of, open_columns, sentence_of
from kbench.errors import DataError, Unsupported
from kbench.files import canonical_digest, file_digest, read_json
from kbench.knowledge import Entity, KnowledgeBase, Rows, Sentence, Vectors, Words
from kbench.views import OtherVectors

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FILES", "SCHEMA", "Bundle", "find_rows"]

SCHEMA = 1
FILES = (
    "entities.arrow",
    "ids.npy",
    "relations.json",
    "triples.npy",
    "vectors.npy",
    "sentences.arrow",
    "words.arrow",
    "word_vectors.npy",
)


@final
class Bundle(KnowledgeBase):
    """A knowledge base in a folder.

    Args:
        folder: what an importer or :func:`kbench.writing.write_bundle` left.

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
        return open_columns(self.folder / "entities.arrow")

    @cached_property
    def triples(self) -> NDArray[np.int32]:
        return cast("NDArray[np.int32]", self._map("triples.npy"))

    @cached_property
    def relations(self) -> Mapping[str, str]:
        return cast("dict[str, str]", read_json(self.folder / "relations.json"))

    @cached_property
    def sentences(self) -> Sequence[Sentence]:
        return _Sentences(open_columns(self.folder / "sentences.arrow"))

    @cached_property
    def labels(self) -> Sequence[str]:
        return cast("list[str]", self._entities.column("label").to_pylist())

    @property
    def aliases(self) -> Sequence[Sequence[str]]:
        return cast("list[list[str]]", self._entities.column("aliases").to_pylist())

    @cached_property
    def words(self) -> Words | None:
        if "words.arrow" not in self.card["files"]:
            return None
        spelled = open_columns(self.folder / "words.arrow").column("word").to_pylist()
        return Words(spelled, cast("Vectors", self._map("word_vectors.npy")))

    def over(self, rows: Rows, vectors: Vectors) -> KnowledgeBase:
        return OtherVectors(self, rows, vectors)

    def rows(self, ids: Sequence[str | None]) -> Rows:
        return find_rows(self._ids, ids)

    def has_vector(self, rows: Rows) -> NDArray[np.bool_]:
        if not self.dimension:
            return np.zeros(len(rows), dtype=bool)
        first = self._vectors[np.maximum(rows, 0), 0]
        return cast("NDArray[np.bool_]", (rows >= 0) & ~np.isnan(first))

    def vectors(self, rows: Rows) -> Vectors:
        return self._vectors[rows]

    @cached_property
    def _with_description(self) -> NDArray[np.bool_]:
        import pyarrow.compute as pc

        lengths = pc.binary_length(self._entities.column("description"))
        return cast("NDArray[np.bool_]", lengths.to_numpy() > 0)

    def has_description(self, rows: Rows) -> NDArray[np.bool_]:
        known = np.zeros(len(rows), dtype=bool)
        known[rows >= 0] = self._with_description[rows[rows >= 0]]
        return known

    def entity(self, row: int) -> Entity:
        return entity_of(self._entities.slice(row, 1).to_pylist()[0])

    def _map(self, name: str) -> NDArray[Any]:
        path = self.folder / name
        try:
            return cast("NDArray[Any]", np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as cause:
            raise DataError(path, f"cannot be read ({cause})", "a .npy matrix") from cause


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
    found = np.minimum(np.searchsorted(known, queries), len(known) - 1)
    return np.where(fits & (known[found] == queries), found, -1).astype(np.int64)


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
        return sentence_of(self._table.slice(index % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Sentence]:
        for batch in self._table.to_batches(max_chunksize=4096):
            for value in batch.to_pylist():
                yield sentence_of(value)


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
    if set(files) - set(FILES) or canonical_digest(files) != card["digest"]:
        raise DataError(path, "has a digest that is not that of its files", "an unedited card")
    return cast("dict[str, Any]", card)
