"""Fifty comparisons over 2,000 examples with 10,000 resamples and permutations each."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from kbench.metrics import LooseMicroF1
from kbench.statistics import DRAWS, Array, Pair, contrasts

PAIRS, EXAMPLES = 50, 2000
SECONDS, BYTES = 10, 256 << 20


def _table(rng: np.random.Generator) -> Array:
    gold = rng.integers(1, 4, EXAMPLES)
    shared = rng.binomial(gold, 0.5)
    return np.stack([shared, shared + rng.poisson(0.5, EXAMPLES), gold], 1).astype(float)


@pytest.mark.benchmark(group="comparisons")
def test_fifty_comparisons(benchmark: Callable[..., object]) -> None:
    assert DRAWS == 10_000
    rng = np.random.default_rng(0)
    pairs = [Pair(LooseMicroF1(), _table(rng), _table(rng)) for _ in range(PAIRS)]
    benchmark.pedantic(contrasts, (pairs,), rounds=3)  # type: ignore[attr-defined]
    assert benchmark.stats["min"] < SECONDS  # type: ignore[attr-defined]
    tracemalloc.start()
    contrasts(pairs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < BYTES
