"""A knowledge base of 5 million entities with 128 numbers each: opening, memory, an epoch.

The bundle (2.8 GB, about a minute to write) lies in the test session's temporary folder and is
removed at the end. Files are read once before they are timed: the disk is not what is measured.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.data import Example, Mention
from kbench.encoding import Batch, Examples, Layout, encode
from kbench.knowledge import Bundle
from kbench.model import LanguageModel
from kbench.model.freezing import frozen
from kbench.model.huggingface import load_folder
from kbench.training import Recipe, train
from kbench_baselines.map_tuning import AffineMap
from tests.scale_world import DIMENSION, Spent, lay, spent

from .conftest import Demands

ENTITIES, FEW, TOUCHED = 5_000_000, 1000, 10_000
MATRIX_BYTES = ENTITIES * DIMENSION * 4
BATCH, STEPS, ROUNDS = 64, 6, 7
MIB = 1 << 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("scale")
    if shutil.disk_usage(folder).free < 3 * MATRIX_BYTES:
        pytest.skip(f"less than {3 * MATRIX_BYTES >> 30} GiB are free in {folder}")
    start = time.perf_counter()
    lay(folder / "few", FEW)
    lay(folder / "many", ENTITIES)
    print(f"\n{ENTITIES:,} x {DIMENSION} written in {time.perf_counter() - start:.0f} s")
    yield folder
    shutil.rmtree(folder)


def _read_through(base: Bundle) -> None:
    base._vectors.column(np.arange(len(base), dtype=np.int64), 0)


def _print(title: str, found: dict[str, Spent]) -> None:
    print(f"\n{title}, {TOUCHED:,} entities a step:")
    for name, s in found.items():
        print(
            f"  {name:10} {1e3 * s.seconds:7.1f} ms, {s.resident / MIB:+7.1f} MiB resident "
            f"({s.peak / MIB:.1f} at most), {s.read / MIB:.1f} MiB read"
        )


def test_opening_and_controls(demands: Demands, world: Path) -> None:
    _read_through(Bundle(world / "many"))
    few, many, cache = world / "few", world / "many", world / "cache"
    _print("first opening", spent(few, many, TOUCHED, cache))
    found = spent(few, many, TOUCHED, cache)
    _print("later openings", found)
    demands.once(lambda: Bundle(many))
    for name, step in found.items():
        assert step.seconds < 1 + (name == "shuffled"), name
        assert step.read < 3 * TOUCHED * DIMENSION * 4, name
        assert step.peak < MATRIX_BYTES / 10, name
    assert found["open"].resident < MIB
    demands.below("opening 5,000,000 × 128 vectors", found["open"].seconds, 1.0)
    for name, what, most in (
        ("vectors", f"memory for {TOUCHED:,} of them", 4 * TOUCHED * DIMENSION * 4),
        ("shuffled", f"and for {TOUCHED:,} shuffled ones", MATRIX_BYTES / 20),
        ("random", f"and for {TOUCHED:,} random ones", 4 * TOUCHED * DIMENSION * 4),
    ):
        held, seconds = found[name].resident / MIB, 1e3 * found[name].seconds
        demands.note(
            what,
            f"{held:.1f} MiB",
            f"below {most / MIB:.0f} MiB",
            f"{seconds:.0f} ms; the matrix has {MATRIX_BYTES / MIB:,.0f} MiB",
            held * MIB < most,
        )


class _Epoch:
    """An epoch of map-tuning whose mentions are of random entities."""

    def __init__(self, lm: LanguageModel, base: Bundle) -> None:
        self.lm, self.base = lm, base
        rng = np.random.default_rng(0)
        words = ["red", "green", "blue", "we", "saw", "today", "near", "it", "rained", "of"]
        self.examples = [
            Example(str(at), " ".join(["kevo", *rng.choice(words, 24)]), (Mention(0, 4),), "")
            for at in range(BATCH * STEPS)
        ]

    def seconds(self, seed: int) -> tuple[float, float]:
        """Returns the wall clock and the processor time of an epoch over other entities."""
        rows = np.random.default_rng(seed).integers(0, len(self.base), len(self.examples))
        layout = Layout({}, slot="{slot} / {mention}", max_length=64)
        linked = [(row,) for row in rows.tolist()]
        inputs = encode(self.lm.tokenizer, self.examples, linked, layout)
        torch.manual_seed(0)
        plug = AffineMap(self.base, self.lm.slot_width)
        wall, own = time.perf_counter(), time.process_time()
        with frozen(self.lm), plug.attach(self.lm):
            train(
                plug,
                self._loss,
                Examples(inputs, np.zeros(len(rows), dtype=np.int64)),
                Recipe(1e-4, BATCH, 1, optimizer="adam", decay="constant", dropout=None),
                seed=seed,
                device=torch.device("cpu"),
            )
        return time.perf_counter() - wall, time.process_time() - own

    def _loss(self, batch: Batch) -> torch.Tensor:
        return self.lm(batch)[:, 0].square().mean()


def test_an_epoch_takes_what_it_takes_with_a_small_table(
    demands: Demands, world: Path, backbone: Path
) -> None:
    """Medians of alternating epochs, so that a busy machine slows both."""
    lm = load_folder(backbone)
    tables = {"many": Bundle(world / "many"), "few": Bundle(world / "few")}
    epochs = {name: _Epoch(lm, base) for name, base in tables.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in tables}
    epochs["few"].seconds(0)
    for seed in range(ROUNDS):
        _read_through(tables["many"])
        for name, epoch in epochs.items():
            taken[name].append(epoch.seconds(seed))
    wall, own = (_ratio(taken, at) for at in (0, 1))
    demands.once(lambda: epochs["many"].seconds(ROUNDS))
    # On a machine with other work the wall clock tells of that.
    demands.note(
        f"an epoch over {ENTITIES:,} entities against {FEW:,}",
        f"{wall:.3f} ×",
        "at most 1.05 ×",
        f"{own:.3f} × of processor time",
        min(wall, own) < 1.05,
    )


def _ratio(taken: dict[str, list[tuple[float, float]]], at: int) -> float:
    many, few = (statistics.median(times[at] for times in taken[n]) for n in ("many", "few"))
    return many / few
