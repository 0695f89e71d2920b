"""Rows over several tasks: who is first, who cannot be told apart, and what intervals promise."""

from __future__ import annotations

import numpy as np
import pytest

from kbench.metrics import Accuracy, Array, bootstrap_replicates, standings


def planted(shares: list[list[float]], seeds: int = 2) -> tuple[Array, Array]:
    """Scores and replicates of rows ``[rows, tasks]`` with such shares right of 400 examples."""
    rng = np.random.default_rng(1)
    rows, tasks = np.shape(shares)
    scores, drawn = np.zeros((rows, tasks)), np.zeros((rows, tasks, 2000))
    for task in range(tasks):
        luck = rng.random((seeds, 400))
        tables = [
            np.stack([(luck < row[task]).astype(float), np.ones((seeds, 400))], axis=2)
            for row in shares
        ]
        told = bootstrap_replicates([(Accuracy(), table) for table in tables])
        for at, table in enumerate(tables):
            scores[at, task] = table[..., 0].mean()
            drawn[at, task] = told[at]
    return scores, drawn


def test_a_better_row_is_first_and_equal_ones_share_a_rank() -> None:
    shares = [[0.5, 0.4, 0.6], [0.8, 0.7, 0.85], [0.5, 0.4, 0.6], [0.2, 0.2, 0.3], [0.1, 0.1, 0.2]]
    found = standings(*planted(shares))
    assert [row.rank for row in found] == [2, 1, 2, 4, 4]  # by one rank, on three tasks, nothing is
    assert [row.mean_rank for row in found] == [2.5, 1, 2.5, 4, 5]
    assert found[1].behind == found[1].critical == 0
    assert found[0].behind == found[2].behind == 1.5 > found[0].critical > 0
    assert found[0].low < 2.5 < found[0].high


def test_a_size_of_gain_weighs_no_more_than_another() -> None:
    shares = [[0.9, 0.42, 0.43], [0.5, 0.48, 0.49], [0.45, 0.45, 0.46], [0.3, 0.2, 0.2]]
    scores, drawn = planted(shares)
    assert scores[0].mean() > scores[1].mean()
    assert [row.mean_rank for row in standings(scores, drawn)] == pytest.approx(
        [7 / 3, 4 / 3, 7 / 3, 4]
    )


def test_what_is_better_on_one_task_alone_is_not_told_apart() -> None:
    scores, drawn = planted([[0.9, 0.5, 0.5], [0.5, 0.5, 0.5], [0.4, 0.52, 0.48]])
    assert [row.rank for row in standings(scores, drawn)] == [1, 1, 1]
    # Of the average on these tasks it can be said.
    alone = standings(scores.mean(axis=1)[:, None], drawn.mean(axis=1)[:, None])
    assert [row.rank for row in alone] == [1, 2, 3]


def test_one_task_tells_rows_apart_by_their_figures() -> None:
    found = standings(*planted([[0.5], [0.6], [0.59], [0.6]]))
    assert [row.rank for row in found] == [4, 1, 1, 1]
    assert [row.mean_rank for row in found] == [4, 1.5, 3, 1.5]
    assert all(row.critical is None and row.low <= row.mean_rank <= row.high for row in found)


def test_the_variance_is_that_of_drawn_tasks() -> None:
    """Of ``T`` tasks ``T - 1`` are drawn, with replacement; ranks are whole numbers."""
    from scipy.special import stdtrit

    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 6))
    ranks = 5 - scores.argsort(axis=0).argsort(axis=0)
    means = ranks @ (rng.multinomial(5, np.full(6, 1 / 6), size=100_000) / 5).T
    found = standings(scores, np.repeat(scores[..., None], 2, axis=2))
    first = min(range(5), key=lambda at: found[at].mean_rank)
    for at, row in enumerate(found):
        assert row.mean_rank == ranks[at].mean()
        if at != first:
            error = np.sqrt((means[first] - means[at]).var() + 2 / 12 / 6)
            assert row.critical == pytest.approx(stdtrit(5, 0.975) * error, rel=0.02)


@pytest.mark.parametrize(
    ("rows", "tasks", "spread", "luck", "least"),
    [
        (2, 3, 0.05, 0.0, 0.95),
        (10, 3, 0.5, 0.0, 0.91),
        (10, 5, 0.05, 0.02, 0.95),
        (10, 10, 0.05, 0.0, 0.95),
        # Two rows, three seeds whose luck is the same on every task, and little else.
        (2, 10, 0.0, 0.03, 0.83),
    ],
)
def test_intervals_cover_the_truth(
    rows: int, tasks: int, spread: float, luck: float, least: float
) -> None:
    """Rows that are as good over all tasks there are, three seeds of each.

    Each task is somebody's by ``spread``, each seed by ``luck`` on all tasks. The truth is the rank
    in the middle, for any other row is as good.
    """
    rng = np.random.default_rng(4)
    weights = rng.multinomial(2, np.full(3, 1 / 3), size=100) / 2  # as kbench draws seeds
    covered, noise, truth = 0.0, 0.02, (rows + 1) / 2
    for _ in range(300):
        task, seed = rng.normal(0, spread, (rows, tasks, 1)), rng.normal(0, luck, (rows, 1, 3))
        seen = 0.3 + task + seed + rng.normal(0, noise, (rows, tasks, 1))
        drawn = np.broadcast_to(seen, (rows, tasks, 3)) @ weights.T
        drawn = drawn + rng.normal(0, noise, (rows, tasks, 100))
        found = standings(seen.mean(axis=2), drawn)
        covered += sum(row.low <= truth <= row.high for row in found) / rows
    assert least <= covered / 300 <= 1


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="not of the same"):
        standings(np.zeros((2, 3)), np.zeros((2, 2, 10)))
    assert standings(np.zeros((0, 3)), np.zeros((0, 3, 10))) == []
