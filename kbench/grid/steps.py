"""From a plan to its steps: which stage makes what, and what has to be there before.

Downstream models and plugs are made once, however many runs share them; what is stored is not
made at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kbench.pipeline.stages import Stage
from kbench.spec import Setting

if TYPE_CHECKING:
    from kbench.grid.plan import Cell

__all__ = ["Step", "steps"]


@dataclass(frozen=True)
class Step:
    """One thing to be made.

    Attributes:
        stage: how.
        key: address of the model, plug or result.
        cell: a run that needs it.
        after: keys of the steps that come before.
    """

    stage: Stage
    key: str
    cell: Cell
    after: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """A short name for people."""
        spec = self.cell.spec
        around = f" around {spec.method}" if spec.setting == Setting.FINE_TUNING else ""
        return {
            Stage.TUNE: f"tune {spec.task}{around}",
            Stage.START: f"fit {spec.method}",
            Stage.FIT: f"fit {spec.method} on {spec.task}",
            Stage.EVALUATE: f"evaluate {spec.method} on {spec.task}",
        }[self.stage]


def steps(cells: Sequence[Cell], stored: Set[tuple[str, str]]) -> list[Step]:
    """Returns the steps of a plan, each after those that it needs.

    Args:
        cells: runs that can be addressed.
        stored: pairs of kind (``model``, ``plug``) and address that are there already.
    """
    by_key: dict[str, Step] = {}
    for cell in cells:
        for step in _of(cell, stored):
            known = by_key.get(step.key)
            # A plug that some run surely needs is not one that another may start from.
            if known is None or (known.stage == Stage.START and step.stage == Stage.FIT):
                by_key[step.key] = step
    return [replace(s, after=tuple(k for k in s.after if k in by_key)) for s in by_key.values()]


def _of(cell: Cell, stored: Set[tuple[str, str]]) -> Iterator[Step]:
    """The steps of one run, in order; what they need may be stored or be no step at all."""
    fixed = cell.spec.setting == Setting.FINE_TUNING
    general = cell.spec.setting == Setting.GENERAL
    model, plug, start = cell.model or "", cell.plug or "", cell.start or ""
    tune = Step(Stage.TUNE, model, cell, (plug,) if fixed else ())
    fit = Step(Stage.FIT, plug, cell, () if fixed or general else (model, start))
    wanted_model = bool(model) and ("model", model) not in stored
    wanted_plug = bool(plug) and ("plug", plug) not in stored
    if wanted_model and not fixed:
        yield tune
    if wanted_plug and start and ("plug", start) not in stored:
        yield Step(Stage.START, start, cell)
    if wanted_plug:
        yield fit
    if wanted_model and fixed:
        yield tune
    yield Step(Stage.EVALUATE, cell.id, cell, (model, plug))
