"""Which stored runs are set beside each other by a user's words, as in ``map-tuning none``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kbench.errors import UsageError
from kbench.results.choice import Choice, choices, meant, meant_beside
from kbench.results.comparison import Comparison, PredictionCache, compare, differing, unchosen
from kbench.results.identity import FIELDS, Names, fits
from kbench.results.selection import Group, Selection, apart, grouped, partners
from kbench.results.selection import choices as terms_of
from kbench.store import Predictions, Result, Results

__all__ = ["Sides", "compared", "sides"]

_OWN = ("none", "control=foreign", "control=same-type")
"""What every run with knowledge has to be read against."""


@dataclass(frozen=True)
class Sides:
    """Two results over the same examples.

    Attributes:
        ours: the one.
        theirs: what it is read against.
        predictions: of both, in the same order.
        said: what is to be said of the choice.
    """

    ours: Result
    theirs: Result
    predictions: tuple[Predictions, Predictions]
    said: tuple[str, ...]


def compared(
    store: Results,
    runs: Sequence[str],
    *,
    every: bool = False,
    fits: Callable[[Result, Names], bool] | None = None,
    metric: str | None = None,
    family: str = "all",
    force: bool = False,
) -> tuple[list[Comparison], list[str]]:
    """Compares the runs that a user's words set beside each other.

    Args:
        store: of results.
        runs: none, one or two selections, as of `kbench compare`.
        every: take every run with the true knowledge for the first.
        fits: whether a run of the first is wanted.
        metric: another one than the main one.
        family: a field whose values part the families of Holm's correction, or ``all`` for one.
        force: compare what is not comparable, and say so.

    Returns:
        the comparisons, none if nothing that fits is left; and what is said of runs left out.

    Raises:
        UsageError: the words mean nothing that is stored, or what cannot be compared.
    """
    if family not in ("all", *FIELDS):
        raise UsageError(f"--family {family!r}: expected all or one of {', '.join(FIELDS)}")
    results = list(store)
    told, names = choices(results), Names(results)
    pairs, said = _pairs(results, runs, every, told)
    pairs = [pair for pair in pairs if fits is None or fits(pair[0][0], names)]
    over = None if family == "all" else family
    made = compare(pairs, store, metric=metric, family=over, force=force, choices=told)
    return made, said


def _pairs(
    results: Sequence[Result], runs: Sequence[str], every: bool, told: Mapping[str, Choice]
) -> tuple[list[tuple[Group, Group]], list[str]]:
    """Returns the runs that are meant beside each other, and what is said of those left out."""
    if len(runs) > 2 - every or not (runs or every):
        raise UsageError(
            f"given {len(runs)} runs{' and --all' if every else ''}; expected A, A B, --all or "
            "--all B, such as `kbench compare map-tuning none`"
        )
    first = Selection("all") if every else Selection.parse(runs[0], results)
    given = runs[0 if every else 1 :]
    fitting = grouped(r for r in results if r in first and (not every or r.spec.knowledge))
    if not fitting:
        raise UsageError(f"no stored result that ended well is {first.text!r}")
    found = meant(fitting, told, asked=first.asks, alone=not every)
    if not found.kept:
        raise UsageError(f"{first.text!r} is {found.said}")
    ours, said = found.kept, [found.said]
    yardsticks = [Selection.parse(text, results) for text in given] or [
        Selection(text, dict([text.split("=")] if "=" in text else [("method", text)]))
        for text in _OWN
    ]
    pairs: list[tuple[Group, Group]] = []
    for theirs in yardsticks:
        own, left = meant_beside(partners(ours, theirs, results), told, asked=theirs.asks)
        pairs += own
        said.append(left)
    if not pairs and said[-1]:
        raise UsageError(f"{yardsticks[-1].text!r} is {said[-1]}")
    if not given and "control" not in first.named and not first.id:
        same = Selection(first.text, {**first.named, "control": "same-type"})
        true = meant(grouped(r for r in results if r in same), told, asked=first.asks, alone=False)
        foreign = Selection("control=foreign", {"control": "foreign"})
        kinds = partners(true.kept, foreign, results)
        pairs += meant_beside(kinds, told, asked=first.asks)[0]  # what of the gain is of the kind
    if not pairs:
        against = " or ".join(repr(theirs.text) for theirs in yardsticks)
        raise UsageError(
            f"no result {against} belongs to one of {first.text!r}: what B does not name has to "
            f"be as in A, and only runs that ended well count{apart(ours, yardsticks, results)}"
        )
    return pairs, [f"left out: {line}" for line in said if line]


def sides(store: Results, texts: tuple[str, str], task: str | None = None) -> Sides:
    """Finds the two results that a user means.

    Args:
        store: of results.
        texts: the selections.
        task: a glob of the task, where results are of several.

    Raises:
        UsageError: they are none or several pairs, or not over the same examples.
    """
    results = list(store)
    told, names = choices(results), Names(results)
    first, second = (Selection.parse(text, results) for text in texts)
    of_task = [r for r in results if r in first and (task is None or fits(r, "task", task, names))]
    fitting = grouped(of_task)
    if not fitting:
        of = "" if task is None else f" of task {task!r}"
        raise UsageError(f"no stored result that ended well is {first.text!r}{of}")
    found = meant(fitting, told, asked=first.asks, alone=True)
    groups = fitting if found.left else found.kept  # dev does not tell which: the user has to
    every = partners(groups, second, results)
    kept, left = meant_beside(every, told, asked=second.asks)
    pairs = every if found.left or left else kept
    if len(pairs) != 1:
        raise UsageError(
            f"{texts[0]!r} against {texts[1]!r} are {len(pairs)} pairs of runs; expected one"
            + _choose(pairs, groups, second, results)
        )
    ours, theirs = _of_a_seed(*pairs[0])
    said = list(unchosen(ours, theirs, names, told))
    tables = PredictionCache(store)
    problems = [*differing(ours, theirs, ours.main_metric or "")] or tables.unlike([ours, theirs])
    if problems:
        raise UsageError(f"the two runs cannot be compared: {'; '.join(problems)}")
    both = tables.predictions(ours), tables.predictions(theirs)
    return Sides(ours, theirs, both, tuple(said))


def _choose(
    pairs: Sequence[tuple[Group, Group]],
    ours: Sequence[Group],
    theirs: Selection,
    results: Sequence[Result],
) -> str:
    """What would make one pair of several, or why there is none."""
    if not pairs:
        return apart(ours, [theirs], results)
    names = Names(results)
    told = []
    for number, letter in enumerate("AB"):
        side = {pair[number][0].id: pair[number] for pair in pairs}
        if terms := terms_of([*side.values()], names):
            told.append(f"{letter} by {terms}")
    return f"; choose {', and '.join(told)}" if told else ""


def _of_a_seed(one: Sequence[Result], two: Sequence[Result]) -> tuple[Result, Result]:
    theirs = {result.spec.seed: result for result in two}
    shared_seed = next((r for r in one if r.spec.seed in theirs), None)
    return (shared_seed, theirs[shared_seed.spec.seed]) if shared_seed else (one[0], two[0])
