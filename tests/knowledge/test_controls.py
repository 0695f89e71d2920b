from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kbench.knowledge import Bundle, Entity, KnowledgeBase, write_bundle, write_vectors
from kbench.knowledge.controls import Random, Shuffled, Zero


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


@pytest.mark.parametrize("vectors", [range(10), [0, 1, 2, 3, 5, 6, 8], [2, 4, 5], [], [9]])
@pytest.mark.parametrize("told", [[0, 1, 2], [0], [], range(10), [7, 8, 9]])
def test_shuffled_breaks_what_there_is_and_adds_nothing(
    tmp_path: Path, told: list[int], vectors: list[int]
) -> None:
    base = partly_told(tmp_path / "kb", [f"E{i}" for i in told], [f"E{i}" for i in vectors])
    rows = everyone(base)
    texts = np.array([bool(base.describe(row)) for row in rows.tolist()])
    np.testing.assert_array_equal(base.described(rows), texts)
    kinds = base.has_vector(rows) * 2 + texts
    for seed in range(3):
        view = Shuffled(base, seed)
        known = rows[base.has_vector(rows)]
        assert np.isfinite(view.vectors(known)).all()
        if len(known) > 1:
            assert (view.vectors(known) != base.vectors(known)).any(axis=1).all()
        for row in rows.tolist():
            alike, opposite = (np.count_nonzero(kinds == kinds[row] ^ other) for other in (0, 1))
            if texts[row] and alike + opposite > 1:
                assert view.describe(row) != base.describe(row)
            elif 1 not in (alike, opposite):
                assert view.describe(row) == ""
    assert not base.described(np.array([-1])).any()


def test_an_entity_alone_of_its_kind_gets_a_text_away(tmp_path: Path) -> None:
    base = partly_told(tmp_path / "kb", ["E0"], [f"E{i}" for i in range(8)])
    assert base.describe(0) == "text 0"
    assert Shuffled(base, 0).describe(0) == ""


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
