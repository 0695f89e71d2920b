"""What a table shows of stored results, and every figure of its rows by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kbench.data import Split
from kbench.errors import UsageError, nearest
from kbench.results.choice import shown_of
from kbench.results.identity import FIELDS
from kbench.results.tables import Row, leaders, rows
from kbench.spec import spelled
from kbench.store import Result, Results

__all__ = ["Shown", "flat", "shown"]

_FIGURES = ("value", "low", "high", "deviation")
_TURNED = ("right", "lost", "wrong", "gained", "p", "retention", "repair")
_MOVED = (
    "kl",
    "kl_unlinked",
    "same_first",
    "same_first_unlinked",
    "perplexity_without",
    "perplexity_ratio",
)
_COSTS = (
    "trainable_parameters",
    "train_seconds",
    "start_seconds",
    "train_processor_seconds",
    "start_processor_seconds",
    "evaluate_seconds_per_example",
    "peak_memory_bytes",
    "peak_device_memory_bytes",
    "knowledge_bytes",
)


@dataclass(frozen=True)
class Shown:
    """The rows of a table.

    Attributes:
        rows: those shown.
        best: ids of the best of each table, and of what a paired test does not tell from it.
        hidden: what is to be said of rows that are not shown.
    """

    rows: Sequence[Row]
    best: frozenset[str]
    hidden: Sequence[str]


def shown(
    store: Results,
    results: Sequence[Result] | None = None,
    *,
    metric: str | None = None,
    everything: bool = False,
    fits: Callable[[Row], bool] | None = None,
) -> Shown:
    """Returns what a table shows.

    Args:
        store: of results; yardsticks and controls come from it even where they are not shown.
        results: what to show; all of the store if not given.
        metric: another one than the main one.
        everything: also show the variants that dev did not choose.
        fits: whether a row is wanted.

    Raises:
        UsageError: no result has the metric.
    """
    beside = list(store)
    wanted = beside if results is None else results
    if metric is not None:
        wanted, beside = (_measured(each, metric) for each in (wanted, beside))
    made = [row for row in rows(wanted, store, beside) if fits is None or fits(row)]
    hidden: list[str] = []
    if not everything:
        made, hidden = shown_of(made)
    return Shown(made, leaders(made, store), hidden)


def flat(row: Row, best: bool) -> dict[str, Any]:
    """Returns all figures of a row by name: fractions and SI units, None where there is none.

    Args:
        row: the row.
        best: whether it is one of the leaders.
    """
    value = row.as_json()
    flat = {name: value[name] for name in (*FIELDS, "status", "reason", "metric")}
    flat["options"] = " ".join(f"{key}={spelled(each)}" for key, each in value["options"].items())
    flat |= {name: value[name] for name in ("chosen", "variants")}
    flat |= {"seeds": " ".join(map(str, row.seeds)), "ids": " ".join(value["ids"]), "best": best}
    for name in ("score", "delta", "gain", "kind", "individual", "net_gain"):
        for figure in _FIGURES:
            key = name if figure == "value" else f"{name}_{figure}"
            flat[key] = value[name][figure] if value[name] else None
    flat |= {"locality": None, "locality_n": None, "coverage": row.coverage}
    flat["shared"] = row.shared
    if row.locality:
        flat |= {"locality": row.locality.value, "locality_n": row.locality.n}
    flat |= dict.fromkeys((*_TURNED, *_MOVED))
    flat |= value["turned"] or {}
    flat |= {name: value["moved"].get(name) for name in _MOVED}
    flat["follow_rate"] = row.follow.value if row.follow else None
    flat["follow_n"] = row.follow.n if row.follow else None
    for name in ("answered", "unanswered"):
        score = row.context.get(name)
        flat[f"score_{name}"], flat[f"n_{name}"] = (score.value, score.n) if score else (None, None)
    flat["tokens_per_example"] = row.tokens
    for name in _COSTS:
        flat[name] = row.cost.get(name)
    flat["evaluate_seconds_per_example_without"] = row.seconds_without
    for split in Split:
        flat[f"{split}_kept"], flat[f"{split}_total"] = value["kept"].get(split, (None, None))
    flat["notes"] = " ".join(value["notes"])
    return flat


def _measured(results: Sequence[Result], metric: str) -> list[Result]:
    """Returns the results that have a metric, with it in the place of their main one.

    Of a stratum that none of its examples is in a result has none, and not 0.
    """
    known = {n: None for result in results for n, score in result.metrics.items() if score.n}
    if metric not in known:
        raise UsageError(f"no stored result has a metric {metric!r}{nearest(metric, known)}")
    return [
        r.model_copy(update={"main_metric": metric})
        for r in results
        if metric in r.metrics and r.metrics[metric].n
    ]
