"""`kbench compare`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbench.cli import options as shared
from kbench.cli.messages import say, say_json
from kbench.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from kbench.cli.layout import Column
    from kbench.cli.terminal import Console
    from kbench.results.comparison import Comparison
    from kbench.results.identity import Names
    from kbench.store import Result

__all__ = ["compare"]

_FILTERS = ("task", "backbone", "tuning", "setting", "knowledge")
_LEGEND = (
    "In per cent, first minus second, paired by example and seed. Brackets: 95% bootstrap interval "
    "over test examples, and over seeds where there are several. p: McNemar's exact test (*), else "
    "a permutation test of these seeds. Holm: p corrected for the comparisons of the family; bold "
    "below 0.05. Shows from: the smallest true difference that these test examples show with 80% "
    "power."
)


_FIELDS: Mapping[str, Callable[[Comparison], float]] = {
    "difference": lambda one: 100 * one.contrast.difference.value,
    "low": lambda one: 100 * one.contrast.difference.low,
    "high": lambda one: 100 * one.contrast.difference.high,
    "p": lambda one: one.contrast.p,
    "holm": lambda one: one.adjusted,
}
_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Condition:
    """What a comparison is asked.

    Attributes:
        text: as it was given.
        field: a figure of a comparison, as in :data:`_FIELDS`.
        sign: how it is compared.
        bound: with what.
    """

    text: str
    field: str
    sign: str
    bound: float

    def value(self, one: Comparison) -> float:
        """Returns the figure of a comparison."""
        return _FIELDS[self.field](one)

    def holds(self, one: Comparison) -> bool:
        """Whether it is so."""
        return bool(_SIGNS[self.sign](self.value(one), self.bound))


class _Condition(click.ParamType):  # type: ignore[type-arg]
    name = "condition"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Condition:
        if isinstance(value, Condition):
            return value
        text = str(value)
        found = re.fullmatch(r"\s*(\w+)\s*(<=|>=|<|>)\s*([+-]?\d+(?:\.\d+)?)\s*", text)
        if not found or found[1] not in _FIELDS:
            known = ", ".join(_FIELDS)
            self.fail(f"{text!r}: expected one of {known}, <, <=, > or >=, and a number, such as "
                      "low<0", param, ctx)  # fmt: skip
        return Condition(text.strip(), found[1], found[2], float(found[3]))


@shared.filters(_FILTERS)
@click.command("compare")
@click.argument("runs", nargs=-1, metavar="[A] [B]")
@click.option("--all", "every", is_flag=True, help="A is every run with the true knowledge.")
@click.option("--metric", help="Another metric than the main one, such as macro_f1.")
@click.option(
    "--family",
    default="all",
    show_default=True,
    help="What Holm's correction is over: all comparisons shown, or those that share a field, "
    "such as task.",
)
@click.option("--force", is_flag=True, help="Compare what is not comparable, with a warning.")
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    type=_Condition(),
    metavar="CONDITION",
    help="End with status 1 if it holds of any: difference, low or high (in per cent), p or holm, "
    "then < <= > or >=, then a number, such as 'low<0' or 'holm>0.05'; repeatable.",
)
@shared.out
@click.option("--json", "as_json", is_flag=True, help="Print comparisons as JSON Lines.")
def compare(
    runs: tuple[str, ...],
    every: bool,
    metric: str | None,
    family: str,
    force: bool,
    conditions: tuple[Condition, ...],
    out: Path,
    as_json: bool,
    **filters: str | None,
) -> int:
    """Compare run A with run B, paired by test example and seed.

    A and B are each a method, terms such as map-tuning,setting=general,control=foreign, or the
    beginning of a result's id. A term names a field (data=rivers, linker=alias, dtype=bfloat16)
    or an option, by its path as of --set or the end of it (tuning.full.epochs=2, epochs=default).
    What B does not name is as in A, so `kbench compare map-tuning none` compares on every task,
    backbone and tuning. The control is the true knowledge unless named. Without B a run is
    compared with its own `none` and its own controls foreign and same-type: the first is its Δ, the
    second its knowledge gain, the third what of that is individual. What of it is of the kind, the
    two controls say against each other. Of runs that differ in options alone the one that is best
    on dev is meant, unless an option or an id says which.
    """
    from kbench.results.pairing import compared
    from kbench.store import Results

    def wanted(result: Result, names: Names) -> bool:
        return shared.chosen(result, filters, _FILTERS, names)

    store = Results(shared.opened(out))
    comparisons, said = compared(
        store, runs, every=every, fits=wanted, metric=metric, family=family, force=force
    )
    for line in said:
        say(f"warning: {line}", err=True)
    if not comparisons:
        raise UsageError("no comparison is left: loosen --" + " or --".join(_FILTERS))
    if as_json:
        for value in comparisons:
            say_json(value.as_json())
    else:
        from kbench.cli.terminal import Console

        _print(comparisons, Console())
    return _failing(comparisons, conditions)


def _failing(comparisons: Sequence[Comparison], conditions: Sequence[Condition]) -> int:
    """Says of which comparisons a condition holds; returns the exit status."""
    failed = [(one, each) for one in comparisons for each in conditions if each.holds(one)]
    for one, each in failed:
        value = f"{each.value(one):.4g}"
        say(
            f"--fail-if {each.text}: {one.name('task')}: {one.titles[0]} against {one.titles[1]}: "
            f"{each.field} is {value}",
            err=True,
        )
    return 1 if failed else 0


def _print(comparisons: Sequence[Comparison], console: Console) -> None:
    from itertools import groupby

    from kbench.cli.layout import prose, show

    for heading, several in groupby(sorted(comparisons, key=_order), key=_heading):
        show(console, _table([_columns(comparison) for comparison in several]), heading)
        console.print()
    warnings = {w: None for comparison in comparisons for w in comparison.warnings}
    for warning in warnings:
        those = sum(warning in comparison.warnings for comparison in comparisons)
        prose(console, f"warning: {warning} ({those} of {len(comparisons)})", "red")
    prose(console, _LEGEND, "dim")


def _table(rows: Sequence[Sequence[str | Text]]) -> list[Column]:
    from kbench.cli.layout import Column

    runs, *figures = zip(*rows, strict=True)
    names = {"score": 3, "difference": 0, "p": 2, "Holm": 1, "shows\nfrom": 4}
    return [Column("runs", runs, text=True)] + [
        Column(name, cells, side="right", rank=rank)
        for (name, rank), cells in zip(names.items(), figures, strict=True)
    ]


def _heading(comparison: Comparison) -> str:
    words = [comparison.name(name) for name in ("task", "backbone", "tuning")]
    words += [*comparison.shared, comparison.metric.name]
    n = comparison.contrast.difference.n
    seeds = len(comparison.ours)
    return "  ·  ".join([*words, f"{n:,} examples", *([f"{seeds} seeds"] if seeds > 1 else [])])


def _order(comparison: Comparison) -> tuple[str, ...]:
    one, two = comparison.ours[0].spec, comparison.theirs[0].spec
    order = one.method, one.setting, two.method, two.setting, two.control
    return _heading(comparison), *order, *comparison.titles


def _columns(comparison: Comparison) -> list[str | Text]:
    from rich.text import Text

    from kbench.metrics.statistics import LEVEL

    contrast, change = comparison.contrast, comparison.contrast.difference
    one, two = comparison.titles
    runs = Text(f"{one}\n− {two}")
    if len(contrast.by_seed) > 1:
        each = "  ".join(
            f"{result.spec.seed}: {100 * value:+.1f}"
            for result, value in zip(comparison.ours, contrast.by_seed, strict=True)
        )
        runs.append(f"\nby seed {each}", style="dim")
    if any(warning.startswith("not comparable") for warning in comparison.warnings):
        runs.append("\nnot comparable", style="red")
    style = "bold" if comparison.adjusted < LEVEL else ""
    star = "*" if contrast.test.startswith("McNemar") else ""
    shows = "" if contrast.detectable is None else f"{100 * contrast.detectable:.1f}"
    return [
        runs,
        "\n".join(f"{100 * score:.1f}" for score in comparison.scores),
        Text(
            f"{100 * change.value:+.1f}\n[{100 * change.low:+.1f}, {100 * change.high:+.1f}]",
            style=style,
        ),
        f"{_p(contrast.p)}{star}",
        Text(_p(comparison.adjusted), style=style),
        shows,
    ]


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
