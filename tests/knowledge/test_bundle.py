from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbench.data.files import cache_home, canonical_digest, file_digest
from kbench.errors import DataError, Unsupported
from kbench.knowledge import Bundle, Entity, write_bundle, write_vectors
from kbench.knowledge.arrow import entity_batch, open_columns, write_columns
from kbench.parts.find import find_knowledge

CARD = {"name": "world", "version": "1", "licence": "CC0-1.0", "source": "made for a test"}


def filled(world: Bundle) -> Bundle:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(len(world), 6)).astype(np.float32)
    vectors[world.rows(["I0"])] = np.nan
    return write_vectors(world.folder, vectors, {"model": "noise"})


def test_what_was_written_is_read(world: Bundle) -> None:
    row = int(world.rows(["T3"])[0])
    assert world.entity(row) == Entity("T3", "Town 3", ("Old Town 3",), ("city",))
    assert world.labels[row] == "Town 3"
    assert len(world) == 45
    assert dict(world.relations) == {"borders": "borders", "in": "located in"}
    assert world.triples.shape == (44, 3)
    assert [s.text for s in world.sentences] == ["Town 3 is in Country 3 .", "Nowhere is a town ."]
    assert world.sentences[1].mentions[0].score == 0.25
    assert world.sentences[-1] == world.sentences[1]
    assert world.card["counts"]["types"] == 2
    world.verify()


def test_order_of_entities_and_triples_does_not_count(tmp_path: Path) -> None:
    entities = [Entity("b"), Entity("a"), Entity("c")]
    triples = [("a", "r", "b"), ("b", "q", "c")]
    one = write_bundle(tmp_path / "one", CARD, entities, triples)
    two = write_bundle(tmp_path / "two", CARD, entities[::-1], [*triples[::-1], triples[0]])
    assert one.digest == two.digest


def test_a_bundle_written_again_has_the_same_digest(tmp_path: Path) -> None:
    atlas = find_knowledge("atlas")
    entities = [atlas.entity(row) for row in range(len(atlas))]
    ids, kinds = [entity.id for entity in entities], list(atlas.relations)
    triples = [(ids[head], kinds[kind], ids[tail]) for head, kind, tail in atlas.triples.tolist()]
    bundle = write_bundle(
        tmp_path / "kb", atlas.card, entities[::-1], triples[::-1], atlas.relations, atlas.sentences
    )
    vectors = atlas.vectors(np.arange(len(atlas)))
    assert write_vectors(bundle.folder, vectors, {}).digest == atlas.digest


def test_more_entities_than_are_sorted_at_a_time(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(70_000).tolist()
    triples = [("Ä1", "r", "Ä69999"), ("Ä69999", "r", "Ä2")]
    entities = [Entity(f"Ä{i}", f"number {i}", types=("t",)) for i in order]
    one = write_bundle(tmp_path / "one", CARD, iter(entities), triples)
    two = write_bundle(tmp_path / "two", CARD, sorted(entities, key=lambda e: e.label), triples)
    assert one.digest == two.digest
    assert one.card["counts"]["entities"] == 70_000
    assert list(one.labels) == [f"number {i}" for i in sorted(range(70_000), key=str)]
    rows = one.rows([f"Ä{i}" for i in (1, 69_999, 2, 70_000)])
    assert rows[-1] == -1
    assert one.triples.tolist() == sorted([[rows[0], 0, rows[1]], [rows[1], 0, rows[2]]])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["one", "two"]


def test_parts_of_an_entity_are_joined_in_their_order(tmp_path: Path) -> None:
    def join(first: Entity, second: Entity) -> Entity:
        return Entity(first.id, first.label + second.label)

    # More than a block lies between the parts.
    others = [Entity(f"Q{i}") for i in range(70_000)]
    parts = [Entity("Q7x", "a"), Entity("Q0", "!"), *others, Entity("Q7x", "b"), Entity("Q7x", "c")]
    bundle = write_bundle(tmp_path / "kb", CARD, parts, join=join)
    assert len(bundle) == 70_001
    assert [bundle.labels[row] for row in bundle.rows(["Q7x", "Q0", "Q5"])] == ["abc", "!", ""]


def test_the_card_may_tell_of_what_was_read(tmp_path: Path) -> None:
    seen: list[str] = []

    def entities() -> Iterator[Entity]:
        for name in "ab":
            seen.append(name)
            yield Entity(name)

    bundle = write_bundle(tmp_path / "kb", lambda: {**CARD, "seen": len(seen)}, entities())
    assert bundle.card["seen"] == 2
    with pytest.raises(ValueError, match="card lacks licence"):
        write_bundle(tmp_path / "kb", {k: v for k, v in CARD.items() if k != "licence"}, [])
    assert len(Bundle(tmp_path / "kb")) == 2


@pytest.mark.parametrize(
    ("entities", "triples", "problem"),
    [
        ([Entity("a"), Entity("a")], [], "'a' occurs twice"),
        ([Entity("a"), Entity("")], [], "'' is empty"),
        ([Entity("a\0")], [], "ends in NUL"),
        ([Entity("a")], [("a", "r", "b")], "unknown entity 'b'"),
    ],
)
def test_inconsistent_bundles_are_refused(
    tmp_path: Path, entities: list[Entity], triples: list[tuple[str, str, str]], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        write_bundle(tmp_path / "bad", CARD, entities, triples)
    assert not (tmp_path / "bad").exists()


def test_empty_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "empty", CARD, [])
    assert len(bundle) == 0
    assert bundle.rows(["Q1", None, ""]).tolist() == [-1, -1, -1]
    assert len(bundle.sentences) == 0
    write_vectors(bundle.folder, np.zeros((0, 4), dtype=np.float32), {}).verify()


HOSTILE = ["", " ", "Q10", "Q1" * 500, "ÄÖ", "Ä", "日本", "e\u0301", "é", "Q\0" + "1", "\U0001f600"]


def test_hostile_ids_are_told_apart(tmp_path: Path) -> None:
    known = ["Q1", "Q100", "Ä", "日本", "é", "Q\0001"]
    bundle = write_bundle(tmp_path / "hostile", CARD, [Entity(name) for name in known])
    rows = bundle.rows([*known, *HOSTILE, None])
    for name, row in zip([*known, *HOSTILE, None], rows.tolist(), strict=True):
        if name in known:
            assert bundle.entity(row).id == name
        else:
            assert row == -1, name


def test_an_id_is_not_found_by_its_name_and_a_nul(world: Bundle) -> None:
    assert world.rows(["T3\0"]).tolist() == [-1]


def test_half_a_surrogate_pair_is_unknown(world: Bundle) -> None:
    assert world.rows(["\ud83d"]).tolist() == [-1]


@given(
    known=st.sets(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
                          min_size=1, max_size=6), min_size=1, max_size=20),
    asked=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
                           max_size=8), max_size=20),
)  # fmt: skip
def test_bisection_finds_exactly_the_known(
    tmp_path_factory: pytest.TempPathFactory, known: set[str], asked: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("bisect") / "kb"
    bundle = write_bundle(folder, CARD, [Entity(name) for name in known])
    rows = bundle.rows([*known, *asked])
    for name, row in zip([*known, *asked], rows.tolist(), strict=True):
        assert (bundle.entity(row).id if row >= 0 else None) == (name if name in known else None)


def test_vectors_round_trip(world: Bundle) -> None:
    with pytest.raises(Unsupported, match="knowledge train"):
        world.vectors(world.rows(["T3"]))
    before = world.digest
    bundle = filled(world)
    assert bundle.digest != before
    assert bundle.dimension == 6
    assert bundle.card["vectors"]["entities"] == 44
    rows = bundle.rows(["T3", "I0", "nobody"])
    assert bundle.has_vector(rows).tolist() == [True, False, False]
    expected = np.random.default_rng(5).normal(size=(45, 6)).astype(np.float32)
    np.testing.assert_array_equal(bundle.vectors(rows[:1]), expected[rows[:1]])
    bundle.verify()


def test_vectors_are_permuted_and_unusable_rows_blanked(world: Bundle) -> None:
    source = np.arange(60, dtype=np.float64).reshape(20, 3)
    source[7, 1], source[8, 2], source[9, 0] = np.nan, np.inf, 1e300
    order = np.full(len(world), -1, dtype=np.int64)
    order[:20] = np.arange(20)[::-1]
    bundle = write_vectors(world.folder, source, {}, order)  # type: ignore[arg-type]
    everyone = np.arange(len(world))
    covered = bundle.has_vector(everyone)
    assert np.flatnonzero(~covered[:20]).tolist() == [10, 11, 12]
    assert not covered[20:].any()
    np.testing.assert_array_equal(bundle.vectors(everyone[:3]), source[[19, 18, 17]])
    assert np.isnan(bundle.vectors(everyone[10:13])).all()


def test_a_mapped_matrix_is_read_and_left_as_it_was(world: Bundle, tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(size=(3000, 5)).astype(np.float32)
    np.save(tmp_path / "m.npy", values)
    order = np.arange(len(world), dtype=np.int64) * 7
    for mode in ("r", "c"):
        mapped = np.load(tmp_path / "m.npy", mmap_mode=mode)  # type: ignore[call-overload]
        if mode == "c":
            mapped[7] = 9
        bundle = write_vectors(world.folder, mapped, {}, order)
        expected = values[order]
        expected[1] = mapped[7]
        np.testing.assert_array_equal(bundle.vectors(np.arange(len(world))), expected)
    assert (mapped[7] == 9).all()  # a private change is not given back with the pages


def test_vectors_of_another_bundle_are_refused(world: Bundle) -> None:
    with pytest.raises(ValueError, match="45 entities"):
        write_vectors(world.folder, np.zeros((3, 2), dtype=np.float32), {})
    world.verify()


def test_damage_is_found(world: Bundle) -> None:
    bundle = filled(world)
    path = bundle.folder / "vectors.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"vectors\.npy"):
        Bundle(bundle.folder).vectors(np.arange(2))
    with pytest.raises(DataError, match="build the bundle again"):
        Bundle(bundle.folder).verify()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="does not have the content"):
        Bundle(bundle.folder).verify()
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        Bundle(bundle.folder).verify()


def test_truncated_tables_are_found(world: Bundle) -> None:
    path = world.folder / "entities.arrow"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"entities\.arrow"):
        Bundle(world.folder).entity(0)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_compressed_column_is_refused_before_it_is_unpacked(
    world: Bundle, compression: str
) -> None:
    """A long text of one letter takes no room on the disk."""
    path = world.folder / "entities.arrow"
    batch = entity_batch([Entity("a", "b", description="x" * (1 << 24))])
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema, options=options) as writer,
    ):
        writer.write_batch(batch)
    assert path.stat().st_size < 1 << 20
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="a batch of it is compressed"):
        open_columns(path, entity_batch)
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda card: card["files"].update({"ids.npy": "0" * 64}), "digest"),
        (lambda card: card["files"].update({"../evil": "0" * 64}), "digest"),
        (lambda card: card.pop("counts"), "counts"),
        (lambda card: card.update(schema=99), "schema 99"),
        (lambda card: card.pop("name"), "name"),
    ],
)
def test_edited_cards_are_found(world: Bundle, edit: object, problem: str) -> None:
    path = world.folder / "card.json"
    card = json.loads(path.read_text())
    edit(card)  # type: ignore[operator]
    path.write_text(json.dumps(card))
    with pytest.raises(DataError, match=problem):
        Bundle(world.folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"{"])
def test_cards_that_are_none(world: Bundle, content: bytes) -> None:
    (world.folder / "card.json").write_bytes(content)
    with pytest.raises(DataError):
        Bundle(world.folder)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="knowledge import"):
        Bundle(tmp_path)


def test_splits_are_kept_and_what_is_in_train_is_never_held_out(tmp_path: Path) -> None:
    entities = [Entity(name) for name in "abc"]
    triples = [("c", "r", "a"), ("a", "r", "b"), ("a", "r", "b"), ("b", "r", "c")]
    bundle = write_bundle(tmp_path / "kb", CARD, entities, triples, splits=[1, 2, 0, 2])
    assert bundle.splits is not None
    rows = {tuple(row): split for row, split in zip(bundle.triples, bundle.splits, strict=True)}
    assert rows == {(0, 0, 1): 0, (1, 0, 2): 2, (2, 0, 0): 1}
    assert bundle.card["counts"]["valid_triples"] == 1
    bundle.verify()
    again = write_vectors(bundle.folder, np.ones((3, 2), dtype=np.float32), {})
    assert again.splits is not None
    assert write_bundle(tmp_path / "bare", CARD, entities, triples).splits is None


@pytest.mark.parametrize("splits", [[0], [0, 0, 0], [0, 3], [0, -1]])
def test_splits_that_do_not_fit(tmp_path: Path, splits: list[int]) -> None:
    entities, triples = [Entity("a"), Entity("b")], [("a", "r", "b"), ("b", "r", "a")]
    with pytest.raises(ValueError, match="split"):
        write_bundle(tmp_path / "kb", CARD, entities, triples, splits=splits)


def test_splits_of_a_stranger_are_checked(tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "kb", CARD, [Entity("a")], [("a", "r", "a")], splits=[0])
    np.save(made.folder / "splits.npy", np.array([9], dtype=np.uint8))
    with pytest.raises(DataError, match="names the split 9"):
        _ = Bundle(made.folder).splits


@pytest.fixture
def stated(world: Bundle) -> Bundle:
    """A bundle with vectors, to be changed in place."""
    return filled(world)


def resigned(folder: Path) -> None:
    """States the digests of the files anew, as a forger does."""
    card = json.loads((folder / "card.json").read_text())
    card["files"] = {name: file_digest(folder / name) for name in card["files"]}
    card["digest"] = canonical_digest(card["files"])
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize("name", ["vectors.npy", "triples.npy", "entities.arrow", "relations.json"])
def test_content_that_changed_in_place_is_not_believed(stated: Bundle, name: str) -> None:
    path = stated.folder / name
    found = find_knowledge(str(stated.folder))
    assert find_knowledge(str(stated.folder)).digest == found.digest
    before, content = path.stat(), path.read_bytes()
    other = bytearray(content)
    other[-3] ^= 1
    path.write_bytes(other)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match="does not have the content its card states"):
        find_knowledge(str(stated.folder))
    path.write_bytes(content)
    assert find_knowledge(str(stated.folder)).digest == found.digest


def test_content_is_read_once_and_again_when_it_may_have_changed(
    stated: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(Bundle, "verify", lambda self: read.append(self.name))
    time.sleep(0.1)  # what was written this very moment is looked at again
    for _ in range(3):
        find_knowledge(str(stated.folder))
    assert len(read) == 1
    content = (stated.folder / "vectors.npy").read_bytes()
    (stated.folder / "vectors.npy").write_bytes(content)
    find_knowledge(str(stated.folder))
    assert len(read) == 2
    for memo in (cache_home() / "digests").glob("*"):
        memo.unlink()
    find_knowledge(str(stated.folder))
    assert len(read) == 3


def test_ids_that_do_not_rise_are_refused(stated: Bundle) -> None:
    path = stated.folder / "ids.npy"
    ids = np.load(path)
    for other in (ids[::-1], np.concatenate([ids[1:2], ids[1:]]), np.roll(ids, 1)):
        np.save(path, other)
        resigned(stated.folder)
        with pytest.raises(DataError, match=r"ids\.npy: is not entities\.arrow"):
            find_knowledge(str(stated.folder))


def test_entities_that_do_not_rise_are_refused(tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "kb", CARD, [Entity(name) for name in "abc"])
    write_columns(tmp_path / "kb" / "entities.arrow", map(Entity, "bac"), entity_batch)
    np.save(made.folder / "ids.npy", np.array([b"b", b"a", b"c"]))
    resigned(made.folder)
    with pytest.raises(DataError, match="does not rise from row 0 on"):
        find_knowledge(str(made.folder))


@pytest.mark.parametrize(
    "edit",
    [
        lambda card: card.update(vectors=None),
        lambda card: card["vectors"].update(dimension=0),
        lambda card: card["vectors"].update(dimension=3),
        lambda card: card["counts"].update(entities=2),
        lambda card: card["counts"].update(triples=2),
        lambda card: card["files"].pop("vectors.npy"),
        lambda card: card["files"].pop("ids.npy"),
    ],
)
def test_a_card_says_nothing_beside_its_files(stated: Bundle, edit: Any) -> None:
    path = stated.folder / "card.json"
    card = json.loads(path.read_text())
    edit(card)
    card["digest"] = canonical_digest(card["files"])
    path.write_text(json.dumps(card))
    with pytest.raises(DataError):
        find_knowledge(str(stated.folder))
