"""Two runs compared, paired by example and seed: what differs, how surely, and may it be said.

Runs on other data, limits, metric definitions or test examples are not compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.data import Label, is_right
from kbench.errors import DataError, KbenchError, UsageError, nearest
from kbench.metrics import Array, Contrast, Metric, beside_named
from kbench.metrics.statistics import Pair, contrasts, holm
from kbench.parts.find import task_kind, task_of
from kbench.results.identity import Names, content, differences, options, told_apart
from kbench.results.selection import Group
from kbench.store import Predictions, Result, Results
from kbench.store.folder import DamageWarning

if TYPE_CHECKING:
    from kbench.results.choice import Choice

__all__ = [
    "Comparison",
    "PredictionCache",
    "compare",
    "differing",
    "judge",
    "metric_of",
    "metrics_of",
    "rights",
    "titles",
    "unchosen",
]


@dataclass(frozen=True)
class Comparison:
    """One run against another.

    Attributes:
        ours: the run, a result a seed.
        theirs: the other, of the same seeds.
        metric: what is compared.
        scores: mean of each over the seeds, on the examples that both have.
        contrast: the difference.
        adjusted: its p-value after Holm's correction over the family.
        family: the value of the field that families go by; empty for one family.
        warnings: why this should not be read as a comparison, and what was left out.
        titles: of ours and theirs, with all in which the two differ.
        shared: what else is to be said of both, as ``name=value`` each.
        names: of data, backbones and knowledge bases.
    """

    ours: Group
    theirs: Group
    metric: Metric
    scores: tuple[float, float]
    contrast: Contrast
    adjusted: float
    family: str
    warnings: tuple[str, ...]
    titles: tuple[str, str]
    shared: tuple[str, ...]
    names: Names

    def name(self, field: str) -> str:
        """Returns the value of a field of ours as people read it."""
        return self.names.of(self.ours[0], field)

    def as_json(self) -> dict[str, Any]:
        """Returns the comparison as a JSON value."""
        contrast = self.contrast
        return {
            "task": self.name("task"),
            "ours": _named(self.ours, self.scores[0], self.names),
            "theirs": _named(self.theirs, self.scores[1], self.names),
            "differ": differences(self.ours[0], self.theirs[0]),
            "metric": self.metric.name,
            "variant": self.metric.variant,
            "difference": vars(contrast.difference),
            "by_seed": dict(
                zip((str(r.spec.seed) for r in self.ours), contrast.by_seed, strict=True)
            ),
            "test": contrast.test,
            "p": contrast.p,
            "p_holm": self.adjusted,
            "family": self.family,
            "detectable": contrast.detectable,
            "warnings": list(self.warnings),
        }


def _named(group: Group, score: float, names: Names) -> dict[str, Any]:
    about = group[0].spec.model_dump(mode="json", exclude={"seed", "task"})
    for name in ("data", "backbone", "knowledge"):
        about[name] = names.of(group[0], name) or None
    about |= {"linker": content(group[0])["linker"] or None, "options": options(group[0])}
    return {**about, "ids": [result.id for result in group], "score": score}


def compare(
    pairs: Sequence[tuple[Group, Group]],
    store: Results,
    *,
    metric: str | None = None,
    family: str | None = None,
    force: bool = False,
    choices: Mapping[str, Choice] | None = None,
) -> list[Comparison]:
    """Compares the runs of each pair.

    Args:
        pairs: runs that belong beside each other.
        store: gives the predictions.
        metric: name of another metric than the main one of ours.
        family: field of a run whose values part the families of Holm's correction; None for one.
        force: compare what cannot be compared, and say so in ``warnings``.
        choices: how runs stand in their sweeps; what dev did not choose is said in ``warnings``.

    Raises:
        UsageError: two runs cannot be compared; says which field differs.
        DataError: no pair is left, for predictions are damaged; a pair that is left out for that
            is told with a :class:`~kbench.store.folder.DamageWarning`.
    """
    tables = PredictionCache(store)
    names = Names(result for pair in pairs for group in pair for result in group)
    aligned = []
    lost: DataError | None = None
    for one, two in pairs:
        try:
            aligned.append(_aligned(one, two, tables, metric, force, names))
        except DataError as error:  # others can be compared all the same
            warnings.warn(f"left out: {error}", DamageWarning, stacklevel=2)
            lost = error
    if lost and not aligned:
        raise lost
    told = contrasts([pair for *_, pair in aligned])
    families = [names.of(one[0], family) if family else "" for one, *_ in aligned]
    adjusted = _corrected([contrast.p for contrast in told], families)
    return [
        Comparison(
            *(one, two, pair.metric, _scores(pair), contrast, p, name),
            (*warnings, *unchosen(one[0], two[0], names, choices or {})),
            *titles(one[0], two[0], names),
            names,
        )
        for (one, two, warnings, pair), contrast, p, name in zip(
            aligned, told, adjusted, families, strict=True
        )
    ]


def titles(ours: Result, theirs: Result, names: Names) -> tuple[tuple[str, str], tuple[str, ...]]:
    """Returns what tells each of two runs from the other, and what is to be said of both."""
    shared, own = told_apart([ours, theirs], names)
    both = ours, theirs
    apart = [
        name
        for name in ("task", "backbone", "tuning")
        if len({names.of(result, name) for result in both}) > 1
    ]
    one, two = (
        [names.title(result), *(names.of(result, name) for name in apart), text]
        for result, text in zip(both, own, strict=True)
    )
    return (", ".join(filter(None, one)), ", ".join(filter(None, two))), tuple(shared)


def unchosen(
    ours: Result, theirs: Result, names: Names, choices: Mapping[str, Choice]
) -> list[str]:
    """Returns which of two runs is a variant that dev did not choose, and why."""
    stand = [choices.get(result.id) for result in (ours, theirs)]
    if not any(stand):
        return []
    own, _ = titles(ours, theirs, names)
    return [
        f"{title}: {choice.text}"
        for title, choice in zip(own, stand, strict=True)
        if choice is not None and not choice.chosen
    ]


def _corrected(values: Sequence[float], families: Sequence[str]) -> list[float]:
    adjusted = [1.0] * len(values)
    for family in {*families}:
        at = [number for number, name in enumerate(families) if name == family]
        for number, value in zip(at, holm([values[number] for number in at]), strict=True):
            adjusted[number] = value
    return adjusted


def _scores(pair: Pair) -> tuple[float, float]:
    ours, theirs = (
        float(np.mean(pair.metric.value(table.sum(axis=1)))) for table in (pair.ours, pair.theirs)
    )
    return ours, theirs


def _aligned(
    one: Group,
    two: Group,
    tables: PredictionCache,
    metric: str | None,
    force: bool,
    names: Names,
) -> tuple[Group, Group, tuple[str, ...], Pair]:
    """Returns what two runs share: their seeds and examples, and what does not match."""

    def refused(why: str) -> UsageError:
        (left_title, right_title), _ = titles(one[0], two[0], names)
        return UsageError(f"{left_title} and {right_title} on {names.task(one[0])} {why}")

    ours, theirs, left_out = _same_seeds(one, two, refused)
    name = metric or ours[0].main_metric or ""
    if name not in ours[0].metrics:
        hint = nearest(name, ours[0].metrics)
        raise UsageError(f"{ours[0].spec.title} has no metric {name!r}{hint}")
    problems = list(differing(ours[0], theirs[0], name))
    if not problems:
        problems += tables.unlike(ours + theirs)
    if problems and not force:
        raise refused(
            f"cannot be compared: {'; '.join(problems)} (--force compares them all the same and "
            "says so in the output)"
        )
    measure = metric_of(ours[0], name)
    ids = tables.shared(ours + theirs)
    if not ids:
        raise refused("have no test example in common")
    left, right = (tables.of(side, measure, ids) for side in (ours, theirs))
    if left.shape != right.shape:  # what is counted hangs on the labels
        raise refused(f"cannot be compared by {measure.variant}: other gold labels")
    pair = Pair(measure, left, right)
    return ours, theirs, (*(f"not comparable: {text}" for text in problems), *left_out), pair


def _same_seeds(
    one: Group, two: Group, refused: Callable[[str], UsageError]
) -> tuple[Group, Group, list[str]]:
    theirs = {result.spec.seed: result for result in two}
    shared = [result for result in one if result.spec.seed in theirs]
    if shared:
        both = {result.spec.seed for result in shared}
        lone = sorted({r.spec.seed for r in (*one, *two)} - both)
        note = [f"left out: seed {', '.join(map(str, lone))} of one of them"] if lone else []
        return tuple(shared), tuple(theirs[result.spec.seed] for result in shared), note
    if len(one) == len(two) == 1:
        return one, two, [f"of two seeds: {one[0].spec.seed} against {two[0].spec.seed}"]
    raise refused(
        f"share no seed: {[r.spec.seed for r in one]} against {[r.spec.seed for r in two]}"
    )


def differing(ours: Result, theirs: Result, metric: str) -> Iterator[str]:
    """Yields what forbids to compare two results by a metric: the field, and both values."""
    digests = [(r.provenance.digests.get("data") if r.provenance else None) for r in (ours, theirs)]
    if digests[0] != digests[1] or digests[0] is None:
        one, two = (digest[:12] if digest else "unknown" for digest in digests)
        yield f"data digest {one} against {two}"
    if ours.spec.limit != theirs.spec.limit:
        yield f"limit {ours.spec.limit} against {theirs.spec.limit}"
    variants = [r.metrics[metric].variant if metric in r.metrics else None for r in (ours, theirs)]
    if variants[0] != variants[1] or variants[0] is None:
        yield f"metric {variants[0]} against {variants[1]}"


def metrics_of(result: Result) -> list[Metric]:
    """Returns the metrics of a result that its task still defines as it did then.

    Raises:
        UsageError: the task is not installed.
        PluginError: it does not load.
    """
    task = task_kind(result.spec.task)
    had = {(name, score.variant) for name, score in result.metrics.items()}
    defined = {(m.name, m.variant): m for m in task.metrics}
    if had - defined.keys():
        defined |= {(m.name, m.variant): m for m in _optional(result)}
    asked = [task.metric_named(variant) for _, variant in sorted(had - defined.keys())]
    defined |= {(m.name, m.variant): m for m in asked if m is not None}
    beside = [beside_named(variant, [*defined.values()]) for _, variant in had - defined.keys()]
    defined |= {(m.name, m.variant): m for m in beside if m is not None}
    return [metric for key, metric in defined.items() if key in had]


def metric_of(result: Result, name: str) -> Metric:
    """Returns a metric of a result; see :func:`metrics_of` for what else it raises.

    Raises:
        UsageError: the task has none of that name and definition any more.
    """
    for metric in metrics_of(result):
        if metric.name == name:
            return metric
    score = result.metrics.get(name)
    what = score.variant if score else name
    raise UsageError(f"task {result.spec.task} has no metric {what} (any more)")


def judge(result: Result) -> Callable[[Label, Label], bool]:
    """Returns what says of a label and a prediction of a run whether that is right.

    It is the main metric. Where the task is not installed, they are compared as they are.
    """
    with suppress(KbenchError):
        return metric_of(result, result.main_metric or "").right
    return is_right


def rights(result: Result, predictions: Predictions) -> list[bool]:
    """Returns whether each prediction of a run is right."""
    return [*map(judge(result), predictions.labels, predictions.predictions)]


def _optional(result: Result) -> Iterable[Metric]:
    """The metrics that a task has with the options of a run; data are not read for it."""
    try:
        return task_of(result.spec).metrics
    except KbenchError:  # a task that is made of its data, which are elsewhere
        return ()


def _on_one_test(one: Predictions, two: Predictions) -> bool:
    return (one.ids, one.labels, one.strata) == (two.ids, two.labels, two.strata)


class PredictionCache:
    """Predictions and statistics of results, read once.

    Args:
        store: where they lie.
    """

    def __init__(self, store: Results) -> None:
        self._store = store
        self._read: dict[str, Predictions] = {}
        self._first: dict[str, str] = {}
        self._rights: dict[str, list[bool]] = {}
        self._made: dict[tuple[Any, ...], Array] = {}

    def predictions(self, result: Result) -> Predictions:
        """Returns the predictions of a result.

        Raises:
            DataError: they are damaged.
            UsageError: there are none.
        """
        if result.id not in self._read:
            stored = self._store.predictions(result)
            if stored is None:
                raise UsageError(f"{result.spec.title} has no predictions")
            self._read[result.id] = stored
        return self._read[result.id]

    def rights(self, result: Result) -> list[bool]:
        """Returns whether each prediction of a result is right; as :meth:`predictions` raises."""
        if result.id not in self._rights:
            self._rights[result.id] = rights(result, self.predictions(result))
        return self._rights[result.id]

    def unlike(self, results: Sequence[Result]) -> list[str]:
        """Returns whether results are over other test examples, or other gold labels of them."""
        if len({*map(self._alike, results)}) == 1:
            return []
        first, *rest = (self.predictions(result) for result in results)
        for other in rest:
            if first.ids != other.ids:
                both = len({*first.ids} & {*other.ids})
                return [f"test examples {len(first.ids)} against {len(other.ids)}, {both} shared"]
            if first.labels != other.labels or first.strata != other.strata:
                return ["gold labels of the same examples"]
        return []

    def _alike(self, result: Result) -> str:
        """The first result with the same test examples: each is compared with few of the others."""
        if result.id not in self._first:
            own = self.predictions(result)
            same = (name for name in {*self._first.values()} if _on_one_test(own, self._read[name]))
            self._first[result.id] = next(same, result.id)
        return self._first[result.id]

    def shared(self, results: Sequence[Result]) -> tuple[str, ...]:
        """Returns the ids of the examples that all have, in the order of the first."""
        alike = len({*map(self._alike, results)}) == 1
        first, *rest = (self.predictions(result).ids for result in results)
        if alike or all(ids == first for ids in rest):
            return tuple(first)
        common = {*first}.intersection(*rest)
        return tuple(id for id in first if id in common)

    def of(self, group: Group, metric: Metric, ids: tuple[str, ...]) -> Array:
        """Returns the statistics of a run on some examples. ``[seeds, counted, k]``."""
        key = (tuple(result.id for result in group), metric.variant, metric.name, ids)
        if key not in self._made:
            self._made[key] = np.stack([self._one(result, metric, ids) for result in group])
        return self._made[key]

    def _one(self, result: Result, metric: Metric, ids: tuple[str, ...]) -> Array:
        predictions = self.predictions(result)
        place = {id: at for at, id in enumerate(predictions.ids)}
        return metric.measure(predictions.at([place[id] for id in ids]))
