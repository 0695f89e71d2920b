"""Low-rank changes of chosen weights (LoRA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor, nn

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
    ".mlp.c_fc",
    ".mlp.gate_up_proj",
    ".mlp.dense_h_to_4h",
    ".mlp.Wi",
)
_WHOLE = (".attn.c_attn", ".self_attn.qkv_proj", ".attn.Wqkv")
"""Maps to queries, keys and values, those of all heads one behind the other."""
_BY_HEAD = (".attention.query_key_value",)
"""Likewise, the three of a head side by side."""


@final
class LoRATuning(Tuning):
    """Trains low-rank changes of the query, key and first feed-forward maps.

    LoRA (Hu et al. 2022), through the ``peft`` library, in the form of the map-tuning release: a
    map ``W x + b`` with ``W: [out, in]`` becomes

        W x + b + (alpha / rank) B A x,    A: [rank, in],  B: [out, rank]

    with ``B = 0`` at first, so that an untrained model is the base model. ``W`` and ``b`` stay as
    they are; the release replaced ``b`` by random numbers (its defect, not repeated here).
    Where queries, keys and values are made by one map (GPT-2, Phi-3, GPT-NeoX, ModernBERT), queries
    and keys share their ``A``, and the rows of ``B`` that make values stay 0.
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
            fan_in_fan_out=any(map(_is_transposed, model.lm.network.modules())),
        )
        model.requires_grad_(False)
        inject_adapter_in_model(config, model.lm.network)
        model.head.requires_grad_(True)
        for name, part in model.lm.network.named_modules():
            if name.endswith(_WHOLE + _BY_HEAD) and hasattr(part, "lora_B"):
                _keep_values(part.lora_B["default"].weight, model.lm, name.endswith(_BY_HEAD))


def _maps(lm: LanguageModel, feed_forward: bool) -> list[str]:
    """Returns the names of the linear maps to change.

    Raises:
        Unsupported: the network has no such maps.
    """
    whole = _WHOLE + _BY_HEAD
    kinds: dict[str, tuple[str, ...]] = {"query": _QUERIES + whole, "key": _KEYS + whole}
    if feed_forward:
        kinds["first feed-forward"] = _FEED_FORWARD
    maps: list[str] = []
    for kind, endings in kinds.items():
        names = [
            name
            for name, part in lm.network.named_modules()
            if (isinstance(part, nn.Linear) or _is_transposed(part)) and name.endswith(endings)
        ]
        if not names:
            raise Unsupported(
                f"LoRA changes {kind} maps, and {type(lm.base).__name__} has none that kbench knows"
            )
        maps += names
    return list(dict.fromkeys(maps))


def _is_transposed(part: nn.Module) -> bool:
    """Whether a part is a linear map as GPT-2 has it, its weight being ``[in, out]``."""
    return type(part).__name__ == "Conv1D"


def _keep_values(change: Tensor, lm: LanguageModel, by_head: bool) -> None:
    """Lets no gradient reach what of ``B`` makes values, which is 0. ``[out, rank]``."""
    heads = int(lm.config.num_attention_heads)
    shared = int(getattr(lm.config, "num_key_value_heads", None) or heads)
    size = len(change) // (heads + 2 * shared)
    kept = torch.ones(len(change), 1)
    if by_head:
        kept.view(heads, 3, size)[:, 2] = 0
    else:
        kept[-shared * size :] = 0
    change.register_hook(lambda gradient: gradient * kept.to(gradient))  # type: ignore[no-untyped-call]
