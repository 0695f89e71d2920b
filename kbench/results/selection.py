"""Which stored results are meant by a few words, and which of them belong beside each other.

A selection is the beginning of an id, or terms with commas between them, such as
``map-tuning,setting=general,epochs=2``: a method, a field, or an option by its path as of
``--set`` or the end of it. A result without its seed is a run; the results of its seeds are one
group. What runs are is for :mod:`kbench.results.identity` to say: they are told apart by content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

from kbench.errors import UsageError, nearest
from kbench.results.identity import (
    FIELDS,
    OF_KNOWLEDGE,
    Names,
    content,
    differences,
    fits,
    key,
    option_paths,
    options,
    value_text,
)
from kbench.spec import Control, spelled
from kbench.store import Result, Status

__all__ = ["Group", "Selection", "apart", "choices", "grouped", "partners"]

Group: TypeAlias = tuple[Result, ...]
"""A run over its seeds, ascending."""

_SHORTEST = 4
"""Signs of an id that stand for it."""
_HELP = "a method, METHOD,setting=general,… or the beginning of an id"
_NAMED = 4
"""Choices that an error names."""


@dataclass(frozen=True)
class Selection:
    """Some stored results.

    Attributes:
        text: as it was given.
        named: globs of the fields and options that it names.
        id: the one result it means, if it is an id.
        names: of the parts of all results that it was understood among.
    """

    text: str
    named: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None
    names: Names | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, results: Sequence[Result]) -> Selection:
        """Understands a selection.

        Raises:
            UsageError: there is no term, or one is no field, no method and no id of these results.
        """
        named: dict[str, str] = {}
        terms = [term for part in text.split(",") if (term := part.strip())]
        if not terms:
            raise UsageError(f"{text!r} says nothing; expected {_HELP}")
        for term in terms:
            name, sign, value = term.partition("=")
            if sign:
                _check_name(text, name, results)
                named[name] = value
                continue
            methods = {result.spec.method for result in results}
            if any(fnmatchcase(method, term) for method in methods):
                named["method"] = term
                continue
            if term == text.strip():
                return cls(text, id=_identified(term, results, methods))
            raise UsageError(f"{text!r}: no stored method {term!r}{nearest(term, methods)}")
        return cls(text, named, names=Names(results))

    @property
    def asks(self) -> bool:
        """Whether it says which of the variants of a sweep: by an id, or by an option."""
        return bool(self.id) or any(name not in (*FIELDS, "seed") for name in self.named)

    def decides(self, name: str) -> bool:
        """Whether it says what a field or option has to be: the control always."""
        if self.id or name == "control" or name in self.named:
            return True
        # Another task has other data.
        if name == "data":
            return "task" in self.named
        return any(name.endswith(f".{end}") for end in self.named)

    def __contains__(self, result: Result) -> bool:
        if self.id:
            return result.id == self.id
        wanted = {"control": str(Control.NONE), **self.named}
        return all(fits(result, name, glob, self.names) for name, glob in wanted.items())


def _check_name(text: str, name: str, results: Sequence[Result]) -> None:
    paths = sorted({path for result in results for path, _ in result.spec.settings})
    # Also the end of a path: epochs, room, general.epochs.
    ends = {path.split(".", at)[-1] for path in paths for at in range(1, path.count(".") + 1)}
    if name not in (*FIELDS, "seed", *paths, *ends):
        raise UsageError(f"{text!r}: no field {name!r}{nearest(name, (*FIELDS, *paths, *ends))}")


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


def grouped(results: Iterable[Result]) -> list[Group]:
    """Returns the runs that ended well, each over its seeds, in the order of appearance.

    Where a seed was run again, on other data or by another kbench, each data set is a run of its
    own and of the rest the latest counts.
    """
    runs: dict[str, dict[int, Result]] = {}
    for result in results:
        if result.status != Status.OK:
            continue
        seeds = runs.setdefault(key(result), {})
        other = seeds.get(result.spec.seed)
        if other is None or _started(other) <= _started(result):
            seeds[result.spec.seed] = result
    return [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in runs.values()]


def _started(result: Result) -> str:
    return result.provenance.started if result.provenance else ""


def partners(
    ours: Iterable[Group], theirs: Selection, results: Iterable[Result], *, strict: bool = False
) -> list[tuple[Group, Group]]:
    """Returns each run with those of a selection that are its own.

    What the selection does not name has to be as in ours; where it chooses one run and ours are
    one, that is what is meant, whatever they differ in, unless ``strict``. Nothing is set beside
    itself, and no two runs are set beside each other twice.
    """
    ours = list(ours)
    others = grouped(result for result in results if result in theirs)
    known: dict[tuple[str, ...], list[Group]] = {}
    for two in others:
        for informed in {False, two[0].spec.knowledge is not None}:
            known.setdefault(_shared(two[0], theirs, informed), []).append(two)
    pairs: dict[frozenset[str], tuple[Group, Group]] = {}
    for one in ours:
        near = others if theirs.id else _near(one[0], known, theirs)
        for two in near:
            if one[0].id != two[0].id and (theirs.id or not _unnamed(one[0], two[0], theirs)):
                pairs.setdefault(frozenset({one[0].id, two[0].id}), (one, two))
    if not (pairs or strict) and len(ours) == len(others) == 1 and ours != others:
        return [(ours[0], others[0])]
    return list(pairs.values())


def _near(
    result: Result, known: Mapping[tuple[str, ...], list[Group]], theirs: Selection
) -> list[Group]:
    """Returns the runs that are as this one in the fields that count between the two."""
    loose = known.get(_shared(result, theirs, False), [])
    if result.spec.knowledge is None:
        return loose
    uninformed = [group for group in loose if group[0].spec.knowledge is None]
    return uninformed + known.get(_shared(result, theirs, True), [])


def _shared(result: Result, theirs: Selection, informed: bool) -> tuple[str, ...]:
    """What two runs have to share, with knowledge both or one of them without."""
    fields = content(result)
    counting = [name for name in FIELDS if informed or name not in OF_KNOWLEDGE]
    asked = [name for name in counting if not theirs.decides(name)]
    # Of parts that both have; where a part may be another one, options are looked at one by one.
    chosen = [
        f"{path}={value_text(value)}"
        for path, value in options(result).items()
        if not (theirs.decides(path) or theirs.decides(path.partition(".")[0]))
    ]
    return (str(informed), *(fields[name] for name in asked), *sorted(chosen))


def _unnamed(one: Result, two: Result, theirs: Selection) -> list[str]:
    """In what two runs differ beside what the selection names."""
    return [name for name in differences(one, two) if not theirs.decides(name)]


def apart(ours: Sequence[Group], theirs: Sequence[Selection], results: Sequence[Result]) -> str:
    """Returns what the nearest of some selections differs from ours in, for an error; or empty."""
    others = [group for each in theirs for group in grouped(r for r in results if r in each)]
    pairs = [(one[0], two[0]) for one in ours for two in others if one[0].id != two[0].id]
    if not others:
        return f"; no run that ended well is {' or '.join(repr(each.text) for each in theirs)}"
    if not pairs:
        return ""
    one, two = min(pairs, key=lambda pair: len(_named_by_none(pair[0], pair[1], theirs)))
    names = Names([one, two])
    told = [
        f"{name} ({_value(one, name, names)} against {_value(two, name, names)})"
        for name in _named_by_none(one, two, theirs)
    ]
    return f"; the nearest differ in {', '.join(told)}" if told else ""


def _named_by_none(one: Result, two: Result, theirs: Sequence[Selection]) -> list[str]:
    return [n for n in differences(one, two) if not any(each.decides(n) for each in theirs)]


def choices(groups: Sequence[Group], names: Names) -> str:
    """Returns the terms that would choose among some runs, as ``data=rivers or data=roads; …``."""
    first = [group[0] for group in groups]
    told: list[str] = []
    for name in ("method", *(n for n in FIELDS if n != "method"), *option_paths(first)):
        values = sorted({value for result in first if (value := _value(result, name, names))})
        if len(values) > 1 and not (name == "data" and any("task=" in each for each in told)):
            terms = [f"{name}={value}" for value in values]
            more = f" or {len(terms) - _NAMED} more" if len(terms) > _NAMED else ""
            told.append(" or ".join(terms[:_NAMED]) + more)
    return "; ".join(told)


def _value(result: Result, name: str, names: Names) -> str:
    """The value of a field or option that chooses a run."""
    if name in FIELDS:
        return names.of(result, name)
    own = options(result)
    return spelled(own[name]) if name in own else "default"
