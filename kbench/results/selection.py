"""Which stored results are meant by a few words, and which of them belong beside each other.

A selection is the beginning of an id, or terms with commas between them, such as
``map-tuning,setting=general``. A result without its seed is a run; the results of its seeds are
one group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

from kbench.errors import UsageError, nearest
from kbench.spec import Control, RunSpec
from kbench.store import Result, Status

__all__ = ["FIELDS", "Group", "Selection", "grouped", "partners", "title"]

Group: TypeAlias = tuple[Result, ...]
"""A run over its seeds, ascending."""

FIELDS = (
    "task",
    "backbone",
    "tuning",
    "method",
    "setting",
    "knowledge",
    "control",
    "linker",
    "dtype",
    "limit",
)
"""What tells runs apart, beside the seed: fields of their specs."""
_OF_KNOWLEDGE = ("setting", "knowledge", "control", "linker")
"""What means nothing to a run without knowledge."""
_SHORTEST = 4
"""Signs of an id that stand for it."""
_HELP = "a method, METHOD,setting=general,… or the beginning of an id"


@dataclass(frozen=True)
class Selection:
    """Some stored results.

    Attributes:
        text: as it was given.
        named: globs of the fields that it names.
        id: the one result it means, if it is an id.
    """

    text: str
    named: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None

    @classmethod
    def parse(cls, text: str, results: Sequence[Result]) -> Selection:
        """Understands a selection.

        Raises:
            UsageError: a term is no field, no method and no id of these results.
        """
        named: dict[str, str] = {}
        for term in filter(None, (part.strip() for part in text.split(","))):
            name, sign, value = term.partition("=")
            if sign:
                if name not in (*FIELDS, "seed"):
                    raise UsageError(f"{text!r}: no field {name!r}{nearest(name, FIELDS)}")
                named[name] = value
                continue
            methods = {result.spec.method for result in results}
            if any(fnmatchcase(method, term) for method in methods):
                named["method"] = term
                continue
            if term == text.strip():
                return cls(text, id=_identified(term, results, methods))
            raise UsageError(f"{text!r}: no stored method {term!r}{nearest(term, methods)}")
        return cls(text, named)

    @property
    def fixed(self) -> frozenset[str]:
        """The fields it decides about: the control always, since broken knowledge is asked for."""
        return frozenset(FIELDS) if self.id else frozenset({*self.named, "control"})

    def __contains__(self, result: Result) -> bool:
        if self.id:
            return result.id == self.id
        wanted = {"control": str(Control.NONE), **self.named}
        return all(_fits(getattr(result.spec, name), glob) for name, glob in wanted.items())


def _identified(term: str, results: Sequence[Result], methods: Iterable[str]) -> str:
    matches = [result for result in results if result.id.startswith(term)]
    if len(term) < _SHORTEST or not matches:
        raise UsageError(
            f"nothing stored is called {term!r}{nearest(term, methods)}; expected {_HELP}"
        )
    if len(matches) > 1:
        raise UsageError(f"{len(matches)} ids begin with {term!r}: give more signs of it")
    if matches[0].status != Status.OK:
        raise UsageError(f"{matches[0].id} is {matches[0].status}: {matches[0].reason}")
    return matches[0].id


def _fits(value: object, glob: str) -> bool:
    spelled = "none" if value is None else str(value)
    # A knowledge base in a folder goes by the folder's name too.
    return fnmatchcase(spelled, glob) or fnmatchcase(spelled.rstrip("/").split("/")[-1], glob)


def grouped(results: Iterable[Result]) -> list[Group]:
    """Returns the runs that ended well, each over its seeds, in the order of appearance.

    Where a seed was run again, on other data or by another kbench, each data set is a run of its
    own and of the rest the latest counts.
    """
    runs: dict[str, dict[int, Result]] = {}
    for result in results:
        if result.status != Status.OK:
            continue
        seeds = runs.setdefault(_key(result), {})
        other = seeds.get(result.spec.seed)
        if other is None or _started(other) <= _started(result):
            seeds[result.spec.seed] = result
    return [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in runs.values()]


def _key(result: Result) -> str:
    spec = result.spec.model_dump(mode="json", exclude={"seed"})
    digests = result.provenance.digests if result.provenance else {}
    return json.dumps([spec, digests.get("data"), digests.get("knowledge")], sort_keys=True)


def _started(result: Result) -> str:
    return result.provenance.started if result.provenance else ""


def partners(
    ours: Iterable[Group], theirs: Selection, results: Iterable[Result]
) -> list[tuple[Group, Group]]:
    """Returns each run with those of a selection that are its own.

    What the selection does not name has to be as in ours; where it chooses one run and ours are
    one, that is what is meant, whatever they differ in. Nothing is set beside itself, and no two
    runs are set beside each other twice.
    """
    ours, free = list(ours), theirs.fixed
    others = grouped(result for result in results if result in theirs)
    known: dict[tuple[str, ...], list[Group]] = {}
    for two in others:
        for informed in {False, two[0].spec.knowledge is not None}:
            known.setdefault(_shared(two[0].spec, free, informed), []).append(two)
    pairs: dict[frozenset[str], tuple[Group, Group]] = {}
    for one in ours:
        near = others if theirs.id else _near(one[0].spec, known, free)
        for two in near:
            if one[0].id != two[0].id and (theirs.id or _same_parts(one[0].spec, two[0].spec)):
                pairs.setdefault(frozenset({one[0].id, two[0].id}), (one, two))
    if not pairs and len(ours) == len(others) == 1 and ours != others:
        return [(ours[0], others[0])]
    return list(pairs.values())


def _near(
    spec: RunSpec, known: Mapping[tuple[str, ...], list[Group]], free: frozenset[str]
) -> list[Group]:
    """Returns the runs that are as this one in the fields that count between the two."""
    loose = known.get(_shared(spec, free, False), [])
    if spec.knowledge is None:
        return loose
    uninformed = [group for group in loose if group[0].spec.knowledge is None]
    return uninformed + known.get(_shared(spec, free, True), [])


def _shared(spec: RunSpec, free: frozenset[str], informed: bool) -> tuple[str, ...]:
    """What two runs have to share, with knowledge both or one of them without."""
    left_out = {*free, *(() if informed else _OF_KNOWLEDGE)}
    fields = [str(getattr(spec, name)) for name in FIELDS if name not in left_out]
    return (str(informed), *fields)


def _same_parts(one: RunSpec, two: RunSpec) -> bool:
    """Whether parts of the same name have the same options."""
    return all(
        one.options.get(kind) == two.options.get(kind)
        for kind in ("task", "tuning", "method")
        if getattr(one, kind) == getattr(two, kind)
    )


def title(spec: RunSpec) -> str:
    """Returns the words that tell a run from others on the same downstream model."""
    if spec.knowledge is None:
        return spec.method
    broken = "" if spec.control == Control.NONE else f"{spec.control} "
    return f"{spec.method} {spec.setting} {broken}{spec.knowledge.rstrip('/').split('/')[-1]}"
