from __future__ import annotations

import numpy as np
import pytest

from kbench.bundle import Bundle
from kbench.controls import Random, Shuffled, Zero
from kbench.knowledge import KnowledgeBase
from kbench.writing import write_vectors


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
