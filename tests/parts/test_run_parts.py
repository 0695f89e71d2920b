"""The recipe of a run: a tuning's, then what the task, the backbone and the user say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kbench.errors import UsageError
from kbench.knowledge import KnowledgeBase
from kbench.method import InjectionMethod, MethodCard, Plug
from kbench.model import Backbone, BackboneForm, LanguageModel
from kbench.model.huggingface import HuggingFaceBackbone
from kbench.parts.catalogue import Kind
from kbench.parts.run_parts import PartLoader, Parts
from kbench.spec import Control, RunSpec, Setting
from kbench.task import Family
from kbench.testing import registered
from kbench.testing.toys import ToyRelations, write_backbone
from kbench.training import Recipe
from kbench_tasks.fewrel import FewRel

Fields = Mapping[str, Mapping[str, Any]]
NO_MODEL = "a-model-that-is-nowhere"
"""A backbone that states no recipes, and is not loaded here."""


class Stated(ToyRelations):
    """Says how it is fully tuned; of other tunings nothing."""

    recipes: ClassVar[Fields] = {"full": {"learning_rate": 0.1, "epochs": 3, "warmup": 0.2}}


class Small(Backbone):
    """Wants other rates than are published."""

    name = "small"
    digest = "unread"
    recipes: ClassVar[Fields] = {"full": {"epochs": 5, "batch_size": 7}}

    def load(self) -> LanguageModel:
        raise AssertionError("a recipe needs no weights")


class InOneEpoch(InjectionMethod):
    """Trains in one epoch, whatever it trains through."""

    card = MethodCard("one epoch", "", 0, "")
    revision = "1"
    settings = frozenset({Setting.GENERAL})

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        return Recipe(0.5, 8, 1)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        raise AssertionError("nothing is built here")


class MisspeltTask(ToyRelations):
    recipes: ClassVar[Fields] = {"full": {"epoch": 1}}


class MisspeltBackbone(Small):
    recipes: ClassVar[Fields] = {"lora": {"epoch": 1}, "map-tuning general": {"warm_up": 0.1}}


def _parts(task: str, tuning: str, backbone: str = NO_MODEL, **options: Any) -> Parts:
    spec = RunSpec(
        task=task,
        backbone=backbone,
        tuning=tuning,
        method="map-tuning",
        setting=Setting.GENERAL,
        knowledge=None,
        control=Control.NONE,
        seed=0,
        options={"tuning": {tuning: options}},
    )
    return Parts(spec, PartLoader(download=False))


PUBLISHED = {
    "open-entity": {
        "full": (2e-5, 16, 10, 0.1),
        "lora": (1e-3, 16, 10, 0.1),
        "adapter": (1e-3, 16, 10, 0.1),
        "bitfit": (1e-3, 16, 10, 0.1),
        "head": (1e-3, 16, 20, 0.1),
    },
    "figer": {
        "full": (2e-5, 2048, 3, 0.2),
        "lora": (1e-3, 2048, 3, 0.1),
        "adapter": (1e-3, 2048, 3, 0.1),
        "bitfit": (1e-3, 2048, 3, 0.1),
        "head": (1e-3, 2048, 20, 0.1),
    },
    "fewrel-80way": {
        "full": (2e-5, 32, 10, 0.1),
        "lora": (2e-3, 64, 60, 0.1),
        "adapter": (2e-3, 64, 60, 0.1),
        "bitfit": (2e-3, 64, 60, 0.1),
        "head": (1e-3, 64, 20, 0.1),
    },
    "tacred": {
        "full": (2e-5, 32, 4, 0.1),
        "lora": (2e-3, 64, 60, 0.1),
        "adapter": (2e-3, 64, 60, 0.1),
        "bitfit": (2e-3, 64, 60, 0.1),
        "head": (1e-3, 64, 20, 0.1),
    },
    "fewrel": {
        "full": (2e-5, 100, 1, 0.0),
        "lora": (8e-4, 100, 1, 0.1),
        "adapter": (5e-4, 100, 1, 0.1),
        "bitfit": (8e-4, 100, 1, 0.1),
        "head": (8e-4, 100, 1, 0.1),
    },
}
"""Learning rate, batch size, epochs and warm-up by task and tuning."""


@pytest.mark.parametrize("tuning", ["full", "lora", "adapter", "bitfit", "head"])
@pytest.mark.parametrize("task", [*PUBLISHED, "fewrel-pubmed"])
def test_a_task_is_tuned_as_published_for_it(task: str, tuning: str) -> None:
    # Tuned on what fewrel is tuned on.
    known = PUBLISHED["fewrel" if task == "fewrel-pubmed" else task]
    rate, batch, epochs, warmup = known[tuning]
    recipe = Recipe(learning_rate=rate, batch_size=batch, epochs=epochs, warmup=warmup)
    assert _parts(task, tuning).tuning_recipe == recipe


def test_what_is_said_later_takes_the_place_of_what_was_said_before() -> None:
    with (
        registered(Kind.TASKS, plain=_target(ToyRelations), stated=_target(Stated)),
        registered(Kind.BACKBONES, small=_target(Small)),
    ):
        family = Recipe(learning_rate=5e-5, batch_size=32, epochs=15)
        assert _parts("plain", "full").tuning_recipe == family
        task = Recipe(learning_rate=0.1, batch_size=32, epochs=3, warmup=0.2)
        assert _parts("stated", "full").tuning_recipe == task
        backbone = Recipe(learning_rate=0.1, batch_size=7, epochs=5, warmup=0.2)
        assert _parts("stated", "full", "small").tuning_recipe == backbone
        user = Recipe(learning_rate=0.1, batch_size=9, epochs=5, warmup=0.2)
        assert _parts("stated", "full", "small", batch_size=9).tuning_recipe == user
        other = _parts("plain", "lora").tuning_recipe
        assert _parts("stated", "lora", "small").tuning_recipe == other


def test_a_tuning_that_trains_nothing_has_no_recipe_whatever_is_said() -> None:
    assert _parts("lama", "frozen").tuning_recipe is None


def test_a_recipe_with_a_field_that_there_is_not_is_refused() -> None:
    with (
        registered(Kind.TASKS, plain=_target(ToyRelations), wrong=_target(MisspeltTask)),
        registered(Kind.BACKBONES, wrong=_target(MisspeltBackbone)),
    ):
        with pytest.raises(UsageError, match=r"recipe 'full' of task wrong .*did you mean epochs"):
            _ = _parts("wrong", "full").tuning_recipe
        with pytest.raises(UsageError, match=r"recipe 'lora' of backbone wrong .*mean epochs"):
            _ = _parts("plain", "lora", "wrong").tuning_recipe
        with pytest.raises(UsageError, match=r"'map-tuning general' of backbone wrong .*warmup"):
            _parts("plain", "full", "wrong").plug_recipe(Setting.GENERAL)


def test_a_task_made_from_another_is_tuned_as_it_is() -> None:
    class Own(FewRel):
        pass

    assert Own.recipes == FewRel.recipes


def _target(part: type) -> str:
    return f"{part.__module__}:{part.__qualname__}"


class Sized(InOneEpoch):
    """Trains longer where there is more to train through, and slower left to right."""

    def recipe_on(
        self, backbone: BackboneForm, setting: Setting, family: Family | None, task: str | None
    ) -> Recipe:
        own = self.recipe(setting, family, task)
        rate = 0.1 if backbone.left_to_right else 0.2
        return own.updated({"epochs": backbone.width // backbone.layers, "learning_rate": rate})


def _with(method: InjectionMethod, backbone: Path, **fields: Any) -> Parts:
    parts = _parts("toy-relations", "full", str(backbone))
    said = {"method": {parts.spec.method: {"general": fields}}}
    told = replace(parts, spec=parts.spec.model_copy(update={"options": said}))
    vars(told)["method"] = method  # as a cached property does
    return told


@pytest.mark.parametrize(
    ("left_to_right", "kind", "rate"), [(False, "bert", 0.2), (True, "llama", 0.1)]
)
def test_a_methods_recipe_may_go_with_the_backbone(
    tmp_path: Path, left_to_right: bool, kind: str, rate: float
) -> None:
    folder = write_backbone(tmp_path / "model", left_to_right=left_to_right, layers=4)
    recipe = _with(Sized(), folder).plug_recipe(Setting.GENERAL)
    assert (recipe.epochs, recipe.learning_rate) == (8, rate)
    told = _with(Sized(), folder, epochs=3).plug_recipe(Setting.GENERAL)
    assert (told.epochs, told.learning_rate) == (3, rate)
    plain = _with(InOneEpoch(), folder)
    assert plain.plug_recipe(Setting.GENERAL).epochs == 1
    assert "_form" not in vars(plain)  # a recipe that asks for no backbone looks at none
    backbone = HuggingFaceBackbone(str(folder))
    assert backbone.form() == BackboneForm(kind, left_to_right, 32, 4)
    # Without a configuration at hand it is asked of the network.
    loaded = type("Loaded", (HuggingFaceBackbone,), {"config": lambda self: None})(str(folder))
    assert loaded.form() == backbone.form()
