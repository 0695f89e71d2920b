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
    found = standings(*planted([[0.5, 0.4, 0.6], [0.8, 0.7, 0.85], [0.5, 0.4, 0.6]]))
    assert [row.rank for row in found] == [2, 1, 2]
    assert found[1].behind == found[1].critical == 0
    assert found[0].behind == found[2].behind > found[0].critical > 0
    assert found[0].low < found[0].average < found[0].high


def test_what_is_better_on_one_task_alone_is_not_told_apart() -> None:
    """Nothing says that it would be so on another task; of these tasks it can be said."""
    scores, drawn = planted([[0.9, 0.5, 0.5], [0.5, 0.5, 0.5]])
    assert [row.rank for row in standings(scores, drawn)] == [1, 1]
    assert [row.rank for row in standings(scores, drawn, others=False)] == [1, 2]


def test_one_task_says_nothing_of_others() -> None:
    given = planted([[0.5], [0.6], [0.58]])
    assert standings(*given) == standings(*given, others=False)
    assert [row.rank for row in standings(*given)][:2] == [3, 1]


def test_the_variance_is_that_of_drawn_tasks() -> None:
    """Of ``T`` tasks ``T - 1`` are drawn, with replacement."""
    from scipy.special import stdtrit

    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 6))
    weights = rng.multinomial(5, np.full(6, 1 / 6), size=100_000) / 5
    means = scores @ weights.T
    found = standings(scores, np.repeat(scores[..., None], 2, axis=2))
    for at, row in enumerate(found):
        assert (row.high - row.low) / 2 / stdtrit(5, 0.975) == pytest.approx(
            means[at].std(), rel=0.02
        )
    first = max(found, key=lambda row: row.average)
    at = found.index(first)
    for row, other in zip(found, means, strict=True):
        wanted = stdtrit(5, 0.975) * (means[at] - other).std()
        assert row.critical == pytest.approx(wanted, rel=0.02, abs=1e-6)


@pytest.mark.parametrize(
    ("tasks", "spread", "luck", "least", "most"),
    [
        (1, 0.0, 0.0, 0.93, 0.97),
        (3, 0.05, 0.0, 0.97, 1),
        (3, 0.0, 0.02, 0.96, 1),
        (6, 0.05, 0.02, 0.94, 1),
        (10, 0.05, 0.0, 0.94, 1),
        # Three seeds whose luck is the same on every task, and little else: hardly too short.
        (10, 0.0, 0.03, 0.91, 0.97),
    ],
)
def test_nineteen_of_twenty_intervals_cover_the_truth(
    tasks: int, spread: float, luck: float, least: float, most: float
) -> None:
    """Two rows that are as good on average over all tasks there are; three seeds of each.

    Each task is somebody's by ``spread``, each seed by ``luck`` on all tasks.
    """
    rng = np.random.default_rng(4)
    weights = rng.multinomial(2, np.full(3, 1 / 3), size=200) / 2  # as kbench draws seeds
    covered, alike, noise = 0, 0, 0.02
    for _ in range(600):
        task, seed = rng.normal(0, spread, (2, tasks, 1)), rng.normal(0, luck, (2, 1, 3))
        seen = 0.3 + task + seed + rng.normal(0, noise, (2, tasks, 1))
        drawn = np.broadcast_to(seen, (2, tasks, 3)) @ weights.T
        drawn = drawn + rng.normal(0, noise, (2, tasks, 200))
        found = standings(seen.mean(axis=2), drawn)
        covered += found[0].low <= 0.3 <= found[0].high
        alike += all(row.rank == 1 for row in found)
    assert least <= covered / 600 <= most
    assert least - 0.02 <= alike / 600 <= 1


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="not of the same"):
        standings(np.zeros((2, 3)), np.zeros((2, 2, 10)))
    assert standings(np.zeros((0, 3)), np.zeros((0, 3, 10))) == []
