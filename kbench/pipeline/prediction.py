"""From encoded inputs to predictions: one pass over length-sorted batches, frozen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.data import Label, Likelihoods
from kbench.encoding import Batch, Encoded, sent
from kbench.encoding.batch import BATCH, TOKENS, sorted_batches
from kbench.encoding.computing import ahead, asynchronous, autocast, narrow
from kbench.encoding.micro_batches import MicroBatches
from kbench.encoding.prefetch import prefetched
from kbench.errors import KbenchError
from kbench.model import DownstreamModel, ReadStates
from kbench.model.beginnings import sharing

__all__ = ["Predicted", "logits_of", "predict"]

_OFTEN = 4
"""Texts that begin alike, on average, where they are worth a batch of their own."""


@dataclass(frozen=True)
class Predicted:
    """Predictions in the order of the inputs.

    Attributes:
        labels: one for each example.
        scores: the probability of each.
        batch_size: examples, or pairs of texts, computed at once at most, in the end.
        batch_tokens: of those at most, padding included; None for any number.
        likelihoods: what the model says of candidates, where its head compares such.
    """

    labels: list[Label]
    scores: list[float]
    batch_size: int
    batch_tokens: int | None
    likelihoods: Likelihoods | None = None


def predict(
    model: DownstreamModel,
    inputs: Encoded,
    device: torch.device,
    dtype: str = "float32",
    batch_size: int | None = None,
    states: ReadStates | None = None,
) -> Predicted:
    """Predicts every example; where the memory is short, fewer at once.

    Args:
        model: frozen, a plug attached or none.
        inputs: encoded examples.
        device: where to compute.
        dtype: the precision of it.
        batch_size: examples, or pairs of texts, at once; None for 128, on a CPU fewer where they
            are long.
        states: what the network says of the inputs, where it was read before.

    Raises:
        KbenchError: an output is not finite: the largest of such numbers is no prediction.
    """
    model.eval()
    rows = torch.from_numpy(inputs.slot_rows)
    passes = _Pass(model, device, batch_size, states)
    labels: list[Label] = [""] * len(inputs)
    scores = [0.0] * len(inputs)
    said: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    with (
        torch.inference_mode(),
        autocast(device, dtype),
        model.lm.held(rows),
        sharing(model.lm),
    ):
        for chosen, logits in _decided(passes, inputs):
            among = [inputs.candidates[at] for at in chosen] if inputs.candidates else ()
            words, sure = model.head.predict(logits, model.lm.tokenizer, among)
            for at, word, score in zip(chosen.tolist(), words, sure, strict=True):
                labels[at], scores[at] = word, score
            if model.head.compares:
                said.append((chosen, logits.cpu().numpy()))
    bad = sum(not math.isfinite(score) for score in scores)
    if bad:
        raise KbenchError(
            f"the model's outputs are not finite on {bad} of {len(scores)} examples"
            + (f"; try --dtype float32 (given: {dtype})" if narrow(dtype) else "")
        )
    likelihoods = model.head.likelihoods(_in_order(said), inputs.candidates) if said else None
    return Predicted(labels, scores, passes.size, passes.tokens, likelihoods)


def _in_order(said: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]]) -> NDArray[np.float32]:
    """Logits of numbered examples, by their numbers. ``[examples, classes]``.

    Where an example has fewer classes than another, the others are said to be impossible.
    """
    most = max(part.shape[1] for _, part in said)
    whole = np.full((sum(len(part) for _, part in said), most), -np.inf, dtype=np.float32)
    for order, part in said:
        whole[order, : part.shape[1]] = part
    return whole


def logits_of(
    model: DownstreamModel,
    inputs: Encoded,
    device: torch.device,
    batch_size: int | None = None,
) -> Tensor:
    """Returns the logits of every example, in their order, on the host. ``[examples, classes]``.

    Args:
        model: frozen, a plug attached or none.
        inputs: encoded examples; no pairs.
        device: where to compute.
        batch_size: examples at once; None for what suits the device.
    """
    model.eval()
    rows = torch.from_numpy(inputs.slot_rows)
    passes = _Pass(model, device, batch_size, None)
    with torch.inference_mode(), model.lm.held(rows), sharing(model.lm):
        order, parts = zip(*passes.over(inputs), strict=True)
        said = torch.cat([part.cpu() for part in parts])
    return said[torch.argsort(torch.from_numpy(np.concatenate(order)))].clone()


class _Pass:
    """One pass of a model over inputs.

    Args:
        model: the model.
        device: where it is.
        size: of a batch at most; None for what suits the device.
        states: what the network says of the inputs, where it was read before.

    Attributes:
        tokens: of a batch at most, padding included; None for any number.
    """

    def __init__(
        self,
        model: DownstreamModel,
        device: torch.device,
        size: int | None,
        states: ReadStates | None,
    ) -> None:
        self.model, self.device = model, device
        self._states = states
        self.tokens = TOKENS if size is None and not asynchronous(device) else None
        self._size = size or BATCH
        self._micro_batches = MicroBatches(None, device)

    @property
    def size(self) -> int:
        """Of what is computed at once."""
        return min(self._size, self._micro_batches.size or self._size)

    def over(self, inputs: Encoded) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yields numbers of examples or pairs, and their logits in float32, longest first."""
        with closing(prefetched(self._batches(inputs), ahead(self.device))) as ready:
            for chosen, batch in ready:
                yield chosen, self._micro_batches.compute(batch, self._logits)

    def _batches(self, inputs: Encoded) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        lengths, groups = inputs.sequence_lengths, None
        begun = inputs.beginnings if self._states is None else None
        if self.model.lm.beginnings is not None and begun is not None:
            read, numbers = begun.T
            # Few texts of one beginning would make batches of a few texts.
            if len(lengths) >= _OFTEN * len(np.unique(numbers)):
                lengths, groups = lengths - read, numbers
        for chosen in sorted_batches(lengths, self._size, self.tokens, groups):
            batch = inputs.collate_sequences(chosen)
            yield chosen, (self._states.into(batch) if self._states else batch).ready(self.device)

    def _logits(self, parts: Sequence[Batch]) -> Tensor:
        logits = [self.model.answer(part.to(self.device)).float() for part in parts]
        return logits[0] if len(logits) == 1 else torch.cat(logits)


def _decided(passes: _Pass, inputs: Encoded) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Yields numbers of examples and their logits.

    Where examples choose between candidates all their sequences are read in one order by length,
    and decided upon together.
    """
    everyone = np.arange(len(inputs))
    choices = inputs.choices(everyone)
    if choices is None:
        yield from passes.over(inputs)
        return
    order, parts = zip(*passes.over(inputs), strict=True)
    read = torch.cat(parts)
    scores = torch.empty_like(read)
    scores[sent(torch.from_numpy(np.concatenate(order)), passes.device)] = read
    on_device = choices.changed(lambda cells: sent(cells, passes.device))
    yield everyone, passes.model.head.decide(scores, on_device)
