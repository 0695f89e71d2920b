"""A model and its tokenizer in memory, kept as a folder for all that reads folders."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from kbench.data.files import cache_home
from kbench.errors import UsageError, first_line
from kbench.model.huggingface import folder_digest

__all__ = ["kept"]


def kept(model: Any, tokenizer: Any) -> Path:
    """Writes a model of ``transformers`` and its tokenizer into the cache; returns the folder.

    The folder is what ``save_pretrained`` writes of both, and lies at the digest of its content:
    the same weights, configuration and tokenizer have the same address, and the address of a
    folder that the same version of ``transformers`` saved them to. What a call of the tokenizer
    leaves in it (padding, truncation) is no part of it.

    Args:
        model: as of ``AutoModel``, ``AutoModelForMaskedLM`` or ``AutoModelForCausalLM``.
        tokenizer: a fast one.

    Raises:
        UsageError: one is no such thing, or cannot be written.
    """
    for what, thing in (("model", model), ("tokenizer", tokenizer)):
        if not callable(getattr(thing, "save_pretrained", None)):
            raise UsageError(
                f"backbone: the {what} is a {type(thing).__name__}; expected a pair of a model and "
                "a tokenizer of transformers, each with save_pretrained"
            )
    shelf = cache_home() / "backbones"
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shelf, prefix=".") as scratch:
            folder = Path(scratch) / "model"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.save_pretrained(folder)
                _unused(tokenizer).save_pretrained(folder)
            kind = str(getattr(model.config, "model_type", "model"))
            target = shelf / f"{kind}-{folder_digest(folder)[:16]}"
            if not target.exists():
                os.replace(folder, target)
    except UsageError:
        raise
    except Exception as cause:  # whatever a model of a stranger's class raises
        raise UsageError(f"backbone: the model cannot be written ({first_line(cause)})") from cause
    return target


def _unused(tokenizer: Any) -> Any:
    """A copy of a tokenizer without what its last call left in it."""
    fresh = copy.deepcopy(tokenizer)
    inner = getattr(fresh, "backend_tokenizer", None)
    if inner is not None:
        inner.no_padding()
        inner.no_truncation()
    return fresh
