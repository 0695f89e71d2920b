"""Fifty comparisons over 2,000 examples with 10,000 resamples and permutations each."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np

from kbench.metrics import LooseMicroF1
from kbench.metrics.base import Array
from kbench.metrics.statistics import DRAWS, Pair, contrasts

from .conftest import Demands

PAIRS, EXAMPLES = 50, 2000
SECONDS, BYTES = 10, 256 << 20


def _table(rng: np.random.Generator) -> Array:
    gold = rng.integers(1, 4, EXAMPLES)
    shared = rng.binomial(gold, 0.5)
    return np.stack([shared, shared + rng.poisson(0.5, EXAMPLES), gold], 1).astype(float)


def test_fifty_comparisons(demands: Demands) -> None:
    assert DRAWS == 10_000
    rng = np.random.default_rng(0)
    pairs = [Pair(LooseMicroF1(), _table(rng), _table(rng)) for _ in range(PAIRS)]
    start = time.perf_counter()
    demands.once(lambda: contrasts(pairs))
    demands.below(
        "50 comparisons of 2,000 examples",
        time.perf_counter() - start,
        SECONDS,
        "10,000 draws each",
    )
    tracemalloc.start()
    contrasts(pairs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < BYTES
