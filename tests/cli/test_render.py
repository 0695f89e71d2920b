"""The table in a terminal: whatever the width, no figure is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kbench.cli.render import print_table
from kbench.result import Result, Score, Status
from kbench.spec import Control, RunSpec, Setting
from kbench.tables import Estimate, Row

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
