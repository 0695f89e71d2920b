"""Bundles written: atomically, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.bundle import FILES, SCHEMA, Bundle
from kbench.files import atomic_folder, canonical_digest, file_digest, write_json
from kbench.knowledge import Entity, Rows, Sentence, Vectors, Words

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_bundle", "write_vectors"]

_BLOCK_ROWS = 1 << 14
_OF_VECTORS = ("vectors.npy", "words.arrow", "word_vectors.npy")


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
        ValueError: the shapes do not fit the bundle or each other.
    """
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
        covered = _gather_vectors(scratch / "vectors.npy", vectors, taken)
        about = {**origin, "dimension": vectors.shape[1], "entities": covered}
        if words:
            _write_words(scratch, words)
            about["words"] = len(words.words)
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
    files = {name: file_digest(folder / name) for name in FILES if (folder / name).exists()}
    content = {key: value for key, value in card.items() if key not in {"files", "digest"}}
    content = {"schema": SCHEMA, **content, "files": files, "digest": canonical_digest(files)}
    write_json(folder / "card.json", content)


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


def _write_words(folder: Path, words: Words) -> None:
    import pyarrow as pa

    _write_arrow(folder / "words.arrow", pa.table({"word": pa.array(words.words, pa.string())}))
    order = np.arange(len(words.words), dtype=np.int64)
    _gather_vectors(folder / "word_vectors.npy", words.vectors, order)


def _write_arrow(path: Path, table: pa.Table) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=65536)
