"""Bundles written: atomically, whole or not at all, and in bounded memory.

Entities are sorted on disk (:func:`kbench.knowledge.arrow.in_order`), ids and vectors written a
block at a time; of the facts there is one row of three numbers each in memory.
"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kbench.data.files import atomic_folder, canonical_digest, file_digest, write_json
from kbench.errors import DataError
from kbench.knowledge.arrow import (
    entity_batch,
    in_blocks,
    in_order,
    open_columns,
    sentence_batch,
    word_batch,
    write_columns,
)
from kbench.knowledge.base import Entity, Rows, Sentence, Vectors, Words
from kbench.knowledge.bundle import FILES, SCHEMA, SPLITS, Bundle, find_rows

__all__ = ["LONGEST_ID", "check_alone", "distinct_facts", "write_bundle", "write_vectors"]

_BLOCK_ROWS = 1 << 7
"""Rows gathered from a map before its pages are let go: each may bring in two megabytes."""
LONGEST_ID = 1000
"""Letters of an id: all are stored at the width of the longest."""
_OF_VECTORS = ("vectors.npy", "words.arrow", "word_vectors.npy")


def check_alone(folder: Path) -> None:
    """Refuses to write a bundle where anything else lies, which would be lost with the old one.

    Raises:
        DataError: something else is there.
    """
    there = folder.iterdir() if folder.is_dir() else ()
    others = sorted({path.name for path in there} - {*FILES, "card.json"})
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        problem = f"holds {others[0]!r}{more}, which is no part of a bundle and would be lost"
        raise DataError(folder, problem, "the files of a bundle alone: move it away first")


def write_bundle(
    folder: Path,
    card: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    entities: Iterable[Entity],
    triples: Iterable[tuple[str, str, str]] = (),
    relations: Mapping[str, str] | None = None,
    sentences: Iterable[Sentence] = (),
    *,
    join: Callable[[Entity, Entity], Entity] | None = None,
    splits: Iterable[int] | None = None,
) -> Bundle:
    """Writes a bundle without vectors, atomically; the order of what is given does not count.

    Entities, triples and sentences are read once each, in this order, and not held.

    Args:
        folder: where to; replaced if it exists.
        card: at least name, version, licence and source; or what makes it, called once all else
            has been read.
        entities: all entities that triples or vectors speak of.
        triples: (head id, relation id, tail id).
        relations: labels of relation ids; a relation without one gets its id.
        sentences: the corpus, in the order it is to keep.
        join: makes one entity of two parts with the same id, given in their order; default: an
            entity may occur once only.
        splits: of each triple, in their order, the split of its data set, as a number in
            :data:`kbench.knowledge.bundle.SPLITS`; of a fact that is in several the first counts,
            so that what is in train is never held out.

    Raises:
        DataError: something else than a bundle is there.
        ValueError: an entity occurs twice, a triple names an unknown entity, splits are not as
            many as triples, or the card lacks a field.
    """
    check_alone(folder)
    types: set[str] = set()
    with atomic_folder(folder) as scratch:
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name[:40]}.sort-") as work:
            whole = _whole(in_order(entities, Path(work)), join)
            write_columns(scratch / "entities.arrow", _noting(types, whole), entity_batch)
        ids = _write_ids(scratch)
        rows, names = _facts(ids, triples, relations or {}, splits)
        matrix = rows[:, :3]
        _write_matrix(scratch / "triples.npy", matrix.shape, np.int32, [matrix])
        labels = {name: (relations or {}).get(name, name) for name in names}
        write_json(scratch / "relations.json", labels)
        write_columns(scratch / "sentences.arrow", sentences, sentence_batch)
        counts = {
            "entities": len(ids),
            "relations": len(names),
            "triples": len(matrix),
            "sentences": open_columns(scratch / "sentences.arrow", sentence_batch).num_rows,
            "types": len(types),
        }
        if splits is not None:
            of = rows[:, 3].astype(np.uint8)
            _write_matrix(scratch / "splits.npy", of.shape, np.uint8, [of])
            counts |= {f"{name}_triples": int((of == at).sum()) for at, name in enumerate(SPLITS)}
        about = card() if callable(card) else card
        missing = {"name", "version", "licence", "source"} - about.keys()
        if missing:
            raise ValueError(f"the card lacks {', '.join(sorted(missing))}")
        _write_card(scratch, {**about, "counts": counts, "vectors": None})
    return Bundle(folder)


def _whole(
    entities: Iterable[Entity], join: Callable[[Entity, Entity], Entity] | None
) -> Iterator[Entity]:
    """Yields each of the entities, in the order of their ids, once."""
    last: Entity | None = None
    for entity in entities:
        if not entity.id or entity.id.endswith("\0"):
            raise ValueError(f"entity id {entity.id!r} is empty or ends in NUL")
        if len(entity.id) > LONGEST_ID:
            raise ValueError(f"entity id {entity.id[:40]!r}… has {len(entity.id):,} letters")
        if last and last.id == entity.id:
            if not join:
                raise ValueError(f"entity {entity.id!r} occurs twice")
            last = join(last, entity)
            continue
        if last:
            yield last
        last = entity
    if last:
        yield last


def _noting(types: set[str], entities: Iterable[Entity]) -> Iterator[Entity]:
    for entity in entities:
        types.update(entity.types)
        yield entity


def _write_ids(folder: Path) -> NDArray[np.bytes_]:
    """Writes the ids of the entities at one width, and maps them. ``[entities]``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = open_columns(folder / "entities.arrow", entity_batch).column("id")
    width = max(1, pc.max(pc.binary_length(ids)).as_py() or 0)
    chunks = (np.array(i.cast(pa.binary()).to_pylist(), f"S{width}") for i in ids.chunks)
    path = folder / "ids.npy"
    _write_matrix(path, (len(ids),), f"S{width}", chunks)
    mapped: NDArray[np.bytes_] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _facts(
    ids: NDArray[np.bytes_],
    triples: Iterable[tuple[str, str, str]],
    relations: Mapping[str, str],
    splits: Iterable[int] | None,
) -> tuple[NDArray[np.int32], list[str]]:
    """Returns the facts as rows of numbers, and the relations in the order of theirs.

    The rows are head, relation, tail and, where splits are given, the number of the split.
    """
    numbers: dict[str, int] = {}
    parts = [np.empty((0, 3 if splits is None else 4), dtype=np.int32)]
    split_of = repeat(0) if splits is None else iter(splits)
    for block in in_blocks(triples):
        heads, names, tails = zip(*block, strict=True)
        ends = [*heads, *tails]
        rows = find_rows(ids, ends)
        if rows.min() < 0:
            raise ValueError(f"a triple names the unknown entity {ends[int(rows.argmin())]!r}")
        kinds = np.array([numbers.setdefault(name, len(numbers)) for name in names])
        columns = [rows[: len(block)], kinds, rows[len(block) :]]
        if splits is not None:
            columns.append(_checked_splits(list(islice(split_of, len(block))), len(block)))
        parts.append(np.stack(columns, axis=1).astype(np.int32))
    if splits is not None and next(split_of, None) is not None:
        raise ValueError("there are more splits than triples")
    ordered = sorted(numbers.keys() | relations.keys())
    place = {name: position for position, name in enumerate(ordered)}
    matrix = np.concatenate(parts)
    parts.clear()
    matrix[:, 1] = np.array([place[name] for name in numbers], dtype=np.int32)[matrix[:, 1]]
    return distinct_facts(matrix), ordered


def _checked_splits(splits: list[int], wanted: int) -> NDArray[np.int64]:
    """Returns the numbers of splits of a block of triples. ``[triples]``."""
    if len(splits) < wanted:
        raise ValueError("there are fewer splits than triples")
    numbers = np.array(splits, dtype=np.int64)
    if numbers.min() < 0 or numbers.max() >= len(SPLITS):
        raise ValueError(f"a split is none of {', '.join(SPLITS)}: {sorted(set(splits))}")
    return numbers


def distinct_facts(facts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns facts in rising order, each once.

    Args:
        facts: head, relation, tail, and perhaps more, of which the least is kept. ``[n, 3 or
            more]``.
    """
    ordered = facts[np.lexsort(facts.T[::-1])]
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = (ordered[1:, :3] != ordered[:-1, :3]).any(axis=1)
    return ordered if new.all() else ordered[new]


def write_vectors(
    folder: Path,
    vectors: Vectors,
    origin: Mapping[str, Any],
    order: Rows | None = None,
    words: Words | None = None,
) -> Bundle:
    """Adds or replaces the vectors of a bundle, a block of rows at a time.

    Words of an earlier space go with its vectors.

    Args:
        folder: the bundle.
        vectors: ``[rows, dimension]``, any floating-point type; may be a memory map larger than
            memory. A row with NaN or infinity counts as no vector.
        origin: how they came about (model, seed, epochs, …), kept in the card.
        order: ``[entities]``, the row of ``vectors`` of each entity, -1 where it has none;
            default: ``vectors`` is in the order of the bundle.
        words: words in the same space, if it has any.

    Raises:
        DataError: something else lies in the folder.
        ValueError: the shapes do not fit the bundle or each other.
    """
    check_alone(folder)
    bundle = Bundle(folder)
    taken = np.arange(len(vectors), dtype=np.int64) if order is None else order
    if vectors.ndim != 2 or len(taken) != len(bundle):
        raise ValueError(f"got vectors {vectors.shape} for {len(bundle)} entities")
    if words and words.vectors.shape != (len(words.words), vectors.shape[1]):
        raise ValueError(f"got word vectors {words.vectors.shape} for {len(words.words)} words")
    with atomic_folder(folder) as scratch:
        for name in bundle.card["files"]:
            if name not in _OF_VECTORS:
                shutil.copyfile(folder / name, scratch / name)
        covered = _write_rows(scratch / "vectors.npy", vectors, taken)
        about = {**origin, "dimension": vectors.shape[1], "entities": covered}
        if words:
            _write_words(scratch, words)
            about["words"] = len(words.words)
        _write_card(scratch, {**bundle.card, "vectors": about})
    return Bundle(folder)


def _write_rows(path: Path, vectors: Vectors, order: Rows) -> int:
    """Writes ``vectors[order]`` as float32, NaN where there is none; returns how many there are."""
    shape = (len(order), vectors.shape[1])
    covered = 0

    def gather() -> Iterator[Vectors]:
        nonlocal covered
        for start in range(0, len(order), _BLOCK_ROWS):
            rows = order[start : start + _BLOCK_ROWS]
            with np.errstate(over="ignore"):  # beyond float32 it becomes infinite: no vector
                block = vectors[np.maximum(rows, 0)].astype(np.float32)
            known = (rows >= 0) & np.isfinite(block).all(axis=1)
            block[~known] = np.nan
            covered += int(known.sum())
            _let_go(vectors)
            yield block

    _write_matrix(path, shape, np.float32, () if 0 in shape else gather())
    return covered


def _let_go(matrix: NDArray[Any]) -> None:
    """Takes the pages of a read-only memory map out of memory; they are read again when needed."""
    base: Any = matrix
    while isinstance(base, np.ndarray):
        base = base.base
    # A writable map may be a private copy, whose changes would be lost.
    mapped = isinstance(base, mmap.mmap) and not matrix.flags.writeable
    if mapped and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _write_matrix(
    path: Path, shape: tuple[int, ...], dtype: DTypeLike, parts: Iterable[NDArray[Any]]
) -> None:
    """Writes a .npy file part by part, not through a map: mapped pages count as memory in use."""
    about = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)


def _write_card(folder: Path, card: Mapping[str, Any]) -> None:
    files = {name: file_digest(folder / name) for name in FILES if (folder / name).exists()}
    content = {key: value for key, value in card.items() if key not in {"files", "digest"}}
    content = {"schema": SCHEMA, **content, "files": files, "digest": canonical_digest(files)}
    write_json(folder / "card.json", content)


def _write_words(folder: Path, words: Words) -> None:
    write_columns(folder / "words.arrow", words.words, word_batch)
    order = np.arange(len(words.words), dtype=np.int64)
    _write_rows(folder / "word_vectors.npy", words.vectors, order)
