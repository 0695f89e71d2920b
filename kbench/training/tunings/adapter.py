"""Bottlenecks inside the layers (adapters)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.errors import Unsupported
from kbench.spec import OptionType
from kbench.task import Family
from kbench.training.recipe import Recipe
from kbench.training.tuning import Tuning
from kbench.training.tunings.parameter_efficient import published

if TYPE_CHECKING:
    from kbench.model import DownstreamModel, LanguageModel

__all__ = ["AdapterTuning", "Bottleneck"]


@final
class AdapterTuning(Tuning):
    """Trains a bottleneck after the output of each of a layer's two sub-layers.

    Adapters (Houlsby et al. 2019) in the form of the map-tuning release: the output ``x`` of a
    sub-layer, after its dense map and dropout and before residual and normalisation, becomes

        x + U swish(D x + c) + d,    D: [rank, width],  U: [width, rank]

    of rank 32. Here ``U`` and ``d`` are 0 at first, so that an untrained model is the base model
    (the release draws ``U`` at a deviation of 0.02).

    The task's head trains; all that the backbone brings stays frozen, normalisation, pooler and
    masked-LM head included, as in the release.
    """

    revision = "1"
    light = True
    defaults: ClassVar[Mapping[str, Any]] = {"rank": 32}
    option_types: ClassVar[Mapping[str, OptionType]] = {"rank": OptionType("whole number", least=1)}

    def recipe(self, family: Family) -> Recipe:
        return published(family)

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        rank = options["rank"]
        outputs = list(_outputs(model.lm))
        model.requires_grad_(False)
        for output in outputs:
            output.dropout = Bottleneck(output.dropout, model.lm.width, rank)
        model.head.requires_grad_(True)


@final
class Bottleneck(nn.Module):
    """A sub-layer's dropout and the adapter that follows it.

    Args:
        dropout: what stood here.
        width: of the hidden states.
        rank: of the bottleneck.
    """

    def __init__(self, dropout: nn.Module, width: int, rank: int) -> None:
        super().__init__()
        self.dropout = dropout
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        nn.init.normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns adapted states. ``[batch, tokens, width] -> [batch, tokens, width]``."""
        dropped: Tensor = self.dropout(hidden)
        change: Tensor = self.up(F.silu(self.down(dropped)))
        return dropped + change


def _outputs(lm: LanguageModel) -> Iterator[Any]:
    """Yields the two parts of each layer whose dropout stands between a sub-layer and its residual.

    Raises:
        Unsupported: the layers are not of BERT's form.
    """
    for layer in lm.layers:
        attention = getattr(layer, "attention", None)
        # MPNet's attention ends itself in dropout, residual and normalisation.
        for output in (getattr(attention, "output", attention), getattr(layer, "output", None)):
            closing = (getattr(output, "dropout", None), getattr(output, "LayerNorm", None))
            if not all(isinstance(part, nn.Module) for part in closing):
                raise Unsupported(
                    "adapters stand between dropout and normalisation of BERT-like layers; those "
                    f"of {type(lm.base).__name__} are not of that form"
                )
            yield output
