"""What was said of candidates, in the file of predictions."""

from __future__ import annotations

import json
import operator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from kbench.data import SCORERS, Likelihoods
from kbench.errors import DataError
from kbench.store import read_predictions
from kbench.store.result import write_predictions
from tests.stored import predictions

PREDICTIONS = predictions(["a", "b b"], ["a", "a"])


@pytest.mark.parametrize("own_nothing", [False, True])
@pytest.mark.parametrize("which", [None, np.array([[0, 2], [1, -1]], np.int32)])
def test_what_was_said_of_candidates_comes_back_to_the_last_bit(
    tmp_path: Path, which: NDArray[np.int32] | None, own_nothing: bool
) -> None:
    rng = np.random.default_rng(0)
    said = rng.normal(size=(2, 3 if which is None else 2)).astype(np.float32)
    if which is not None:
        said[which < 0] = -np.inf
    sizes = {"mean": (1, 2, 3), "char": (1, 3, 2), "byte": (1, 3, 3)}
    nothing = rng.normal(size=said.shape if own_nothing else 3).astype(np.float32)
    if own_nothing and which is not None:
        nothing[which < 0] = 0
    told = Likelihoods(
        names=("a", "b b", "ü\n"),
        sizes={} if own_nothing else sizes,
        nothing=nothing,
        said=said,
        which=which,
        scorer="pmi",
        thresholds={} if which is not None else {name: float(np.float32(0.1)) for name in SCORERS},
        fallback=which is None,
        answers=() if which is None else (0, 0, 1),
    )
    write_predictions(tmp_path / "p.parquet", replace(PREDICTIONS, likelihoods=told))
    found = read_predictions(tmp_path / "p.parquet").likelihoods
    assert found is not None
    for name, value in vars(told).items():
        same = np.array_equal if isinstance(value, np.ndarray) else operator.eq
        assert same(getattr(found, name), value), name


@pytest.mark.parametrize(
    "change",
    [
        {"names": ["a", 3]},
        {"names": ["a"]},
        {"sizes": {"mean": [1, 0], "char": [1, 1], "byte": [1, 1]}},
        {"nothing": [1e300, 0.0]},
        {"scorer": "best"},
        {"thresholds": {"sum": 1.0}},
        {"fallback": 1},
        {"answers": [0]},
        {"answers": [0, -1]},
        {"answers": ["0", "1"]},
    ],
)
def test_damage_in_what_was_said_of_candidates_is_told(
    tmp_path: Path, change: dict[str, object]
) -> None:
    told = Likelihoods(
        names=("a", "b"),
        sizes=dict.fromkeys(("mean", "char", "byte"), (1, 1)),
        nothing=np.zeros(2, np.float32),
        said=np.zeros((2, 2), np.float32),
        which=None,
        scorer="sum",
        thresholds={},
    )
    path = tmp_path / "p.parquet"
    write_predictions(path, replace(PREDICTIONS, likelihoods=told))
    table = pq.ParquetFile(path).read()
    about = json.loads(table.schema.metadata[b"kbench candidates"])
    changed = json.dumps({**about, **change})
    pq.write_table(table.replace_schema_metadata({"kbench candidates": changed}), path)
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(path)
