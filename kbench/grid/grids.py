"""Grids: choices on every axis, from a file and the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from kbench.data.files import canonical_digest, parse_yaml, read_yaml
from kbench.errors import UsageError, nearest, one_line
from kbench.spec import Control, Held, Limit, OptionKind, Precision, RunSpec, Seed, Setting

__all__ = [
    "ALIKE",
    "MOST_RUNS",
    "Grid",
    "check_runs",
    "grid_schema",
    "make_grid",
    "make_grids",
    "read_grid",
    "set_option",
]

MOST_RUNS = 20_000
"""Runs of one call: of more somebody has slipped, or means ill."""
ALIKE = 10
"""Of so many cells of a product one may be a run of its own: those without knowledge are one."""
_MOST_PARTS = 1000
_Names: TypeAlias = Annotated[tuple[str, ...], Field(min_length=1)]


class Grid(BaseModel):
    """Choices on every axis; names may be globs or ``all`` until the runner resolves them.

    ``options`` is keyed by kind and part: ``{"method": {"map-tuning": {"general": {"epochs": 3}}},
    "tuning": {"full": {"learning_rate": 1e-4}}, "task": {"open-entity": {...}}}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: _Names
    method: _Names
    backbone: _Names = ("kbench-tiny",)
    tuning: _Names = ("full",)
    setting: tuple[Setting, ...] = Field((Setting.GENERAL, Setting.TASK_SPECIFIC), min_length=1)
    knowledge: _Names = ("atlas",)
    control: tuple[Control, ...] = Field(
        (Control.NONE, Control.FOREIGN, Control.SAME_TYPE), min_length=1
    )
    seed: tuple[Annotated[Seed, Strict()], ...] = Field((0,), min_length=1)
    limit: Limit | None = None
    data: str | None = None
    linker: str | None = None
    dtype: Precision = "float32"
    weights: Held = "float32"
    chat: bool = Field(default=False, strict=True)
    options: dict[OptionKind, dict[str, dict[str, Any]]] = Field(default_factory=dict)

    def cells(self) -> list[RunSpec]:
        """Returns the product of the axes, the seed and control varying fastest.

        Raises:
            UsageError: it has more than :data:`ALIKE` times :data:`MOST_RUNS`.
        """
        choices = (
            self.task,
            self.backbone,
            self.tuning,
            self.method,
            self.knowledge,
            self.setting,
            self.control,
            self.seed,
        )
        check_runs(prod(map(len, choices)) // ALIKE)
        axes = product(*choices)
        return [
            RunSpec(
                task=task,
                backbone=backbone,
                tuning=tuning,
                method=method,
                setting=setting,
                knowledge=knowledge,
                control=control,
                seed=seed,
                limit=self.limit,
                data=self.data,
                linker=self.linker,
                dtype=self.dtype,
                weights=self.weights,
                chat=self.chat,
                options=self._options(task, tuning, method),
            )
            for task, backbone, tuning, method, knowledge, setting, control, seed in axes
        ]

    def _options(self, task: str, tuning: str, method: str) -> dict[str, Any]:
        chosen: dict[OptionKind, str] = {"task": task, "tuning": tuning, "method": method}
        by_kind: dict[str, Any] = {}
        for kind, name in chosen.items():
            options = self.options.get(kind, {}).get(name)
            if options:
                by_kind[kind] = {name: options}
        return by_kind


def check_runs(number: int) -> None:
    """Refuses more runs than anyone means.

    Raises:
        UsageError: there are more than :data:`MOST_RUNS`.
    """
    if number > MOST_RUNS:
        raise UsageError(
            f"that is {number:,} runs or more; at most {MOST_RUNS:,} at once: part the grid"
        )


_LISTS = ("task", "method", "backbone", "tuning", "setting", "knowledge", "control", "seed")


_PARTS = "grids"


def make_grids(
    values: Mapping[str, Any],
    origin: str,
    given: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> list[Grid]:
    """Checks a grid file, and puts what the command line says over it.

    A file is one grid, or several under ``grids``: each of these says in what it differs, and
    what stands beside the list holds for all of them (options are joined key by key). What is
    ``given`` replaces what the file says for all, but of a choice that a grid makes for itself
    only that part is taken which is given: ``--task wiki80`` runs the part of a recipe that is
    about Wiki80, with the options it has for Wiki80. A grid of which nothing is left is dropped.

    Args:
        values: of the file.
        origin: its name.
        given: values of the command line.
        settings: its ``--set`` options, laid over each grid's.

    Raises:
        UsageError: a key is unknown, a value not allowed, or nothing is left; one line.
    """
    given = given or {}
    _check_once(settings)
    common = {key: value for key, value in values.items() if key != _PARTS}
    parts = values.get(_PARTS, [{}])
    if not isinstance(parts, list) or not parts or not all(isinstance(p, dict) for p in parts):
        raise UsageError(f"{origin}: {_PARTS} is {parts!r}; expected a list of mappings")
    if len(parts) > _MOST_PARTS:
        raise UsageError(f"{origin}: {_PARTS} are {len(parts):,}; at most {_MOST_PARTS:,}")
    grids = []
    for number, part in enumerate(parts):
        name = f"{origin}: {_PARTS}.{number}" if _PARTS in values else origin
        merged = {**common, **part, **given}
        for key in part.keys() & given.keys() & {*_LISTS}:
            merged[key] = _narrowed(_choices(key, part[key], name), _choices(key, given[key], name))
        merged["options"] = _joined(common.get("options"), part.get("options"), name)
        for text in settings:
            set_option(merged["options"], text)
        if all(merged[key] for key in part.keys() & given.keys() & {*_LISTS}):
            grids.append(make_grid(merged, name))
    if not grids:
        asked = ", ".join(f"--{key} {value}" for key, value in given.items() if key in _LISTS)
        raise UsageError(f"{origin}: none of its grids has anything of {asked}")
    return grids


def grid_schema() -> dict[str, Any]:
    """Returns the JSON schema of a grid file: one grid, or several under ``grids``."""
    schema = Grid.model_json_schema()
    fields: dict[str, Any] = schema["properties"]
    for name in _LISTS:
        one: list[dict[str, str]] = [{"type": "string"}]
        one += [{"type": "integer"}] if name == "seed" else []
        items = {"anyOf": one} if name == "seed" else fields[name]["items"]
        several = {"type": "array", "items": items, "minItems": 1}
        said = f"{_EXPECTED[name]}; a comma list, too"
        fields[name] = {"anyOf": [several, *one], "description": said}
    fields["limit"] = {
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        ],
    }
    for name in fields:
        fields[name].setdefault("description", _EXPECTED.get(name, ""))
        fields[name].pop("title", None)
    part = {"type": "object", "properties": dict(fields), "additionalProperties": False}
    about = "What each grid says for itself; what stands beside holds for all."
    fields[_PARTS] = {"type": "array", "items": part, "minItems": 1, "description": about}
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A grid of kbench",
        "type": "object",
        "properties": fields,
        "additionalProperties": False,
        **definitions,
    }


def _narrowed(own: list[Any], given: list[Any]) -> list[Any]:
    """Returns the choices of ``own`` that are given; either may hold globs, or be ``all``."""

    def matches(name: Any, globs: list[Any]) -> bool:
        return any(glob == "all" or fnmatchcase(str(name), str(glob)) for glob in globs)

    kept = [name for name in own if matches(name, given)]
    return kept + [name for name in given if name not in kept and matches(name, own)]


def _joined(common: Any, own: Any, origin: str) -> dict[str, Any]:
    """Returns options of a file with those of one of its grids over them."""
    for options in (common, own):
        if options is not None and not isinstance(options, dict):
            raise UsageError(f"{origin}: options is {options!r}; expected {_EXPECTED['options']}")
    joined = deepcopy(common or {})
    _put(joined, own or {})
    return joined


def _put(place: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(place.get(key), dict):
            _put(place[key], value)
        else:
            place[key] = deepcopy(value)


def make_grid(values: Mapping[str, Any], origin: str) -> Grid:
    """Checks the values of a grid; a single value stands for a list of one, 0-9 for ten seeds.

    Raises:
        UsageError: a key is unknown or a value not allowed; one line.
    """
    for key in values:
        if key not in Grid.model_fields:
            raise UsageError(f"{origin}: unknown key {key!r}{nearest(key, Grid.model_fields)}")
    for name in ("task", "method"):
        if values.get(name) is None:
            raise UsageError(
                f"{origin}: --{name} is missing; try `--{name} all`, or `kbench ls {name}s`"
            )
    listed = {
        key: _choices(key, value, origin) if key in _LISTS else value
        for key, value in values.items()
        if value is not None
    }
    for key in _LISTS:
        for value in listed.get(key, ()):
            if isinstance(value, str) and "," in value:
                raise UsageError(
                    f"{origin}: {key}: {value!r} holds a comma, which separates names; "
                    "rename the folder, or link to it by a name without one"
                )
    _check_plain(listed.get("options", {}), f"{origin}: options")
    try:
        return Grid.model_validate(listed)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        given = "empty" if first["input"] in ((), []) else repr(first["input"])
        expected = _EXPECTED[str(first["loc"][0])]
        raise UsageError(f"{origin}: {where} is {given}; expected {expected}") from None


def _check_plain(value: Any, where: str, around: tuple[int, ...] = ()) -> None:
    """Refuses what no address can be made of, by its path.

    Args:
        value: of an option, or a mapping of such.
        where: its path.
        around: the mappings that it lies in, by id(): YAML can put one into itself.

    Raises:
        UsageError: it is not finite, a date, or has a key that is not text.
    """
    try:
        canonical_digest(value)
        return
    except (TypeError, ValueError, RecursionError) as cause:
        problem, too_deep = str(cause), isinstance(cause, RecursionError)
    if isinstance(value, Mapping) and not too_deep and id(value) not in around:
        for key, inner in value.items():
            _check_plain(inner, f"{where}.{key}", (*around, id(value)))
    given = problem if isinstance(value, Mapping | list) else f"{value!r}"
    raise UsageError(
        f"{where} is {given}; expected text, finite numbers, true, false, null, lists and "
        "mappings of these"
    )


_NAMES = "one or more names or globs, as text"
_EXPECTED: Mapping[str, str] = {
    **dict.fromkeys(_LISTS, _NAMES),
    "setting": f"one or more of {', '.join(Setting)}",
    "control": f"one or more of {', '.join(Control)}",
    "seed": "whole numbers from 0 to 4294967295, or ranges such as 0-9",
    "limit": "a whole number, at least 1, or a share between 0 and 1",
    "data": "a folder, or hf:REPOSITORY[@REVISION]",
    "linker": "the name of a linker, as text",
    "dtype": " or ".join(get_args(Precision)),
    "weights": " or ".join(get_args(Held)),
    "chat": "true or false",
    "options": "for task, tuning or method a mapping of names, each to a mapping of options",
}
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_RANGE = re.compile(r"([0-9]{1,10})-([0-9]{1,10})", re.ASCII)
_MOST_SEEDS = MOST_RUNS


def _choices(key: str, value: Any, origin: str) -> list[Any]:
    """Returns the choices of an axis; of seeds, ranges in full and each once."""
    listed = _listed(value)
    if key != "seed":
        return listed
    pieces = [_seeds(piece, origin) for piece in listed]
    if (number := sum(map(len, pieces))) > _MOST_SEEDS:
        raise UsageError(f"{origin}: seed names {number:,} seeds; at most {_MOST_SEEDS:,}")
    seeds = [seed for piece in pieces for seed in piece]
    # What is no number is told by whoever looks at the values; it may be of no set either.
    return [*dict.fromkeys(seeds)] if all(type(seed) is int for seed in seeds) else seeds


def _seeds(piece: Any, origin: str) -> Sequence[Any]:
    """Returns the seeds that a text spells, both ends of a range included; else what is there.

    Raises:
        UsageError: the range is empty, or longer than anyone means.
    """
    if not isinstance(piece, str):
        return [piece]
    if "," in piece:  # text in a list, which the file of a grid may hold
        return [seed for part in _listed(piece) for seed in _seeds(part, origin)]
    if _NUMBER.fullmatch(piece):
        return [int(piece)]
    match = _RANGE.fullmatch(piece)
    if not match:
        return [piece]
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < _MOST_SEEDS:
        raise UsageError(
            f"{origin}: seed is {piece!r}; expected a range whose end is not before its start, of "
            f"at most {_MOST_SEEDS:,} seeds, such as 0-9"
        )
    return range(first, last + 1)


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [piece.strip() for piece in value.split(",") if piece.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def read_grid(path: Path) -> dict[str, Any]:
    """Reads a grid file.

    Raises:
        DataError: it is missing, is no YAML, or is no mapping.
    """
    return read_yaml(
        path, "a YAML mapping such as `task: [atlas-qa]`, `method: [none, map-tuning]`"
    )


def _check_once(settings: Sequence[str]) -> None:
    """Refuses ``--set`` of which one takes away what another one says."""
    said: dict[str, str] = {}
    for text in settings:
        path = text.partition("=")[0]
        for earlier, whole in said.items():
            if whole != text and (earlier == path or earlier.startswith(f"{path}.")):
                raise UsageError(f"--set {text!r} replaces --set {whole!r}; give one of them")
        said[path] = text


def set_option(options: dict[str, Any], text: str) -> None:
    """Applies ``--set KIND.PART.KEY=VALUE`` to the options of a grid; the value is YAML.

    Raises:
        UsageError: the text is not of this form.
    """
    path, sign, value = text.partition("=")
    keys = path.split(".")
    if not sign or len(keys) < 3 or keys[0] not in ("task", "tuning", "method"):
        raise UsageError(
            f"--set {text!r}: expected KIND.PART.KEY=VALUE with KIND task, tuning or method, "
            "such as tuning.full.learning_rate=1e-4 or method.map-tuning.general.epochs=3"
        )
    try:
        parsed = parse_yaml(value)
    except yaml.YAMLError as cause:
        why = getattr(cause, "problem", None) or one_line(cause)
        raise UsageError(f"--set {text!r}: the value is not YAML ({why})") from None
    place = options
    for key in keys[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise UsageError(f"--set {text!r}: {key} already has a value")
    place[keys[-1]] = parsed
