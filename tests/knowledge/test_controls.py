from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from kbench.errors import Unsupported
from kbench.knowledge import Bundle, Entity, KnowledgeBase, write_bundle, write_vectors
from kbench.knowledge.controls import Random, Shuffled, Zero, controlled
from kbench.spec import Control


@pytest.fixture
def covered(world: Bundle) -> Bundle:
    vectors = np.random.default_rng(3).normal(size=(len(world), 8)).astype(np.float32)
    vectors *= np.linspace(0.5, 4, len(world), dtype=np.float32)[:, None]
    vectors[world.rows(["I0", "T7", "T8"])] = np.nan
    return write_vectors(world.folder, vectors, {})


def everyone(base: KnowledgeBase) -> np.ndarray:
    return np.arange(len(base), dtype=np.int64)


def test_shuffled_is_a_permutation_without_fixed_points(covered: Bundle) -> None:
    rows = everyone(covered)
    known = rows[covered.has_vector(rows)]
    true, broken = covered.vectors(known), Shuffled(covered, 0).vectors(known)
    assert not (true == broken).all(axis=1).any()
    assert sorted(map(tuple, true.tolist())) == sorted(map(tuple, broken.tolist()))


def test_shuffled_keeps_coverage_names_and_corpus(covered: Bundle) -> None:
    view, rows = Shuffled(covered, 1), everyone(covered)
    np.testing.assert_array_equal(view.has_vector(rows), covered.has_vector(rows))
    assert np.isfinite(view.vectors(rows[view.has_vector(rows)])).all()
    assert list(view.labels) == list(covered.labels)
    assert list(view.sentences) == list(covered.sentences)
    assert view.entity(3).label == covered.entity(3).label
    assert view.rows(["T3"]).tolist() == covered.rows(["T3"]).tolist()


@pytest.mark.parametrize("control", [Control.SHUFFLED, Control.SAME_TYPE, Control.FOREIGN])
def test_facts_of_another_say_the_vectors_of_their_own_values(
    covered: Bundle, control: Control
) -> None:
    view = controlled(covered, control, 0)
    every = np.arange(len(covered), dtype=np.int64)
    there = covered.has_vector(every)
    assert not np.array_equal(view.vectors(every[there]), covered.vectors(every[there]))
    for seen in (view, view.over(every[there], covered.vectors(every[there]))):
        said = seen.value_vectors(every)
        np.testing.assert_array_equal(said[there], covered.vectors(every[there]))
        assert not said[~there].any()


def test_shuffled_facts_follow_the_vectors(covered: Bundle) -> None:
    view, rows = Shuffled(covered, 2), everyone(covered)
    known = rows[covered.has_vector(rows)]
    owner = {v.tobytes(): i for i, v in zip(known, covered.vectors(known), strict=True)}
    for row in known.tolist():
        other = owner[view.vectors(rows[row : row + 1])[0].tobytes()]
        assert sorted(view.facts(row)) == sorted(covered.facts(other))
        assert view.entity(row).description == covered.entity(other).description
    assert len(view.triples) == len(covered.triples)


def partly_told(folder: Path, told: list[str], vectors: list[str]) -> Bundle:
    """Ten entities of which some have a description, some a fact, and some a vector."""
    entities = [
        Entity(f"E{i}", f"name {i}", description=f"text {i}" * (f"E{i}" in told)) for i in range(10)
    ]
    card = {"name": "told", "version": "1", "licence": "none", "source": "test"}
    bundle = write_bundle(folder, card, entities, [("E8", "r", "E0"), ("E9", "r", "E1")])
    table = np.full((10, 4), np.nan, dtype=np.float32)
    rows = bundle.rows(vectors)
    table[rows] = np.arange(1, 1 + len(rows), dtype=np.float32)[:, None]
    return write_vectors(folder, table, {})


def with_vector(base: KnowledgeBase, rows: np.ndarray) -> np.ndarray:
    return base.has_vector(rows)


def with_text(base: KnowledgeBase, rows: np.ndarray) -> np.ndarray:
    return base.described(rows)


def with_facts(base: KnowledgeBase, rows: np.ndarray) -> np.ndarray:
    return np.isin(rows, base.triples[:, 0])


Grounds = Callable[[KnowledgeBase, np.ndarray], np.ndarray]


@pytest.mark.parametrize("grounds", [with_vector, with_text, with_facts])
@pytest.mark.parametrize("vectors", [range(10), [0, 1, 2, 3, 5, 6, 8], [2, 4, 5], [], [9]])
@pytest.mark.parametrize("told", [[0, 1, 2], [0], [], range(10), [7, 8, 9]])
def test_shuffled_breaks_what_is_covered_and_keeps_how_much(
    tmp_path: Path, told: list[int], vectors: list[int], grounds: Grounds
) -> None:
    base = partly_told(tmp_path / "kb", [f"E{i}" for i in told], [f"E{i}" for i in vectors])
    rows = everyone(base)
    covered = grounds(base, rows)
    for seed in range(3):
        view = Shuffled(base, seed, partial(grounds, base))
        if covered.sum() == 1:
            with pytest.raises(Unsupported, match="one entity alone is covered") as refused:
                view.vectors(rows[:1])
            assert "\n" not in str(refused.value)
            continue
        assert sorted(view.other.tolist()) == rows.tolist()
        assert (view.other != rows)[covered].all()
        np.testing.assert_array_equal(covered[view.other], covered)
        np.testing.assert_array_equal(grounds(view, rows), covered)
        assert _read(view, rows[covered]) == _read(base, rows[covered])
        known = rows[covered & view.has_vector(rows)]
        assert np.isfinite(view.vectors(known)).all()
        assert len(known) == np.count_nonzero(covered & base.has_vector(rows))
    assert not grounds(base, np.array([-1])).any()


def _read(base: KnowledgeBase, rows: np.ndarray) -> list[tuple[str, list[tuple[str, str]]]]:
    return sorted((base.entity(row).description, base.facts(row)) for row in rows.tolist())


def test_whom_no_method_covers_alike_never_exchange_knowledge(covered: Bundle) -> None:
    rows = everyone(covered)
    for covers in (lambda r: r % 2 == 0, lambda r: r < 5, lambda r: r >= 0):
        other = Shuffled(covered, 0, covers).other
        np.testing.assert_array_equal(covers(other), covers(rows))
        assert (other != rows).all()


def many(folder: Path, size: int) -> Bundle:
    """Entities with a description of 1 to 512 words, and every fifth with facts."""
    rng = np.random.default_rng(0)
    words = 2 ** rng.integers(0, 10, size)
    entities = [
        Entity(f"E{i:04}", f"n{i}", (), ("a", "b"), " ".join(["word"] * n))
        for i, n in enumerate(words.tolist())
    ]
    facts = [(f"E{i:04}", "r", f"E{(i + 1) % size:04}") for i in range(0, size, 5)]
    card = {"name": "many", "version": "1", "licence": "none", "source": "test"}
    return write_bundle(folder, card, entities, facts)


def test_shuffled_texts_are_of_like_size_and_of_many(tmp_path: Path) -> None:
    base = many(tmp_path / "kb", 1500)
    view = Shuffled(base, 0, base.described)
    rows = everyone(base)
    size = base.description_lengths
    ratio = size[view.other] / size
    assert np.median(np.maximum(ratio, 1 / ratio)) < 2
    np.testing.assert_array_equal(view.has_description(rows), base.has_description(rows))
    np.testing.assert_array_equal(
        np.isin(rows, view.triples[:, 0]), np.isin(rows, base.triples[:, 0])
    )
    # The longest are read most often: some of them read about as much as before.
    longest = np.argsort(size)[-100:]
    assert 0.8 < size[view.other][longest].sum() / size[longest].sum() <= 1
    partners = {int(Shuffled(base, seed, base.described).other[7]) for seed in range(40)}
    assert len(partners) > 25


def test_an_entity_alone_of_its_kind_gives_its_text_to_another(tmp_path: Path) -> None:
    base = partly_told(tmp_path / "kb", ["E0"], [f"E{i}" for i in range(8)])
    assert base.describe(0) == "text 0"
    texts = [Shuffled(base, 0).describe(row) for row in range(8)]
    assert texts[0] == ""
    assert sorted(texts)[-1] == "text 0"


def test_the_digest_names_the_grounds(covered: Bundle) -> None:
    rows = everyone(covered)
    even, low = (lambda r: r % 2 == 0), (lambda r: r < 9)
    digests = {
        controlled(covered, Control.SHUFFLED, 0, covers, grounds).digest
        for covers, grounds in (
            (None, None), (even, None), (low, None), (even, "even"), (low, ["low", {"k": 1}]),
        )
    }  # fmt: skip
    assert len(digests) == 5
    again = Shuffled(covered, 0, lambda r: np.isin(r, rows[::2])).digest
    assert again == Shuffled(covered, 0, even).digest
    for control in (Control.RANDOM, Control.ZERO):  # nothing in them hangs on who is covered
        assert len({controlled(covered, control, 0, c).digest for c in (None, even, low)}) == 1


def test_derived_vectors_move_as_all_else_does(covered: Bundle) -> None:
    rows = everyone(covered)
    kept = rows[::3]
    table = np.arange(1, 1 + len(kept), dtype=np.float32)[:, None]
    view = Shuffled(covered, 1, lambda r: np.isin(r, kept))
    seen = view.over(kept, table)
    assert seen.vectors(kept)[:, 0].tolist() == [
        1 + kept.tolist().index(other) for other in view.other[kept].tolist()
    ]
    assert [seen.describe(row) for row in kept.tolist()] == [
        view.describe(r) for r in kept.tolist()
    ]
    # Some of whom the method covers have none: those that have keep to themselves.
    fewer = kept[::2]
    seen = view.over(fewer, table[::2])
    np.testing.assert_array_equal(seen.has_vector(rows), np.isin(rows, fewer))
    assert sorted(seen.vectors(fewer)[:, 0].tolist()) == table[::2, 0].tolist()
    assert (seen.vectors(fewer) != table[::2]).all()


def test_random_texts_have_as_many_words_and_the_same_form(tmp_path: Path) -> None:
    card = {"name": "words", "version": "1", "licence": "none", "source": "test"}
    texts = ["The town, of 3 bridges. It's old!", "a b c", "", "红色的城市,在山上", "one two three"]
    kinds = [("x", "y"), ("z",), (), ("x",), ("w",)]
    entities = [
        Entity(f"E{i}", f"n{i}", types=types, description=text)
        for i, (text, types) in enumerate(zip(texts, kinds, strict=True))
    ]
    base = write_bundle(tmp_path / "kb", card, entities, [("E0", "r", "E1")])
    known = {
        word for text in texts for word in re.findall(r"[a-zA-Z0-9]+|[红色的城市在山上]", text)
    }
    for seed in range(3):
        view, again = Random(base, seed), Random(base, seed)
        for row in range(5):
            seen = view.entity(row)
            assert seen == again.entity(row)
            assert len(seen.types) == len(kinds[row])
            assert len({*seen.types}) == len(seen.types)
            assert bool(seen.description) == bool(texts[row])
        first = re.fullmatch(
            r"(\w+) (\w+), (\w+) (\w+) (\w+)\. (\w+)'(\w+) (\w+)!", view.describe(0)
        )
        assert first
        assert {*first.groups()} <= known
        assert re.fullmatch(r"\w+,\w+", view.describe(3))
        assert view.describe(3) != texts[3]
        assert view.describe(1) != Random(base, seed + 1).describe(1)
    np.testing.assert_array_equal(
        Random(base, 0).described(everyone(base)), base.described(everyone(base))
    )


def test_random_facts_are_told_where_the_true_ones_are(tmp_path: Path) -> None:
    card = {"name": "names", "version": "1", "licence": "none", "source": "test"}
    entities = [Entity(f"E{i:02}", f"n{i}" if i % 2 else "") for i in range(40)]
    facts = [(f"E{i:02}", "r", f"E{(3 * i + 1) % 40:02}") for i in range(40)]
    base = write_bundle(tmp_path / "kb", card, entities, facts)
    for seed in range(3):
        broken = Random(base, seed).triples
        assert (broken[:, 0] == base.triples[:, 0]).all()
        np.testing.assert_array_equal(broken[:, 2] % 2, base.triples[:, 2] % 2)
        assert (broken[:, 2] != base.triples[:, 2]).mean() > 0.8


def test_who_has_no_name_is_told_what_another_is(tmp_path: Path) -> None:
    card = {"name": "unnamed", "version": "1", "licence": "none", "source": "test"}
    named = [Entity(f"Q{i}", f"n{i}") for i in range(5)]
    base = write_bundle(
        tmp_path / "kb", card, [*named, Entity("Q5", description="a town by a river")],
        [*((f"Q{i}", "r", f"Q{(i + 1) % 5}") for i in range(5)), ("Q5", "r", "Q0")],
    )  # fmt: skip
    rows = everyone(base)
    assert base.facts(5) == []
    for seed in range(5):
        view = Shuffled(base, seed, base.described, "text")
        np.testing.assert_array_equal(view.described(rows), base.described(rows))
        assert all(map(view.describe, rows.tolist()))
        assert view.describe(5) == f"r {base.facts(int(view.other[5]))[0][1]}."
        heir = int(np.flatnonzero(view.other == 5)[0])
        assert (view.describe(heir), view.facts(heir)) == ("a town by a river", [])
        assert view.facts(-1) == []


def test_random_facts_have_as_many_words(tmp_path: Path) -> None:
    card = {"name": "lengths", "version": "1", "licence": "none", "source": "test"}
    names = [" ".join([f"w{i}"] * (1 + i % 4)) for i in range(40)] + ["柏林市", "上海市"]
    entities = [Entity(f"E{i:02}", name) for i, name in enumerate(names)]
    facts = [(f"E{i:02}", f"p{i % 5}", f"E{(7 * i + 3) % 42:02}") for i in range(42)]
    relations = {"p0": "is", "p1": "is in", "p2": "lies by", "p3": "one of all", "p4": "has"}
    base = write_bundle(tmp_path / "kb", card, entities, facts, relations)
    for seed in range(3):
        view = Random(base, seed)
        for row in everyone(base).tolist():
            [(true, of)], [(kind, tail)] = base.facts(row), view.facts(row)
            assert len(kind.split()) == len(true.split())
            # Of three signs are two names, and ten of three words.
            assert len(tail.split()) == len(of.split()) or {"柏林市", "上海市"} & {tail, of}
        moved = view.triples != base.triples
        assert (moved[:, 1].mean() > 0.2, moved[:, 2].mean() > 0.8) == (True, True)


def test_random_facts_are_as_many_and_zero_has_none(covered: Bundle) -> None:
    random, zero = Random(covered, 0), Zero(covered)
    for row in everyone(covered).tolist():
        assert len(random.facts(row)) == len(covered.facts(row))
        assert zero.facts(row) == []
        assert zero.describe(row) == ""
    assert random.triples.tolist() != covered.triples.tolist()


def test_controls_break_the_vectors_that_a_method_makes_of_its_own(covered: Bundle) -> None:
    rows = np.arange(2, len(covered), 3, dtype=np.int64)
    table = np.random.default_rng(1).normal(size=(len(rows), 5)).astype(np.float32)
    true = covered.over(rows, table)
    np.testing.assert_array_equal(true.vectors(rows), table)
    assert true.dimension == 5
    assert true.has_vector(everyone(covered)).sum() == len(rows)
    shuffled = Shuffled(covered, 3).over(rows, table).vectors(rows)
    assert sorted(map(tuple, shuffled.tolist())) == sorted(map(tuple, table.tolist()))
    assert not (shuffled == table).all(axis=1).any()
    random = Random(covered, 3).over(rows, table).vectors(rows)
    np.testing.assert_allclose(
        np.linalg.norm(random, axis=1), np.linalg.norm(table, axis=1), rtol=1e-5
    )
    assert not Zero(covered).over(rows, table).vectors(rows).any()


def test_seeds_and_digests(covered: Bundle) -> None:
    rows = everyone(covered)[:4]
    views = [Shuffled(covered, 0), Shuffled(covered, 1), Random(covered, 0),
             Random(covered, 1), Zero(covered), covered]  # fmt: skip
    assert len({view.digest for view in views}) == len(views)
    for view in (Shuffled, Random):
        np.testing.assert_array_equal(
            view(covered, 4).vectors(rows), view(covered, 4).vectors(rows)
        )
        assert not np.array_equal(view(covered, 4).vectors(rows), view(covered, 5).vectors(rows))


def test_random_has_equal_norms_and_no_direction(covered: Bundle) -> None:
    rows = everyone(covered)
    known = rows[covered.has_vector(rows)]
    true, noise = covered.vectors(known), Random(covered, 0).vectors(known)
    norms = np.linalg.norm(true, axis=1)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), norms, rtol=1e-5)
    cosine = (true * noise).sum(axis=1) / norms**2
    assert abs(cosine.mean()) < 0.2
    assert np.abs(cosine).max() < 0.99


def test_random_is_a_function_of_seed_and_row(covered: Bundle) -> None:
    rows = everyone(covered)
    known = rows[covered.has_vector(rows)]
    view = Random(covered, 9)
    whole = view.vectors(known)
    np.testing.assert_array_equal(view.vectors(known[::-1])[::-1], whole)
    np.testing.assert_array_equal(view.vectors(known[5:6]), whole[5:6])


def test_zero(covered: Bundle) -> None:
    view = Zero(covered)
    assert not view.vectors(everyone(covered)).any()
    np.testing.assert_array_equal(
        view.has_vector(everyone(covered)), covered.has_vector(everyone(covered))
    )
    assert view.entity(3).description == ""
