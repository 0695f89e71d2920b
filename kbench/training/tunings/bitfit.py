"""Biases alone (BitFit)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from torch import nn

from kbench.errors import Unsupported
from kbench.task import Family
from kbench.training.recipe import Recipe
from kbench.training.tuning import Tuning
from kbench.training.tunings.parameter_efficient import published

if TYPE_CHECKING:
    from kbench.model import DownstreamModel

__all__ = ["BitFitTuning"]


@final
class BitFitTuning(Tuning):
    """Trains the backbone's biases and the task's head.

    BitFit (Ben Zaken et al. 2022), as in the map-tuning release: every bias of embeddings, layers
    and pooler trains, those of normalisation included. Where the task is answered at ``[MASK]``,
    those of the masked-LM head train and those of the pooler, which is not read, do not. All else
    stays frozen, word embeddings and an output matrix tied to them included.
    """

    revision = "1"
    light = True

    def recipe(self, family: Family) -> Recipe:
        return published(family)

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        base, at_blank = model.lm.base, model.head.needs_lm_head
        model.requires_grad_(False)
        if not _thaw_biases(base):
            raise Unsupported(f"BitFit trains biases, and {type(base).__name__} has none")
        if at_blank:
            _thaw_biases(model.lm.network)
            if getattr(base, "pooler", None) is not None:
                base.pooler.requires_grad_(False)
        model.head.requires_grad_(True)


def _thaw_biases(module: nn.Module) -> int:
    """Lets every bias of a module train; returns how many there are."""
    biases = [p for name, p in module.named_parameters() if name.rpartition(".")[2] == "bias"]
    for bias in biases:
        bias.requires_grad_(True)
    return len(biases)
