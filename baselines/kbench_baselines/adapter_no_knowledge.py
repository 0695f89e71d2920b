"""Adapters that know nothing: how much of a gain is but further training on the task?

A task-specific plug is trained on the task, and part of what it gains may have nothing to do with
knowledge. Here bottlenecks in the frozen downstream model are trained on the same examples, with
about as many parameters as map-tuning's affine map has, and see no entity at all. The output ``x``
of layer ``l`` (after its feed-forward network and normalisation) becomes::

    x + U_l SiLU(D_l x + c_l) + d_l          D_l: [r_l, H], c_l: [r_l], U_l: [H, r_l], d_l: [H]

with ``U_l`` and ``d_l`` zero at first (bottleneck adapters: Houlsby et al., "Parameter-Efficient
Transfer Learning for NLP", ICML 2019; one a layer, as in Pfeiffer et al., "AdapterFusion",
EACL 2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, final

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase
from kbench.method import InjectionMethod, MethodCard, Plug
from kbench.model import LanguageModel, rewritten
from kbench.spec import OptionType, Setting
from kbench.task import Family
from kbench.training import Recipe
from kbench_baselines.map_tuning import TASK_RECIPES

__all__ = ["AdapterNoKnowledge", "Adapters", "ranks"]

_RATES = {
    # Of adapter tuning in map-tuning's release: a map's rates are not an adapter's.
    Family.TYPING: 1e-3,
    Family.RELATION: 2e-3,
    Family.QUESTION: 5e-4,
}


def ranks(parameters: int, layers: int, width: int) -> list[int]:
    """Returns the rank of each layer's adapter, lower layers first to have one more.

    A layer costs ``r (2 H + 1) + H``. Ranks differ by one at most, so that their sum, and with it
    the number of parameters, is the largest that does not exceed what is asked for; no rank is
    below 1, which may exceed it.
    """
    total = (parameters - layers * width) // (2 * width + 1)
    return [max(1, (total + layers - 1 - layer) // layers) for layer in range(layers)]


@final
class Bottleneck(nn.Module):
    """``x + U SiLU(D x + c) + d``, at first ``x``: ``r (2 H + 1) + H`` parameters.

    Args:
        width: ``H``.
        rank: ``r``.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[batch, tokens, H] -> [batch, tokens, H]``."""
        adapted: Tensor = hidden + self.up(F.silu(self.down(hidden)))
        return adapted


@final
class Adapters(Plug):
    """A bottleneck after each layer.

    Args:
        width: ``H``.
        ranks: of the layers, first to last.
    """

    def __init__(self, width: int, ranks: list[int]) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(Bottleneck(width, rank) for rank in ranks)

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(lm.token_by_token())
            for layer, adapter in zip(lm.layers, self.adapters, strict=True):
                stack.enter_context(rewritten(layer, adapter))
            yield


@final
class AdapterNoKnowledge(InjectionMethod):
    """Bottleneck adapters trained on the task without knowledge, with map-tuning's budget.

    There is no switch for each entity: every input is changed, whether an entity is linked in it
    or not. The switch is the up-projection: where it is zero, as at first, the model is the base
    model. The option ``parameters`` is the budget; null stands for map-tuning's ``d H + H``.
    """

    card = MethodCard(
        title="adapters without knowledge",
        paper="kbench's own control (adapters: Parameter-Efficient Transfer Learning for NLP, "
        "ICML 2019)",
        year=2019,
        needs="nothing; of a knowledge base only the size of its entity vectors",
        citation="arXiv:1902.00751",
        authors="Neil Houlsby, Andrei Giurgiu, Stanislaw Jastrzebski, Bruna Morrone, Quentin "
        "de Laroussilhe, Andrea Gesmundo, Mona Attariyan and Sylvain Gelly",
        trains="sum over layers of r (2 H + 1) + H, at most map-tuning's d H + H",
    )
    revision = "1"
    settings = frozenset({Setting.TASK_SPECIFIC})
    reads_knowledge = False
    switched = False
    defaults: ClassVar[Mapping[str, Any]] = {"parameters": None}
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "parameters": OptionType("whole number", least=1, null=True),
    }

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        """As task-specific map-tuning, at the learning rates of its release for adapters."""
        if family is None:
            return super().recipe(setting, family, task)
        return TASK_RECIPES[family].updated({"optimizer": "adamw", "learning_rate": _RATES[family]})

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        return Adapters(
            lm.width,
            ranks(self._budget(lm, knowledge), len(lm.layers), lm.width),
        )

    def _budget(self, lm: LanguageModel, knowledge: KnowledgeBase) -> int:
        if self.options["parameters"] is not None:
            return int(self.options["parameters"])
        if not knowledge.dimension:
            raise Unsupported(
                f"knowledge base {knowledge.name} has no entity vectors, whose size gives the "
                "budget; set the option `parameters`"
            )
        return (knowledge.dimension + 1) * lm.slot_width
