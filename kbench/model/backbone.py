"""Backbones: pre-trained language models as loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kbench.errors import Unsupported
from kbench.spec import PACKED, Held

if TYPE_CHECKING:
    from kbench.model.language_model import LanguageModel

__all__ = ["Backbone"]


class Backbone(ABC):
    """A pre-trained language model by name.

    Attributes:
        name: what the user typed.
        left_to_right: whether it loads a :class:`~kbench.model.Decoder`; known without loading it.
        recipes: training settings this backbone wants instead of the published ones, by tuning
            (``full``) or by method and setting (``map-tuning general``): a model of two million
            parameters needs other learning rates than one of a hundred million. Fields of a
            recipe; what is not among them stays as published.
    """

    name: str
    left_to_right: bool = False
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of weights, configuration and tokenizer: the backbone by content."""

    def config(self) -> Mapping[str, Any] | None:
        """Returns its ``config.json`` where that is at hand, fetching nothing; else None."""
        return None

    def chat_template(self) -> str | None:
        """Returns the template by which it is put messages; None if it has none, as it stands."""
        return None

    @abstractmethod
    def load(self) -> LanguageModel:
        """Loads a fresh copy in eval mode on the CPU, in float32.

        Raises:
            KbenchError: it cannot be found or is no network.
        """

    def load_held(
        self, weights: Held, device: str = "cpu", *, spread: bool = False
    ) -> LanguageModel:
        """Loads a fresh copy whose weights are held otherwise.

        As it stands: in float32 first, and then in bfloat16.

        Args:
            weights: their precision; all but float32 stay frozen.
            device: where it will compute; weights of fewer bits are packed there.
            spread: whether it is parted among all GPUs.

        Raises:
            KbenchError: it cannot be found, is no network, or is not held so.
        """
        if weights in PACKED or spread:
            how = f"held in {weights}" if weights in PACKED else "spread over GPUs"
            raise Unsupported(
                f"backbone {self.name} is not {how}; expected --weights float32 or bfloat16 on one "
                "device, or a model in a folder or on the hub"
            )
        import torch

        from kbench.model.narrow import hold

        lm = self.load()
        if weights == "bfloat16":
            hold(lm, torch.bfloat16)
        return lm
