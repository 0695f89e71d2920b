"""How parts train by themselves: the recipes that methods, tunings, tasks and backbones state."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, cast

from kbench.errors import PluginError, Unsupported
from kbench.method import InjectionMethod
from kbench.model import BackboneForm
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.spec import Setting
from kbench.task import Family
from kbench.training import Recipe

if TYPE_CHECKING:
    from kbench.model import Backbone
    from kbench.task import Task
    from kbench.training import Tuning

__all__ = ["recipes_of_method", "recipes_of_tuning", "said"]

_SIZES = (
    BackboneForm("bert", False, 768, 12),
    BackboneForm("bert", False, 1024, 24),
    BackboneForm("llama", True, 576, 30),
    BackboneForm("llama", True, 2048, 16),
    BackboneForm("llama", True, 4096, 32),
)
"""What a recipe that hangs on the size is asked for: usual backbones of either kind."""


def said(recipe: Recipe | Mapping[str, Any], read: Container[str] = tuple(Recipe.types)) -> str:
    """Returns a recipe in words: the fields that every recipe states, and those set otherwise.

    Args:
        recipe: whole, or some fields that take the place of another's.
        read: the fields of a whole one that count.
    """
    if isinstance(recipe, Recipe):
        usual = {f.name: f.default for f in fields(Recipe)}
        values = {k: v for k, v in asdict(recipe).items() if v != usual[k] and k in read}
    else:
        values = dict(recipe)
    return ", ".join(f"{name} {_word(value)}" for name, value in values.items())


def _word(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def recipes_of_method(name: str) -> Iterator[tuple[str, str]]:
    """Yields for what a method has a recipe, and the recipe in words, the published ones first.

    Args:
        name: of the method.

    Raises:
        PluginError: it does not load.
    """
    method = cast("type[InjectionMethod]", registry.get(Kind.METHODS, name))
    if not method.trains:
        return
    known = [setting for setting in Setting if setting in method.settings]
    for setting in known:
        yield from _published(method(), setting)
    for backbone, stated in _stated(Kind.BACKBONES):
        for setting in known:
            if own := stated.get(f"{name} {setting}"):
                yield f"{setting}, on {backbone}", said(own)


def _published(method: InjectionMethod, setting: Setting) -> Iterator[tuple[str, str]]:
    if type(method).recipe_on is InjectionMethod.recipe_on:
        yield from _by_family(method, setting, None)
        return
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for form in _SIZES:
        recipes = tuple(_by_family(method, setting, form))
        size = f"{form.kind} of width {form.width} and {form.layers} layers"
        found.setdefault(recipes, []).append(size)
    for recipes, sizes in found.items():
        on = "" if len(found) == 1 else f", on {'; '.join(sizes)}"
        for when, recipe in recipes:
            yield f"{when}{on}", recipe


def _by_family(
    method: InjectionMethod, setting: Setting, form: BackboneForm | None
) -> Iterator[tuple[str, str]]:
    """Yields the recipes of a setting; those of single tasks, where they differ, with their names.

    What is the same for several families is said once.
    """
    if setting != Setting.TASK_SPECIFIC:
        yield str(setting), _recipe(method, setting, form, None, None)
        return
    found: dict[str, list[str]] = {}
    for family in Family:
        usual = _recipe(method, setting, form, family, "")
        found.setdefault(usual, []).append(str(family))
        for task in _tasks(family):
            own = _recipe(method, setting, form, family, task)
            if own != usual:
                found.setdefault(own, []).append(f"task {task}")
    for recipe, whose in found.items():
        every = whose == [str(family) for family in Family]
        yield (str(setting) if every else f"{setting}, {'; '.join(whose)}"), recipe


def _recipe(
    method: InjectionMethod,
    setting: Setting,
    form: BackboneForm | None,
    family: Family | None,
    task: str | None,
) -> str:
    try:
        if form is None:
            return said(method.recipe(setting, family, task), method.recipe_fields)
        return said(method.recipe_on(form, setting, family, task), method.recipe_fields)
    except Unsupported as problem:
        return f"none: {problem}"


def _tasks(family: Family) -> list[str]:
    return [name for name, task in _loaded(Kind.TASKS) if task.family == family]


def _loaded(kind: Kind) -> Iterator[tuple[str, Any]]:
    """Yields the parts of a kind that load, by name."""
    for name in registry.names(kind):
        try:
            part = registry.get(kind, name)
        except PluginError:  # told to who asks for it
            continue
        yield name, part


def _stated(kind: Kind) -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]:
    """Yields the recipes that parts of a kind state of other parts, by their name."""
    for name, part in _loaded(kind):
        yield name, cast("type[Backbone | Task]", part).recipes


def recipes_of_tuning(name: str) -> Iterator[tuple[str, str]]:
    """Yields for what a tuning has a recipe, and the recipe in words, the families' first.

    Args:
        name: of the tuning.

    Raises:
        PluginError: it does not load.
    """
    tuning = cast("type[Tuning]", registry.get(Kind.TUNINGS, name))()
    found: dict[str, list[str]] = {}
    for family in Family:
        recipe = tuning.recipe(family)
        if recipe is not None:
            found.setdefault(said(recipe), []).append(str(family))
    for told, families in found.items():
        yield ("every family" if len(families) == len(Family) else "; ".join(families)), told
    for kind, what in ((Kind.TASKS, "task "), (Kind.BACKBONES, "on ")):
        for part, stated in _stated(kind):
            if own := stated.get(name):
                yield f"{what}{part}", said(own)
