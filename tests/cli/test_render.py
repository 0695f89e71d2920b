"""The table in a terminal: whatever the width, no figure is cut."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from kbench.cli.columns import headings
from kbench.cli.render import print_table
from kbench.errors import UsageError
from kbench.results.tables import Estimate, Locality, Row
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Result, Score, Status

BETWEEN = Estimate(0.512, 0.4812, 0.5456)


def row(method: str) -> Row:
    spec = RunSpec(
        task="atlas-qa",
        backbone="kbench-tiny",
        tuning="full",
        method=method,
        setting=Setting.TASK_SPECIFIC,
        knowledge="atlas",
        control=Control.SHUFFLED,
        seed=0,
    )
    result = Result(
        id="0" * 32,
        status=Status.OK,
        spec=spec,
        main_metric="accuracy",
        metrics={"accuracy": Score(value=0.5, low=0.4, high=0.6, n=9, variant="accuracy")},
        cost={"trainable_parameters": 46070784, "train_seconds": 1234},
    )
    return Row((result,), Estimate(0.5, 0.4, 0.6), BETWEEN, BETWEEN)


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("method", ["none", "adapter-no-knowledge", "a-method-of-a-very-long-name"])
def test_names_give_way_before_figures_do(method: str, width: int) -> None:
    screen = io.StringIO()
    print_table([row(method)], Console(file=screen, width=width))
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for figure in ("46,070,784", "1234 s", "50.0", "51.2", "54.6]"):
        assert figure in text
    head = text.splitlines()[1]
    column = head.index("setting")
    name = "".join(line[:column].strip() for line in text.splitlines()[2:6] if line)
    assert method in name


@pytest.mark.parametrize("width", [60, 125, 180])
def test_bars_are_drawn_to_one_scale_where_there_is_room(width: int) -> None:
    screen = io.StringIO()
    found = row("map-tuning")
    none = replace(found, score=Estimate(0.2, 0.2, 0.3))
    lost = replace(found, score=Estimate(0.3, deviation=0.1))
    print_table([found, none, lost], Console(file=screen, width=width))
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= width
    if width > 100:
        lines = [line for line in text.splitlines() if "●" in line]
        start = lines[1].index("●")
        # From 0.2 to 0.6 in 20 signs: 0.4 is the tenth step, 0.5 the fourteenth, 0.3 the fifth.
        assert lines[0][start : start + 20] == "          ├───●────┤"
        assert lines[1][start : start + 20].rstrip() == "●────┤"
        assert "30.0 ± 10.0" in text
    assert ("├" in text) == (width > 100)


def test_columns_appear_as_far_as_there_is_room_or_as_asked_for() -> None:
    cost = {"evaluate_seconds_per_example": 0.00144, "knowledge_bytes": 12_345_678}
    cost |= {"peak_memory_bytes": 1.5e9}
    found = row("map-tuning")
    result = found.first.model_copy(update={"cost": cost})
    found = replace(found, results=(result,), locality=Locality(0.075, 40), seconds_without=0.0012)
    seen = {}
    for width in (80, 220):
        screen = io.StringIO()
        print_table([found], Console(file=screen, width=width))
        seen[width] = screen.getvalue()
    for figure in ("7.5% of 40", "1.44 (1.20)", "12.3 MB", "1.5 GB"):
        assert figure in seen[220]
        assert figure not in seen[80]
    screen = io.StringIO()
    print_table([found], Console(file=screen, width=80), columns=headings("score,knowledge-bytes"))
    assert "12.3 MB" in screen.getvalue()
    assert "knowledge gain" not in screen.getvalue().splitlines()[1]
    with pytest.raises(UsageError, match="did you mean score"):
        headings("scroe")


def test_the_best_is_bold() -> None:
    console = Console(record=True, width=160, file=io.StringIO(), force_terminal=True)
    print_table([row("map-tuning")], console, frozenset({"0" * 32}))
    assert "\x1b[1m50.0 [40.0, 60.0]" in console.export_text(styles=True)
