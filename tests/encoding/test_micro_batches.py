"""Batches in parts: nothing of a batch is lost, and what was tried in vain leaves no trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.encoding import Batch, targets_in
from kbench.encoding.batch import Choices
from kbench.encoding.micro_batches import MicroBatches, examples_in, split
from kbench.errors import KbenchError

CPU = torch.device("cpu")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has ...")


def _batch(rows: int, width: int, rng: np.random.Generator) -> Batch:
    """A batch in which every number tells where it belongs."""

    def some(most: int) -> tuple[Tensor, Tensor]:
        owners = np.sort(rng.integers(rows, size=most))
        return torch.from_numpy(owners), torch.from_numpy(rng.integers(width - 1, size=most))

    slot_owner, slot_at = some(9)
    owners, at = some(7)
    blank_owner, blank_at = some(2 * rows + 1)
    start = owners * width + at
    return Batch(
        ids=torch.arange(rows * width).view(rows, width),
        mask=torch.ones(rows, width, dtype=torch.int64),
        slot_index=slot_owner * width + slot_at,
        slot_rows=slot_owner * 100 + slot_at,
        mentions=torch.stack([start, start + 1], 1),
        mention_rows=owners * 100 + at,
        mention_owners=owners,
        blank_index=blank_owner * width + blank_at,
        examples=torch.arange(rows) + 1000,
        targets=blank_owner * 100 + blank_at,
        segments=torch.arange(rows * width).view(rows, width) % 2,
        visible=torch.rand(rows, width, width) > 0.5,
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_parts_hold_all_of_a_batch_each_at_its_place(size: int) -> None:
    batch = _batch(8, 6, np.random.default_rng(size))
    parts = split(batch, size)
    assert [examples_in(part) for part in parts] == [min(size, 8 - at) for at in range(0, 8, size)]
    for name in ("ids", "mask", "examples", "segments", "visible", "slot_rows", "mention_rows"):
        together = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(together, getattr(batch, name)), name
    for part in parts:
        # What lies at a place of the part is what lay there in the batch.
        first, width = int(part.ids[0, 0]), 6
        told = [(part.slot_index, part.slot_rows), (part.blank_index, part.targets)]
        told.append((part.mentions[:, 0], part.mention_rows))
        for places, numbers in told:
            assert numbers is not None
            whole = places + first
            assert torch.equal(whole // width * 100 + whole % width, numbers)
            assert ((places >= 0) & (places < part.ids.numel())).all()
        assert torch.equal(part.mention_owners, part.mentions[:, 0] // width)


def test_targets_are_one_an_example_or_one_a_blank() -> None:
    batch = replace(_batch(4, 6, np.random.default_rng(0)), targets=torch.tensor([3, -1, 5, 6]))
    one, two = split(batch, 3)
    assert one.targets is not None
    assert two.targets is not None
    assert (one.targets.tolist(), two.targets.tolist()) == ([3, -1, 5], [6])
    assert [targets_in(part) for part in (one, two)] == [2, 1]
    assert targets_in(replace(batch, targets=torch.zeros(4, 7))) == 4
    assert targets_in(replace(batch, targets=None)) == 4
    with pytest.raises(KbenchError, match="5 targets cannot be parted; lower batch_size"):
        split(replace(batch, targets=torch.zeros(5)), 2)


def test_the_pairs_of_an_example_stay_together() -> None:
    # Three examples with 2, 1 and 3 pairs, of candidates 0 and 2; 0; 0, 1 and 2.
    cells = torch.tensor([0, 2, 3, 6, 7, 8])
    batch = replace(
        _batch(6, 4, np.random.default_rng(1)),
        choices=Choices(cells, 3, 3),
        targets=torch.tensor([2, 0, 1]),
    )
    one, two = split(batch, 2)
    assert one.choices is not None
    assert two.choices is not None
    assert (len(one.ids), len(two.ids)) == (3, 3)
    assert (one.choices.cells.tolist(), two.choices.cells.tolist()) == ([0, 2, 3], [0, 1, 2])
    assert (one.choices.examples, two.choices.examples) == (2, 1)
    assert one.targets is not None
    assert one.targets.tolist() == [2, 0]


def test_what_fits_is_never_parted() -> None:
    batch = _batch(4, 6, np.random.default_rng(0))
    (only,) = MicroBatches(None, CPU).compute(batch, lambda parts: parts)
    assert only is batch
    assert split(batch, 4) == [batch]
    assert {field.name for field in fields(Batch)} > {"targets", "choices"}


def test_parts_are_halved_until_they_fit_and_stay_so() -> None:
    micro_batches, tried = MicroBatches(None, CPU), []

    def attempt(parts: Sequence[Batch]) -> list[float]:
        tried.append([examples_in(part) for part in parts])
        drawn = [float(torch.rand(())) for _ in parts]
        if max(tried[-1]) > 3:
            raise FULL
        return drawn

    batch = _batch(9, 6, np.random.default_rng(0))
    torch.manual_seed(5)
    first = micro_batches.compute(batch, attempt)
    assert tried == [[9], [5, 4], [3, 3, 3]]
    assert micro_batches.size == 3
    torch.manual_seed(5)
    # What was tried in vain drew numbers too; they were drawn again.
    assert first == [float(torch.rand(())) for _ in range(3)]
    micro_batches.compute(_batch(4, 6, np.random.default_rng(0)), attempt)
    assert tried[3:] == [[3, 1]]


def test_one_example_that_does_not_fit_is_told_with_what_to_do() -> None:
    def attempt(parts: Sequence[Batch]) -> None:
        raise FULL

    told = r"one example at a time is still too much for the memory of cpu \(CUDA out of memory\)"
    with pytest.raises(KbenchError, match=told):
        MicroBatches(None, CPU).compute(_batch(3, 6, np.random.default_rng(0)), attempt)


def test_another_error_goes_through() -> None:
    def attempt(parts: Sequence[Batch]) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side"):
        MicroBatches(None, CPU).compute(_batch(3, 6, np.random.default_rng(0)), attempt)
