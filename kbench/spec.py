"""What a run is: one cell of the grid, and grids as lists of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kbench.errors import UsageError, nearest
from kbench.files import canonical_digest, parse_yaml, read_yaml

__all__ = [
    "Control",
    "Grid",
    "RunSpec",
    "Setting",
    "make_grid",
    "make_grids",
    "read_grid",
    "set_option",
]


Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
OptionKind: TypeAlias = Literal["task", "tuning", "method"]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
Names: TypeAlias = Annotated[tuple[str, ...], Field(min_length=1)]


class Setting(StrEnum):
    """What a plug is trained on and what stays frozen meanwhile.

    ``general``: the plug never saw the task. ``task-specific``: trained on the task while the
    downstream model stays frozen. ``fine-tuning``: the plug is fixed and the model is tuned with
    it in place (an upper reference, not plug-and-play).
    """

    GENERAL = "general"
    TASK_SPECIFIC = "task-specific"
    FINE_TUNING = "fine-tuning"


class Control(StrEnum):
    """How the knowledge is broken; ``none`` is the true knowledge base."""

    NONE = "none"
    SHUFFLED = "shuffled"
    RANDOM = "random"
    ZERO = "zero"


class RunSpec(BaseModel):
    """One run. ``knowledge`` is None for methods that use none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    backbone: str
    tuning: str
    method: str
    setting: Setting
    knowledge: str | None
    control: Control
    seed: Seed
    limit: int | None = Field(default=None, ge=1)
    data: str | None = None
    linker: str | None = None
    dtype: Precision = "float32"
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        """A short name for people."""
        parts = [self.task, self.backbone, self.tuning, self.method]
        if self.knowledge is not None:
            parts += [str(self.setting), self.knowledge]
            parts += [] if self.control == Control.NONE else [f"control={self.control}"]
        return f"{' / '.join(parts)} / seed {self.seed}"

    def options_of(self, kind: OptionKind) -> dict[str, Any]:
        """Returns what is set of the run's task, tuning or method.

        Raises:
            UsageError: it is no mapping.
        """
        name = getattr(self, kind)
        options = self.options.get(kind, {}).get(name, {})
        if not isinstance(options, dict):
            raise UsageError(f"options.{kind}.{name} is {options!r}; expected a mapping")
        return options

    def command(self) -> str:
        """Returns the command that repeats this run alone."""
        import shlex

        words = ["kbench", "run", "--task", self.task, "--method", self.method]
        words += ["--backbone", self.backbone, "--tuning", self.tuning, "--seed", str(self.seed)]
        if self.knowledge is not None:
            words += ["--setting", self.setting, "--knowledge", self.knowledge]
            words += ["--control", self.control]
        for name in ("limit", "data", "linker"):
            if getattr(self, name) is not None:
                words += [f"--{name}", str(getattr(self, name))]
        if self.dtype != "float32":
            words += ["--dtype", self.dtype]
        for path, value in _leaves(self.options):
            words += ["--set", f"{path}={_spelled(value)}"]
        return shlex.join(words)


def _spelled(value: Any) -> str:
    """Returns text that ``--set`` reads as the value."""
    if isinstance(value, str) and _reads_back(value):
        return value
    # Text that looks like a number or a word of YAML is put in quotes.
    style = '"' if isinstance(value, str) else None
    text = _dumped(value, style, readable=True)
    # A line end of Unicode in the text of a list would be folded into a blank.
    return text if parse_yaml(text) == value else _dumped(value, style, readable=False)


def _dumped(value: Any, style: str | None, *, readable: bool) -> str:
    """Returns a value as YAML in one line, whatever is not ASCII as it is or escaped."""
    text = yaml.safe_dump(
        value, default_flow_style=True, default_style=style, allow_unicode=readable, width=2**31
    )
    return str(text).removesuffix("\n").removesuffix("\n...")


def _reads_back(text: str) -> bool:
    try:
        value = _parsed(text)
    except yaml.YAMLError:
        return False
    return isinstance(value, str) and value == text


def _leaves(options: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in sorted(options.items()):
        name = f"{path}.{key}" if path else key
        found += _leaves(value, name) if isinstance(value, dict) else [(name, value)]
    return found


class Grid(BaseModel):
    """Choices on every axis; names may be globs or ``all`` until the runner resolves them.

    ``options`` is keyed by kind and part: ``{"method": {"map-tuning": {"general": {"epochs": 3}}},
    "tuning": {"full": {"learning_rate": 1e-4}}, "task": {"open-entity": {...}}}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Names
    method: Names
    backbone: Names = ("kbench-tiny",)
    tuning: Names = ("full",)
    setting: tuple[Setting, ...] = Field((Setting.GENERAL, Setting.TASK_SPECIFIC), min_length=1)
    knowledge: Names = ("atlas",)
    control: tuple[Control, ...] = Field((Control.NONE, Control.SHUFFLED), min_length=1)
    seed: tuple[Seed, ...] = Field((0,), min_length=1)
    limit: int | None = Field(default=None, ge=1)
    data: str | None = None
    linker: str | None = None
    dtype: Precision = "float32"
    options: dict[OptionKind, dict[str, dict[str, Any]]] = Field(default_factory=dict)

    def cells(self) -> list[RunSpec]:
        """Returns the product of the axes, the seed and control varying fastest."""
        axes = product(
            self.task,
            self.backbone,
            self.tuning,
            self.method,
            self.knowledge,
            self.setting,
            self.control,
            self.seed,
        )
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
                options=self._options(task, tuning, method),
            )
            for task, backbone, tuning, method, knowledge, setting, control, seed in axes
        ]

    def _options(self, task: str, tuning: str, method: str) -> dict[str, Any]:
        chosen: dict[OptionKind, str] = {"task": task, "tuning": tuning, "method": method}
        found: dict[str, Any] = {}
        for kind, name in chosen.items():
            options = self.options.get(kind, {}).get(name)
            if options:
                found[kind] = {name: options}
        return found


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
    common = {key: value for key, value in values.items() if key != _PARTS}
    parts = values.get(_PARTS, [{}])
    if not isinstance(parts, list) or not parts or not all(isinstance(p, dict) for p in parts):
        raise UsageError(f"{origin}: {_PARTS} is {parts!r}; expected a list of mappings")
    found = []
    for number, part in enumerate(parts):
        name = f"{origin}: {_PARTS}.{number}" if _PARTS in values else origin
        merged = {**common, **part, **given}
        for key in part.keys() & given.keys() & {*_LISTS}:
            merged[key] = _narrowed(_listed(part[key]), _listed(given[key]))
        merged["options"] = _joined(common.get("options"), part.get("options"), name)
        for text in settings:
            set_option(merged["options"], text)
        if all(merged[key] for key in part.keys() & given.keys() & {*_LISTS}):
            found.append(make_grid(merged, name))
    if not found:
        asked = ", ".join(f"--{key} {value}" for key, value in given.items() if key in _LISTS)
        raise UsageError(f"{origin}: none of its grids has anything of {asked}")
    return found


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
            raise UsageError(f"{origin}: options: expected a mapping (got {options!r})")
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
    """Checks the values of a grid; a single value stands for a list of one.

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
        key: _listed(value) if key in _LISTS else value
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
    try:
        canonical_digest(listed.get("options", {}))
    except (TypeError, ValueError, RecursionError) as cause:
        raise UsageError(
            f"{origin}: options: {cause}; expected text, numbers, true, false, null, lists and "
            "mappings of these"
        ) from None
    try:
        return Grid.model_validate(listed)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        given = "" if first["type"] == "missing" else f" (got {first['input']!r})"
        raise UsageError(f"{origin}: {where}: {first['msg']}{given}") from None


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
        parsed = _parsed(value)
    except yaml.YAMLError:
        raise UsageError(f"--set {text!r}: the value is not YAML") from None
    place = options
    for key in keys[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise UsageError(f"--set {text!r}: {key} already has a value")
    place[keys[-1]] = parsed


def _parsed(text: str) -> Any:
    value = parse_yaml(text)
    if isinstance(value, str) and value == text.strip() and any(map(str.isdigit, value)):
        # YAML 1.1 reads 1e-4 as text; nobody who types it without quotes means text.
        with suppress(ValueError):
            return float(value)
    return value
