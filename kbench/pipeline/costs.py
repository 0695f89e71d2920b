"""What a run cost, and what its trainings kept and dropped, as numbers for its result."""

from __future__ import annotations

from dataclasses import dataclass

from kbench.data.system import peak_memory
from kbench.knowledge import Bundle, KnowledgeBase
from kbench.method import Plug
from kbench.pipeline.training_record import TrainingRecord

__all__ = ["Spent", "cost", "counted", "knowledge_cost"]


@dataclass(frozen=True)
class Spent:
    """What a stage took.

    Attributes:
        seconds: of wall clock.
        processor: seconds of all threads; None on a GPU.
        peak: bytes held on the device; None without one.
    """

    seconds: float
    processor: float | None
    peak: int | None


def cost(
    tuned: TrainingRecord,
    fitted: TrainingRecord | None,
    plug: Plug | None,
    spent: Spent,
    examples: int,
) -> dict[str, float]:
    """Returns what a run cost, units in the names.

    Args:
        tuned: the downstream model's making.
        fitted: the plug's making, if there is one.
        plug: the plug.
        spent: on evaluation.
        examples: evaluated.
    """
    start = fitted.start if fitted else None
    costs = {
        "tune_seconds": tuned.history.seconds,
        "tuned_parameters": float(tuned.trainable_parameters),
        "train_seconds": fitted.history.seconds if fitted else 0.0,
        "start_seconds": start.history.seconds if start else 0.0,
        "trainable_parameters": float(fitted.trainable_parameters) if fitted else 0.0,
        "plug_bytes": float(
            sum(t.numel() * t.element_size() for t in plug.state_dict().values()) if plug else 0
        ),
        "evaluate_seconds": spent.seconds,
        "evaluate_seconds_per_example": spent.seconds / max(1, examples),
    }
    if (peak := peak_memory()) is not None:
        costs["peak_memory_bytes"] = float(peak)
    processor = {
        "tune": tuned.processor_seconds if tuned.recipe else 0.0,
        "train": fitted.processor_seconds if fitted else 0.0,
        "start": start.processor_seconds if start else 0.0,
        "evaluate": spent.processor,
    }
    # Of a GPU there is none: not 0, but no number.
    costs |= {f"{at}_processor_seconds": s for at, s in processor.items() if s is not None}
    peaks = {
        "tune": tuned.peak_device_memory_bytes,
        "train": fitted.peak_device_memory_bytes if fitted else None,
        "start": start.peak_device_memory_bytes if start else None,
        "evaluate": spent.peak,
    }
    known = {stage: float(value) for stage, value in peaks.items() if value is not None}
    costs |= {f"{stage}_peak_device_memory_bytes": value for stage, value in known.items()}
    if known:
        costs["peak_device_memory_bytes"] = max(known.values())
    return costs


def knowledge_cost(knowledge: KnowledgeBase | None) -> dict[str, float]:
    """Returns the size of the knowledge base of a run, if it has one in a folder."""
    if not isinstance(knowledge, Bundle):
        return {}
    files = (knowledge.folder / name for name in knowledge.card["files"])
    return {"knowledge_bytes": float(sum(path.stat().st_size for path in files))}


def counted(fitted: TrainingRecord | None) -> dict[str, int]:
    """Returns what fitting the plug, and the general one it started from, kept and dropped."""
    start = fitted.start if fitted else None
    return {**(fitted.history.counts if fitted else {}), **(start.history.counts if start else {})}
