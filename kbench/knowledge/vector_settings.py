"""How entity vectors are trained: the settings alone, free of NumPy and torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kbench.errors import UsageError

__all__ = ["VectorSettings"]


def _setting(default: Any, help: str) -> Any:
    """Returns a field whose one line of help the command shows."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class VectorSettings:
    """How vectors are trained; the defaults suit a graph of some ten thousand entities.

    What is stored may be wider than ``dimension``: complex numbers are stored as real and
    imaginary parts, several representations of an entity side by side. The ``nssa`` loss is
    self-adversarial negative sampling (Sun et al., ICLR 2019).
    """

    model: str = _setting("TransE", "A model of PyKEEN, such as TransE, RotatE or ComplEx.")
    dimension: int = _setting(128, "Width of the embeddings; complex ones store twice that.")
    epochs: int = _setting(30, "Passes over all triples.")
    seed: int = _setting(0, "Of initial weights, order and corrupted triples.")
    batch_size: int = _setting(1024, "Triples of a step.")
    learning_rate: float = _setting(0.01, "Of Adam.")
    negatives: int = _setting(16, "Corrupted triples for each true one.")
    loss: str = _setting("nssa", "nssa, default (PyKEEN's for the model) or a loss of PyKEEN.")
    margin: float = _setting(9.0, "Of the nssa loss; about 6 suits 64 dimensions.")
    device: str = _setting("auto", "auto, cpu, cuda or another device of torch.")

    def __post_init__(self) -> None:
        for name in ("dimension", "epochs", "batch_size", "negatives", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; expected more than 0")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; expected 0 or more")
