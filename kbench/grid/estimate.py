"""What a grid will cost, from counts alone: parameters, tokens, passes. Free of torch.

A pass over ``T`` tokens through layers of ``P`` parameters costs, in floating-point operations,

    2 P T    forward alone: evaluation
    4 P T    forward, and the gradient back through frozen weights: plugs, light tunings
    6 P T    forward, the gradient back, and that of every weight: full tuning

(Kaplan et al., "Scaling Laws for Neural Language Models", 2020, section 2.1). ``P`` are the weights
and biases of the layers: embeddings are looked up, and heads read few positions. Attention scores
(some per cent at the lengths of these tasks), padding, entity slots and what a plug itself
computes are left out. What is not known stays unknown and is named.

The map to tokens of a decoder reads the states after which candidates go on, and is as large as
some layers: it counts for these states. Candidates of several tokens make a text longer.
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
    "Memory",
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
        queries: width of all heads together; None for that of the hidden states.
        keys: width of the heads of keys; None for that of the hidden states.
        kin: whether layers are Llama's, with three maps in the feed-forward network, no biases, and
            norms that have none.
        vocabulary: tokens that there are; 0 where nobody asks.
        tied: whether the map to tokens is the table of word embeddings.
        causal: whether it reads from left to right.
    """

    layers: int
    width: int
    inner: int
    queries: int | None = None
    keys: int | None = None
    kin: bool = False
    vocabulary: int = 0
    tied: bool = True
    causal: bool = False

    @property
    def weights(self) -> int:
        """Of all that is held: layers, word embeddings, and a map to tokens of its own."""
        return self.parameters + self.map_to_tokens * (1 if self.tied else 2)

    @property
    def map_to_tokens(self) -> int:
        """Of the map from a state to the logits of all tokens."""
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """Of all layers: four maps of attention, two of the feed-forward network, two norms."""
        if self.kin or self.keys is not None:
            queries, keys = self.queries or self.width, self.keys or self.width
            maps = 2 * self.width * (queries + keys) + (2 + self.kin) * self.width * self.inner
            return self.layers * (maps + 2 * self.width)
        attention = 4 * (self.width**2 + self.width)
        feed_forward = 2 * self.width * self.inner + self.inner + self.width
        return self.layers * (attention + feed_forward + 4 * self.width)


SHAPES: Mapping[str, Shape] = {
    "bert-base-uncased": Shape(12, 768, 3072),
    "bert-base-cased": Shape(12, 768, 3072),
    "bert-large-uncased": Shape(24, 1024, 4096),
    "roberta-base": Shape(12, 768, 3072),
    "roberta-large": Shape(24, 1024, 4096),
    "gpt2": Shape(12, 768, 3072, vocabulary=50257, causal=True),
    "Llama-3.2-1B": Shape(16, 2048, 8192, 2048, 512, True, 128256, causal=True),
    "Llama-3.1-8B": Shape(32, 4096, 14336, 4096, 1024, True, 128256, tied=False, causal=True),
    "Qwen2.5-1.5B": Shape(28, 1536, 8960, 1536, 256, True, 151936, causal=True),
    "SmolLM2-135M": Shape(30, 576, 1536, 576, 192, True, 49152, causal=True),
    "SmolLM2-1.7B": Shape(24, 2048, 8192, 2048, 2048, True, 49152, causal=True),
}
"""Backbones of published tables, for plans made before anything is downloaded."""

_KEYS = (
    ("num_hidden_layers", "hidden_size", "intermediate_size"),
    ("n_layers", "dim", "hidden_dim"),  # DistilBERT
    ("n_layer", "n_embd", "n_inner"),  # GPT-2
)
_BYTES: Mapping[str, float] = {"float32": 4, "bfloat16": 2, "8bit": 1, "4bit": 0.5}
_SCALES = 1 / 16
"""Bytes a weight of the scales of those of fewer bits, of blocks of 64 weights at most."""


def shape_of(name: str, config: Mapping[str, Any] | None) -> Shape | None:
    """Returns the shape of a backbone by its ``config.json``, else by its name; None if neither."""
    for keys in _KEYS:
        sizes = [(config or {}).get(key) for key in keys]
        if keys[2] == "n_inner" and sizes[1] and sizes[2] is None:
            sizes[2] = 4 * sizes[1]
        if config is not None and all(isinstance(value, int) for value in sizes):
            layers, width, inner = (int(value or 0) for value in sizes)
            return Shape(layers, width, inner, **_decoding(config, width))
    return SHAPES.get(name.rpartition("/")[2].partition("@")[0])


def _decoding(config: Mapping[str, Any], width: int) -> dict[str, Any]:
    """What a decoder's configuration says of its heads and its words; nothing of an encoder's."""
    if "num_key_value_heads" not in config and "n_embd" not in config:
        return {}
    known: dict[str, Any] = {
        "vocabulary": int(config.get("vocab_size") or 0),
        "tied": bool(config.get("tie_word_embeddings", "n_embd" in config)),
        "causal": True,
    }
    heads = config.get("num_attention_heads")
    if isinstance(heads, int) and "num_key_value_heads" in config:
        size = config.get("head_dim") or width // heads
        grouped = config["num_key_value_heads"] or heads
        known |= {"queries": heads * size, "keys": grouped * size, "kin": "rms_norm_eps" in config}
    return known


@dataclass(frozen=True)
class Memory:
    """What a backbone takes on a device, in bytes.

    Attributes:
        weights: as they are held, each once.
        activations: of a batch that is read, at most, with the mask of trees and the logits.
        cache: keys and values of the same batch, where something is generated.
    """

    weights: float
    activations: float
    cache: float

    @classmethod
    def of(cls, shape: Shape, weights: str, texts: int, tokens: float, trees: float) -> Memory:
        """Reckons what reading takes: nothing is kept for a way back.

        Args:
            shape: of the backbone.
            weights: how they are held.
            texts: in a batch.
            tokens: of each.
            trees: tokens of the candidates of each.
        """
        word = _BYTES[weights]
        packed = shape.parameters * (word + _SCALES) if word < 2 else shape.parameters * word
        rest = (shape.weights - shape.parameters) * max(word, 2)
        computed, places = (4 if weights == "float32" else 2), texts * (tokens + trees)
        keys = shape.keys or shape.width
        # The residual stream, its norm, what attention reads and says, and the inner width.
        layer = places * (4 * shape.width + 2 * keys + (2 + shape.kin) * shape.inner) * computed
        mask = texts * (tokens + trees) ** 2 * computed if trees else 0
        logits = min(_LOGITS, 4 * texts * (trees + 1) * shape.vocabulary)
        return cls(
            packed + rest, layer + mask + logits, 2 * shape.layers * keys * places * computed
        )

    def line(self, name: str, weights: str) -> str:
        """Returns it in words."""
        total, cache = _gigabytes(self.weights + self.activations), _gigabytes(self.cache)
        return (
            f"memory of {name}: {total} to read ({_gigabytes(self.weights)} weights in {weights}, "
            f"{_gigabytes(self.activations)} activations of a batch); {cache} of keys and values "
            "where it writes"
        )


_LOGITS = 1 << 27


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2g} GB"


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
