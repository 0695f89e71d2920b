"""What a result says against what is installed here: its data, its parts and its addresses.

Addresses are made again of what a result states: the digests of its data, backbone and knowledge
base, and the names and options of its parts. So nothing is loaded but code, and the data of tasks
that bring theirs or that are at hand. No path that a result names is followed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import get_args

from kbench.data import Example, Label, Split
from kbench.data.files import canonical_digest
from kbench.errors import InputError, KbenchError, Unsupported, UsageError
from kbench.knowledge import Bundle
from kbench.parts.find import (
    find_backbone,
    find_knowledge,
    find_task,
    offered,
    revisions,
    task_kind,
)
from kbench.parts.registry import Kind, find, names
from kbench.pipeline.revision import ENGINE_REVISION
from kbench.results.remaking import NotHereError, Stated, check_options_of
from kbench.results.rereading import Reading, Readings
from kbench.results.rescoring import Popularity, popularity_of, rescored_parts
from kbench.spec import OptionKind, RunSpec, check_options, check_values
from kbench.store import Predictions, Provenance, Result, Status
from kbench.task import ProbeTask, QuestionTask, Task
from kbench_leaderboard.sources import leads_elsewhere
from kbench_leaderboard.submission import Entry
from kbench_leaderboard.untrue import checked, differing, guarded

__all__ = ["Installed"]


class Installed:
    """What is installed here, to hold results against.

    Args:
        data: where data of tasks are that do not bring theirs, as for ``kbench run --data``.
    """

    def __init__(self, data: Path | None = None) -> None:
        self._data = str(data) if data else None
        self._tasks: dict[str, tuple[Task | None, Task | None]] = {}
        self._bases: dict[str, Bundle] = {}
        self._popular: dict[str, Popularity] = {}
        self._kept: dict[str, range | set[int]] = {}
        self._orders: dict[str, Mapping[str, tuple[int, Example]]] = {}
        self._readings = Readings()

    def findings(self, entry: Entry) -> Iterator[str]:
        """Yields what of a result is not so by what is installed here."""
        result = entry.result
        assert result is not None
        made = result.provenance
        if made is None or made.revision != ENGINE_REVISION:
            return  # told elsewhere
        if result.status != Status.OK:
            # One that broke off before it had read its parts says nothing of them.
            if made.digests.get("backbone") and made.addresses.get("model"):
                with suppress(KbenchError):  # it is of a run that could not be
                    yield from self._made(result, made)
            return
        for check in (self._named, self._made):
            yield from guarded(check(result, made))
        if entry.predictions is not None:
            yield from checked(self._examples, entry, entry.predictions)
            yield from checked(self._read, entry, entry.predictions)
            yield from checked(self._popularity, entry, entry.predictions)

    def trains(self, result: Result, linked: bool) -> bool:
        """Returns whether what a run predicts hangs on its seed; taken for so if it is unknown.

        Args:
            result: of the run.
            linked: whether any example has knowledge, so that a plug makes a difference.
        """
        try:
            return Stated(result, None, left_to_right=False).trains(linked)
        except KbenchError:
            return True

    def task(self, result: Result) -> Task | None:
        """Returns the task of a result with its data; None where they are not at hand.

        A task that brings its data has no others; of a folder that is given only the very data
        count that the result is of.
        """
        options = result.spec.options_of("task")
        key = canonical_digest([result.spec.task, options])
        if key not in self._tasks:
            known = not leads_elsewhere(options)
            own = _with_data(result.spec, None) if known else None
            given = _with_data(result.spec, self._data) if known and self._data else None
            self._tasks[key] = own, given
        own, given = self._tasks[key]
        stated = result.provenance and result.provenance.digests.get("data")
        return own or (given if given is not None and given.digest == stated else None)

    @cached_property
    def _digests(self) -> Mapping[Kind, Mapping[str, str]]:
        return {kind: _installed(kind) for kind in (Kind.BACKBONES, Kind.KNOWLEDGE)}

    def _named(self, result: Result, made: Provenance) -> Iterator[str]:
        yield from _names(result, made, self._digests)

    def _made(self, result: Result, made: Provenance) -> Iterator[str]:
        """The addresses of its model and plug, made again; and its defaults, which follow too."""
        task = self.task(result)
        if task is not None and made.digests.get("data") not in (None, task.digest):
            yield f"its data are not those of task {result.spec.task} here, and have its name"
            return
        if task is not None and made.digests.get("training", "") not in ("", task.training_digest):
            yield f"its train and dev are not those of task {result.spec.task} here"
            return
        wrong: list[str] = []
        _check_known(result.spec)
        probe = issubclass(task_kind(result.spec.task), ProbeTask)
        if task is None and not probe and not made.digests.get("training"):
            yield (
                "does not state the digest of what it was trained on (results of before do not), "
                "so its addresses cannot be made again without its data: give --data"
            )
            return
        for left_to_right in _ways(result.spec.backbone):
            parts = Stated(result, task, left_to_right=left_to_right)
            try:
                wrong = [*_of_parts(result, made, parts)]
            except NotHereError:
                continue
            except (InputError, Unsupported):
                if task is not None:  # then it is no lack of data
                    raise
                continue
            if not wrong:
                return
        yield from wrong

    def _examples(self, entry: Entry, result: Result, given: Predictions) -> Iterator[str]:
        task = self.task(result)
        if task is None:
            return
        known = self._order(task)
        strange = next((name for name in given.ids if name not in known), None)
        if strange is not None:
            yield f"example {str(strange)[:40]!r} is none of task {result.spec.task}"
            return
        places = [known[name][0] for name in given.ids]
        if places != sorted(places):
            yield "its examples are in another order than those of the task"
        for name, label, stratum in zip(given.ids, given.labels, given.strata, strict=True):
            example = known[name][1]
            if not _is_gold(label, example) or stratum != example.stratum:
                yield f"gold of example {name!r} is not that of task {result.spec.task}"
                break
        total = max(len(known), task.counts.get("test_total", 0))
        if result.spec.limit is not None:
            return  # told elsewhere
        if result.counts.get("test_total") != total:
            yield f"test_total is stated as {result.counts.get('test_total')}, the task has {total}"
        if task.digest not in self._kept:
            self._kept[task.digest] = _kept(task, known)
        if len(given.ids) not in self._kept[task.digest]:
            yield (
                f"is tested on {len(given.ids)} examples, and task {result.spec.task} leaves "
                f"out none of its {len(known)}"
            )

    def _read(self, entry: Entry, result: Result, given: Predictions) -> Iterator[str]:
        """What it says of how its examples were read, where all that reads them is here."""
        task, name, made = self.task(result), result.spec.knowledge, result.provenance
        if task is None or made is None or result.spec.limit is not None:
            return
        base = None
        if name is not None and name in names(Kind.KNOWLEDGE):
            here = self._base(name)
            base = here if here.digest == made.digests.get("knowledge") else None
        reading = self._readings.of(result, task, base)
        if reading is not None:
            yield from _otherwise(result, given, reading)

    def _order(self, task: Task) -> Mapping[str, tuple[int, Example]]:
        if task.digest not in self._orders:
            examples = task.examples(Split.TEST)
            self._orders[task.digest] = {e.id: (at, e) for at, e in enumerate(examples)}
        return self._orders[task.digest]

    def _popularity(self, entry: Entry, result: Result, given: Predictions) -> Iterator[str]:
        """The scores by popularity, where the knowledge base says what is popular."""
        name, made = result.spec.knowledge, result.provenance
        if name is None or made is None or name not in names(Kind.KNOWLEDGE):
            return
        if self._base(name).digest != made.digests.get("knowledge"):
            return
        stated = {"popularity": result.buckets.get("popularity", {})}
        again = rescored_parts(result, given, self._popular[name]).get("popularity", {})
        yield from differing(stated, {"popularity": again})

    def _base(self, name: str) -> Bundle:
        if name not in self._bases:
            self._bases[name] = find_knowledge(name)
            self._popular[name] = popularity_of(self._bases[name])
        return self._bases[name]


def _otherwise(result: Result, given: Predictions, reading: Reading) -> Iterator[str]:
    """Where predictions are of other inputs than a run has."""
    spec = result.spec
    if [*given.ids] != [*reading.ids]:
        yield (
            f"is tested on {len(given.ids)} examples, and of those of task {spec.task} backbone "
            f"{spec.backbone} is asked {len(reading.ids)}"
        )
        return
    if reading.linked is None or reading.degrees is None or reading.in_context is None:
        return
    if [*map(bool, given.linked)] != [*reading.linked]:
        yield (
            f"says of {sum(map(bool, given.linked))} examples that they are linked, and with "
            f"{spec.knowledge} {sum(reading.linked)} are"
        )
    elif [*given.degrees] != [*reading.degrees]:
        yield f"states other numbers of facts than {spec.knowledge} has"
    if [*map(bool, given.in_context)] != [*reading.in_context]:
        brought = "those that it was brought" if reading.in_context else "its method brings none"
        yield f"says of other texts that they held an answer: {brought}"


def _with_data(spec: RunSpec, data: str | None) -> Task | None:
    try:
        task = find_task(spec.task, data, spec.options_of("task"))
        return task if task.digest else None
    except KbenchError:
        return None


def _check_known(spec: RunSpec) -> None:
    """Refuses parts that are not installed, and options that they do not have.

    Raises:
        KbenchError: such a run was never made.
    """
    for part, said in spec.options.items():
        name = getattr(spec, part, None)
        if part not in get_args(OptionKind) or not isinstance(said, dict) or {*said} != {name}:
            raise UsageError(f"options of {part} are set that are not of its {part} {name}")
    kind, options = task_kind(spec.task), spec.options_of("task")
    check_options(options, kind.defaults, f"task {spec.task}")
    check_values(options, kind.defaults, kind.option_types, f"task {spec.task}")
    check_options_of(spec)


def _ways(backbone: str) -> tuple[bool, ...]:
    """Whether a backbone reads from left to right; both, where it is not installed."""
    if backbone in names(Kind.BACKBONES):
        return (find_backbone(backbone).left_to_right,)
    return False, True


def _of_parts(result: Result, made: Provenance, parts: Stated) -> Iterator[str]:
    for name, address in parts.addresses.items():
        if made.addresses.get(name) != address:
            yield (
                f"the address of its {name} does not follow from what it says of task, data, "
                "backbone, tuning, knowledge, control, options and seed"
            )
    if result.status != Status.OK and parts.result_id != result.id:
        yield "its id does not follow from what it says of its parts"
    if result.status == Status.OK:
        yield from _recipes(result, parts)
    linked = result.coverage and (result.coverage.linker, result.coverage.threshold)
    if linked and linked != (parts.linker, parts.task.link_threshold):
        yield "was linked otherwise than its task and its options say"
    defaults = json.loads(json.dumps(parts.defaults))
    if any(defaults.get(path) != value for path, value in made.defaults.items()):
        yield "its defaults are not those of its parts"
    card = parts.task.card.name
    named = f"{result.spec.task}:{card}" if card else None
    if made.names.get("task") not in (None, named):
        yield f"calls its task {made.names['task'][:40]!r}"


def _recipes(result: Result, parts: Stated) -> Iterator[str]:
    """How it was trained follows from its parts and options, as its addresses do."""
    for name, recipe in parts.recipes.items():
        told = result.training.get(name)
        stated = told.get("recipe") if isinstance(told, dict) else None
        if recipe is not None and stated != json.loads(json.dumps(recipe)):
            yield f"its recipe of {name} is not that of its parts and options"


def _names(
    result: Result, made: Provenance, installed: Mapping[Kind, Mapping[str, str]]
) -> Iterator[str]:
    """A backbone or knowledge base that is installed has its own digest, and its own name."""
    for what, kind, name in (
        ("backbone", Kind.BACKBONES, result.spec.backbone),
        ("knowledge", Kind.KNOWLEDGE, result.spec.knowledge),
    ):
        stated, known = made.digests.get(what), installed[kind]
        if name is None or stated is None:
            continue
        if name in known and known[name] != stated:
            yield f"{what} {name} has another digest here"
        owner = next((own for own, digest in known.items() if digest == stated), None)
        if owner is not None and name.rstrip("/").rsplit("/", 1)[-1] != owner:
            yield f"{what} {name[:60]} is {owner}, by its digest"
    mine = revisions(result.spec.task, result.spec.tuning, result.spec.method)
    for what, revision in made.revisions.items():
        if mine.get(what, revision) != revision:
            yield (
                f"was made by revision {revision[:40]} of its {what[:20]}, and this is "
                f"{mine[what]}: run it again"
            )
    here = offered(result.spec)
    for what, said in made.parts.items():
        if said.split()[:1] != here.get(what, said).split()[:1] or not hasattr(result.spec, what):
            yield f"its {what[:20]} is of {said[:60]}, and {here.get(what)} offers it here"
    entry = find(Kind.METHODS, result.spec.method)
    own = str(made.plugin.get("distribution") or entry.distribution)
    if own.split()[:1] != entry.distribution.split()[:1]:
        yield f"its method is of {own[:60]}, and {entry.distribution} offers one of that name here"


def _installed(kind: Kind) -> dict[str, str]:
    """The digests of what is installed of a kind, by name; what does not load has none."""
    digests = {}
    for name in names(kind):
        try:
            found = find_backbone(name) if kind == Kind.BACKBONES else find_knowledge(name)
            digests[name] = found.digest
        except KbenchError:
            continue
    return digests


def _is_gold(label: Label, example: Example) -> bool:
    """Whether a stored gold label is that of an example: of questions it may lack some answers."""
    if isinstance(label, str) or isinstance(example.label, str):
        return label == example.label
    if example.blank is not None:
        return bool(label) and {*label} <= {*example.label}
    return {*label} == {*example.label}


def _kept(task: Task, known: Mapping[str, tuple[int, Example]]) -> range | set[int]:
    """How many test examples may be kept; any number where that is for a tokenizer to say."""
    if isinstance(task, QuestionTask) and task.way == "token":
        return range(1, len(known) + 1)
    put = task.asked and sum(task.asked.put(each) is not None for _, each in known.values())
    return {len(known), put or len(known)}
