"""One step of training: gradients of a batch, whole or in parts, and what the optimizer does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from kbench.encoding import Batch
from kbench.encoding.computing import autocast
from kbench.encoding.micro_batches import MicroBatches
from kbench.errors import KbenchError

if TYPE_CHECKING:
    from kbench.training.recipe import Recipe

__all__ = ["Objective", "OptimizerStep", "Weigh"]

Weigh: TypeAlias = "Callable[[Batch], int | tuple[int, ...]]"
"""How many things the loss of a batch (on the host) is the mean over; one number a term."""


@dataclass(frozen=True)
class Objective:
    """What is made smaller.

    Attributes:
        loss: of a batch, a scalar, or its terms ``[terms]``, which are added up. Each is a mean.
        weigh: what the means are over; None if they are no means over parts of a batch.
        device: where it is computed.
        dtype: the precision of it.
    """

    loss: Callable[[Batch], Tensor]
    weigh: Weigh | None
    device: torch.device
    dtype: str

    def of(self, batch: Batch) -> Tensor:
        """Returns the terms of the loss of a batch on the host. ``[]`` or ``[terms]``."""
        with autocast(self.device, self.dtype):
            return self.loss(batch.to(self.device))

    def shares(self, parts: Sequence[Batch]) -> list[tuple[float, ...]]:
        """Returns the share of each part in each term, so that what is added up is a mean again.

        Raises:
            KbenchError: the loss is no such mean.
        """
        if self.weigh is None:
            raise KbenchError(
                "a batch does not fit into memory, and the loss of this training compares its "
                "examples with each other, so it cannot be computed in parts; lower batch_size"
            )
        weights = [w if isinstance(w, tuple) else (w,) for w in map(self.weigh, parts)]
        totals = [max(1, sum(term)) for term in zip(*weights, strict=True)]
        return [tuple(w / t for w, t in zip(own, totals, strict=True)) for own in weights]


class OptimizerStep:
    """Optimizer, schedule, clipping and the scale of gradients as one.

    Args:
        parameters: what moves.
        recipe: how.
        steps: in all.
        objective: what for.
    """

    def __init__(
        self, parameters: list[nn.Parameter], recipe: Recipe, steps: int, objective: Objective
    ) -> None:
        self._parameters = parameters
        self._recipe = recipe
        self._objective = objective
        self._micro_batches = MicroBatches(recipe.micro_batch, objective.device)
        self._factor = _shape(recipe, steps)
        self._done = 0
        self._skipped = torch.zeros((), device=objective.device)
        half = objective.dtype == "float16"
        self._optimizer = _optimizer(parameters, recipe, half)
        # Small gradients would be 0 in float16: they are scaled up, and down again before use.
        self._scaler = torch.amp.GradScaler(objective.device.type, enabled=half)
        if half:
            self._optimizer.register_step_pre_hook(self._count)

    @property
    def skipped(self) -> int:
        """Steps left out because a gradient was beyond float16. Waits for the device."""
        return int(self._skipped)

    @property
    def micro_batch(self) -> int:
        """Examples of a step that are computed at once."""
        return min(self._micro_batches.size or self._recipe.batch_size, self._recipe.batch_size)

    def step(self, batch: Batch) -> Tensor:
        """Takes one step and returns the loss, detached. Waits for nothing.

        Args:
            batch: on the host.

        Raises:
            KbenchError: it does not fit into memory, however it is parted.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate * self._factor(self._done)
        self._done += 1
        loss, reached = self._micro_batches.compute(batch, self._gradients)
        if reached:  # else nothing in the batch meets what trains: no linked mention
            if self._recipe.clip:
                self._scaler.unscale_(self._optimizer)
                torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._optimizer.zero_grad(set_to_none=True)
        return loss

    def _gradients(self, parts: Sequence[Batch]) -> tuple[Tensor, bool]:
        """Adds up the gradients of the parts; returns the loss and whether there are any."""
        self._optimizer.zero_grad(set_to_none=True)  # of what was tried in vain
        if len(parts) == 1:
            return self._backward(self._objective.of(parts[0]).sum())
        total, reached = torch.zeros((), device=self._objective.device), False
        for part, shares in zip(parts, self._objective.shares(parts), strict=True):
            if any(shares):  # the mean over nothing is no number
                terms = self._objective.of(part).reshape(-1).unbind()
                pairs = zip(terms, shares, strict=True)
                value = torch.stack([term * share for term, share in pairs if share]).sum()
                loss, met = self._backward(value)
                total, reached = total + loss, reached or met
        return total, reached

    def _backward(self, loss: Tensor) -> tuple[Tensor, bool]:
        if loss.requires_grad:
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), loss.requires_grad

    def _count(self, optimizer: Any, *_: Any) -> None:
        """Counts a step that the optimizer is about to leave out, without asking the device."""
        self._skipped += optimizer.found_inf


def _optimizer(parameters: list[nn.Parameter], recipe: Recipe, half: bool) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    # Only the fused form leaves a step out by itself; the others wait for the device to say so.
    return kind(
        parameters,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        foreach=not half,
        fused=half,
    )


def _shape(recipe: Recipe, steps: int) -> Callable[[int], float]:
    warm = int(recipe.warmup * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        if recipe.decay == "constant":
            return 1.0
        return max(0.0, (steps - step) / max(1, steps - warm))

    return factor
