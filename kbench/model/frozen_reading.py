"""What a frozen network says of fixed inputs: read once, and kept for every later epoch.

The pass goes over batches by falling length, in the composition that evaluation has, in eval
mode and float32. Training gathers its batches from there, so that kept states are the same bits
whether they were just computed, mapped from disk, or held in memory because the disk takes none.
Only what has no room in memory either is read anew in each training batch; its states differ by
rounding (in the order of 1e-6), since matrix products depend on a batch's composition.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.data.files import canonical_digest
from kbench.encoding import Batch, BatchStates, Data, Encoded, Trees
from kbench.encoding.batch import BATCH, TOKENS, sorted_batches
from kbench.model.freezing import digest, dropout
from kbench.model.language_model import LanguageModel
from kbench.store.hidden_states import HiddenStates, HiddenStateStore, StateRequest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FixedData", "FrozenReader", "ReadStates", "Reading", "WithStates", "last_states"]

_REVISION = 1
"""Changes whenever other states would be kept under the same address."""
_NAMES = ("_name_or_path", "architectures", "transformers_version")
"""What of a configuration says nothing of the network."""


@dataclass(frozen=True)
class Reading:
    """What is read of a frozen network.

    Attributes:
        of: what the states depend on beside the network and its inputs, as JSON values; under
            ``title`` what they are called in lists.
        widths: of the states, first that of the last hidden states.
        read: gives them of a batch, at positions in the flattened ``[batch * tokens]``:
            ``[positions, width]`` each.
        where: the positions that are ever read of a batch, None for all; itself None for all
            positions of all batches. What is nowhere read is not kept.
    """

    of: Mapping[str, Any]
    widths: tuple[int, ...]
    read: Callable[[Batch, Tensor], Sequence[Tensor]]
    where: Callable[[Batch], Tensor | None] | None = None

    def positions(self, batch: Batch) -> Tensor:
        """Returns the positions that are kept, rising. ``[positions]``."""
        chosen = self.where(batch) if self.where else None
        return torch.nonzero(batch.mask.flatten()).flatten() if chosen is None else chosen.sort()[0]


def last_states(
    lm: LanguageModel,
    of: Mapping[str, Any],
    where: Callable[[Batch], Tensor | None] | None = None,
) -> Reading:
    """Reads the last hidden states.

    Args:
        lm: with whatever is attached to it while it is read.
        of: what that is, for the address.
        where: see :class:`Reading`.
    """

    def read(batch: Batch, positions: Tensor) -> Sequence[Tensor]:
        hidden: Tensor = lm(batch, where(batch) if where else None)
        return [hidden.flatten(0, 1)[positions]]

    return Reading({"title": "last hidden states", **of}, (lm.width,), read, where)


@dataclass(frozen=True)
class ReadStates:
    """What was read of some inputs."""

    states: HiddenStates
    reading: Reading

    def into(self, batch: Batch) -> Batch:
        """Gives a batch of these inputs, on the host, what is known of them; 0 elsewhere."""
        positions = self.reading.positions(batch)
        size, tokens = batch.ids.shape
        last, *beside = (
            torch.zeros(size * tokens, rows.shape[1])
            .index_copy_(0, positions, torch.from_numpy(rows))
            .view(size, tokens, -1)
            for rows in self.states.of(batch.examples.numpy())
        )
        return replace(batch, states=BatchStates(last, tuple(beside)))


class FixedData(Protocol):
    """Training data whose batches are inputs as they are, which are the same in every epoch."""

    @property
    def inputs(self) -> Encoded:
        """What is read, all of it: nothing that no batch has, or that the network cannot read."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each item. ``[items]``."""

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch; its ``examples`` say which inputs it has."""


@dataclass(frozen=True)
class WithStates:
    """The same data, whose batches bring what the frozen network says of them."""

    data: FixedData
    kept: ReadStates

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each item. ``[items]``."""
        return self.data.lengths

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch that need not be read."""
        return self.kept.into(self.data.batch(chosen))


class FrozenReader:
    """A network whose weights stay as they are while this is used.

    Args:
        lm: frozen.
        device: where it is.
        store: of its states.
    """

    def __init__(
        self, lm: LanguageModel, device: torch.device, store: HiddenStateStore | None = None
    ) -> None:
        self._lm, self._device = lm, device
        self._store = store or HiddenStateStore()
        self._who = {
            "revision": [_REVISION, BATCH],
            "encoder": digest(lm),
            "form": _form(lm.network),
            # Another library, or another kind of processor, rounds otherwise.
            "computed": [torch.__version__, version("transformers"), device.type],
        }

    def with_states(self, data: FixedData, reading: Reading) -> tuple[Data, str]:
        """Returns data that bring what the network says of them, and ``kept``.

        Where there is no room for it, the data themselves and ``recomputed``.
        """
        states = self.read(data.inputs, reading)
        if states is None:
            return data, "recomputed"
        return WithStates(data, states), "kept"

    def read(
        self,
        inputs: Encoded,
        reading: Reading,
        chosen: NDArray[np.int64] | None = None,
        *,
        keep: bool = True,
    ) -> ReadStates | None:
        """Returns what the network says of inputs, read once on this machine.

        Args:
            inputs: texts, or pairs of them.
            reading: what to keep.
            chosen: some of the texts, or None for all; states are counted in this order.
            keep: whether they may lie on disk.

        Returns:
            None if there is no room for them, or candidates of a text stand in several rows.
        """
        if isinstance(inputs, Trees) and not inputs.in_rows:
            return None
        if chosen is None:
            chosen = np.arange(len(inputs.sequence_lengths))
        parts = list(sorted_batches(inputs.sequence_lengths[chosen], BATCH, TOKENS))
        counts, places = _counted(inputs, chosen, parts, reading)
        of = {**self._who, **reading.of, "widths": list(reading.widths), "places": places}
        of["texts"] = _digest_of(inputs, chosen)
        of = json.loads(json.dumps(of))  # as it will be read: JSON has no tuples and no other keys
        wanted = StateRequest(of, counts, np.concatenate(parts), reading.widths)
        batches = [chosen[part] for part in parts]
        states = self._store.kept(wanted, lambda: self._pass(inputs, batches, reading), keep=keep)
        return None if states is None else ReadStates(states, reading)

    def _pass(
        self, inputs: Encoded, batches: Iterable[NDArray[np.int64]], reading: Reading
    ) -> Iterator[list[NDArray[np.float32]]]:
        """Reads the inputs; yields the rows of a batch at a time."""
        lm = self._lm
        rows = torch.from_numpy(inputs.slot_rows)
        with dropout(lm, None), torch.inference_mode(), lm.held(rows):
            for chosen in batches:
                batch = inputs.collate_sequences(chosen).to(self._device)
                read = reading.read(batch, reading.positions(batch))
                yield [state.float().cpu().numpy() for state in read]


def _counted(
    inputs: Encoded,
    chosen: NDArray[np.int64],
    parts: Sequence[NDArray[np.int64]],
    reading: Reading,
) -> tuple[NDArray[np.int64], str]:
    """Returns how many positions are kept of each of the chosen inputs, and a digest of which."""
    if reading.where is None:
        return inputs.sequence_lengths[chosen], "all"
    counts = np.zeros(len(chosen), dtype=np.int64)
    value = hashlib.sha256()
    for part in parts:
        batch = inputs.collate_sequences(chosen[part])
        positions = reading.positions(batch).numpy()
        size, tokens = batch.ids.shape
        counts[part] = np.bincount(positions // tokens, minlength=size)
        value.update(np.ascontiguousarray(positions).data)
    return counts, value.hexdigest()


def _form(network: PreTrainedModel) -> str:
    """Digest of what weights do not say: how many heads there are, which activation, and so on."""
    config = json.loads(network.config.to_json_string())
    known = {name: value for name, value in config.items() if name not in _NAMES}
    attention = str(getattr(network.config, "_attn_implementation", None))
    return canonical_digest([type(network).__name__, attention, known])


def _digest_of(inputs: Encoded, chosen: NDArray[np.int64]) -> str:
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
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):  # trees
            for part_of in value:
                yield from _arrays(part_of)
        elif isinstance(value, tuple) and all(isinstance(token, int) for token in value):
            yield field.name, np.array(value, dtype=np.int64)
