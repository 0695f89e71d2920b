"""Batches are what a loop over tokens would make, and every epoch sees everything once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from kbench.encoding import Inputs, ragged
from kbench.encoding.batch import picked, shuffled_batches, sorted_batches

PAD = 99


@st.composite
def inputs(draw: st.DrawFn, *, blanks: bool | None = None) -> Inputs:
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=7))
    slots = [
        sorted(draw(st.sets(st.integers(0, length - 1), max_size=min(3, length))))
        for length in lengths
    ]
    flat = [p for one in slots for p in one]
    has = draw(st.booleans()) if blanks is None else blanks
    places = [draw(st.integers(0 if has else -1, length - 1)) for length in lengths]
    total = sum(lengths)
    return Inputs(
        ids=np.arange(100, 100 + total),
        kinds=np.ones(total, dtype=np.uint8),
        bounds=np.cumsum([0, *lengths]),
        slots=np.array(flat, dtype=np.int64),
        slot_rows=np.arange(1000, 1000 + len(flat)),
        slot_bounds=np.cumsum([0, *(len(one) for one in slots)]),
        spans=np.empty((0, 2), dtype=np.int64),
        span_rows=np.empty(0, dtype=np.int64),
        span_bounds=np.zeros(len(lengths) + 1, dtype=np.int64),
        blanks=np.array(places, dtype=np.int64),
        pad=PAD,
    )


@settings(max_examples=150)
@given(given_inputs=inputs(), data=st.data())
def test_a_batch_is_what_a_loop_over_tokens_makes(
    given_inputs: Inputs, data: st.DataObject
) -> None:
    everyone = st.integers(0, len(given_inputs) - 1)
    chosen = np.array(data.draw(st.lists(everyone, min_size=1, max_size=6)), dtype=np.int64)
    width = max(int(given_inputs.lengths[i]) for i in chosen)
    ids, mask, index, rows, blanks = [], [], [], [], []
    for place, i in enumerate(chosen):
        own = given_inputs.ids[given_inputs.bounds[i] : given_inputs.bounds[i + 1]].tolist()
        ids.append(own + [PAD] * (width - len(own)))
        mask.append([1] * len(own) + [0] * (width - len(own)))
        for s in range(given_inputs.slot_bounds[i], given_inputs.slot_bounds[i + 1]):
            index.append(place * width + int(given_inputs.slots[s]))
            rows.append(int(given_inputs.slot_rows[s]))
        blanks.append(place * width + int(given_inputs.blanks[i]))
    batch = given_inputs.collate(chosen, np.arange(len(given_inputs)) * 10)
    assert batch.ids.tolist() == ids
    assert batch.mask.tolist() == mask
    assert batch.slot_index.tolist() == index
    assert batch.slot_rows.tolist() == rows
    complete = all(given_inputs.blanks[i] >= 0 for i in chosen)
    assert batch.blank_index.tolist() == (blanks if complete else [])
    assert batch.examples.tolist() == chosen.tolist()
    assert batch.targets is not None
    assert batch.targets.tolist() == (chosen * 10).tolist()
    assert given_inputs.collate(chosen).targets is None


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    data=st.data(),
)
def test_ragged_names_the_items_of_the_chosen_and_their_owners(
    counts: list[int], data: st.DataObject
) -> None:
    bounds = np.cumsum([0, *counts])
    chosen = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=8))
    items, owners = ragged(bounds, np.array(chosen, dtype=np.int64))
    expected = [
        (item, place) for place, i in enumerate(chosen) for item in range(bounds[i], bounds[i + 1])
    ]
    assert list(zip(items.tolist(), owners.tolist(), strict=True)) == expected


@settings(max_examples=60)
@given(given_inputs=inputs(blanks=True), data=st.data())
def test_picked_inputs_are_those_collated_by_themselves(
    given_inputs: Inputs, data: st.DataObject
) -> None:
    everyone = st.integers(0, len(given_inputs) - 1)
    chosen = np.array(data.draw(st.lists(everyone, min_size=1, max_size=6, unique=True)))
    rows = np.array(data.draw(st.permutations(range(len(chosen)))))
    rows = rows[: data.draw(st.integers(1, len(rows)))]
    alone = given_inputs.collate(chosen[rows])
    found = picked(given_inputs.collate(chosen), torch.from_numpy(rows), alone.ids.shape[1])
    for name, value in vars(alone).items():
        other = getattr(found, name)
        same = torch.equal(value, other) if isinstance(value, Tensor) else value == other
        assert same, name


lengths_and_size = st.tuples(
    st.lists(st.integers(1, 60), min_size=1, max_size=400).map(np.array), st.integers(1, 9)
)


@given(case=lengths_and_size, seed=st.integers(0, 9))
def test_an_epoch_yields_every_index_once_in_as_few_batches_as_can_be(
    case: tuple[NDArray[np.int64], int], seed: int
) -> None:
    lengths, size = case
    for batches in (
        list(sorted_batches(lengths, size)),
        list(shuffled_batches(lengths, size, np.random.default_rng(seed))),
    ):
        together = np.concatenate(batches).tolist()
        assert sorted(together) == list(range(len(lengths)))
        assert all(len(batch) <= size for batch in batches)
        assert len(batches) == -(-len(lengths) // size)


@given(case=lengths_and_size, tokens=st.integers(1, 200))
def test_evaluation_batches_fall_in_length_and_are_bounded(
    case: tuple[NDArray[np.int64], int], tokens: int
) -> None:
    lengths, size = case
    batches = list(sorted_batches(lengths, size, tokens))
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        longest = int(lengths[batch[0]])
        assert len(batch) == 1 or (len(batch) <= size and len(batch) * longest <= tokens)
        if following is not None:  # it is full
            assert len(batch) == size or (len(batch) + 1) * longest > tokens


@given(case=lengths_and_size, tokens=st.integers(1, 200), number=st.integers(1, 5))
def test_no_batch_is_of_two_groups(
    case: tuple[NDArray[np.int64], int], tokens: int, number: int
) -> None:
    lengths, size = case
    groups = np.random.default_rng(number).integers(0, number, size=len(lengths))
    batches = list(sorted_batches(lengths, size, tokens, groups))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len({*groups[batch]}) == 1 for batch in batches)
    turns = [int(groups[batch[0]]) for batch in batches]
    assert len({*turns}) == 1 + sum(a != b for a, b in pairwise(turns))  # each once
    for group in {*turns}:
        own = np.concatenate([batch for batch in batches if groups[batch[0]] == group])
        assert (np.diff(lengths[own]) <= 0).all()
    assert lengths[batches[0][0]] == lengths.max()


def padding(lengths: NDArray[np.int64], batches: list[NDArray[np.int64]]) -> float:
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - float(lengths.sum()) / padded


def test_batches_of_similar_length_are_hardly_padded() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 65, size=2048)
    plain = padding(lengths, np.array_split(rng.permutation(2048), 64))
    assert padding(lengths, list(sorted_batches(lengths, 32))) < 0.02
    assert padding(lengths, list(shuffled_batches(lengths, 32, rng))) < 0.05 < 0.4 < plain


def order_of(seed: int) -> list[int]:
    lengths = np.random.default_rng(3).integers(1, 50, size=300)
    batches = shuffled_batches(lengths, 8, np.random.default_rng(seed))
    return [int(i) for batch in batches for i in batch]


def test_the_seed_decides_the_order() -> None:
    assert order_of(1) == order_of(1)
    assert order_of(1) != order_of(2)
    assert order_of(1) != list(range(300))


def test_batches_come_in_no_order_of_length() -> None:
    lengths = np.arange(256)
    means = [lengths[b].mean() for b in shuffled_batches(lengths, 8, np.random.default_rng(0))]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


@pytest.mark.parametrize("kind", ["cpu", "meta"])
def test_rows_stay_on_the_host(kind: str) -> None:
    one = Inputs(
        ids=np.array([1, 2]),
        kinds=np.array([0, 3], dtype=np.uint8),
        bounds=np.array([0, 2]),
        slots=np.array([1]),
        slot_rows=np.array([5]),
        slot_bounds=np.array([0, 1]),
        spans=np.empty((0, 2), dtype=np.int64),
        span_rows=np.empty(0, dtype=np.int64),
        span_bounds=np.array([0, 0]),
        blanks=np.array([-1]),
    )
    batch = one.collate(np.array([0]), np.array([1])).to(torch.device(kind))
    assert batch.slot_rows.device.type == "cpu"
    assert batch.examples.device.type == "cpu"
    assert batch.targets is not None
    read = (batch.ids, batch.mask, batch.slot_index, batch.blank_index, batch.targets)
    assert {tensor.device.type for tensor in read} == {kind}
