"""Low-rank changes of chosen weights (LoRA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import nn

from kbench.errors import Unsupported
from kbench.spec import OptionType
from kbench.task import Family
from kbench.training.recipe import Recipe
from kbench.training.tuning import Tuning
from kbench.training.tunings.parameter_efficient import published

if TYPE_CHECKING:
    from kbench.model import DownstreamModel, LanguageModel

__all__ = ["LoRATuning"]

_QUERIES = (
    ".self.query",
    ".attention.query",
    ".query_proj",
    ".attention.q_lin",
    ".attn.q",
    ".self_attn.q_proj",
)
_KEYS = (
    ".self.key",
    ".attention.key",
    ".key_proj",
    ".attention.k_lin",
    ".attn.k",
    ".self_attn.k_proj",
)
_FEED_FORWARD = (
    ".intermediate.dense",
    ".ffn.lin1",
    ".ffn",
    ".mlp.gate_proj",
    ".mlp.up_proj",
    ".mlp.fc1",
)


@final
class LoRATuning(Tuning):
    """Trains low-rank changes of the query, key and first feed-forward maps.

    LoRA (Hu et al. 2022), through the ``peft`` library, in the form of the map-tuning release: a
    map ``W x + b`` with ``W: [out, in]`` becomes

        W x + b + (alpha / rank) B A x,    A: [rank, in],  B: [out, rank]

    with ``B = 0`` at first, so that an untrained model is the base model. ``W`` and ``b`` stay as
    they are; the release replaced ``b`` by random numbers (its defect, not repeated here).
    ``alpha`` is 1, so the scale is ``1 / rank``; the rank is 32 for relation classification and 4
    for other families; the feed-forward map is left out for entity typing.

    The task's head trains; word embeddings, the pooler and the masked-LM head stay frozen, as in
    the release.
    """

    revision = "1"
    light = True
    defaults: ClassVar[Mapping[str, Any]] = {"rank": 4, "alpha": 1, "feed_forward": True}
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "rank": OptionType("whole number", least=1),
        "alpha": OptionType("number", above=0),
    }

    def defaults_for(self, family: Family) -> Mapping[str, Any]:
        if family == Family.RELATION:
            return {**self.defaults, "rank": 32}
        return {**self.defaults, "feed_forward": family != Family.TYPING}

    def recipe(self, family: Family) -> Recipe:
        return published(family)

    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import

        config = LoraConfig(
            r=options["rank"],
            lora_alpha=options["alpha"],
            target_modules=_maps(model.lm, options["feed_forward"]),
        )
        model.requires_grad_(False)
        inject_adapter_in_model(config, model.lm.network)
        model.head.requires_grad_(True)


def _maps(lm: LanguageModel, feed_forward: bool) -> list[str]:
    """Returns the names of the linear maps to change.

    Raises:
        Unsupported: the network has no such maps, or keeps several of them in one.
    """
    kinds: dict[str, tuple[str, ...]] = {"query": _QUERIES, "key": _KEYS}
    if feed_forward:
        kinds["first feed-forward"] = _FEED_FORWARD
    maps: list[str] = []
    for kind, endings in kinds.items():
        names = [
            name
            for name, part in lm.network.named_modules()
            if isinstance(part, nn.Linear) and name.endswith(endings)
        ]
        if not names:
            raise Unsupported(
                f"LoRA changes {kind} maps, and {type(lm.base).__name__} has none that stand "
                "by themselves"
            )
        maps += names
    return maps
