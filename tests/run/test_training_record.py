"""What is recorded of a training is read back from the store as it was recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kbench.errors import ArtifactError
from kbench.pipeline.training_record import TrainingRecord
from kbench.store import Artifacts
from kbench.training import History

MODEL = TrainingRecord(
    recipe={"epochs": 2, "dropout": None},
    history=History(steps=4, seconds=1.5, losses=[0.5, 0.25], dev=[0.1, 0.2], best=1, tokens=9),
    trainable_parameters=7,
    digest="d" * 64,
    computed={"device": "cuda:0", "threads": 2, "dtype": "bfloat16"},
    peak_device_memory_bytes=1 << 30,
    of="a run",
)
GENERAL = replace(MODEL, digest="", address="g" * 32, of="", peak_device_memory_bytes=None)
PLUG = replace(MODEL, digest="", start=GENERAL)


@pytest.mark.parametrize("record", [MODEL, PLUG, replace(PLUG, start=None)])
def test_a_record_comes_back_from_the_store(record: TrainingRecord, tmp_path: Path) -> None:
    store, inputs = Artifacts(tmp_path), {"seed": 0}
    store.save("plug", inputs, {"w": torch.zeros(1)}, **record.as_json())
    (folder,) = store.all()
    stored = store.load("plug", folder.name)
    assert stored is not None
    assert TrainingRecord.from_json(stored.about) == replace(record, address=folder.name)


def test_what_a_result_says_is_what_was_recorded() -> None:
    about = PLUG.summary_of_plug()
    assert about["history"]["losses"] == [0.5, 0.25]
    assert about["start"]["address"] == GENERAL.address
    assert "peak_device_memory_bytes" in about
    assert "peak_device_memory_bytes" not in about["start"]
    assert "computed" not in TrainingRecord().summary()


def test_a_record_that_lacks_its_history_is_told() -> None:
    with pytest.raises(ArtifactError, match="artifact abc does not say how it was made"):
        TrainingRecord.from_json({"address": "abc", "recipe": None, "trainable_parameters": 0})
