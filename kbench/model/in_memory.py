"""A model and its tokenizer in memory, kept as a folder for all that reads folders."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from filelock import FileLock

from kbench.data.files import BACKBONES, cache_home
from kbench.errors import UsageError, first_line
from kbench.model.huggingface import folder_digest, read_config
from kbench.store.folder import AddressedFolder

__all__ = ["KeptBackbones", "kept"]

_WRITTEN = "written"
"""What scratch folders and their lock are called, since a name is known only of what is written."""


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
    store = KeptBackbones()
    try:
        return store.write(model, _unused(tokenizer))
    except UsageError:
        raise
    except Exception as cause:  # whatever a model of a stranger's class raises
        raise UsageError(f"backbone: the model cannot be written ({first_line(cause)})") from cause


@final
class KeptBackbones(AddressedFolder):
    """The folder of models that were given in memory, each named by its kind and digest.

    Args:
        folder: where; by default in the machine's cache.
    """

    about = "config.json"
    noun = "backbone"

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder or cache_home() / BACKBONES)

    def shelves(self) -> Iterator[Path]:
        """Yields the folder itself."""
        yield self.folder

    def read(self, folder: Path) -> dict[str, Any]:
        config = read_config(folder)
        kinds = config.get("architectures") or ["model"]
        return {"of": f"{kinds[0]} in memory", "named": _name(folder, config)}

    def sums(self, about: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns nothing: the digest in the name is that of all files."""
        return {}

    def named(self, about: Mapping[str, Any]) -> str:
        return str(about["named"])

    def write(self, model: Any, tokenizer: Any) -> Path:
        """Writes a model and its tokenizer unless they are there; returns their folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{_WRITTEN}.lock"):
            scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix=f".{_WRITTEN}.tmp-"))
            try:
                folder = scratch / "model"
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model.save_pretrained(folder)
                    tokenizer.save_pretrained(folder)
                target = self.folder / _name(folder, read_config(folder))
                if self.sound(target, lambda _: True):
                    os.utime(target)  # it is used again
                    return target
                if target.exists():
                    os.replace(target, scratch / "damaged")
                os.replace(folder, target)
                return target
            finally:
                shutil.rmtree(scratch, ignore_errors=True)


def _name(folder: Path, config: Mapping[str, Any]) -> str:
    return f"{config.get('model_type') or 'model'}-{folder_digest(folder)[:16]}"


def _unused(tokenizer: Any) -> Any:
    """A copy of a tokenizer without what its last call left in it."""
    fresh = copy.deepcopy(tokenizer)
    inner = getattr(fresh, "backend_tokenizer", None)
    if inner is not None:
        inner.no_padding()
        inner.no_truncation()
    return fresh
