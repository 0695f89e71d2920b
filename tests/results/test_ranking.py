"""What methods are ranked by: knowledge must arrive, and pay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kbench.cli.columns import tables_of
from kbench.results.ranking import net_gain, net_replicates
from kbench.results.tables import Estimate, rows
from kbench.store import Results
from tests.stored import predictions, store

GOLD = ["red", "green", "blue", "white"] * 25


def test_the_net_gain_is_the_lesser_and_sure_only_where_both_are() -> None:
    gain, delta = Estimate(0.159, 0.1, 0.2), Estimate(-0.06, -0.1, -0.02)
    assert net_gain(gain, delta) == Estimate(-0.06, -0.1, -0.02)
    assert net_gain(delta, gain) == net_gain(gain, delta)
    # The lesser value may have the higher low end: then the other one decides.
    wide, narrow = Estimate(0.06, -0.01, 0.13), Estimate(0.05, 0.02, 0.08)
    assert net_gain(wide, narrow) == Estimate(0.05, -0.01, 0.08)
    assert net_gain(None, delta) is net_gain(gain, None) is None
    assert net_gain(Estimate(0.1), Estimate(0.2, 0.1, 0.3)) == Estimate(0.1)


def test_replicates_are_over_the_better_yardstick_in_each() -> None:
    own, foreign, none = np.array([0.5, 0.6]), np.array([0.3, 0.6]), np.array([0.4, 0.5])
    assert net_replicates(own, foreign, none) == pytest.approx([0.1, 0.0])


@pytest.mark.usefixtures("toy_tasks")
def test_what_wrong_knowledge_hurts_is_not_first(tmp_path: Path) -> None:
    # `hurt` gains most over its control and is worse than no knowledge; `modest` arrives and pays.
    for method, own, broken in (("hurt", 50, 20), ("modest", 60, 55), ("none", 52, None)):
        for control, right in (("none", own), ("foreign", broken)):
            if right is not None:
                guessed = [gold if n < right else "x" for n, gold in enumerate(GOLD)]
                store(tmp_path, predictions(GOLD, guessed), method=method, control=control)
    found = Results(tmp_path)
    ((_, ordered),) = tables_of(rows(list(found), found))
    names = [(row.first.spec.method, str(row.first.spec.control)) for row in ordered]
    assert names == [
        ("none", "none"),
        ("modest", "none"),
        ("modest", "foreign"),
        ("hurt", "none"),
        ("hurt", "foreign"),
    ]
    nets = {row.first.spec.method: row.net.value for row in ordered if row.net}
    assert nets == pytest.approx({"modest": 0.05, "hurt": -0.02})
