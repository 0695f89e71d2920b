"""Small random models of the architectures that kbench says it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

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


def write(folder: Path, name: str, *, kind: str = "ForMaskedLM", **changes: Any) -> Path:
    """Writes a random model of an architecture with a byte-level tokenizer."""
    prefix, options = ARCHITECTURES[name]
    tokenizer = byte_level()
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=len(tokenizer), **{**options, **changes}
    )
    getattr(transformers, f"{prefix}{kind}")(config).save_pretrained(folder)
    return folder
