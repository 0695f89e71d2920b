"""What papers publish, set beside our rows: for the eye, never ranked or compared with ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from kbench.cli.layout import Column, prose, show
from kbench.cli.terminal import Console
from kbench.results.published import Figure, figures
from kbench.results.tables import Row

__all__ = ["FILTERS", "alone", "beside", "print_published"]

FILTERS = ("task", "method", "setting", "tuning", "backbone")
"""What a published figure can be chosen by."""
_LEGEND = (
    "Published: copied from the source named, not measured by kbench. Other splits, models and "
    "conventions: not to be ranked or compared with rows of kbench."
)


def beside(shown: Sequence[Row], chosen: Callable[[Figure], bool]) -> list[Figure]:
    """Returns what is published of the tasks and metrics that are shown, in the order of both."""
    asked = {(row.first.spec.task, row.first.main_metric) for row in shown}
    return sorted(
        (f for f in figures() if (f.task, f.metric) in asked and chosen(f)),
        key=lambda f: (f.task, f.source.title),
    )


def alone(chosen: Callable[[Figure], bool]) -> list[Figure]:
    """Returns all that is published and chosen, by task and source."""
    return sorted(filter(chosen, figures()), key=lambda f: (f.task, f.source.title))


def print_published(figures: Sequence[Figure], shown: Sequence[Row], console: Console) -> None:
    """Prints a table a task, with the source, split and exact metric of every figure."""
    ours = {
        (row.first.spec.task, row.first.main_metric): score.variant
        for row in shown
        if (score := row.first.score)
    }
    if not figures:
        console.print("published: nothing is known of these tasks and metrics", style="dim")
        return
    for task, group in groupby(figures, key=lambda figure: figure.task):
        cells = zip(
            *(_columns(figure, ours.get((task, figure.metric))) for figure in group), strict=True
        )
        names = ("method", "setting", "model", "published", "source")
        columns = [
            Column(
                name,
                column,
                side="right" if name == "published" else "left",
                text=name != "published",
                rank=1 if name == "setting" else 0,
                style="dim",
            )
            for name, column in zip(names, cells, strict=True)
        ]
        show(console, columns, f"{task}  ·  published")
        console.print()
    prose(console, _LEGEND, "dim")


def _columns(figure: Figure, ours: str | None) -> tuple[str, ...]:
    model = " ".join(filter(None, (figure.backbone, figure.tuning)))
    value = f"{100 * figure.value:.1f}" if figure.unit == "fraction" else f"{figure.value:g}"
    source = [f"{figure.source.citation}, {figure.source.kind}", figure.split]
    if not figure.source.verified:
        source.append("not seen at its source")
    if ours and figure.variant != ours:
        source.append(f"another metric: {figure.variant}, ours is {ours}")
    return figure.method, figure.setting or "", model, value, "; ".join(source)
