"""Methods tried: plugs fitted without a task, and whole runs on a world of planted knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kbench.grid.plan import Place
from kbench.knowledge import KnowledgeBase
from kbench.method import Fit, InjectionMethod, Plug
from kbench.model import LanguageModel
from kbench.model.freezing import frozen
from kbench.parts.catalogue import Kind
from kbench.spec import Setting
from kbench.store import Status
from kbench.testing import registered
from kbench.training import History, Recipe
from tests.grid.toygrid import OPTIONS, grid, run


def general_fit(
    method: InjectionMethod,
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    recipe: Recipe | None = None,
    seed: int = 0,
) -> Fit:
    """What a method may look at without a task; its own recipe unless another is given."""
    return Fit(
        setting=Setting.GENERAL,
        lm=lm,
        model=None,
        knowledge=knowledge,
        examples=None,
        validate=None,
        recipe=recipe or method.recipe(Setting.GENERAL, None, None),
        options=method.options,
        seed=seed,
        device=torch.device("cpu"),
    )


def fitted(
    method: InjectionMethod,
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    recipe: Recipe | None = None,
    seed: int = 0,
) -> tuple[Plug, History]:
    """A plug that was trained without a task, the network being frozen."""
    torch.manual_seed(seed)
    plug = method.build(lm, knowledge)
    with frozen(lm):
        return plug, method.fit(plug, general_fit(method, lm, knowledge, recipe, seed))


def planted(
    method: type[InjectionMethod],
    asked: tuple[str, str, str],
    recipe: Mapping[str, Any],
    folder: Path,
    place: Place,
) -> dict[str, float]:
    """Scores by control where toy knowledge is planted; ``base`` is the one without knowledge.

    Args:
        method: is tried, from scratch.
        asked: task, setting and controls.
        recipe: of the task-specific setting; fine-tuning has four epochs of it.
        folder: the toy world.
        place: where runs go.
    """
    task, setting, controls = asked
    settings = {"task-specific": recipe, "fine-tuning": {**recipe, "epochs": 4}}
    chosen = grid(
        folder,
        task=task,
        method="none,tested",
        setting=setting,
        control=controls,
        options={
            "tuning": OPTIONS["tuning"],
            "method": {"tested": {"start": "scratch", **settings}},
        },
    )
    with registered(Kind.METHODS, tested=f"{method.__module__}:{method.__name__}"):
        results = run(chosen, place)
    found = {}
    for result in results:
        assert result.status == Status.OK, result.reason
        assert result.score is not None
        of = "base" if result.spec.method == "none" else str(result.spec.control)
        found[of] = result.score.value
    return found
