"""Backbones: pre-trained language models as loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kbench.errors import Unsupported
from kbench.spec import PACKED, Held

if TYPE_CHECKING:
    from kbench.model.language_model import LanguageModel

__all__ = ["Backbone", "BackboneForm", "BackboneSize"]


@dataclass(frozen=True)
class BackboneForm:
    """What a recipe may know of a backbone: of which kind it is, and how large.

    Attributes:
        kind: what ``transformers`` calls it: ``bert``, ``gpt2``, ``llama``, …
        left_to_right: whether it reads so.
        width: size of a hidden state.
        layers: how many.
    """

    kind: str
    left_to_right: bool
    width: int
    layers: int


@dataclass(frozen=True)
class BackboneSize:
    """What a backbone is on disk.

    Attributes:
        parameters: numbers in its weights; what is tied counts once.
        bytes: of the files that they lie in, or in memory where there are none.
    """

    parameters: int
    bytes: int


class Backbone(ABC):
    """A pre-trained language model by name.

    Attributes:
        name: what the user typed.
        left_to_right: whether it loads a :class:`~kbench.model.Decoder`; known without loading it.
        recipes: training settings this backbone wants instead of the published ones, by tuning
            (``full``) or by method and setting (``map-tuning general``): a model of two million
            parameters needs other learning rates than one of a hundred million. Fields of a
            recipe; what is not among them stays as published.
        licence: of its weights, in a few words; empty if nothing is known of it.
    """

    name: str
    left_to_right: bool = False
    licence: str = ""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of weights, configuration and tokenizer: the backbone by content."""

    def config(self) -> Mapping[str, Any] | None:
        """Returns its ``config.json`` where that is at hand, fetching nothing; else None."""
        return None

    def form(self) -> BackboneForm:
        """Returns of which kind it is, and how large; it is loaded if no configuration is there."""
        config = _whole(self.config()) or self.load().config
        return BackboneForm(
            kind=str(config.model_type),
            left_to_right=self.left_to_right,
            width=int(config.hidden_size),
            layers=int(config.num_hidden_layers),
        )

    def size(self) -> BackboneSize:
        """Returns how large it is; as it stands it is loaded to be counted.

        Raises:
            KbenchError: as of :meth:`load`.
        """
        held = [*self.load().network.parameters()]  # without the second name of what is tied
        return BackboneSize(
            parameters=sum(each.numel() for each in held),
            bytes=sum(each.numel() * each.element_size() for each in held),
        )

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


def _whole(said: Mapping[str, Any] | None) -> Any:
    """A configuration with all that it leaves unsaid; None of a kind that transformers lacks."""
    from transformers import AutoConfig

    kind = (said or {}).get("model_type")
    try:
        return AutoConfig.for_model(**{**(said or {}), "model_type": kind}) if kind else None
    except ValueError:
        return None
