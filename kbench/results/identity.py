"""What a run is, by content, and what its parts are called: for all that groups, chooses and shows.

Results are addressed by content: digests of data, backbone and knowledge base. Whoever puts
results together by the names that a user typed takes ``kb/`` and ``kb``, or one backbone on two
machines, for two things, and two data sets of one task for one. So everything that groups goes by
:func:`content` and :func:`options`, and everything that shows by :class:`Names`: a part has the
shortest of its names, and where two parts share one, a piece of the digest tells them apart.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import yaml

from kbench.data.files import parse_yaml
from kbench.spec import Control, RunSpec, Setting, short_names, spelled
from kbench.store import Result

__all__ = [
    "FIELDS",
    "OF_KNOWLEDGE",
    "Names",
    "content",
    "differences",
    "fits",
    "key",
    "on_one_model",
    "option_paths",
    "options",
    "table_key",
    "told_apart",
    "value_text",
]

FIELDS = (
    "task",
    "data",
    "backbone",
    "tuning",
    "method",
    "setting",
    "knowledge",
    "control",
    "linker",
    "dtype",
    "weights",
    "chat",
    "limit",
)
"""What tells runs apart, beside the seed and the options of their parts."""
OF_KNOWLEDGE = ("setting", "knowledge", "control", "linker")
"""What means nothing to a run without knowledge."""
_FILED = ("data", "backbone", "knowledge")
"""Parts that have a digest."""
_KINDS = ("task", "tuning", "method")
"""Parts that take options."""
_TRAINED = {
    Setting.GENERAL: {Setting.GENERAL},
    Setting.TASK_SPECIFIC: {Setting.GENERAL, Setting.TASK_SPECIFIC},
    Setting.FINE_TUNING: {Setting.FINE_TUNING},
}
"""Recipes that a plug of a setting comes of."""
_HOW = ".micro_batch"
"""Of a recipe: how steps are computed, not what; so no address has it."""
_PLAIN = {str, int, bool}
_HEX = re.compile(r"[0-9a-f]{6,64}")
_SIGNS = 6
"""Of a digest, to tell two parts of one name apart."""


def content(result: Result) -> dict[str, str]:
    """Returns the fields of a run, equal where what they stand for is equal to the bit.

    Where a run broke off before its parts were read, the name stands for the part, as typed but
    for what means nothing in a path.
    """
    spec = result.spec
    digests = result.provenance.digests if result.provenance else {}
    fields = {name: _word(getattr(spec, name)) for name in FIELDS}
    for name in _FILED:
        fields[name] = digests.get(name) or _tidy(getattr(spec, name))
    fields["linker"] = _linker(result)
    if spec.knowledge is None:
        fields |= {"setting": "", "knowledge": "", "control": str(Control.NONE), "linker": ""}
    return fields


def options(result: Result) -> dict[str, Any]:
    """Returns the options of a run that are not the defaults, by their path as of ``--set``.

    Those of a recipe that the run's setting has no use for are left out.
    """
    spec = result.spec
    defaults = _defaults(result)
    return {
        path: value
        for path, value in spec.settings
        if _counts(path, spec) and not (path in defaults and _same(defaults[path], value))
    }


def key(result: Result) -> str:
    """Returns the same text for results of one run, whatever the seed."""
    chosen = {path: value_text(value) for path, value in options(result).items()}
    return json.dumps([content(result), chosen], sort_keys=True)


def table_key(result: Result) -> tuple[str, ...]:
    """Returns what rows of one table share: what they can be ranked by, on one backbone."""
    fields, score = content(result), result.score
    shared = [fields[name] for name in ("task", "data", "backbone", "tuning", "limit")]
    return (*shared, result.main_metric or "", score.variant if score else "")


def differences(one: Result, two: Result) -> list[str]:
    """Returns the fields and paths of options in which two runs differ, of those that count.

    What concerns knowledge counts between runs that both have it; options of a part between runs
    that share the part.
    """
    ours, theirs = content(one), content(two)
    informed = one.spec.knowledge is not None and two.spec.knowledge is not None
    fields = [name for name in FIELDS if informed or name not in OF_KNOWLEDGE]
    told = [name for name in fields if ours[name] != theirs[name]]
    own, other = options(one), options(two)
    for path in sorted({*own, *other}):
        shared = _counts(path, one.spec) and _counts(path, two.spec)
        if shared and not (path in own and path in other and _same(own[path], other[path])):
            told.append(path)
    return told


def on_one_model(one: Result, two: Result) -> bool:
    """Whether two runs are about one downstream model, by its address, as far as that is known.

    Where the model is tuned with the plug in place, each run has a model of its own.
    """
    if Setting.FINE_TUNING in (_setting(one), _setting(two)):
        return True
    models = [r.provenance.addresses.get("model") if r.provenance else None for r in (one, two)]
    return None in models or models[0] == models[1]


def option_paths(results: Iterable[Result]) -> list[str]:
    """Returns every option that some run has set, by its path."""
    return sorted({path for result in results for path in options(result)})


def fits(result: Result, name: str, glob: str, names: Names | None = None) -> bool:
    """Whether a field or an option of a run is what a glob says.

    Args:
        result: the run.
        name: of a field, ``seed``, or the path of an option, whole or its end (``epochs``).
        glob: of a value. Parts in files go by each path by which one of equal content was typed,
            its last piece, the name that tables show and six or more signs of their digest;
            options by their value, or ``default``.
        names: of what is looked at together; if not given, the run's own spelling alone counts.
    """
    if name in FIELDS:
        typed = names.typed(result, name) if names else ()
        return any(_fits(spelling, glob) for spelling in _spellings(result, name, typed))
    if name == "seed":
        return fnmatchcase(str(result.spec.seed), glob)
    told = options(result)
    paths = [path for path in told if _ends(path, name)]
    if paths:
        return any(_is(told[path], glob) for path in paths)
    same = [value for path, value in _defaults(result).items() if _ends(path, name)]
    return glob == "default" or any(_is(value, glob) for value in same)


class Names:
    """What the data sets, backbones and knowledge bases of some results are called.

    Args:
        results: all that are looked at together: a name need only be clear among them.
    """

    def __init__(self, results: Iterable[Result]) -> None:
        self._spelled: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._owned: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._data: dict[str, set[str]] = defaultdict(set)
        for result in results:
            self._add(result)

    def _add(self, result: Result) -> None:
        fields = content(result)
        for name in _FILED:
            at = _place(result, fields, name)
            self._spelled[at].add(_typed(result, name))
            if name == "data" and (own := _own_name(result)):
                self._owned[at].add(own)
        self._data[_variant(result)].add(fields["data"])

    @cached_property
    def _shown(self) -> dict[tuple[str, ...], str]:
        short = {at: _shortest(names) for at, names in self._spelled.items()}
        short |= {at: min(names, key=_length) for at, names in self._owned.items()}
        sharing: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for at, name in short.items():
            sharing[*at[:-1], name].append(at[-1])
        return {at: _told(name, at[-1], sharing[*at[:-1], name]) for at, name in short.items()}

    def of(self, result: Result, name: str) -> str:
        """Returns the value of a field as people read it; empty where there is none."""
        fields = content(result)
        if name == "task":
            return self.task(result)
        if name in _FILED:
            at = _place(result, fields, name)
            return self._shown.get(at) or _shortest({_typed(result, name)})
        return fields[name]

    def typed(self, result: Result, name: str) -> set[str]:
        """Returns all that a part of a run, or what equals it to the bit, was typed as."""
        at = _place(result, content(result), "data" if name == "task" else name)
        if name == "task":
            return self._owned.get(at, set())
        return self._spelled.get(at, set()) | self._owned.get(at, set())

    def task(self, result: Result) -> str:
        """Returns the name of a task, with that of its data where these make the task."""
        at = _place(result, content(result), "data")
        return f"{result.spec.task}:{self._shown[at]}" if at in self._owned else result.spec.task

    def data(self, result: Result) -> str:
        """Returns the name of a run's data where the task alone would not tell which; or empty."""
        several = len(self._data.get(_variant(result), ())) > 1
        owned = _place(result, content(result), "data") in self._owned
        return self.of(result, "data") if several and not owned else ""

    def title(self, result: Result) -> str:
        """Returns the words that tell a run from others on the same downstream model."""
        spec = result.spec
        if spec.knowledge is None:
            return spec.method
        broken = "" if spec.control == Control.NONE else f"{spec.control} "
        return f"{spec.method} {spec.setting} {broken}{self.of(result, 'knowledge')}"


def told_apart(results: Sequence[Result], names: Names) -> tuple[list[str], list[str]]:
    """Returns what several runs share beyond the defaults, and what tells each from the others.

    It is about all that their tasks, backbones, tunings, methods and knowledge do not say: data,
    options, linker, precision. Options of a method are always said of each run.

    Args:
        results: one of each run.
        names: of their parts.

    Returns:
        what they share, as ``name=value`` each; and a text for each run, empty where nothing is
        to be said.
    """
    among = _Among(results)
    told = [dict(among.aspects(result, names)) for result in results]
    paths = [*dict.fromkeys(path for each in told for path in each)]
    shared = [path for path in paths if _is_shared(path, results, told)]
    short = short_names(paths)
    above = [f"{short[path]}={told[_first(path, told)][path]}" for path in shared]
    own = [
        ", ".join(f"{short[path]}={value}" for path, value in each.items() if path not in shared)
        for each in told
    ]
    return above, own


class _Among:
    """What there is to be said of runs, seen from all that are looked at together."""

    def __init__(self, results: Sequence[Result]) -> None:
        informed = [result for result in results if result.spec.knowledge is not None]
        self._paths = option_paths(results)
        self._linker = len({_linker(r) for r in informed} - {""}) > 1
        self._linker |= any(result.spec.linker for result in informed)
        self._dtype = any(result.spec.dtype != "float32" for result in results)
        self._weights = any(result.spec.weights != "float32" for result in results)
        self._chat = any(result.spec.chat for result in results)
        self._limit = len({result.spec.limit for result in results}) > 1
        self._defaults: dict[tuple[str, ...], dict[str, Any]] = defaultdict(dict)
        for result in results:
            self._defaults[_ground(result)] |= _defaults(result)

    def aspects(self, result: Result, names: Names) -> Iterator[tuple[str, str]]:
        """Yields what is to be said of a run, by field or path of an option."""
        if data := names.data(result):
            yield "data", data
        # An option that it does not set has its default, as the run itself says or one beside it.
        values = {**self._defaults[_ground(result)], **_defaults(result), **options(result)}
        for path in self._paths:
            if _counts(path, result.spec) and path in values:
                yield path, spelled(values[path])
        if self._linker and _linker(result):
            yield "linker", _linker(result)
        if self._dtype:
            yield "dtype", result.spec.dtype
        if self._weights:
            yield "weights", result.spec.weights
        if self._chat:
            yield "chat", "yes" if result.spec.chat else "no"
        if self._limit:
            yield "limit", str(result.spec.limit or "none")


def _defaults(result: Result) -> Mapping[str, Any]:
    return result.provenance.defaults if result.provenance else {}


def _ground(result: Result) -> tuple[str, ...]:
    """What the default of an option may depend on."""
    fields = content(result)
    return tuple(fields[name] for name in ("task", "data", "backbone"))


def _is_shared(path: str, results: Sequence[Result], told: Sequence[Mapping[str, str]]) -> bool:
    if path.startswith("method."):
        return False
    concerned = [
        each.get(path)
        for result, each in zip(results, told, strict=True)
        if path not in OF_KNOWLEDGE or result.spec.knowledge is not None
    ]
    return len(set(concerned)) == 1


def _first(path: str, told: Sequence[Mapping[str, str]]) -> int:
    return next(number for number, each in enumerate(told) if path in each)


def _setting(result: Result) -> Setting | None:
    return result.spec.setting if result.spec.knowledge is not None else None


def _linker(result: Result) -> str:
    """The linker that a run used; empty where none did, or it is not known."""
    if result.spec.knowledge is None:
        return ""
    return result.coverage.linker if result.coverage else result.spec.linker or ""


def _counts(path: str, spec: RunSpec) -> bool:
    """Whether an option is of a part of the run, and of a recipe that it has a use for."""
    kind = path.partition(".")[0]
    owner = f"{kind}.{getattr(spec, kind)}." if kind in _KINDS else ""
    if not owner or not path.startswith(owner) or path.endswith(_HOW):
        return False
    first, *rest = path.removeprefix(owner).split(".")
    recipe = owner.startswith("method.") and rest and first in list(Setting)
    return not recipe or first in _trained(spec)


def _trained(spec: RunSpec) -> Set[str]:
    """The recipes that the plug of a run comes of; of no general one if it starts from scratch."""
    used = _TRAINED[spec.setting]
    scratch = (f"method.{spec.method}.start", "scratch") in spec.settings
    return used - {Setting.GENERAL} if spec.setting == Setting.TASK_SPECIFIC and scratch else used


def _place(result: Result, fields: Mapping[str, str], name: str) -> tuple[str, ...]:
    """What has a name: data sets have theirs within a task."""
    return (name, *((result.spec.task,) if name == "data" else ()), fields[name])


def _typed(result: Result, name: str) -> str:
    """A part as it was typed; of data whose folder is not said any more, the name of it."""
    named = result.provenance.names if result.provenance and name == "data" else {}
    return _tidy(getattr(result.spec, name)) or named.get(name, "")


def _own_name(result: Result) -> str:
    """The name of the data where these make the task: what it is called after a colon."""
    named = result.provenance.names.get("task", "") if result.provenance else ""
    return named.partition(":")[2]


def _variant(result: Result) -> str:
    """A task with those of its options that are no defaults."""
    own = {p: value_text(v) for p, v in options(result).items() if p.startswith("task.")}
    return json.dumps([result.spec.task, own], sort_keys=True)


def _word(value: object) -> str:
    return "none" if value is None else str(value)


def _tidy(path: str | None) -> str:
    """A path as typed, but for what means nothing in it."""
    if not path or path.startswith("hf:"):
        return path or ""
    pieces = [piece for piece in path.split("/") if piece not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(pieces)


def _base(path: str) -> str:
    return path.rsplit("/", maxsplit=1)[-1]


def _shortest(names: Iterable[str]) -> str:
    """The name of a part that goes by several: the shortest last piece of a path.

    ``owner/model`` may be a folder or a repository; alone, it stays as it is.
    """
    spellings = [name for name in names if name]
    if len(spellings) == 1 and spellings[0].count("/") == 1 and spellings[0][0] not in "/.~":
        return spellings[0]
    return min(map(_base, spellings), key=_length, default="")


def _length(name: str) -> tuple[int, str]:
    return len(name), name


def _told(name: str, digest: str, sharing: Sequence[str]) -> str:
    """A name with as much of the digest as tells it from others of that name."""
    if len(sharing) == 1:
        return name
    signs = next(
        (n for n in range(_SIGNS, 64) if len({each[:n] for each in sharing}) == len(sharing)), 64
    )
    return f"{name}@{digest[:signs]}" if name else digest[:signs]


def _spellings(result: Result, name: str, typed: Iterable[str]) -> list[str]:
    """What a field of a run may be called, beside what equal parts of others were typed as."""
    fields = content(result)
    if name == "task":
        owned = {*typed, _own_name(result)} - {""}
        known = [*owned, *(f"{result.spec.task}:{own}" for own in owned)]
        return [result.spec.task, *known, *(f"{own}@{fields['data']}" for own in known)]
    if name not in _FILED:
        return [fields[name] or "none", _word(getattr(result.spec, name))]
    paths = {getattr(result.spec, name), *typed, _typed(result, name)} - {None, ""}
    if not paths and name != "data":
        return ["none"]
    known = [form for path in paths for form in {path, _tidy(path), _base(_tidy(path))}]
    if name == "data" and (own := _own_name(result)):
        known.append(own)
    return [*known, *(f"{path}@{fields[name]}" for path in known), fields[name]]


def _fits(value: str, glob: str) -> bool:
    if fnmatchcase(value, glob) or fnmatchcase(value, _tidy(glob)):
        return True
    name, sign, digest = glob.rpartition("@")
    if sign and _HEX.fullmatch(digest):
        own, _, whole = value.rpartition("@")
        return whole.startswith(digest) and fnmatchcase(own, name)
    return bool(_HEX.fullmatch(glob)) and value.startswith(glob) and len(value) == 64


def _ends(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _is(value: Any, glob: str) -> bool:
    if fnmatchcase(spelled(value), glob):
        return True
    try:
        return _same(parse_yaml(glob), value)
    except yaml.YAMLError:
        return False


def _same(one: Any, two: Any) -> bool:
    if type(one) is type(two) and type(one) in _PLAIN:
        return bool(one == two)  # thousands of times in a large table
    return value_text(one) == value_text(two)


def value_text(value: Any) -> str:
    """Returns a value as text; 8 and 8.0 are one number, 1 and true are two things."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, default=str)
