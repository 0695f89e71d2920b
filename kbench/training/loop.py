"""The one training loop, for tunings and plugs alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kbench.encoding import Batch, Data, targets_in
from kbench.encoding.batch import shuffled_batches
from kbench.encoding.computing import ahead, narrow
from kbench.encoding.prefetch import prefetched
from kbench.errors import KbenchError
from kbench.training.recipe import Recipe
from kbench.training.steps import Objective, OptimizerStep, Weigh

__all__ = ["History", "Progress", "train"]

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""


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

    def add(self, later: History) -> None:
        """Goes on with a training that came after it, without dev; counts are those of both."""
        self.steps += later.steps
        self.seconds += later.seconds
        self.tokens += later.tokens
        self.losses += later.losses
        self.skipped += later.skipped
        self.micro_batch = later.micro_batch
        self.counts |= later.counts


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
        loss: of a batch, a scalar; or its terms, see :class:`~kbench.training.steps.Objective`.
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
    each = math.ceil(recipe.share * math.ceil(count / recipe.batch_size))
    steps = recipe.epochs * each
    stepper = OptimizerStep(parameters, recipe, steps, Objective(loss, weigh, device, dtype))
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    history, best = History(), list[Tensor]()
    start = time.perf_counter()
    for epoch in range(recipe.epochs):
        trained.train()
        total = torch.zeros((), device=device)
        seen = 0
        batches = _batches(data, recipe, rng, device, each)
        with mode(), closing(prefetched(batches, ahead(device))) as ready:
            for chosen, batch in ready:
                total += stepper.step(batch) * len(chosen)
                seen += len(chosen)
                history.tokens += int(data.lengths[chosen].sum())
                history.steps += 1
                if progress:
                    progress(history.steps, steps)
        # Read once an epoch: reading a loss each step would wait for the device each step.
        history.losses.append(_finite(float(total) / seen, epoch, recipe, dtype))
        trained.eval()
        if validate and recipe.select and _improves(history, epoch, validate()):
            best = [p.detach().clone() for p in parameters]
    if best:
        _restore(parameters, best)
    else:
        history.best = recipe.epochs - 1
    history.seconds = time.perf_counter() - start
    history.micro_batch, history.skipped = stepper.micro_batch, stepper.skipped
    return history


def _improves(history: History, epoch: int, score: float) -> bool:
    """Notes the score of an epoch on dev; returns whether it is the best so far."""
    best = score > max(history.dev, default=-math.inf)
    history.dev.append(score)
    if best:
        history.best = epoch
    return best


def _restore(parameters: Sequence[nn.Parameter], weights: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, kept in zip(parameters, weights, strict=True):
            parameter.copy_(kept)


def _batches(
    data: Data, recipe: Recipe, rng: np.random.Generator, device: torch.device, most: int
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Yields the batches of an epoch, ready to be copied, after the numbers of their examples."""
    for chosen in islice(shuffled_batches(data.lengths, recipe.batch_size, rng), most):
        yield chosen, data.batch(chosen).ready(device)


def _finite(loss: float, epoch: int, recipe: Recipe, dtype: str) -> float:
    if not math.isfinite(loss):
        raise KbenchError(
            f"the training loss became {loss} in epoch {epoch + 1}; "
            f"lower the learning rate ({recipe.learning_rate})"
            + (f" or try --dtype float32 (given: {dtype})" if narrow(dtype) else "")
        )
    return loss
