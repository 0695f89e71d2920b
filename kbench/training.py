"""The one training loop, for tunings and plugs alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kbench.batching import Batch, shuffled_batches
from kbench.computing import ahead, narrow
from kbench.errors import KbenchError, UsageError, nearest
from kbench.feeding import fed
from kbench.inputs import Inputs
from kbench.pairs import Pairs, collate_examples
from kbench.portions import targets_in
from kbench.stepping import Objective, Stepper, Weigh

__all__ = ["Data", "Examples", "History", "Progress", "Recipe", "check_options", "train"]

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""


@dataclass(frozen=True)
class Recipe:
    """How to train. Part of every address, but for ``micro_batch``.

    Attributes:
        learning_rate: the peak.
        batch_size: examples a step.
        epochs: passes over the training examples.
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

    def __post_init__(self) -> None:
        _check("learning_rate", self.learning_rate, self.learning_rate > 0, "above 0")
        _check("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        _check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _check("optimizer", self.optimizer, self.optimizer in ("adam", "adamw"), "adam or adamw")
        _check("warmup", self.warmup, 0 <= self.warmup < 1, "in [0, 1)")
        _check("decay", self.decay, self.decay in ("linear", "constant"), "linear or constant")
        drop = self.dropout
        _check("dropout", drop, drop is None or 0 <= drop < 1, "in [0, 1) or null")
        parts = self.micro_batch
        _check("micro_batch", parts, parts is None or parts >= 1, "at least 1 or null")

    def updated(self, *changes: Mapping[str, Any]) -> Self:
        """Returns a copy with fields replaced; later mappings win; other keys are left alone."""
        known = {f.name for f in fields(self)}
        merged = {k: v for change in changes for k, v in change.items() if k in known}
        return replace(self, **merged)

    def as_dict(self) -> dict[str, Any]:
        """Returns what an address is made of, as JSON values."""
        fields = asdict(self)
        del fields["micro_batch"]
        return fields


def _check(name: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value!r}; expected {expected}")


def check_options(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Refuses options that nobody reads.

    Raises:
        UsageError: an option is unknown; the nearest names are given.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            raise UsageError(f"{what} has no option {name!r}{nearest(name, names)}")


@dataclass
class History:
    """What a training left to report.

    Attributes:
        steps: optimizer steps taken.
        seconds: of wall clock, selection on dev included.
        losses: mean training loss of each epoch.
        dev: main metric on dev after each epoch; empty without selection.
        best: epoch whose weights were kept, from 0.
        tokens: read while training, padding excluded.
        counts: what of the training data was kept and dropped.
        states: ``kept`` if the frozen model read each text once; ``recomputed`` if there was no
            room for what it said, so that texts were read in each epoch, which rounds otherwise.
        micro_batch: examples of a step that were computed at once, in the end; 0 if nothing was
            trained in steps.
        skipped: steps left out because a gradient was beyond float16.
    """

    steps: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    dev: list[float] = field(default_factory=list)
    best: int = -1
    tokens: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    states: str = ""
    micro_batch: int = 0
    skipped: int = 0


class Data(Protocol):
    """What can be trained on: batches of chosen items."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each item. ``[items]``."""

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch with targets, on the host.

        On a GPU it is called in a thread of its own, ahead of the steps, in their order.
        """


@dataclass(frozen=True)
class Examples:
    """A task's examples: inputs and the head's targets."""

    inputs: Inputs | Pairs
    targets: NDArray[Any]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example. ``[examples]``."""
        return self.inputs.lengths

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a padded batch with targets."""
        return collate_examples(self.inputs, chosen, self.targets)


def train(
    trained: nn.Module,
    loss: Callable[[Batch], Tensor],
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    dtype: str = "float32",
    weigh: Weigh | None = targets_in,
    mode: Callable[[], AbstractContextManager[None]] = nullcontext,
    validate: Callable[[], float] | None = None,
    progress: Progress | None = None,
) -> History:
    """Trains the parameters of ``trained`` that require gradients.

    Args:
        trained: what moves, in train mode for the steps and in eval mode on dev; its weights are
            those selected when the call returns.
        loss: of a batch, a scalar; or its terms, see :class:`~kbench.stepping.Objective`.
        data: training examples.
        recipe: how.
        seed: of the order of examples and of dropout.
        device: where batches go.
        dtype: the precision of loss and gradients; weights are float32 in any case.
        weigh: what the loss is the mean over, for batches that do not fit into memory at once;
            None if it is no mean over parts of a batch.
        mode: context of each epoch's steps, such as the frozen model's dropout.
        validate: the main metric on dev; called after each epoch if the recipe selects.
        progress: told of each step.

    Raises:
        KbenchError: nothing to train (on), the loss is no longer finite, or memory is short.
    """
    parameters = [p for p in trained.parameters() if p.requires_grad]
    count = len(data.lengths)
    if not parameters or not count:
        raise KbenchError(
            f"nothing to train: {count} examples and {len(parameters)} trainable tensors"
        )
    steps = recipe.epochs * math.ceil(count / recipe.batch_size)
    stepper = Stepper(parameters, recipe, steps, Objective(loss, weigh, device, dtype))
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    history = History()
    best: list[Tensor] = []
    start = time.perf_counter()
    for epoch in range(recipe.epochs):
        total = torch.zeros((), device=device)
        trained.train()
        batches = _batches(data, recipe, rng, device)
        with mode(), closing(fed(batches, ahead(device))) as ready:
            for size, batch in ready:
                total += stepper.step(batch) * size
                history.steps += 1
                if progress:
                    progress(history.steps, steps)
        # Read once an epoch: reading a loss each step would wait for the device each step.
        history.losses.append(_finite(float(total) / count, epoch, recipe, dtype))
        history.tokens += int(data.lengths.sum())
        trained.eval()
        if validate and recipe.select:
            history.dev.append(validate())
            if history.dev[-1] > max(history.dev[:-1], default=-math.inf):
                history.best = epoch
                best = [p.detach().clone() for p in parameters]
    if best:
        with torch.no_grad():
            for parameter, kept in zip(parameters, best, strict=True):
                parameter.copy_(kept)
    else:
        history.best = recipe.epochs - 1
    history.seconds = time.perf_counter() - start
    history.micro_batch, history.skipped = stepper.micro_batch, stepper.skipped
    return history


def _batches(
    data: Data, recipe: Recipe, rng: np.random.Generator, device: torch.device
) -> Iterator[tuple[int, Batch]]:
    """Yields the batches of an epoch, ready to be copied, and how many examples each has."""
    for chosen in shuffled_batches(data.lengths, recipe.batch_size, rng):
        yield len(chosen), data.batch(chosen).ready(device)


def _finite(loss: float, epoch: int, recipe: Recipe, dtype: str) -> float:
    if not math.isfinite(loss):
        raise KbenchError(
            f"the training loss became {loss} in epoch {epoch + 1}; "
            f"lower the learning rate ({recipe.learning_rate})"
            + (f" or try --dtype float32 (given: {dtype})" if narrow(dtype) else "")
        )
    return loss
