"""Small random models of the architectures that kbench says it reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.hostile import byte_level

_COMMON = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 70,
    "initializer_range": 0.3,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_DISTIL = {
    "dim": 16,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 24,
    "max_position_embeddings": 70,
    "initializer_range": 0.3,
    "pad_token_id": 1,
}
_MODERN = {
    "global_attn_every_n_layers": 2,
    "local_attention": 8,
    "cls_token_id": 0,
    "sep_token_id": 2,
    "embedding_dropout": 0.1,
    "mlp_dropout": 0.1,
    "attention_dropout": 0.1,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _COMMON),
    "roberta": ("Roberta", _COMMON),
    "camembert": ("Camembert", _COMMON),
    "xlm-roberta": ("XLMRoberta", _COMMON),
    "distilbert": ("DistilBert", _DISTIL),
    "electra": ("Electra", {**_COMMON, "embedding_size": 12}),
    "albert": ("Albert", {**_COMMON, "embedding_size": 12}),
    "mpnet": ("MPNet", _COMMON),
    "modernbert": ("ModernBert", {**_COMMON, **_MODERN}),
    "deberta-v2": (
        "DebertaV2",
        {**_COMMON, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    ),
}


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bigbird": ("BigBird", {**_COMMON, "attention_type": "block_sparse", "block_size": 2}),
    "data2vec": ("Data2VecText", _COMMON),
    "deberta": ("Deberta", {**_COMMON, "relative_attention": True, "pos_att_type": ["p2c"]}),
    "deberta-v3": (
        "DebertaV2",
        {**_COMMON, "relative_attention": True, "pos_att_type": ["p2c"], "legacy": False},
    ),
    "ernie": ("Ernie", _COMMON),
    "longformer": ("Longformer", {**_COMMON, "attention_window": 8}),
    "luke": ("Luke", {**_COMMON, "entity_vocab_size": 5, "entity_emb_size": 8}),
    "megatron": ("MegatronBert", _COMMON),
    "mobilebert": (
        "MobileBert",
        {
            **_COMMON,
            "embedding_size": 8,
            "true_hidden_size": 16,
            "intra_bottleneck_size": 16,
            "hidden_size": 32,
        },
    ),
    "rembert": (
        "RemBert",
        {**_COMMON, "input_embedding_size": 12, "output_embedding_size": 20},
    ),
    "roformer": ("RoFormer", {**_COMMON, "embedding_size": 12}),
    "squeezebert": (
        "SqueezeBert",
        {
            **_COMMON,
            "embedding_size": 16,
            "q_groups": 2,
            "k_groups": 2,
            "v_groups": 2,
            "intermediate_groups": 2,
            "output_groups": 2,
        },
    ),
    "untied": ("Bert", {**_COMMON, "tie_word_embeddings": False}),
    "xlm": (
        "XLM",
        {
            "emb_dim": 16,
            "n_layers": 2,
            "n_heads": 4,
            "max_position_embeddings": 70,
            "pad_token_id": 1,
        },
    ),
    "xmod": ("Xmod", {**_COMMON, "languages": ["en_XX"], "default_language": "en_XX"}),
}
"""More that load and say what transformers says, without being promised everywhere."""


_GROUPED = {**_COMMON, "num_key_value_heads": 2, "head_dim": 4}
_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 70, "eos_token_id": 2}

DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("Gemma2", {**_GROUPED, "query_pre_attn_scalar": 4}),
    "gpt-neox": ("GPTNeoX", _COMMON),
    "gpt2": ("GPT2", {**_GPT2, "initializer_range": 0.3}),
    "llama": ("Llama", _GROUPED),
    "mistral": ("Mistral", _GROUPED),
    "phi": ("Phi", _GROUPED),
    "phi3": ("Phi3", _GROUPED),
    "qwen2": ("Qwen2", _GROUPED),
    "qwen3": ("Qwen3", _GROUPED),
    "smollm3": ("SmolLM3", _GROUPED),
}
"""Those that read from left to right."""


def write_decoder(folder: Path, name: str, **changes: Any) -> Path:
    """Writes a random causal language model of an architecture with a byte-level tokenizer."""
    prefix, options = DECODERS[name]
    network = "GPT2LMHeadModel" if prefix == "GPT2" else f"{prefix}ForCausalLM"
    return write_network(folder, network, f"{prefix}Config", **{**options, **changes})


def write(folder: Path, name: str, *, kind: str = "ForMaskedLM", **changes: Any) -> Path:
    """Writes a random model of an architecture with a byte-level tokenizer."""
    prefix, options = (ARCHITECTURES | OTHERS)[name]
    if prefix == "XLM" and kind == "ForMaskedLM":
        kind = "WithLMHeadModel"
    return write_network(folder, f"{prefix}{kind}", f"{prefix}Config", **{**options, **changes})


def write_network(folder: Path, network: str, config: str, **options: Any) -> Path:
    """Writes a random model of classes of transformers with a byte-level tokenizer."""
    tokenizer = byte_level()
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    made = getattr(transformers, config)(vocab_size=len(tokenizer), **options)
    getattr(transformers, network)(made).save_pretrained(folder)
    return folder


def rewrite(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> Path:
    """Changes the weights of a model in a folder."""
    path = folder / "model.safetensors"
    weights = {name: value.contiguous() for name, value in change(load_file(path)).items()}
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def configure(folder: Path, **changes: Any) -> Path:
    """Changes the configuration of a model in a folder; None takes a key away."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder
