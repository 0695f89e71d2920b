"""The parts of a run, resolved from the names in its spec."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from kbench import registry
from kbench.backbone import Backbone
from kbench.bases import find_knowledge, under
from kbench.catalogue import Kind
from kbench.errors import PluginError
from kbench.knowledge import KnowledgeBase
from kbench.method import InjectionMethod
from kbench.spec import Control, RunSpec, Setting
from kbench.task import Task, task_kind
from kbench.training import Recipe, check_options
from kbench.tuning import Tuning

__all__ = [
    "Parts",
    "default_tuning",
    "find_backbone",
    "find_task",
    "normalised",
]

_RECIPE = frozenset(Recipe.__dataclass_fields__)


def find_task(name: str, data: str | None, options: dict[str, Any] | None = None) -> Task:
    """Returns a task by name, with its data location and checked options."""
    kind = task_kind(name)
    check_options(options or {}, kind.defaults, f"task {name}")
    return kind(data, options)


def default_tuning(name: str) -> str:
    """Returns the tuning that a task is run with where none is asked for."""
    try:
        return task_kind(name).tuning
    except PluginError:  # told by its runs, which fail
        return Task.tuning


def find_backbone(name: str, download: bool = True) -> Backbone:
    """Returns a backbone by registered name, local folder or hub id."""
    if name in registry.names(Kind.BACKBONES):
        return cast("type[Backbone]", registry.get(Kind.BACKBONES, name))()
    from kbench.backbones.huggingface import HuggingFaceBackbone

    return HuggingFaceBackbone(name, download)


def normalised(spec: RunSpec) -> RunSpec:
    """Returns the spec of what really differs: a method without knowledge has one cell, not six."""
    method = cast("type[InjectionMethod]", registry.get(Kind.METHODS, spec.method))
    if method.settings and method.reads_knowledge:
        return spec
    if method.settings:
        return spec.model_copy(update={"control": Control.NONE})
    return spec.model_copy(
        update={
            "setting": Setting.GENERAL,
            "knowledge": None,
            "control": Control.NONE,
            "linker": None,
        }
    )


@dataclass(frozen=True)
class Parts:
    """The parts of one run; each is made when first asked for.

    Attributes:
        spec: the run.
        download: whether a backbone that is not on disk may be downloaded.
    """

    spec: RunSpec
    download: bool = True

    @cached_property
    def task(self) -> Task:
        """The task with its options."""
        return find_task(self.spec.task, self.spec.data, self.spec.options_of("task"))

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone."""
        return find_backbone(self.spec.backbone, self.download)

    @cached_property
    def tuning(self) -> Tuning:
        """The tuning."""
        return cast("type[Tuning]", registry.get(Kind.TUNINGS, self.spec.tuning))()

    @cached_property
    def method(self) -> InjectionMethod:
        """The method with its options; those of a setting's recipe lie under its name."""
        kind = cast("type[InjectionMethod]", registry.get(Kind.METHODS, self.spec.method))
        options = self.spec.options_of("method")
        settings = {str(setting) for setting in Setting}
        check_options(options, {*kind.defaults, *settings}, f"method {self.spec.method}")
        for setting in settings & options.keys():
            check_options(options[setting], _RECIPE, f"method {self.spec.method}, {setting}")
        return kind({k: v for k, v in options.items() if k not in settings})

    @cached_property
    def base_knowledge(self) -> KnowledgeBase | None:
        """The true knowledge base; None for methods that use none."""
        return None if self.spec.knowledge is None else find_knowledge(self.spec.knowledge)

    @cached_property
    def knowledge(self) -> KnowledgeBase | None:
        """The knowledge base seen through the control."""
        base = self.base_knowledge
        return None if base is None else under(base, self.spec.control, self.spec.seed)

    @cached_property
    def tuning_options(self) -> dict[str, Any]:
        """The tuning's options without those of its recipe."""
        options = self.spec.options_of("tuning")
        known = {*self.tuning.defaults, *(_RECIPE if self._published else ())}
        check_options(options, known, f"tuning {self.spec.tuning}")
        chosen = {k: v for k, v in options.items() if k not in _RECIPE}
        return {**self.tuning.defaults_for(self.task.family), **chosen}

    @cached_property
    def tuning_recipe(self) -> Recipe | None:
        """Published settings, then the backbone's, then the user's; None if nothing trains."""
        return self._published and self._published.updated(
            self.backbone.recipes.get(self.spec.tuning, {}),
            self.spec.options_of("tuning"),
        )

    @cached_property
    def _published(self) -> Recipe | None:
        return self.tuning.recipe(self.task.family, self.spec.task)

    @property
    def linker(self) -> str:
        """The linker asked for, or the task's own."""
        return self.spec.linker or self.task.linking

    @property
    def plug_is_fixed(self) -> bool:
        """Whether the model is tuned with the plug in place."""
        return self.spec.knowledge is not None and self.spec.setting == Setting.FINE_TUNING

    def plug_recipe(self, setting: Setting) -> Recipe:
        """Published settings, then the backbone's, then the user's.

        Only the task-specific recipe may depend on the task.
        """
        of_task = setting == Setting.TASK_SPECIFIC
        family, name = (self.task.family, self.spec.task) if of_task else (None, None)
        return self.method.recipe(setting, family, name).updated(
            self.backbone.recipes.get(f"{self.spec.method} {setting}", {}),
            self.spec.options_of("method").get(str(setting), {}),
        )
