"""Results as data frames of pandas: one line a run, a row of a table, a score or an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from kbench.results.identity import FIELDS, Names, content, options
from kbench.results.shown import Shown, flat
from kbench.spec import spelled
from kbench.store import Predictions, Result, Score

if TYPE_CHECKING:
    from kbench.grid.plan import Cell
    from kbench.results.comparison import Comparison
    from kbench.results.example_diff import Changed

__all__ = [
    "bucket_frame",
    "changed_frame",
    "comparison_frame",
    "plan_frame",
    "prediction_frame",
    "run_frame",
    "score_frame",
    "table_frame",
]

_RUN = (*FIELDS, "options", "seed")
_SCORE = ("value", "low", "high", "n")


def run_frame(results: Sequence[Result], names: Names) -> pd.DataFrame:
    """Returns a line a result: what it is of, how it ended, its main score and its costs."""
    lines = []
    for result in results:
        score = result.score
        line: dict[str, Any] = {
            "id": result.id,
            "status": str(result.status),
            "reason": result.reason,
        }
        line |= _about(result, names)
        line |= {"metric": result.main_metric, "score": score.value if score else None}
        line |= {"low": score.low if score else None, "high": score.high if score else None}
        line |= {"dev": result.dev}
        line["covered"] = result.coverage.examples if result.coverage else None
        lines.append({**line, **result.cost})
    return _framed(lines, ["id", "status", "reason", *_RUN, "metric", "score", "low", "high"])


def table_frame(shown: Shown) -> pd.DataFrame:
    """Returns the rows of a table with all their figures, as ``kbench table --format csv``."""
    return _framed([flat(row, row.first.id in shown.best) for row in shown.rows], [*FIELDS])


def score_frame(results: Sequence[Result], names: Names) -> pd.DataFrame:
    """Returns a line a result and metric: ``metric``, ``main``, ``value``, ``low``, ``high``."""
    lines = [
        {
            "id": result.id,
            **_about(result, names),
            "metric": name,
            "main": name == result.main_metric,
            **_figures(score),
            "variant": score.variant,
        }
        for result in results
        for name, score in result.metrics.items()
    ]
    return _framed(lines, ["id", *_RUN, "metric", "main", *_SCORE, "variant"])


def bucket_frame(results: Sequence[Result], names: Names) -> pd.DataFrame:
    """Returns a line a result and bucket of its main metric: ``by``, ``bucket``, ``value``."""
    lines = [
        {"id": result.id, **_about(result, names), "by": by, "bucket": name, **_figures(score)}
        for result in results
        for by, several in result.buckets.items()
        for name, score in several.items()
    ]
    return _framed(lines, ["id", *_RUN, "by", "bucket", *_SCORE])


def prediction_frame(told: Iterable[tuple[Result, Predictions]], names: Names) -> pd.DataFrame:
    """Returns a line a result and test example: ``example``, ``label``, ``prediction``."""
    frames = []
    for result, found in told:
        columns: dict[str, Any] = {
            "example": found.ids,
            "label": found.labels,
            "prediction": found.predictions,
            "score": found.scores,
            "linked": found.linked,
            "degree": found.degrees,
            "stratum": found.strata,
        }
        more = {"relation": found.relations, "in_context": found.in_context}
        columns |= {name: list(values) for name, values in more.items() if len(values)}
        about = {"id": result.id, **_about(result, names)}
        frame = pd.DataFrame(columns)
        for at, (name, value) in enumerate(about.items()):
            frame.insert(at, name, [value] * len(frame))
        frames.append(frame)
    known = ["id", *_RUN, "example", "label", "prediction", "score", "linked", "degree", "stratum"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=known)


def comparison_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Returns a line a comparison, in fractions: ``difference``, ``low``, ``high``, ``p``."""
    lines = []
    for one in comparisons:
        first, contrast = one.ours[0], one.contrast
        lines.append(
            {
                **{name: one.name(name) or None for name in ("task", "backbone", "tuning")},
                "knowledge": one.name("knowledge") if first.spec.knowledge else None,
                "a": one.titles[0],
                "b": one.titles[1],
                "metric": one.metric.name,
                "score_a": one.scores[0],
                "score_b": one.scores[1],
                "difference": contrast.difference.value,
                "low": contrast.difference.low,
                "high": contrast.difference.high,
                "test": contrast.test,
                "p": contrast.p,
                "holm": one.adjusted,
                "shows_from": contrast.detectable,
                "seeds": [result.spec.seed for result in one.ours],
                "warnings": list(one.warnings),
            }
        )
    return _framed(lines, ["task", "a", "b", "metric", "difference", "low", "high", "p", "holm"])


def changed_frame(changed: Sequence[Changed]) -> pd.DataFrame:
    """Returns a line an example that two runs do not both have right."""
    lines = [
        {
            "example": each.id,
            "change": str(each.change),
            "gold": each.gold,
            "a": each.ours,
            "b": each.theirs,
            "probability_a": each.probabilities[0],
            "probability_b": each.probabilities[1],
            "linked": each.linked,
            "degree": each.degree,
            "text": each.example.text if each.example is not None else None,
        }
        for each in changed
    ]
    return _framed(lines, ["example", "change", "gold", "a", "b", "linked", "degree", "text"])


def plan_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """Returns a line a planned run: how it stands, the id of its result, and what it is."""
    lines = [
        {
            "plan": cell.standing,
            "id": cell.id,
            "obstacle": cell.obstacle,
            **cell.spec.model_dump(mode="json", exclude={"options"}),
            "options": _spelled(dict(cell.spec.settings)),
        }
        for cell in cells
    ]
    return _framed(lines, ["plan", "id", "obstacle"])


def _about(result: Result, names: Names) -> dict[str, Any]:
    """What a result is of, in the words of a table."""
    said = {name: names.of(result, name) or None for name in ("task", "data", "backbone")}
    spec = result.spec
    return {
        **said,
        "tuning": spec.tuning,
        "method": spec.method,
        "setting": str(spec.setting),
        "knowledge": names.of(result, "knowledge") if spec.knowledge else None,
        "control": str(spec.control),
        "linker": content(result)["linker"] or None,
        "dtype": spec.dtype,
        "weights": spec.weights,
        "chat": spec.chat,
        "limit": spec.limit,
        "options": _spelled(options(result)),
        "seed": spec.seed,
    }


def _spelled(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={spelled(value)}" for key, value in values.items())


def _figures(score: Score) -> dict[str, float]:
    return {name: getattr(score, name) for name in _SCORE}


def _framed(lines: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Returns lines as a frame, which has its first columns even where there is no line."""
    if not lines:
        return pd.DataFrame(columns=[*columns])
    return pd.DataFrame([*lines])
