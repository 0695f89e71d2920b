"""How to train, as data: part of every address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

from kbench.spec import OptionType

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How to train. Part of every address, but for ``micro_batch``.

    Attributes:
        learning_rate: the peak.
        batch_size: examples a step.
        epochs: passes over the training examples.
        share: of them, which a pass takes, other batches at each: for corpora of which a part
            teaches enough.
        optimizer: ``adam`` or ``adamw``.
        warmup: share of the steps over which the rate rises from 0.
        decay: ``linear`` to 0 after the warm-up, or ``constant``.
        weight_decay: of AdamW.
        clip: largest norm of the gradient; 0 for none.
        dropout: rate of all dropout of the frozen model while a plug is trained through it;
            None keeps the frozen model in eval mode. Tunings train with the model's own.
        select: keep the weights of the epoch that is best on dev, else of the last.
        micro_batch: examples of a step that are computed at once, at most; None for as many as
            the memory of the device holds. The same training in other parts, so no part of an
            address; its last bits differ, and so does what dropout draws.
        types: what each of these may be.

    Raises:
        UsageError: a value is not allowed.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    optimizer: str = "adamw"
    warmup: float = 0.0
    decay: str = "linear"
    weight_decay: float = 0.0
    clip: float = 0.0
    dropout: float | None = None
    select: bool = True
    micro_batch: int | None = None
    share: float = 1.0

    types: ClassVar[Mapping[str, OptionType]] = {
        "learning_rate": OptionType("number", above=0),
        "batch_size": OptionType("whole number", least=1),
        "epochs": OptionType("whole number", least=1),
        "optimizer": OptionType("text", words=("adam", "adamw")),
        "warmup": OptionType("number", least=0, below=1),
        "decay": OptionType("text", words=("linear", "constant")),
        "weight_decay": OptionType("number", least=0),
        "clip": OptionType("number", least=0),
        "dropout": OptionType("number", least=0, below=1, null=True),
        "select": OptionType("true or false"),
        "micro_batch": OptionType("whole number", least=1, null=True),
        "share": OptionType("number", above=0, most=1),
    }

    def __post_init__(self) -> None:
        for name, kind in self.types.items():
            value = getattr(self, name)
            kind.check(name, value)
            object.__setattr__(self, name, kind.settled(value))

    def updated(self, *changes: Mapping[str, Any]) -> Self:
        """Returns a copy with fields replaced; later mappings win; other keys are left alone."""
        known = {f.name for f in fields(self)}
        merged = {k: v for change in changes for k, v in change.items() if k in known}
        return replace(self, **merged)

    def as_dict(self) -> dict[str, Any]:
        """Returns what an address is made of, as JSON values."""
        fields = asdict(self)
        del fields["micro_batch"]
        if self.share == 1:  # as it was before there was another
            del fields["share"]
        return fields
