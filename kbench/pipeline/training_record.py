"""What is recorded of a training: beside the weights that it made, and in the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from kbench.errors import ArtifactError
from kbench.training import History

__all__ = ["TrainingRecord"]

_HISTORY = frozenset(f.name for f in fields(History))


@dataclass(frozen=True)
class TrainingRecord:
    """How a downstream model or a plug was made.

    Attributes:
        recipe: what it was trained by; None if nothing was trained.
        history: what the training left to report.
        trainable_parameters: how many moved.
        digest: SHA-256 of a downstream model's weights; empty for a plug.
        computed: the device, its settings and the precision; empty if nothing was trained.
        peak_device_memory_bytes: held on the device meanwhile; None without one.
        processor_seconds: of all threads; None where it was trained on a GPU, or nobody counted.
        of: title of the run that it was made for first.
        address: in the store; empty for a backbone as it is, which is not stored.
        start: of the general plug that a plug started from, or None.
    """

    recipe: Mapping[str, Any] | None = None
    history: History = field(default_factory=History)
    trainable_parameters: int = 0
    digest: str = ""
    computed: Mapping[str, str | int] = field(default_factory=dict)
    peak_device_memory_bytes: int | None = None
    processor_seconds: float | None = None
    of: str = ""
    address: str = ""
    start: TrainingRecord | None = None

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> Self:
        """Reads what :meth:`as_json` gave, and whatever else lies beside the weights.

        Raises:
            ArtifactError: something is missing.
        """
        try:
            start = about.get("start")
            history = {k: v for k, v in about["history"].items() if k in _HISTORY}
            return cls(
                recipe=about["recipe"],
                history=History(**history),
                trainable_parameters=about["trainable_parameters"],
                digest=about.get("digest", ""),
                computed=about.get("computed", {}),
                peak_device_memory_bytes=about.get("peak_device_memory_bytes"),
                processor_seconds=about.get("processor_seconds"),
                of=about.get("of", ""),
                address=about.get("address", ""),
                start=None if start is None else cls.from_json(start),
            )
        except (KeyError, TypeError, AttributeError) as cause:
            raise ArtifactError(
                f"artifact {about.get('address')} does not say how it was made ({cause}); remove "
                "it from the cache, and it is made again"
            ) from None

    def as_json(self) -> dict[str, Any]:
        """Returns what is stored beside the weights."""
        digest = {"digest": self.digest} if self.digest else {"start": self._start()}
        return {"of": self.of, **digest, **self.summary()}

    def summary(self) -> dict[str, Any]:
        """Returns what of it goes into a result."""
        computed = {"computed": dict(self.computed)} if self.computed else {}
        peak, spent = self.peak_device_memory_bytes, self.processor_seconds
        return {
            "recipe": self.recipe,
            "history": asdict(self.history),
            "trainable_parameters": self.trainable_parameters,
            **computed,
            **({} if peak is None else {"peak_device_memory_bytes": peak}),
            **({} if spent is None else {"processor_seconds": spent}),
        }

    def summary_of_plug(self) -> dict[str, Any]:
        """Returns the same of a plug, with what it started from."""
        return {**self.summary(), "start": self._start()}

    def _start(self) -> dict[str, Any] | None:
        start = self.start
        return None if start is None else {"address": start.address, **start.summary()}
