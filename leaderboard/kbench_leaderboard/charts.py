"""Charts made at build time, as SVG that needs no script: score against cost, a forest of gains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from kbench.data.plain_text import drawable
from kbench.results.ranking import front
from kbench_leaderboard.board import Group, Line
from kbench_leaderboard.clean import clean
from kbench_leaderboard.overview import FIGURES, Panel

__all__ = ["Chart", "chart", "forest"]

_INK = "currentColor"
"""Text and axes take the page's colour, so that one image serves dark and light."""
_FRONT = "#c2410c"
_GAINS = {"gain": ("#0072b2", "circle"), "delta": ("#d55e00", "square")}
"""Colours of Okabe and Ito (2008) that light and dark pages bear, and shapes."""
_NAMES = 180
"""Room right of the axes, in pixels, for the name of the most expensive point."""
_LONGEST = 40
"""Characters of a name that are drawn; the text below the chart has it whole."""


@dataclass(frozen=True)
class Chart:
    """A chart, the same in words, and what lies on its front."""

    svg: str
    text: str


def chart(group: Group) -> Chart | None:
    """Draws a group; None if fewer than two of its rows have both a cost and a score."""
    shown = [line for line in group.lines if line.ranked and line.row.training_seconds is not None]
    if len(shown) < 2:
        return None
    spent = [line.row.training_processor_seconds for line in shown]
    # One clock for all points: a front of seconds of two kinds would be none.
    known = [cost for cost in spent if cost is not None]
    processor = len(known) == len(spent)
    clock = "processor time" if processor else "wall clock"
    costs = known if processor else [line.row.training_seconds or 0.0 for line in shown]
    points = [(cost, _percent(line)) for cost, line in zip(costs, shown, strict=True)]
    told = list(zip(points, front(points), map(_name, shown), strict=True))
    values = [
        {"seconds": cost, "score": score, "front": best, "name": _drawable(name)}
        for (cost, score), best, name in told
    ]
    best = sorted((cost, score, name) for (cost, score), on, name in told if on)
    words = "; ".join(f"{name}: {score:.1f} at {cost:,.1f} s" for cost, score, name in best)
    text = (
        f"{group.title}: score against plug training, in seconds of {clock}, of {len(shown)} "
        "rows. "
        f"On the Pareto front, from the cheapest: {words}."
    )
    return Chart(_drawn(values, _drawable(group.metric), clock), text)


def _drawable(name: str) -> str:
    """A name as it is drawn: nobody's home folder is in it, nor what charts give a meaning."""
    return drawable(clean(name), _LONGEST)


def _percent(line: Line) -> float:
    assert line.row.score is not None
    return 100 * line.row.score.value


def _name(line: Line) -> str:
    spec = line.first.spec
    told = [line.options] if line.options else []
    if spec.knowledge is not None:
        told.insert(0, str(spec.setting))
    return f"{spec.method} ({', '.join(told)})" if told else spec.method


def _drawn(values: list[dict[str, object]], metric: str, clock: str) -> str:
    import altair as alt

    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("seconds:Q", title=f"plug training, seconds of {clock}").scale(type="symlog"),
        y=alt.Y("score:Q", title=f"{metric}, %").scale(zero=False),
    )
    best = base.transform_filter("datum.front")
    layers = (
        base.mark_point(size=40, color=_INK, opacity=0.55),
        best.mark_line(interpolate="step-after", color=_FRONT, strokeDash=[4, 3]),
        best.mark_point(size=80, filled=True, color=_FRONT, opacity=1),
        best.mark_text(align="left", dx=8, dy=-7, color=_INK, fontSize=12).encode(text="name:N"),
    )
    picture = alt.layer(*layers).properties(width=560, height=280)
    return _svg(alt, picture, _NAMES)


def forest(panel: Panel) -> Chart | None:
    """Draws the gains of a panel, averages over its tasks; None where there is no order."""
    order = panel.order
    if not order:
        return None
    names = _unique([_drawable(row.name) for row in order])
    values: list[dict[str, object]] = [
        {"name": name, "figure": FIGURES[figure], "value": 100 * told.value,
         "low": 100 * (told.low or 0.0), "high": 100 * (told.high or 0.0)}
        for row, name in zip(order, names, strict=True)
        for figure in _GAINS
        if (told := row.averages.get(figure))
    ]  # fmt: skip
    labels = [column.label for column in panel.compared]
    over = "seeds and examples" if panel.seeds > 1 else "examples, of one seed"
    text = (
        f"{panel.title}: average knowledge gain and Δ none of {len(order)} methods over "
        f"{', '.join(labels)}, in percentage points with 95 % intervals over {over}, "
        "in the order of the mean rank by net gain, the lesser of the two."
    )
    return Chart(_forest(values, names), text)


def _unique(names: Sequence[str]) -> list[str]:
    """Names that are cut may be the same, and would be one line."""
    seen = Counter[str]()
    told = []
    for name in names:
        seen[name] += 1
        told.append(name if seen[name] == 1 else f"{name[: _LONGEST - 5]} #{seen[name]}")
    return told


def _forest(values: list[dict[str, object]], names: Sequence[str]) -> str:
    import altair as alt

    kinds = [FIGURES[figure] for figure in _GAINS]
    colours, shapes = zip(*_GAINS.values(), strict=True)
    legend = alt.Legend(title=None, orient="top", labelColor=_INK, labelFontSize=12)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("name:N", title=None, sort=[*names]).axis(labelLimit=_NAMES, ticks=False),
        yOffset=alt.YOffset("figure:N", sort=kinds),
        color=alt.Color("figure:N", sort=kinds, legend=legend).scale(
            domain=kinds, range=[*colours]
        ),
    )
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=_INK, opacity=0.5)
    layers = (
        zero.encode(x="zero:Q"),
        base.mark_rule(strokeWidth=1.5).encode(
            x=alt.X("low:Q", title="average over the tasks, percentage points"), x2="high:Q"
        ),
        base.mark_point(filled=True, size=45, opacity=1).encode(
            x="value:Q",
            shape=alt.Shape("figure:N", sort=kinds, legend=legend).scale(
                domain=kinds, range=[*shapes]
            ),
        ),
    )
    picture = alt.layer(*layers).properties(width=360, height={"step": 9})
    return _svg(alt, picture, 5)


def _svg(alt: Any, picture: Any, right: int) -> str:
    """A picture in the colours of the page, with room to its right."""
    picture = picture.properties(
        background="transparent", padding={"left": 5, "top": 5, "bottom": 5, "right": right}
    )
    picture = picture.configure(font="sans-serif").configure_view(stroke=None)
    picture = picture.configure_axis(
        labelColor=_INK,
        titleColor=_INK,
        tickColor=_INK,
        domainColor=_INK,
        gridColor=_INK,
        gridOpacity=0.12,
        labelFontSize=12,
        titleFontSize=12,
    )
    text = StringIO()
    picture.save(text, format="svg")
    return text.getvalue()
