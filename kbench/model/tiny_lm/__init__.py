"""The embedded decoder: a small Llama trained on WordNet's glosses. See its README.md."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

from kbench.data.files import read_yaml
from kbench.model.backbone import Backbone, BackboneSize
from kbench.model.huggingface import folder_digest, folder_size, load_folder, read_config
from kbench.model.language_model import LanguageModel

__all__ = ["KbenchTinyLm"]

_FOLDER = Path(__file__).parent


@final
class KbenchTinyLm(Backbone):
    """A Llama of 6 layers and width 128 for trials without a download (causal LM)."""

    name = "kbench-tiny-lm"
    licence = "WordNet 3.0 licence (tasks/kbench_tasks/atlas/NOTICE.md)"
    left_to_right = True
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = read_yaml(
        _FOLDER / "recipes.yaml", "fields of a recipe by tuning, or by method and setting"
    )

    @cached_property
    def digest(self) -> str:
        return folder_digest(_FOLDER)

    def config(self) -> Mapping[str, Any]:
        return read_config(_FOLDER)

    def size(self) -> BackboneSize:
        return folder_size(_FOLDER)

    def load(self) -> LanguageModel:
        return load_folder(_FOLDER)
