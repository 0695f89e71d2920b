"""The embedded backbone: a small BERT trained on WordNet's glosses. See its README.md."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

from kbench.model.backbone import Backbone
from kbench.model.encoder import Encoder
from kbench.model.huggingface import folder_digest, load_folder, read_config

__all__ = ["KbenchTiny"]

_FOLDER = Path(__file__).parent


@final
class KbenchTiny(Backbone):
    """A BERT of 4 layers and width 128 for trials without a download (masked LM)."""

    name = "kbench-tiny"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Chosen on dev of the atlas tasks.
        "full": {"learning_rate": 1e-3, "epochs": 8, "batch_size": 32},
        "lora": {"learning_rate": 1e-2, "epochs": 6, "batch_size": 32},
        "adapter": {"learning_rate": 5e-3, "epochs": 6, "batch_size": 32},
        "bitfit": {"learning_rate": 2e-2, "epochs": 6, "batch_size": 32},
        "head": {"learning_rate": 2e-2, "epochs": 20, "batch_size": 32},
        "map-tuning general": {"learning_rate": 1e-2, "epochs": 1, "dropout": 0.1},
        "map-tuning task-specific": {
            "learning_rate": 2e-2,
            "epochs": 4,
            "batch_size": 32,
            "dropout": None,
        },
        "map-tuning fine-tuning": {"learning_rate": 1e-2, "epochs": 1},
        "ernie general": {
            "learning_rate": 3e-3,
            "epochs": 1,
            "batch_size": 16,
            "dropout": None,
        },
        "ernie task-specific": {
            "learning_rate": 3e-2,
            "epochs": 6,
            "batch_size": 32,
            "dropout": None,
        },
        "ernie fine-tuning": {
            "learning_rate": 3e-3,
            "epochs": 1,
            "batch_size": 16,
            "dropout": None,
        },
        "kar general": {
            "learning_rate": 1e-3,
            "epochs": 1,
            "batch_size": 32,
            "dropout": None,
        },
        "kar task-specific": {
            "learning_rate": 3e-3,
            "epochs": 6,
            "batch_size": 32,
            "dropout": None,
            "decay": "linear",
        },
        "kar fine-tuning": {
            "learning_rate": 1e-3,
            "epochs": 1,
            "batch_size": 32,
            "dropout": None,
        },
        "map-tuning-mlp general": {"learning_rate": 1e-2, "epochs": 1, "dropout": 0.1},
        "map-tuning-mlp task-specific": {
            "learning_rate": 2e-2,
            "epochs": 4,
            "batch_size": 32,
            "dropout": None,
        },
        "map-tuning-mlp fine-tuning": {"learning_rate": 1e-2, "epochs": 1},
        "k-adapter general": {
            "learning_rate": 1e-3,
            "epochs": 1,
            "batch_size": 64,
            "warmup": 0.1,
        },
        "k-adapter task-specific": {"learning_rate": 3e-3, "epochs": 4, "batch_size": 32},
        "k-adapter fine-tuning": {
            "learning_rate": 1e-3,
            "epochs": 1,
            "batch_size": 64,
            "warmup": 0.1,
        },
        "adapter-no-knowledge task-specific": {
            "learning_rate": 1e-3,
            "epochs": 4,
            "batch_size": 32,
            "dropout": None,
        },
    }

    @cached_property
    def digest(self) -> str:
        return folder_digest(_FOLDER)

    def config(self) -> Mapping[str, Any]:
        return read_config(_FOLDER)

    def load(self) -> Encoder:
        return load_folder(_FOLDER, segments=1)  # its training text had no second one
