"""Linked mentions have seats by example, whatever the order of the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.errors import Unsupported
from kbench.model.huggingface import load_folder
from kbench_baselines.linked import linked, vector_width
from tests import linked_world as world


def test_every_linked_mention_has_a_seat_of_its_example(toy_folder: Path, tmp_path: Path) -> None:
    inputs = world.texts(load_folder(toy_folder / "bert"), world.write_linked(tmp_path / "kb"))
    chosen = [1, 2, 6, 5, 0, 4]
    batch = inputs.collate(np.array(chosen))
    mentions = linked(batch)
    assert mentions is not None
    assert mentions.examples.tolist() == [0, 2, 4, 5]
    assert mentions.taken.tolist() == [
        [True, False, False],
        [True, True, True],
        [True, True, False],
        [True, False, False],
    ]
    assert mentions.seats.tolist() == [0, 3, 4, 5, 6, 7, 9]
    width = batch.ids.shape[1]
    expected = [
        (row, place * width + start, place * width + end)
        for place, number in enumerate(chosen)
        for start, end, row in world.links(inputs, number)
    ]
    found = torch.cat([mentions.rows[:, None], mentions.spans], dim=1).tolist()
    assert [tuple(one) for one in found] == expected
    values = torch.arange(1.0, 15.0).view(7, 2)
    seated = mentions.seated(values)
    assert seated[2].tolist() == [[9.0, 10.0], [11.0, 12.0], [0.0, 0.0]]
    assert torch.equal(mentions.unseated(seated), values)


def test_a_batch_without_a_link_has_none(toy_folder: Path, tmp_path: Path) -> None:
    inputs = world.texts(load_folder(toy_folder / "bert"), world.write_linked(tmp_path / "kb"))
    assert linked(inputs.collate(np.array([2, 5]))) is None


def test_a_knowledge_base_without_vectors_is_unsupported() -> None:
    class Bare:
        name, dimension = "bare", 0

    with pytest.raises(Unsupported, match="bare has no entity vectors"):
        vector_width(Bare())  # type: ignore[arg-type]
