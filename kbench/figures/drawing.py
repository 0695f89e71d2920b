"""Figures drawn: one column wide, in colours that all eyes tell apart, and by shape too.

Colours are those of Okabe and Ito (2008), "Color Universal Design".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kbench.errors import UsageError
from kbench.figures.points import BUCKETS, Point

if TYPE_CHECKING:
    import altair as alt

__all__ = ["COLUMN", "chart"]

COLUMN = 240
"""Width of a figure in points: a column of two on a page is 3.3 inches."""
_INK, _FAINT = "#222222", "#999999"
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#F0E442",
)
_SHAPES = (
    "circle",
    "square",
    "triangle-up",
    "diamond",
    "cross",
    "triangle-down",
    "stroke",
    "wedge",
)
_KNOWLEDGE = {"true": "#0072B2", "foreign": "#D55E00", "none": "#555555"}
_FONT = 8
_SIGN = 0.56
"""Width of a letter, of the size of the font."""
_NARROWEST = 24
"""Width of a cell of a matrix that holds its figure."""
_ROOM, _BESIDE = 12, 6
"""Height of a line of a figure: alone, and where several stand for one name."""


def chart(kind: str, points: Sequence[Point]) -> alt.TopLevelMixin:
    """Draws a figure.

    Args:
        kind: one of :data:`kbench.figures.points.FIGURES`.
        points: what it shows.

    Raises:
        UsageError: what draws is not installed.
    """
    try:
        import altair as alt
    except ImportError:
        raise UsageError(
            "figures need altair and vl-convert: pip install 'knowledge-bench[leaderboard]'"
        ) from None
    drawn: alt.Chart = _DRAWN[kind](alt, points)
    text = {"labelFontSize": _FONT, "titleFontSize": _FONT}
    configured: alt.TopLevelMixin = (
        drawn.configure(font="sans-serif", background="white", padding=2)
        .configure_view(stroke=None)
        .configure_axis(
            labelFontSize=_FONT,
            titleFontSize=_FONT,
            titleFontWeight="normal",
            labelColor=_INK,
            titleColor=_INK,
            gridColor="#e6e6e6",
            domainColor=_FAINT,
            tickColor=_FAINT,
            tickSize=3,
            titlePadding=4,
            labelPadding=3,
        )
        .configure_header(**text, labelColor=_INK, labelFontWeight="bold")
        .configure_legend(
            **text,
            titleFontWeight="normal",
            symbolSize=30,
            symbolOpacity=1,
            rowPadding=1,
            columnPadding=8,
            labelLimit=COLUMN // 2,
            orient="bottom",
            direction="horizontal",
            labelColor=_INK,
            padding=0,
            offset=6,
        )
        .configure_facet(spacing=6)
    )
    return configured


def _forest(alt: Any, points: Sequence[Point]) -> Any:
    figures = list(dict.fromkeys(point["figure"] for point in points))
    names, several = _in_order(points, figures[0]), len(figures) > 1
    base = alt.Chart().encode(
        y=_methods(alt, names),
        yOffset=alt.YOffset("figure:N", sort=figures) if several else alt.Undefined,
    )
    colour, shape = alt.value(_COLOURS[0]), alt.Undefined
    if several:  # one legend for both, since their domains are the same
        colour = alt.Color("figure:N", title=None, sort=figures).scale(
            domain=figures, range=[*_COLOURS[: len(figures)]]
        )
        shape = alt.Shape("figure:N", title=None, sort=figures).scale(
            domain=figures, range=[*_SHAPES[: len(figures)]]
        )
    title = "percentage points" if several else f"{figures[0]}, {_unit(figures[0])}"
    layers = [
        base.mark_rule(strokeWidth=1.2).encode(
            x=alt.X("low:Q", title=title).scale(zero=False), x2="high:Q", color=colour
        ),
        base.mark_point(filled=True, size=26, opacity=1).encode(
            x=alt.X("value:Q", title=title),
            color=colour,
            shape=shape,
        ),
    ]
    if figures != ["score"]:
        layers.insert(0, _zero(alt, "x"))
    step = _BESIDE if several else _ROOM
    return _by_task(alt, points, alt.layer(*layers), names, step)


def _matrix(alt: Any, points: Sequence[Point]) -> Any:
    figure = points[0]["figure"]
    across, down = [*dict.fromkeys(point["task"] for point in points)], _in_order(points, figure)
    fields = ["task", "method"]
    if len(across) > len(down):  # a column is narrow: the longer list goes down
        across, down, fields = down, across, fields[::-1]
    most = max(abs(point["value"]) for point in points) or 1.0
    scale = (
        {"scheme": "blues", "domain": [0, 100]}
        if figure == "score"
        else {"scheme": "blueorange", "domain": [most, -most]}
    )
    base = alt.Chart(alt.InlineData(values=[*points])).encode(
        x=alt.X(f"{fields[0]}:N", title=None, sort=across).axis(
            labelAngle=-40, labelLimit=110, orient="top", domain=False, ticks=False
        ),
        y=alt.Y(f"{fields[1]}:N", title=None, sort=down).axis(
            labelLimit=_label_limit(down), domain=False, ticks=False
        ),
    )
    limit = 0.7 * (100 if figure == "score" else most)
    white = f"abs(datum.value) > {limit}"
    layers = (
        base.mark_rect(stroke="white", strokeWidth=1).encode(
            color=alt.Color("value:Q", legend=None).scale(**scale)
        ),
        base.mark_text(fontSize=_FONT).encode(
            text=alt.Text("value:Q", format=".1f" if figure == "score" else "+.1f"),
            color=alt.condition(white, alt.value("white"), alt.value(_INK)),
        ),
    )
    title = alt.TitleParams(
        f"{figure}, {_unit(figure)}",
        fontSize=_FONT,
        fontWeight="normal",
        anchor="start",
        orient="bottom",
    )
    width = max(_NARROWEST * len(across), min(_plot_width(down), 44 * len(across)))
    size = {"width": width, "height": (_ROOM + 3) * len(down), "title": title}
    return alt.layer(*layers).properties(**size)


def _buckets(alt: Any, points: Sequence[Point]) -> Any:
    names = list(dict.fromkeys(point["method"] for point in points))
    there = {point["bucket"] for point in points}
    order = [name for name in BUCKETS if name in there]
    base = alt.Chart().encode(
        x=alt.X("bucket:N", sort=order, title=None).axis(labelAngle=0),
        xOffset=alt.XOffset("method:N", sort=names),
    )
    colour = _by_method(alt, names)
    y = alt.Y("value:Q", title="knowledge gain, points")
    layers = (
        _zero(alt, "y"),
        base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q"), y2="high:Q", **colour[:1][0]),
        base.mark_point(filled=True, size=24, opacity=1).encode(y=y, **colour[0], **colour[1]),
    )
    return _under_each_other(alt, points, alt.layer(*layers), 80)


def _cost(alt: Any, points: Sequence[Point]) -> Any:
    names = list(dict.fromkeys(point["method"] for point in points))
    figure, clock = points[0]["figure"], points[0]["clock"]
    x = _seconds(alt, [point["seconds"] for point in points], clock)
    y = alt.Y("value:Q", title=f"{figure}, {_unit(figure)}").scale(zero=False, padding=6)
    base = alt.Chart().encode(x=x)
    colour = _by_method(alt, names)
    layers = [
        base.transform_filter("datum.front")
        .mark_line(interpolate="step-after", color=_FAINT, strokeDash=[3, 2], strokeWidth=1)
        .encode(y=y),
        base.mark_rule(strokeWidth=1).encode(y=alt.Y("low:Q"), y2="high:Q", **colour[0]),
        base.mark_point(filled=True, size=34, opacity=1).encode(y=y, **colour[0], **colour[1]),
    ]
    if figure != "score":
        layers.insert(0, _zero(alt, "y"))
    return _under_each_other(alt, points, alt.layer(*layers), 100)


def _seconds(alt: Any, seconds: Sequence[float], clock: str) -> Any:
    """An axis of powers of ten, with zero where a method trains nothing."""
    least, most = min(seconds), max(seconds)
    kind, first = ("log", -3) if least > 0 else ("symlog", 0)
    ticks = [10**n for n in range(first, 9) if least / 10 <= 10**n <= 10 * most]
    thousands = "datum.value >= 1000 ? format(datum.value / 1000, '~g') + 'k' : "
    return (
        alt.X("seconds:Q", title=f"training of the plug, seconds of {clock}")
        .scale(type=kind, nice=False, padding=8)
        .axis(
            values=ticks if kind == "log" else [0, *ticks],
            labelExpr=f"{thousands}format(datum.value, '~g')",
        )
    )


def _seeds(alt: Any, points: Sequence[Point]) -> Any:
    names = list(dict.fromkeys(point["method"] for point in points))
    kinds = [name for name in _KNOWLEDGE if any(p["knowledge"] == name for p in points)]
    base = alt.Chart().encode(
        x=alt.X("value:Q", title="score, %").scale(zero=False, padding=6),
        y=_methods(alt, names),
        yOffset=alt.YOffset("knowledge:N", sort=kinds),
        color=alt.Color("knowledge:N", title="knowledge", sort=kinds).scale(
            domain=kinds, range=[_KNOWLEDGE[name] for name in kinds]
        ),
    )
    layers = (
        base.mark_tick(thickness=1.2, size=7).encode(x="mean(value):Q"),
        base.mark_point(size=22, opacity=0.85).encode(
            shape=alt.Shape("knowledge:N", title="knowledge", sort=kinds).scale(
                domain=kinds, range=[*_SHAPES[: len(kinds)]]
            )
        ),
    )
    step = _BESIDE if len(kinds) > 1 else _ROOM
    return _by_task(alt, points, alt.layer(*layers), names, step)


def _by_method(alt: Any, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Colour and shape of methods; where there are more than signs, both begin anew apart."""
    colours = [_COLOURS[at % len(_COLOURS)] for at in range(len(names))]
    shapes = [_SHAPES[(at + at // len(_SHAPES)) % len(_SHAPES)] for at in range(len(names))]
    columns = max(1, int(COLUMN // (30 + _SIGN * _FONT * max(map(len, names)))))
    legend = alt.Legend(columns=columns, title=None)
    colour = alt.Color("method:N", sort=[*names], legend=legend).scale(
        domain=[*names], range=colours
    )
    shape = alt.Shape("method:N", sort=[*names], legend=legend).scale(domain=[*names], range=shapes)
    return {"color": colour}, {"shape": shape}


def _methods(alt: Any, names: Sequence[str]) -> Any:
    return alt.Y("method:N", title=None, sort=[*names]).axis(
        labelLimit=_label_limit(names), ticks=False, domain=False, grid=False
    )


def _zero(alt: Any, axis: str) -> Any:
    mark = alt.Chart().mark_rule(color=_FAINT, strokeWidth=1)
    return mark.encode(**{axis: getattr(alt, axis.upper())(datum=0)})


def _by_task(
    alt: Any, points: Sequence[Point], layers: Any, names: Sequence[str], step: float
) -> Any:
    """Panels of methods under each other, each with the methods that it has."""
    tasks = list(dict.fromkeys(point["task"] for point in points))
    drawn = layers.properties(width=_plot_width(names), height={"step": step})
    return _faceted(alt, points, drawn, tasks).resolve_scale(y="independent", yOffset="shared")


def _under_each_other(alt: Any, points: Sequence[Point], layers: Any, height: int) -> Any:
    tasks = list(dict.fromkeys(point["task"] for point in points))
    drawn = layers.properties(width=COLUMN - 44, height=height)
    return _faceted(alt, points, drawn, tasks).resolve_scale(y="independent")


def _faceted(alt: Any, points: Sequence[Point], drawn: Any, tasks: Sequence[str]) -> Any:
    header = alt.Header(title=None, labelAnchor="start", labelPadding=2, labelLimit=COLUMN)
    facet = alt.Facet("task:N", sort=[*tasks], header=header)
    return drawn.facet(facet=facet, columns=1, data=alt.InlineData(values=[*points]))


def _in_order(points: Sequence[Point], figure: str) -> list[str]:
    """The methods, from the best on the mean of its tasks to the worst."""
    values: dict[str, list[float]] = {point["method"]: [] for point in points}
    for point in points:
        if point["figure"] == figure:
            values[point["method"]].append(point["value"])
    means = {
        name: sum(each) / len(each) if each else float("-inf") for name, each in values.items()
    }
    return sorted(means, key=lambda name: -means[name])


def _label_limit(names: Sequence[str]) -> int:
    return min(COLUMN // 2, 6 + int(_SIGN * _FONT * max(map(len, names))))


def _plot_width(names: Sequence[str]) -> int:
    return COLUMN - _label_limit(names) - 14


def _unit(figure: str) -> str:
    return "%" if figure == "score" else "points"


_DRAWN = {
    "forest": _forest,
    "matrix": _matrix,
    "buckets": _buckets,
    "cost": _cost,
    "seeds": _seeds,
}
