"""What a frozen network says of fixed inputs: read once, and kept for every later epoch.

The pass goes over batches by falling length, in the composition that evaluation has, in eval
mode and float32. Training gathers its batches from there, so that kept states are the same bits
whether they were just computed, mapped from disk, or held in memory because the disk takes none.
Only what has no room in memory either is read anew in each training batch; its states differ by
rounding (in the order of 1e-6), since matrix products depend on a batch's composition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from kbench.batching import Batch, Known, collate, sorted_batches
from kbench.freezing import digest, dropout
from kbench.inputs import Inputs
from kbench.model import Encoder
from kbench.pairs import Pairs, collate_pairs
from kbench.states import HiddenStates, StateStore, Wanted
from kbench.training import Data

__all__ = ["Fixed", "Frozen", "Reading", "Recalled", "last_states", "recall"]

_REVISION = 1
"""Changes whenever other states would be kept under the same address."""
_BATCH = 128
"""As in evaluation: so what is read from kept states has the bits of what is read directly."""


@dataclass(frozen=True)
class Reading:
    """What is read of a frozen encoder.

    Attributes:
        of: what the states depend on beside the encoder and its inputs, as JSON values; under
            ``title`` what they are called in lists.
        widths: of the states, first that of the last hidden states.
        read: gives them, ``[batch, tokens, width]`` each; without tokens, ``[batch, width]``, if
            :attr:`single`.
        single: whether an input has one row and not one a token.
    """

    of: Mapping[str, Any]
    widths: tuple[int, ...]
    read: Callable[[Batch], Sequence[Tensor]]
    single: bool = False


def last_states(encoder: Encoder, of: Mapping[str, Any]) -> Reading:
    """Reads the last hidden states.

    Args:
        encoder: with whatever is attached to it while it is read.
        of: what that is, for the address.
    """
    return Reading({"title": "last hidden states", **of}, (encoder.width,), lambda b: [encoder(b)])


class Fixed(Protocol):
    """Training data whose batches are inputs as they are, which are the same in every epoch."""

    @property
    def inputs(self) -> Inputs | Pairs:
        """What is read."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each item. ``[items]``."""

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch; its ``examples`` say which inputs it has."""


@dataclass(frozen=True)
class Recalled:
    """The same data, whose batches bring what the frozen encoder says of them."""

    data: Fixed
    states: HiddenStates

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each item. ``[items]``."""
        return self.data.lengths

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch that need not be read."""
        return recall(self.data.batch(chosen), self.states)


def recall(batch: Batch, states: HiddenStates | None) -> Batch:
    """Gives a batch what is known of its inputs, if anything is."""
    if states is None:
        return batch
    last, *beside = map(torch.from_numpy, states.padded(batch.examples.numpy()))
    return replace(batch, known=Known(last, tuple(beside)))


class Frozen:
    """An encoder whose weights stay as they are while this is used.

    Args:
        encoder: frozen.
        device: where it is.
        store: of its states.
    """

    def __init__(
        self, encoder: Encoder, device: torch.device, store: StateStore | None = None
    ) -> None:
        self._encoder, self._device = encoder, device
        self._store = store or StateStore()
        self._who = {
            "revision": [_REVISION, _BATCH],
            "encoder": digest(encoder),
            "form": _form(encoder),
            # Another library, or another kind of processor, rounds otherwise.
            "computed": [torch.__version__, transformers.__version__, device.type],
        }

    def recalled(self, data: Fixed, reading: Reading) -> tuple[Data, str]:
        """Returns data that bring what the encoder says of them, and ``kept``.

        Where there is no room for it, the data themselves and ``recomputed``.
        """
        states = self.states(data.inputs, reading)
        return (data, "recomputed") if states is None else (Recalled(data, states), "kept")

    def states(
        self,
        inputs: Inputs | Pairs,
        reading: Reading,
        chosen: NDArray[np.int64] | None = None,
        *,
        keep: bool = True,
    ) -> HiddenStates | None:
        """Returns what the encoder says of inputs, read once on this machine.

        Args:
            inputs: texts, or pairs of them.
            reading: what to keep.
            chosen: some of the texts, or None for all; states are counted in this order.
            keep: whether they may lie on disk.

        Returns:
            None if there is no room for them.
        """
        if chosen is None:
            chosen = np.arange(len(_lengths(inputs)))
        lengths = _lengths(inputs)[chosen]
        counts = np.ones_like(lengths) if reading.single else lengths
        of = {**self._who, **reading.of, "states": [reading.single, *reading.widths]}
        of["texts"] = _digest_of(inputs, chosen)
        order = np.argsort(-lengths, kind="stable")
        wanted = Wanted(of, counts, order, reading.widths)
        return self._store.kept(
            wanted, lambda: self._pass(inputs, chosen, lengths, reading), keep=keep
        )

    def _pass(
        self,
        inputs: Inputs | Pairs,
        chosen: NDArray[np.int64],
        lengths: NDArray[np.int64],
        reading: Reading,
    ) -> Iterator[list[NDArray[np.float32]]]:
        """Reads the inputs by falling length; yields the rows of a batch at a time."""
        encoder = self._encoder
        rows = torch.from_numpy(inputs.slot_rows)
        with dropout(encoder, None), torch.inference_mode(), encoder.held(rows):
            for part in sorted_batches(lengths, _BATCH):
                batch = _collated(inputs, chosen[part]).to(self._device)
                tokens = batch.mask.bool()
                yield [
                    (state if reading.single else state[tokens]).float().cpu().numpy()
                    for state in reading.read(batch)
                ]


def _lengths(inputs: Inputs | Pairs) -> NDArray[np.int64]:
    return inputs.lengths if isinstance(inputs, Inputs) else inputs.pair_lengths


def _collated(inputs: Inputs | Pairs, chosen: NDArray[np.int64]) -> Batch:
    if isinstance(inputs, Inputs):
        return collate(inputs, chosen)
    return collate_pairs(inputs, chosen)


def _form(encoder: Encoder) -> dict[str, Any]:
    """What weights do not say: how many heads there are, which activation, and so on."""
    config = encoder.config.to_diff_dict()
    known = {k: v for k, v in config.items() if not k.startswith("_") and k != "architectures"}
    known.pop("transformers_version", None)
    return {"network": type(encoder.network).__name__, "config": known}


def _digest_of(inputs: Inputs | Pairs, chosen: NDArray[np.int64]) -> str:
    """SHA-256 of inputs: every array of theirs, and which of them are read."""
    value = hashlib.sha256()
    for name, array in [*_arrays(inputs), ("chosen", chosen)]:
        value.update(f"{name} {array.dtype} {array.shape}\n".encode())
        value.update(np.ascontiguousarray(array).data)
    return value.hexdigest()


def _arrays(part: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, np.ndarray):
            yield field.name, value
        elif is_dataclass(value):
            yield from _arrays(value)
        elif isinstance(value, tuple) and all(isinstance(token, int) for token in value):
            yield field.name, np.array(value, dtype=np.int64)
