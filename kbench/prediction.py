"""From encoded inputs to predictions: one pass over length-sorted batches, frozen."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from kbench.batching import TOKENS, collate, sorted_batches
from kbench.data import Label
from kbench.errors import KbenchError
from kbench.heads import PairHead
from kbench.hidden import Kept
from kbench.inputs import Inputs
from kbench.model import DownstreamModel
from kbench.pairs import Pairs, collate_pairs

__all__ = ["predict"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_BATCH = 128

Predicted = tuple[list[Label], list[float]]


def predict(
    model: DownstreamModel,
    inputs: Inputs | Pairs,
    device: torch.device,
    dtype: str = "float32",
    known: Kept | None = None,
) -> Predicted:
    """Returns a prediction for each example and its probability, in the order of the inputs.

    Args:
        model: with whatever is attached to it.
        inputs: texts, or pairs of them.
        device: where to compute.
        dtype: in which precision.
        known: what the encoder says of the inputs, where it was read before.

    Raises:
        KbenchError: an output is not finite: the largest of such numbers is no prediction.
    """
    narrow = _DTYPES.get(dtype)
    precision = torch.autocast(device.type, narrow) if narrow else nullcontext()
    model.eval()
    rows = torch.from_numpy(inputs.slot_rows)
    with torch.inference_mode(), precision, model.encoder.held(rows):
        if isinstance(inputs, Pairs):
            found = _compared(model, inputs, device, known)
        else:
            found = _classified(model, inputs, device, known)
    bad = sum(not math.isfinite(score) for score in found[1])
    if bad:
        raise KbenchError(
            f"the model's outputs are not finite on {bad} of {len(found[1])} examples"
            + (f"; try --dtype float32 (given: {dtype})" if narrow else "")
        )
    return found


def _classified(
    model: DownstreamModel, inputs: Inputs, device: torch.device, known: Kept | None
) -> Predicted:
    predictions: list[Label] = [""] * len(inputs)
    scores = [0.0] * len(inputs)
    for chosen in sorted_batches(inputs.lengths, _BATCH, TOKENS):
        batch = collate(inputs, chosen)
        logits: Tensor = model((known.into(batch) if known else batch).to(device))
        words, sure = model.head.predict(logits.float(), model.encoder.tokenizer)
        for at, word, score in zip(chosen.tolist(), words, sure, strict=True):
            predictions[at], scores[at] = word, score
    return predictions, scores


def _compared(
    model: DownstreamModel, pairs: Pairs, device: torch.device, known: Kept | None
) -> Predicted:
    """Scores all pairs of all examples in one order by length, then decides each example."""
    assert isinstance(model.head, PairHead)
    parts, order = [], []
    for chosen in sorted_batches(pairs.pair_lengths, _BATCH, TOKENS):
        batch = collate_pairs(pairs, chosen)
        parts.append(model((known.into(batch) if known else batch).to(device)).float())
        order.append(chosen)
    scored = torch.cat(parts)
    found = torch.empty_like(scored)
    found[torch.from_numpy(np.concatenate(order)).to(device)] = scored
    _, choices = pairs.choices(np.arange(len(pairs)))
    logits = model.head.decide(found, choices.to(device))
    numbers, sure = model.head.predict(logits, model.encoder.tokenizer)
    names = [
        model.head.name(own, int(str(number)))
        for own, number in zip(pairs.of.names, numbers, strict=True)
    ]
    return list(names), sure
