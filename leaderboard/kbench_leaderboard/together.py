"""What the results of a submission say of each other: what is left out, and what cannot both be.

One address is one thing, one test set has one gold label of each example, and no two runs that
were trained from other seeds, or told of other entities, predict the same to the last bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from kbench.data import Label
from kbench.data.files import canonical_digest
from kbench.errors import KbenchError
from kbench.parts.find import task_kind
from kbench.parts.registry import Kind, find
from kbench.parts.source_text import constant
from kbench.results.choice import Choice, choices
from kbench.results.identity import OF_KNOWLEDGE, Names, content, differences, options
from kbench.spec import Control, OptionKind, Setting
from kbench.store import Result, Status
from kbench_leaderboard.submission import Entry

__all__ = ["Seen", "Together", "whole"]

Found: TypeAlias = Iterator[tuple[str, str]]
"""The folder that a finding is about, and the finding."""
_SHORT = 200
"""Letters of a label whose digest is remembered."""
_SHOWING = {Control.ANSWER_REMOVED, Control.EMPTY}
"""Controls of what a method reads by itself."""
_SWAPPING = {Control.FOREIGN, Control.SHUFFLED, Control.RANDOM}
"""Controls by which whatever is linked is told other things."""


_TOLD = {"backbone", "tuning", "knowledge", "method", "setting", "control", "seed"}
"""What an address tells by itself: tasks may share a model, and an option may be its default."""


@dataclass(frozen=True)
class Seen:
    """What is kept of a result when its predictions are let go.

    Attributes:
        where: its folder.
        result: without predictions.
        said: digest of what is predicted, however it is written; empty without predictions.
        ids: digest of the examples.
        links: digest of who is linked, and how much is known of each.
        linked: whether anyone is.
    """

    where: str
    result: Result
    said: str = ""
    ids: str = ""
    links: str = ""
    linked: bool = False


class Together:
    """Results of a submission, seen one after the other."""

    def __init__(self) -> None:
        self._seen: list[Seen] = []
        self._gold: dict[Hashable, dict[str, tuple[str, str]]] = defaultdict(dict)

    def add(self, entry: Entry) -> Iterator[str]:
        """Takes a result up; yields where its test set contradicts one that was seen before."""
        result, given = entry.result, entry.predictions
        assert result is not None
        # The most of it; all that is looked at is whether dev chose something.
        chosen = {"choice": bool(result.training.get("choice"))}
        result = result.model_copy(update={"training": chosen})
        if result.status != Status.OK or given is None:
            self._seen.append(Seen(entry.where, result))
            return
        yield from self._of_gold(entry)
        self._seen.append(
            Seen(
                entry.where,
                result,
                canonical_digest([list(given.ids), list(given.predictions), list(given.scores)]),
                canonical_digest(list(given.ids)),
                canonical_digest([list(map(bool, given.linked)), list(given.degrees)]),
                any(given.linked),
            )
        )

    def _of_gold(self, entry: Entry) -> Iterator[str]:
        result, given = entry.result, entry.predictions
        assert result is not None
        assert given is not None
        known = self._gold[result.spec.task, _digest(result, "data")]
        for name, label, stratum in zip(given.ids, given.labels, given.strata, strict=True):
            said = _gold(label, stratum)
            where, before = known.setdefault(name, (entry.where, said))
            if before != said:
                yield f"gold of example {str(name)[:40]!r} is another in {where}, of the same data"
                return

    def findings(self, trains: Callable[[Result, bool], bool]) -> Found:
        """Yields what is wrong with the results as they stand beside each other.

        Args:
            trains: whether what a run predicts hangs on its seed, as far as that is known; told
                whether anything is linked in it.
        """
        yield from _left_out({each.where: each.result for each in self._seen})
        whole = [each for each in self._seen if each.said]
        yield from _one_each(whole)
        yield from _of_examples(whole)
        yield from _of_controls(whole)
        yield from _of_said(whole, trains)


def _gold(label: Label, stratum: str) -> str:
    """A digest of a gold label with its stratum: of thousands of results, each has them again."""
    if isinstance(label, str) and len(label) + len(stratum) < _SHORT:
        return _short_gold(label, stratum)
    return canonical_digest((label if isinstance(label, str) else sorted(label), stratum))


@lru_cache(maxsize=1 << 14)
def _short_gold(label: str, stratum: str) -> str:
    return canonical_digest((label, stratum))


def _digest(result: Result, name: str) -> str:
    made = result.provenance
    return str(made.digests.get(name)) if made else ""


def _address(result: Result, name: str) -> str | None:
    return result.provenance.addresses.get(name) if result.provenance else None


def _groups(seen: Iterable[Seen], by: Callable[[Seen], Hashable]) -> list[list[Seen]]:
    groups: dict[Hashable, list[Seen]] = defaultdict(list)
    for each in seen:
        groups[by(each)].append(each)
    return [group for group in groups.values() if len(group) > 1]


def _one_each(whole: Sequence[Seen]) -> Found:
    """One address of a model or a plug is of one thing, and one thing has one address."""
    for name, of in (("model", _of_model), ("plug", _of_plug)):
        known = [each for each in whole if _address(each.result, name)]
        yield from _one_thing(name, known, of)


def _one_thing(name: str, known: Sequence[Seen], of: Callable[[Result], dict[str, str]]) -> Found:
    made = {each.where: of(each.result) for each in known}
    for group in _groups(known, lambda each: _address(each.result, name)):
        several = [
            field
            for field in sorted(_TOLD & made[group[0].where].keys())
            if len({made[each.where][field] for each in group}) > 1
        ]
        for each in group if several else ():
            yield each.where, f"its {name} is there with several: {', '.join(several)}"
    for group in _groups(known, lambda each: canonical_digest(made[each.where])):
        if len({_address(each.result, name) for each in group}) > 1:
            for each in group:
                yield each.where, f"its {name} has two addresses in runs that share all of it"


def _own_options(result: Result, *kinds: OptionKind) -> str:
    return canonical_digest([result.spec.options.get(kind) for kind in kinds])


def _of_model(result: Result) -> dict[str, str]:
    """What the address of a downstream model is made of, as far as a result says it."""
    spec = result.spec
    fields = {
        "task": spec.task,
        "data": _digest(result, "data"),
        "backbone": _digest(result, "backbone"),
        "tuning": spec.tuning,
        "seed": str(spec.seed),
        "options": _own_options(result, "task", "tuning"),
        "how": canonical_digest([spec.dtype, spec.weights, spec.chat, spec.limit]),
    }
    if spec.knowledge is not None and spec.setting == Setting.FINE_TUNING:
        fields["plug"] = str(_address(result, "plug"))
        fields["linker"] = content(result)["linker"]
    return fields


def _of_plug(result: Result) -> dict[str, str]:
    """The same of a plug; a general one is of no task, but a control of it may be."""
    spec = result.spec
    # Which text is shown hangs on examples, which a plug without a task has never seen.
    shown = spec.control in _SHOWING and spec.setting != Setting.TASK_SPECIFIC
    true = shown and _declared(spec.method, "reads_text") is True
    fields = {
        "backbone": _digest(result, "backbone"),
        "knowledge": _digest(result, "knowledge"),
        "method": spec.method,
        "setting": str(spec.setting),
        "control": str(Control.NONE if true else spec.control),
        "seed": str(spec.seed),
        "options": _own_options(result, "method"),
        "how": canonical_digest([spec.dtype, spec.weights]),
    }
    if spec.setting == Setting.TASK_SPECIFIC:
        fields["model"] = str(_address(result, "model"))
        fields["linker"] = content(result)["linker"]
    return fields


def _of_examples(whole: Sequence[Seen]) -> Found:
    """Runs of one data set on one backbone are tested on the same examples."""

    def by(each: Seen) -> Hashable:
        fields = _of_model(each.result)
        return tuple(fields[name] for name in ("task", "data", "backbone", "tuning", "options"))

    for group in _groups(whole, by):
        if len({each.ids for each in group}) > 1:
            for each in group:
                yield each.where, "is tested on other examples than another run of the same data"

    def of_data(each: Seen) -> Hashable:
        result = each.result
        return result.spec.task, _digest(result, "data"), _own_options(result, "task")

    for group in _groups(whole, of_data):
        if len({each.result.counts.get("test_total") for each in group}) > 1:
            for each in group:
                yield each.where, "has another number of test examples than another of its data"


def _of_controls(whole: Sequence[Seen]) -> Found:
    """A control links what its true run links: it breaks what is known, not who."""
    known = [each for each in whole if each.result.spec.knowledge is not None]
    for group in _groups(known, lambda each: _cell(each.result, control=None)):
        true = next((one for one in group if one.result.spec.control == Control.NONE), None)
        for each in group:
            if true is not None and each.links != true.links:
                yield each.where, f"links other examples than {true.where}, whose control it is"


def _of_said(whole: Sequence[Seen], trains: Callable[[Result, bool], bool]) -> Found:
    for group in _groups(whole, lambda each: each.said):
        # One stands for all that are alike in what is asked: else all would meet all.
        apart = {(e.result.spec.seed, e.result.spec.control, e.linked): e for e in group}
        hang = {each.where: trains(each.result, each.linked) for each in group}
        base = any(each.result.spec.knowledge is None for each in group)
        silent = {each.where for each in group if base and each.result.training.get("choice")}
        for each in group:
            other = next(
                (
                    one
                    for one in apart.values()
                    if _impossible(each, one, hang) and not _says_nothing(each, one, silent)
                ),
                None,
            )
            if other is not None:
                text = f"predicts to the last bit what {other.where} does, {_how(each, other)}"
                yield each.where, text


def _impossible(one: Seen, two: Seen, hang: Mapping[str, bool]) -> bool:
    """Whether two runs cannot have predicted the same to the last bit of every probability.

    Args:
        one: a run.
        two: another.
        hang: whether what a run predicts hangs on its seed, by its folder.
    """
    ours, theirs = one.result, two.result
    if one is two:
        return False
    if ours.spec.seed != theirs.spec.seed:
        return hang[one.where] or hang[two.where]
    swapped = ours.spec.control != theirs.spec.control
    return swapped and one.linked and bool({ours.spec.control, theirs.spec.control} & _SWAPPING)


def _says_nothing(one: Seen, two: Seen, silent: Set[str]) -> bool:
    """Whether two runs are the model without knowledge, as dev chose of one of them at least.

    Args:
        one: a run.
        two: another, that predicts the same.
        silent: the folders of those for which something was chosen, and which predict what a model
            without knowledge does.
    """
    chosen = (one.where in silent, two.where in silent)
    bare = (one.result.spec.knowledge is None, two.result.spec.knowledge is None)
    return any(chosen) and all(c or b for c, b in zip(chosen, bare, strict=True))


def _how(one: Seen, two: Seen) -> str:
    if one.result.spec.seed != two.result.spec.seed:
        return f"from seed {two.result.spec.seed}"
    return f"under control {two.result.spec.control}"


def _left_out(read: Mapping[str, Result]) -> Found:
    """Names what belongs to a result and is not there, by the folder that the result lies in."""
    results = [*read.values()]
    chosen, names = choices(results), Names(results)
    ended = {_cell(result): result.status for result in results if result.status != Status.OK}
    there = {_cell(result) for result in results if result.status == Status.OK}
    seeds: dict[str, set[int]] = defaultdict(set)
    every: dict[str, set[int]] = defaultdict(set)
    digests: dict[str, set[str]] = defaultdict(set)
    yardsticks: dict[Hashable, list[Result]] = defaultdict(list)
    for result in results:
        seeds[_cell(result, seed=None)].add(result.spec.seed)
        every[_seeded(result)].add(result.spec.seed)
        if result.status == Status.OK and result.provenance is not None:
            digests[_data(result, names)].add(_digest(result, "data"))
        if result.status == Status.OK and result.spec.knowledge is None:
            yardsticks[_beside(result)].append(result)
    read_by = {method: _reads(method) for method in {r.spec.method for r in results}}
    for where, result in read.items():
        if lacking := sorted(every[_seeded(result)] - seeds[_cell(result, seed=None)]):
            yield where, f"is there without seed {', '.join(map(str, lacking))}"
        if result.status != Status.OK or result.provenance is None:
            continue
        if len(several := digests[_data(result, names)]) > 1:
            yield where, f"{_data(result, names)} is there with {len(several)} different test data"
        choice = chosen.get(result.id, Choice(1, chosen=True))  # of a seed run twice, the latest
        if not choice.settled:
            yield (
                where,
                f"is one of {choice.tried} variants, of which none is chosen: {choice.why}",
            )
        for text in _alone(result, yardsticks[_beside(result)], there, ended, choice, read_by):
            yield where, text


def whole(read: Mapping[str, Result]) -> dict[str, Result]:
    """Returns the results beside which all stands that they are to be read against.

    Of a grid that is not yet worked through that is less than there is: those without their
    foreign control or the model without knowledge are left for later, and of runs side by side
    those of a seed that not all of them have.

    Args:
        read: results, by the folder that each lies in.
    """
    kept = dict(read)
    while True:
        kept = _of_whole_seeds(kept)
        lacking = {where for where, _ in _left_out(kept)}
        if not lacking:
            return kept
        kept = {where: result for where, result in kept.items() if where not in lacking}


def _of_whole_seeds(read: Mapping[str, Result]) -> dict[str, Result]:
    """Of runs that stand side by side those of seeds that all have that the fullest seed has."""
    cells: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    own = {where: (_seeded(r), r.spec.seed, _cell(r, seed=None)) for where, r in read.items()}
    for group, seed, cell in own.values():
        cells[group][seed].add(cell)
    fullest = {
        group: max(several.values(), key=lambda cells: len(cells))
        for group, several in cells.items()
    }
    return {
        where: read[where]
        for where, (group, seed, cell) in own.items()
        if cell in fullest[group] <= cells[group][seed]
    }


def _alone(
    result: Result,
    yardsticks: Sequence[Result],
    there: Set[str],
    ended: Mapping[str, Status],
    choice: Choice,
    read_by: Mapping[str, bool],
) -> Iterator[str]:
    """Yields what a result is to be read against and is not there."""
    if result.spec.knowledge is None or result.spec.control != Control.NONE:
        return
    # What dev did not choose is not shown, and needs no control.
    cell = _cell(result, control="foreign")
    if choice.chosen and read_by[result.spec.method] and cell not in there:
        end = f", which is {ended[cell]}" if cell in ended else ""
        yield f"is there without its foreign control{end}"
    if not any({*differences(result, other)} <= {"method", "data"} for other in yardsticks):
        yield "is there without the model without knowledge"


def _reads(method: str) -> bool:
    """Whether a method reads the knowledge that a control breaks."""
    return _declared(method, "reads_knowledge") is not False


def _declared(method: str, name: str) -> Any:
    """What the source of a method says of itself; None where it is not installed."""
    try:
        return constant(find(Kind.METHODS, method), name)
    except KbenchError:
        return None  # that it is not installed is said elsewhere


def _cell(result: Result, **other: Any) -> str:
    """A run by content, with its seed; two that differ in nothing else are one."""
    fields: dict[str, Any] = {**content(result), "seed": result.spec.seed}
    if result.spec.knowledge is not None and not fields["linker"]:
        fields["linker"] = _linking(result)  # a run that broke off linked nothing yet
    return canonical_digest([{**fields, **other}, options(result)])


def _linking(result: Result) -> str:
    try:
        return task_kind(result.spec.task).linking
    except KbenchError:
        return ""


def _seeded(result: Result) -> str:
    """What runs share that are to be there with the same seeds: they stand side by side."""
    fields = content(result)
    shared = ("task", "data", "backbone", "tuning", "control", "limit")
    return canonical_digest([[fields[name] for name in shared], _own_options(result, "task")])


def _beside(result: Result) -> Hashable:
    """What a run shares with the model without knowledge beside it: else all meet all."""
    fields = content(result)
    shared = {*fields} - {"method", "data", *OF_KNOWLEDGE}
    return (result.spec.seed, *(fields[name] for name in sorted(shared)))


def _data(result: Result, names: Names) -> str:
    own = {path: value for path, value in options(result).items() if path.startswith("task.")}
    return f"task {names.task(result).partition('@')[0]} {own or ''}".strip()
