"""Planted knowledge: does a method find what only the knowledge base can tell?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from kbench.grid.plan import Place
from kbench.parts.catalogue import Kind
from kbench.spec import Control, Setting

__all__ = ["planted_scores"]

_TUNED = {"learning_rate": 3e-3, "epochs": 12, "batch_size": 16}


def planted_scores(
    method: str, setting: Setting | str = Setting.TASK_SPECIFIC, **recipe: Any
) -> tuple[float, float]:
    """Returns a method's accuracy on the toy world with its true knowledge, and with it shuffled.

    The class of every entity is drawn at random and told by the knowledge base alone, so with
    true knowledge a method should come near 1, with shuffled knowledge near a guess among four.

    Args:
        method: its registered name.
        setting: to train it in.
        recipe: fields of the recipe that take the place of the method's own.

    Raises:
        AssertionError: a run did not come to its end; the reason is given.
    """
    from kbench.grid import runner
    from kbench.grid.grids import make_grid
    from kbench.testing.registration import registered
    from kbench.testing.toys import write_backbone, write_world

    with (
        tempfile.TemporaryDirectory(prefix="kbench-planted-") as place,
        registered(Kind.TASKS, planted="kbench.testing.toys:ToyRelations"),
    ):
        folder = Path(place)
        write_world(folder / "kb", full=True)
        values = {
            "task": "planted",
            "method": method,
            "setting": str(setting),
            "backbone": str(write_backbone(folder / "bert")),
            "knowledge": str(folder / "kb"),
            "control": "none,shuffled",
            "options": {
                "tuning": {"full": _TUNED},
                "method": {method: {str(setting): recipe} if recipe else {}},
            },
        }
        where = Place(folder / "results", folder / "artifacts", "cpu")
        cells = runner.plan(runner.resolve(make_grid(values, "planted")), where)
        results = runner.run(cells, where)
    for result in results:
        assert result.score is not None, f"{result.spec.title}: {result.reason}"
    scores = {result.spec.control: result.score.value for result in results if result.score}
    return scores[Control.NONE], scores[Control.SHUFFLED]
