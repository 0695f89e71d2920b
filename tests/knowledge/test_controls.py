from __future__ import annotations

import numpy as np
import pytest

from kbench.bundle import Bundle, write_vectors
from kbench.controls import RandomVectors, Shuffled, ZeroVectors
from kbench.knowledge import KnowledgeBase


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
    view = Shuffled(covered, 2)
    owner = {v.tobytes(): i for i, v in enumerate(covered.vectors(everyone(covered)))}
    other = [owner[v.tobytes()] for v in view.vectors(everyone(covered))]
    known = covered.has_vector(everyone(covered))
    back = {tuple(t) for t in covered.triples.tolist() if known[t[0]] and known[t[2]]}
    moved = {(other[h], r, other[t]) for h, r, t in view.triples.tolist() if known[h] and known[t]}
    assert moved == back


def test_seeds_and_digests(covered: Bundle) -> None:
    rows = everyone(covered)[:4]
    views = [Shuffled(covered, 0), Shuffled(covered, 1), RandomVectors(covered, 0),
             RandomVectors(covered, 1), ZeroVectors(covered), covered]  # fmt: skip
    assert len({view.digest for view in views}) == len(views)
    for view in (Shuffled, RandomVectors):
        np.testing.assert_array_equal(
            view(covered, 4).vectors(rows), view(covered, 4).vectors(rows)
        )
        assert not np.array_equal(view(covered, 4).vectors(rows), view(covered, 5).vectors(rows))


def test_random_has_equal_norms_and_no_direction(covered: Bundle) -> None:
    rows = everyone(covered)
    known = rows[covered.has_vector(rows)]
    true, noise = covered.vectors(known), RandomVectors(covered, 0).vectors(known)
    norms = np.linalg.norm(true, axis=1)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), norms, rtol=1e-5)
    cosine = (true * noise).sum(axis=1) / norms**2
    assert abs(cosine.mean()) < 0.2
    assert np.abs(cosine).max() < 0.99


def test_random_is_a_function_of_seed_and_row(covered: Bundle) -> None:
    rows = everyone(covered)
    known = rows[covered.has_vector(rows)]
    view = RandomVectors(covered, 9)
    whole = view.vectors(known)
    np.testing.assert_array_equal(view.vectors(known[::-1])[::-1], whole)
    np.testing.assert_array_equal(view.vectors(known[5:6]), whole[5:6])


def test_zero(covered: Bundle) -> None:
    view = ZeroVectors(covered)
    assert not view.vectors(everyone(covered)).any()
    np.testing.assert_array_equal(
        view.has_vector(everyone(covered)), covered.has_vector(everyone(covered))
    )
    assert view.entity(3).description == ""
