"""Sweeps: options of which a grid names several values, each of them a run.

A list is an axis, unless the option itself is a list: of such an option, a list of lists is one.
What an option may be is declared by its part; a list for an option of which nobody says what it
may be is a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import product
from typing import Any

from kbench.errors import UsageError
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.spec import OptionKind, OptionType, RunSpec, Setting
from kbench.training import Recipe

__all__ = ["swept"]

_KINDS: Mapping[OptionKind, Kind] = {
    "task": Kind.TASKS,
    "tuning": Kind.TUNINGS,
    "method": Kind.METHODS,
}
_MOST = 10_000
"""Runs that one choice of all else may become; of more somebody has slipped."""


def swept(spec: RunSpec) -> Iterator[RunSpec]:
    """Yields a run for each choice of its options; the run itself if none has several values.

    Raises:
        UsageError: a list is empty, or there are far too many choices.
    """
    axes = [axis for kind in _KINDS for axis in _axes(spec, kind)]
    count = 1
    for _, values in axes:
        count *= len(values)
    if count > _MOST:
        raise UsageError(f"the options of {spec.title} are {count:,} runs; at most {_MOST:,}")
    bare = deepcopy(spec.options)
    for path, _ in axes:
        _set(bare, path, None)  # else each run would copy the values of all
    for chosen in product(*(values for _, values in axes)):
        options = deepcopy(bare)
        for (path, _), value in zip(axes, chosen, strict=True):
            _set(options, path, value)
        yield spec.model_copy(update={"options": options}) if axes else spec


def _axes(spec: RunSpec, kind: OptionKind) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Yields the place of each option that has several values, and these."""
    name = getattr(spec, kind)
    given = spec.options_of(kind)
    if not any(_lists(given)):
        return  # the part is not even loaded
    part = registry.get(_KINDS[kind], name)
    known = {**_types(part), **(Recipe.types if kind == "tuning" else {})}
    for option, value in given.items():
        if kind == "method" and option in {*Setting} and isinstance(value, Mapping):
            for field, several in value.items():
                if _is_axis(several, Recipe.types.get(field)):
                    path = (kind, name, option, field)
                    yield path, _distinct(several, ".".join(path))
        elif _is_axis(value, known.get(option)):
            yield (kind, name, option), _distinct(value, f"{kind}.{name}.{option}")


def _lists(value: Any) -> Iterator[bool]:
    """Yields True for each list in a value."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _lists(inner)
    elif isinstance(value, list | tuple):
        yield True


def _types(part: Any) -> dict[str, OptionType]:
    told = {name: OptionType.of(default) for name, default in part.defaults.items()}
    return {**{name: kind for name, kind in told.items() if kind}, **part.option_types}


def _is_axis(value: Any, kind: OptionType | None) -> bool:
    if kind is None or not isinstance(value, list | tuple):
        return False
    return not kind.listed or (bool(value) and all(isinstance(v, list | tuple) for v in value))


def _distinct(values: Any, where: str) -> list[Any]:
    """Returns the values of an axis, each once."""
    if not values:
        raise UsageError(f"options: {where} is an empty list; expected one or more values")
    return list({repr(value): value for value in values}.values())


def _set(options: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        options = options[key]
    options[path[-1]] = value
