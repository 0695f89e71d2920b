"""Which run of a sweep is shown: the one that is best on dev. Test takes no part in the choice.

Runs that differ in nothing but the options of their tuning and method (and their seeds) are the
variants of one sweep. The options of a tuning are chosen by the model without knowledge, since all
methods stand on it; those of a method by its run with the true knowledge, on the tuning chosen.
In the fine-tuning setting the tuning trains the method's own model, so all its options are the
method's. A control goes with the options chosen for its true run, and is never asked itself.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING

from kbench.results.identity import key, options
from kbench.results.selection import Group, grouped
from kbench.spec import Control, Setting
from kbench.store import Result

if TYPE_CHECKING:
    from kbench.results.tables import Row

__all__ = [
    "Choice",
    "Meant",
    "choices",
    "meant",
    "meant_beside",
    "shown_of",
    "untold",
    "with_choices",
]

YARDSTICK = "none"
"""The method that a tuning's options are chosen by."""


@dataclass(frozen=True)
class Choice:
    """How a run of a sweep stands.

    Attributes:
        tried: how many variants there are.
        chosen: whether it is the one to be shown.
        why: why it is not; empty if it is.
        settled: whether any of its sweep is chosen.
    """

    tried: int
    chosen: bool
    why: str = ""
    settled: bool = True

    @property
    def text(self) -> str:
        """What is said beside the run; empty where there was nothing to choose."""
        if not self.chosen:
            return f"not chosen: {self.why}"
        return f"best of {self.tried} on dev" if self.tried > 1 else ""


def choices(results: Iterable[Result]) -> dict[str, Choice]:
    """Returns how each run that ended well stands, by the ids of its results.

    Args:
        results: all that are stored: a choice among some of them is none.
    """
    sweeps: dict[str, list[Group]] = defaultdict(list)
    for group in grouped(results):
        sweeps[_sweep(group[0])].append(group)
    tunings = _tunings(sweeps.values())
    told: dict[str, Choice] = {}
    for groups in sweeps.values():
        told |= _chosen(groups, tunings)
    return told


def with_choices(rows: Sequence[Row], results: Iterable[Result]) -> list[Row]:
    """Returns rows with how they stand in their sweeps."""
    told = choices(results)
    return [replace(row, choice=told.get(row.first.id)) for row in rows]


def shown_of(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Returns the rows to be shown, and what is to be said of the others.

    Where a sweep has a chosen run, it stands for all of them. Where none could be chosen, each is
    there, without what it did on test.
    """
    shown: list[Row] = []
    left_out = 0
    for row in rows:
        if row.choice is None or row.choice.chosen:
            shown.append(row)
        elif row.choice.settled:
            left_out += 1
        else:
            shown.append(untold(row))
    said = f"{left_out} more rows are variants that dev did not choose: `kbench table --all`"
    if left_out == 1:
        said = said.replace("rows are variants", "row is a variant")
    return shown, [said] if left_out else []


@dataclass(frozen=True)
class Meant:
    """What a selection means of the runs of sweeps.

    Attributes:
        kept: of each sweep the chosen run; all that are there, if it is not and they are asked for.
        left: those of sweeps of which nothing is kept, with why dev did not choose them.
    """

    kept: list[Group]
    left: list[tuple[Group, str]]

    @property
    def said(self) -> str:
        """What is to be said of those that are left; empty if there are none."""
        if not self.left:
            return ""
        count = f"{len(self.left)} variant{'' if len(self.left) == 1 else 's'}"
        return (
            f"{count} of which dev chose none ({self.left[0][1]}); say by an option or an id which "
            "you mean"
        )


def meant(
    groups: Sequence[Group], told: Mapping[str, Choice], *, asked: bool, alone: bool = False
) -> Meant:
    """Returns which of some runs are meant where nobody says which variant.

    Args:
        groups: the runs that a selection fits.
        told: how all that are stored stand, as of :func:`choices`.
        asked: whether the selection says which variant, by an option or an id.
        alone: whether a single variant is meant whatever dev chose, as the yardstick of equal
            options is of a run.
    """
    sweeps: dict[tuple[str, Control], list[Group]] = defaultdict(list)
    for group in groups:
        sweeps[_sweep(group[0]), group[0].spec.control].append(group)
    kept: set[str] = set()
    left: list[tuple[Group, str]] = []
    for several in sweeps.values():
        chosen = [group for group in several if _stands(group, told)]
        if not chosen and (asked or (alone and len(several) == 1)):
            chosen = several
        kept |= {group[0].id for group in chosen}
        left += [] if chosen else [(group, told[group[0].id].why) for group in several]
    return Meant([group for group in groups if group[0].id in kept], left)


def meant_beside(
    pairs: Sequence[tuple[Group, Group]], told: Mapping[str, Choice], *, asked: bool
) -> tuple[list[tuple[Group, Group]], str]:
    """Returns which of some pairs are meant, by their second run, and what is said of the others.

    Args:
        pairs: runs with those of a selection that are their own.
        told: how all that are stored stand.
        asked: whether the selection says which variant.
    """
    beside: dict[str, list[Group]] = defaultdict(list)
    for one, two in pairs:
        beside[one[0].id].append(two)
    kept: set[tuple[str, str]] = set()
    left: list[tuple[Group, str]] = []
    for first, several in beside.items():
        found = meant(several, told, asked=asked, alone=True)
        kept |= {(first, two[0].id) for two in found.kept}
        left += found.left
    return [(a, b) for a, b in pairs if (a[0].id, b[0].id) in kept], Meant([], left).said


def _stands(group: Group, told: Mapping[str, Choice]) -> bool:
    choice = told.get(group[0].id)
    return choice is None or choice.chosen


def untold(row: Row) -> Row:
    """Returns a row without what it did on test."""
    return replace(
        row, score=None, delta=None, gain=None, kind=None, individual=None, locality=None
    )


def _sweep(result: Result) -> str:
    """The same text for all variants of a sweep, controls too."""
    return key(_without(result, "tuning", "method"))


def _downstream(result: Result) -> str:
    """The same text for all runs on models that differ in the options of their tuning alone."""
    bare = {"method": YARDSTICK, "knowledge": None, "setting": Setting.GENERAL, "linker": None}
    plain = _without(result, "tuning", "method")
    made = plain.provenance
    if made is not None:
        made = made.model_copy(update={"digests": {**made.digests, "knowledge": None}})
    spec = plain.spec.model_copy(update=bare)
    return key(plain.model_copy(update={"spec": spec, "provenance": made, "coverage": None}))


def _without(result: Result, *kinds: str) -> Result:
    """Returns a result as if options of some kinds were not set, and its knowledge were true."""
    spec = result.spec
    kept = {kind: value for kind, value in spec.options.items() if kind not in kinds}
    changes = {"options": kept, "control": Control.NONE}
    return result.model_copy(update={"spec": spec.model_copy(update=changes)})


def _options(result: Result, *kinds: str) -> str:
    """The options of some kinds, as text; one that is given as it would be anyway is none."""
    told = {path: value for path, value in options(result).items() if path.split(".")[0] in kinds}
    return json.dumps(told, sort_keys=True)


def _tunings(sweeps: Iterable[Sequence[Group]]) -> dict[str, str | None]:
    """Returns the options of the tuning that are chosen for each model, by its yardstick.

    None where there are several and dev does not tell; nothing where there is no yardstick.
    """
    found: dict[str, str | None] = {}
    for groups in sweeps:
        first = groups[0][0]
        if first.spec.method == YARDSTICK and first.spec.knowledge is None:
            best = _best(groups)
            found[_downstream(first)] = None if best is None else _options(best[0], "tuning")
    return found


def _chosen(groups: Sequence[Group], tunings: Mapping[str, str | None]) -> dict[str, Choice]:
    """Returns how the runs of one sweep and their controls stand."""
    first = groups[0][0]
    own = first.spec.knowledge is None or first.spec.setting == Setting.FINE_TUNING
    model = _downstream(first)
    true = [group for group in groups if group[0].spec.control == Control.NONE]
    able = true
    if not own and model in tunings:
        able = [group for group in true if _options(group[0], "tuning") == tunings[model]]
    variants = {_options(group[0], "tuning", "method") for group in groups}
    best = _best(able)
    picked = None if best is None else _options(best[0], "tuning", "method")
    if not true and len(variants) == 1:
        (picked,) = variants  # a control whose true run is elsewhere
    told: dict[str, Choice] = {}
    for group in groups:
        chosen = _options(group[0], "tuning", "method") == picked
        why = "" if chosen else _why(group, true, able, known=tunings.get(model) is not None)
        choice = Choice(len(variants), chosen, why, settled=picked is not None)
        told |= {result.id: choice for result in group}
    return told


def _why(group: Group, true: Sequence[Group], able: Sequence[Group], *, known: bool) -> str:
    """Returns why a variant is not chosen; ``known``: the options of its tuning are."""
    mine = _options(group[0], "tuning", "method")
    run = next((each for each in true if _options(each[0], "tuning", "method") == mine), None)
    if run is None:
        return "there is no run of it with the true knowledge"
    if run not in able and not known:
        return f"no dev score of {YARDSTICK} says which options of the tuning are best"
    if run not in able:
        return f"{YARDSTICK} is not best on dev with these options of the tuning"
    if any(result.dev is None for result in run):
        return "no dev score"
    blind = any(result.dev is None for each in able for result in each)
    return "no dev score of another variant" if blind else "another variant is better on dev"


def _best(groups: Sequence[Group]) -> Group | None:
    """Returns the variant that is best on dev; of equals the one whose address comes first.

    The mean over the seeds that all variants have, or over its own where they share none. A single
    variant is the one; of several there is none unless the dev score of each is known.
    """
    if len(groups) < 2:
        return next(iter(groups), None)
    if any(result.dev is None for group in groups for result in group):
        return None
    shared = set.intersection(*({result.spec.seed for result in group} for group in groups))

    def place(group: Group) -> tuple[float, str]:
        counted = [r.dev or 0.0 for r in group if r.spec.seed in shared or not shared]
        return -round(mean(counted), 12), group[0].id

    return min(groups, key=place)
