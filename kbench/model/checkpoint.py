"""The weights of a folder in the network that its configuration describes, all of them or none.

A library that fills a network says what it did not find and what it did not use, and goes on: what
is missing is then random, other at each load. Here every key has its place, or the folder is
refused with the keys; see :func:`read`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kbench.errors import KbenchError
from kbench.model.gguf import config_of, is_gguf, located

__all__ = ["HEADS", "Checkpoint", "is_causal", "read"]

HEADS = frozenset(
    {
        "answer_class",
        "classification_head",
        "classifier",
        "cls",
        "decoder",
        "discriminator_predictions",
        "embed_out",
        "end_logits",
        "entity_predictions",
        "generator_lm_head",
        "generator_predictions",
        "head",
        "lm_head",
        "lm_loss",
        "lm_predictions",
        "logits_proj",
        "mask_predictions",
        "mlm_head",
        "pooler",
        "pre_classifier",
        "pred_layer",
        "predictions",
        "qa_outputs",
        "score",
        "sequence_summary",
        "sop_classifier",
        "start_logits",
        "vocab_layer_norm",
        "vocab_projector",
        "vocab_transform",
    }
)
"""Modules beside the network that training leaves in a checkpoint, by the first part of the name.

Those of pre-training (sentence order, replaced tokens) and of what a model was tuned for. They are
not read, and the network is whole without them; anything else that has no place is refused.
"""

_BOTH_WAYS = frozenset({"xlnet"})
"""Among the causal language models of ``transformers``, and yet they look both ways."""
_PROMISES = ("ForMaskedLM", "ForPreTraining", "LMHead")
_SHOWN = 3
_FEW = 256
"""Layers that are made whatever the weights are: some models share one set among all."""
_SMALL = 1 << 16
_SIZES = ("vocab_size", "hidden_size", "intermediate_size")
"""Sizes that are a side of some tensor, where they are large."""


@dataclass(frozen=True)
class Checkpoint:
    """A network filled from a folder.

    Attributes:
        network: the network, or the model that holds it and its head.
        pooler: whether the network's pooler was filled; else it has none.
        unread: the modules whose weights the folder holds and nobody reads, see :data:`HEADS`.
        left_to_right: whether it is a causal language model.
    """

    network: Any
    pooler: bool
    unread: tuple[str, ...]
    left_to_right: bool


@dataclass(frozen=True)
class _Filled:
    """A network, and what of it and of the folder found no counterpart."""

    network: Any
    missing: frozenset[str]
    unexpected: frozenset[str]
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


def read(folder: Path, how: Mapping[str, Any] | None = None) -> Checkpoint:
    """Fills a network that the configuration describes.

    An encoder comes with its masked-LM head and its pooler where the weights have them: only these
    two may be absent, each as a whole, and are then taken off. Of a causal language model nothing
    may be absent. Only weights of other heads may be left over.

    Args:
        folder: a model in the Hugging Face format, or a GGUF file.
        how: what ``from_pretrained`` is told of how weights are held; float32 on the CPU else.

    Raises:
        KbenchError: the weights do not fit, or are not finite; or kbench cannot read such a model.
    """
    if (folder / "adapter_config.json").exists():
        raise KbenchError(
            f"{folder}: holds an adapter (adapter_config.json), which is not read; expected a "
            "model that it is merged into"
        )
    config, how = _config(folder), how or {"dtype": "float32"}
    _check_size(folder, config)
    make = _decoder if is_causal(config.model_type) else _encoder
    return make(folder, config, how)


def _check_size(folder: Path, config: Any) -> None:
    """Refuses a configuration of far more than the weights hold, before that is made.

    Raises:
        KbenchError: it says so many layers, or tables and layers so large.
    """
    held = _held(folder)
    layers = getattr(config, "num_hidden_layers", 0)
    if held is None or not isinstance(layers, int):
        return
    if layers > max(_FEW, held[0]):
        raise KbenchError(
            f"{folder}: config.json describes {layers:,} layers, and the weights are {held[0]:,} "
            "tensors; expected the configuration that the weights were saved with"
        )
    for name in _SIZES:
        size = getattr(config, name, 0)
        if isinstance(size, int) and size > max(_SMALL, held[1]):
            raise KbenchError(
                f"{folder}: config.json says {name} is {size:,}, and no tensor of the weights is "
                f"longer than {held[1]:,}; expected the configuration that they were saved with"
            )


def _held(folder: Path) -> tuple[int, int] | None:
    """How many tensors a folder holds, and the longest side of any; None where that is not seen."""
    from safetensors import SafetensorError, safe_open

    shapes: list[Sequence[int]] = []
    for path in folder.glob("*.safetensors") if folder.is_dir() else ():
        try:
            with safe_open(path, "pt") as file:
                shapes += [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        except (OSError, SafetensorError):
            return None  # told where it is read
    return (len(shapes), max((side for shape in shapes for side in shape), default=0))


def _encoder(folder: Path, config: Any, how: Mapping[str, Any]) -> Checkpoint:
    body = _filled("AutoModel", folder, config, how)
    if "decoder_input_ids" in inspect.signature(body.network.forward).parameters:
        raise KbenchError(
            f"{folder}: {type(body.network).__name__} reads with an encoder and writes with "
            "a decoder; kbench takes models that are one of the two"
        )
    pooler = _check_body(folder, body)
    _check_table(folder, body.network)
    if not pooler and hasattr(body.network, "pooler"):
        body.network.pooler = None  # else it is random, other at each load
    network, unread = _with_head(folder, config, how, body)
    _check_strangers(folder, body.network, unread)
    _check_finite(folder, network)
    return Checkpoint(network, pooler, _modules(unread), left_to_right=False)


def _decoder(folder: Path, config: Any, how: Mapping[str, Any]) -> Checkpoint:
    whole = _filled("AutoModelForCausalLM", folder, config, how)
    network = whole.network
    _check_shapes(folder, type(network).__name__, whole)
    _check_whole(folder, network, whole.missing, whole.unexpected)
    _check_table(folder, network)
    _check_strangers(folder, network, whole.unexpected)
    _check_finite(folder, network)
    return Checkpoint(network, pooler=False, unread=_modules(whole.unexpected), left_to_right=True)


def is_causal(model_type: str) -> bool:
    """Returns whether models of a type read from left to right: they have no masked-LM form.

    Args:
        model_type: as ``config.json`` names it.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    causal = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return causal and not masked and model_type not in _BOTH_WAYS


def _config(folder: Path) -> Any:
    import transformers

    if is_gguf(folder):
        return config_of(folder)
    config = transformers.AutoConfig.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    if getattr(config, "attention_type", None) == "block_sparse":
        # BigBird looks at all of a text up to a length, and from its first short text on always.
        config.attention_type = "original_full"
        whole = (5 + 2 * config.num_random_blocks) * config.block_size
        config.kbench_max_length = whole
    return config


def _filled(kind: str, folder: Path, config: Any, how: Mapping[str, Any]) -> _Filled:
    import transformers

    network, told = getattr(transformers, kind).from_pretrained(
        **located(folder),
        config=config,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # told of, and refused below with both shapes
        **how,
    )
    misshapen = sorted(
        (key, tuple(has), tuple(needs)) for key, has, needs in told["mismatched_keys"]
    )
    return _Filled(
        network, frozenset(told["missing_keys"]), frozenset(told["unexpected_keys"]), (*misshapen,)
    )


def _check_body(folder: Path, body: _Filled) -> bool:
    """Refuses a network that is not filled as a whole; returns whether its pooler is."""
    name = type(body.network).__name__
    _check_shapes(folder, name, body)
    pooler = getattr(body.network, "pooler", None)
    own = {f"pooler.{key}" for key in pooler.state_dict()} if pooler is not None else set()
    lacks_pooler = bool(own) and own <= body.missing
    missing = body.missing - own if lacks_pooler else body.missing
    _check_whole(folder, body.network, missing, body.unexpected)
    return pooler is not None and not lacks_pooler


def _check_whole(
    folder: Path, network: Any, missing: frozenset[str], unexpected: frozenset[str]
) -> None:
    if missing:
        name = type(network).__name__
        raise KbenchError(
            f"{folder}: the weights lack {_some(missing)} of {name} as config.json describes it; "
            f"{_advice(missing, unexpected)}"
        )


def _check_table(folder: Path, network: Any) -> None:
    if not isinstance(network.get_input_embeddings(), nn.Embedding):
        raise KbenchError(
            f"{folder}: {type(network).__name__} has no table of word vectors that kbench could "
            "write into; expected a model with one"
        )


def _check_strangers(folder: Path, network: Any, unread: Iterable[str]) -> None:
    """Refuses weights that have no place in a network, and are of no head beside it."""
    strangers = [key for key in unread if not _of_a_head(key, network)]
    if strangers:
        raise KbenchError(
            f"{folder}: {_some(strangers)} of the weights {_have(strangers)} no place in "
            f"{type(network).__name__} as config.json describes it; expected the weights "
            "that belong to it, and no others than those of heads"
        )


def _advice(missing: Iterable[str], unexpected: Iterable[str]) -> str:
    """What to do about weights that lack keys: they may be there under another name."""
    known = sorted(unexpected)
    for key in sorted(missing):
        other = next((name for name in known if name.endswith(f".{key}")), None)
        if other is not None:
            return (
                f"they have names of another form ({other}): save them again under the names of "
                f"the model itself{_without(other)}"
            )
    return "expected all of them, since what is missing would be random, other at each load"


def _without(key: str) -> str:
    first = key.partition(".")[0]
    wrapped = first in {"module", "model", "_orig_mod", "encoder"}
    return f", without the leading '{first}.'" if wrapped else ""


def _with_head(
    folder: Path, config: Any, how: Mapping[str, Any], body: _Filled
) -> tuple[Any, frozenset[str]]:
    """Returns the network, in its masked-LM model where all of that is filled, and what is left."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    left = body.unexpected
    if not left or MODEL_FOR_MASKED_LM_MAPPING.get(type(config), None) is None:
        return body.network, left
    if getattr(config, "legacy", False) and any(key.startswith("lm_predictions.") for key in left):
        config.legacy = False  # DeBERTa's head has two forms, and its weights tell which it is
    whole = _filled("AutoModelForMaskedLM", folder, config, how)
    name, prefix = type(whole.network).__name__, f"{whole.network.base_model_prefix}."
    read = left - whole.unexpected
    missing = {key for key in whole.missing if not key.startswith(prefix)}
    if not read:
        return body.network, left
    if missing:
        promised = config.architectures or [name]
        if any(promise in of for of in promised for promise in _PROMISES):
            raise KbenchError(
                f"{folder}: the weights lack {_some(missing)} of the masked-LM head of {name}, "
                f"and hold {_some(read)}; expected all of the head or none of it"
            )
        return body.network, left  # the parts of another head, which has some names in common
    _check_shapes(folder, name, whole)
    network = whole.network
    own = network.get_output_embeddings()
    tied = own is not None and own.weight is network.get_input_embeddings().weight
    # One body for both: the masked-LM class alone would come without the pooler.
    setattr(network, network.base_model_prefix, body.network)
    if tied:  # else the weights hold an output matrix of their own
        network.tie_weights()
    return network, left & whole.unexpected


def _check_shapes(folder: Path, name: str, filled: _Filled) -> None:
    if filled.misshapen:
        key, has, needs = filled.misshapen[0]
        more = len(filled.misshapen) - 1
        raise KbenchError(
            f"{folder}: {key} is {list(has)} in the weights and {list(needs)} in {name} as "
            f"config.json describes it{f', and {more} more do not fit' if more else ''}; expected "
            "the configuration that the weights were saved with"
        )


def _check_finite(folder: Path, network: Any) -> None:
    """Refuses weights that nothing can be computed with, before a loss is blamed for them."""
    stored = network.state_dict()
    held = [*network.named_parameters()]  # without the second name of what is tied
    held += [(name, value) for name, value in network.named_buffers() if name in stored]
    bad = [
        name
        for name, value in held
        # A sum is a quick look: it is not finite where a number of it is not, and seldom else.
        if value.is_floating_point()
        and not torch.isfinite(value.sum())
        and not torch.isfinite(value).all()
    ]
    if bad:
        raise KbenchError(
            f"{folder}: {_some(bad)} of the weights {_have(bad)} numbers that are not finite; "
            "expected weights that can be computed with: save or fetch them again"
        )


def _of_a_head(key: str, network: Any) -> bool:
    """Whether a key is of a head, and so of no part of the network."""
    first = key.partition(".")[0]
    return first in HEADS and getattr(network, first, None) is None


def _some(keys: Iterable[str]) -> str:
    """A few of the keys, and how many there are."""
    known = sorted(keys)
    more = len(known) - _SHOWN
    return ", ".join(known[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _have(keys: list[str]) -> str:
    return "has" if len(keys) == 1 else "have"


def _modules(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({_module(key) for key in keys}))


def _module(key: str) -> str:
    """The head that a key is of: ``cls.seq_relationship`` of ``cls.seq_relationship.bias``."""
    first, *rest = key.split(".")
    return ".".join([first, *rest[:1]]) if first == "cls" else first
