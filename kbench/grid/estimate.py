"""What a grid will cost, from counts alone: parameters, tokens, passes. Free of torch.

A pass over ``T`` tokens through layers of ``P`` parameters costs, in floating-point operations,

    2 P T    forward alone: evaluation
    4 P T    forward, and the gradient back through frozen weights: plugs, light tunings
    6 P T    forward, the gradient back, and that of every weight: full tuning

(Kaplan et al., "Scaling Laws for Neural Language Models", 2020, section 2.1). ``P`` are the weights
and biases of the layers: embeddings are looked up, and heads read few positions. Attention scores
(some per cent at the lengths of these tasks), padding, entity slots and what a plug itself
computes are left out. What is not known stays unknown and is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

__all__ = [
    "SHAPES",
    "GpuHours",
    "Machine",
    "Pass",
    "Shape",
    "Work",
    "WorkKind",
    "flops",
    "shape_of",
]

_MILLION = 1_000_000


class Pass(IntEnum):
    """Floating-point operations a parameter and token."""

    FORWARD = 2
    THROUGH = 4
    TRAIN = 6


class WorkKind(StrEnum):
    """What the work is for."""

    TUNING = "downstream models"
    GENERAL = "general plugs"
    TASK = "task-specific plugs"
    EVALUATION = "evaluations"


@dataclass(frozen=True)
class Shape:
    """A network's layers.

    Attributes:
        layers: how many.
        width: of the hidden states.
        inner: width inside the feed-forward network.
    """

    layers: int
    width: int
    inner: int

    @property
    def parameters(self) -> int:
        """Of all layers: four maps of attention, two of the feed-forward network, two norms."""
        attention = 4 * (self.width**2 + self.width)
        feed_forward = 2 * self.width * self.inner + self.inner + self.width
        return self.layers * (attention + feed_forward + 4 * self.width)


SHAPES: Mapping[str, Shape] = {
    "bert-base-uncased": Shape(12, 768, 3072),
    "bert-base-cased": Shape(12, 768, 3072),
    "bert-large-uncased": Shape(24, 1024, 4096),
    "roberta-base": Shape(12, 768, 3072),
    "roberta-large": Shape(24, 1024, 4096),
}
"""Backbones of published tables, for plans made before anything is downloaded."""

_KEYS = (
    ("num_hidden_layers", "hidden_size", "intermediate_size"),
    ("n_layers", "dim", "hidden_dim"),  # DistilBERT
)


def shape_of(name: str, config: Mapping[str, Any] | None) -> Shape | None:
    """Returns the shape of a backbone by its ``config.json``, else by its name; None if neither."""
    for keys in _KEYS:
        sizes = [(config or {}).get(key) for key in keys]
        if all(isinstance(value, int) for value in sizes):
            return Shape(*(int(value or 0) for value in sizes))
    return SHAPES.get(name.rpartition("/")[2].partition("@")[0])


def flops(parameters: int, *passes: tuple[Pass, float]) -> float:
    """Returns the operations of passes, each over so many tokens."""
    return float(sum(kind * parameters * tokens for kind, tokens in passes))


@dataclass(frozen=True)
class Work:
    """One thing to be made: a model, a plug, an evaluation.

    Attributes:
        stage: what it is for.
        flops: operations; None where something is not known.
        rate: operations a sentence of a corpus whose size is not known, else None.
        unknown: what is not known, in words.
    """

    stage: WorkKind
    flops: float | None
    rate: float | None = None
    unknown: str = ""


@dataclass(frozen=True)
class Machine:
    """What the work would run on.

    Attributes:
        peak: operations a second at best. The default is an NVIDIA A100 in float32, in which
            kbench trains.
        used: share of the peak that training reaches.
    """

    peak: float = 19.5e12
    used: float = 0.4

    def hours(self, operations: float) -> float:
        """Returns how long it takes."""
        return operations / (self.peak * self.used) / 3600


@dataclass(frozen=True)
class GpuHours:
    """The sum.

    Attributes:
        machine: what it is for.
        hours: of each stage, of what is known.
        counts: things to be made in each stage.
        unknown: what is not known and so not in the sum, and of how many things.
        hours_per_million: that a million sentences of corpus would add.
    """

    machine: Machine
    hours: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    hours_per_million: float = 0.0

    @classmethod
    def of(cls, works: Iterable[Work], machine: Machine) -> GpuHours:
        """Sums what is known and collects what is not."""
        hours: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        rate = 0.0
        for work in works:
            counts[str(work.stage)] += 1
            hours[str(work.stage)] += machine.hours(work.flops or 0.0)  # type: ignore[assignment]
            if work.flops is None:
                unknown[work.unknown] += 1
                rate += work.rate or 0.0
        return cls(
            machine, dict(hours), dict(counts), dict(unknown), machine.hours(rate * _MILLION)
        )

    @property
    def total(self) -> float:
        """Hours in all, of what is known."""
        return sum(self.hours.values())

    def as_json(self) -> dict[str, Any]:
        """Returns the estimate with its assumptions."""
        return {
            "gpu_hours": self.total,
            "complete": not self.unknown,
            "stages": {
                stage: {"count": self.counts[stage], "gpu_hours": self.hours[stage]}
                for stage in self.counts
            },
            "gpu_hours_per_million_sentences": self.hours_per_million,
            "unknown": self.unknown,
            "assumed": {
                "flops_per_second": self.machine.peak,
                "utilisation": self.machine.used,
                "flops_per_parameter_and_token": {kind.name.lower(): int(kind) for kind in Pass},
            },
        }

    def lines(self) -> list[str]:
        """Returns the estimate in words, with its assumptions."""
        least = "at least " if self.unknown else ""
        lines = [f"estimate: {least}{_hours(self.total)} on one GPU"]
        lines += [
            f"  {stage}: {self.counts[stage]}, {_hours(self.hours[stage])}" for stage in self.counts
        ]
        lines += [f"not known, not in the sum: {what} ({n})" for what, n in self.unknown.items()]
        if self.hours_per_million:
            lines.append(
                f"  each million sentences of such a corpus adds {_hours(self.hours_per_million)}"
            )
        teraflops, used = self.machine.peak / 1e12, 100 * self.machine.used
        lines.append(
            f"assumed: {teraflops:g} TFLOP/s (--tflops), {used:.0f} % of it used; {Pass.FORWARD} "
            f"FLOPs a parameter of the layers and token in evaluation, {Pass.THROUGH} where "
            f"weights stay frozen in training, {Pass.TRAIN} where all train; see docs/recipes.md"
        )
        return lines


def _hours(hours: float) -> str:
    return f"{hours:,.0f} GPU hours" if hours >= 10 else f"{hours:.2g} GPU hours"
