"""Generated knowledge bases of any size, and what a fresh process spends on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from kbench.knowledge import Bundle, Entity, Rows, Vectors, write_bundle, write_vectors

__all__ = ["DIMENSION", "Spent", "lay", "spent"]

DIMENSION = 128
CARD = {"name": "generated", "version": "1", "licence": "none", "source": "made for a test"}


@dataclass(frozen=True)
class _Generated:
    """A matrix that is made as it is read: the first number of a row is the row's own."""

    shape: tuple[int, int]
    rows: Vectors
    ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> Vectors:
        found = self.rows[rows % len(self.rows)]
        found[:, 0] = rows
        return found


def lay(folder: Path, entities: int) -> Bundle:
    """Writes a bundle in which every entity has a vector, and every tenth a fact."""
    ids = (f"Q{row:07d}" for row in range(entities))
    facts = (
        (f"Q{row:07d}", "r", f"Q{7919 * row % entities:07d}") for row in range(0, entities, 10)
    )
    write_bundle(folder, CARD, (Entity(id, f"thing {id[1:]}") for id in ids), facts)
    some = np.random.default_rng(0).standard_normal((1 << 14, DIMENSION), dtype=np.float32)
    vectors = _Generated((entities, DIMENSION), some)
    return write_vectors(folder, cast("Vectors", vectors), {"model": "generated"})


@dataclass(frozen=True)
class Spent:
    """What a step of a process took.

    Attributes:
        seconds: of wall clock.
        resident: bytes in memory more than before, those of maps among them.
        peak: bytes more at the most.
        read: bytes read from files, maps not counted.
    """

    seconds: float
    resident: int
    peak: int
    read: int


_MEASURE = """
import json, sys, time
from pathlib import Path
import numpy as np
from kbench.knowledge import Bundle
from kbench.knowledge.controls import Random, Shuffled, Zero
from kbench.data import Example, Mention
from kbench.knowledge.linking import link

def number(file, what):
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * (1024 if "kB" in line else 1)

def vectors(base):
    # Only here: bundles of every size are asked for as many rows.
    rows = np.random.default_rng(1).integers(0, len(base), touched)
    assert base.has_vector(rows).all()
    return base.vectors(rows)

def linked(base):
    rows = np.random.default_rng(2).integers(0, len(base), touched).tolist()
    examples = [Example(str(row), "kevo is", (Mention(0, 4, f"Q{row:07d}"),), "") for row in rows]
    assert link(examples, base).rows == tuple((row,) for row in rows)

def described(base):
    rows = range(0, len(base), max(1, len(base) // touched))
    assert all(base.describe(row).startswith("thing") for row in rows if row % 10 == 0)

steps = {
    "open": lambda: setattr(sys, "base", Bundle(folder)),
    "vectors": lambda: vectors(sys.base),
    "linked": lambda: linked(sys.base),
    "described": lambda: described(sys.base),
    "zero": lambda: vectors(Zero(sys.base)),
    "random": lambda: vectors(Random(sys.base, 0)),
    "shuffled": lambda: setattr(sys, "view", Shuffled(sys.base, 0)) or vectors(sys.view),
}
small, large, touched = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for folder in (small, large):  # what is loaded only once is loaded by the small one
    spent = {}
    for name, step in steps.items():
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        before, read = number("/proc/self/status", "VmRSS"), number("/proc/self/io", "rchar")
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        read = number("/proc/self/io", "rchar") - read
        after, peak = (number("/proc/self/status", name) for name in ("VmRSS", "VmHWM"))
        spent[name] = [seconds, after - before, peak - before, read]
print(json.dumps(spent))
"""


def spent(small: Path, large: Path, touched: int, cache: Path) -> dict[str, Spent]:
    """Opens a bundle in a fresh process and reads some of it; what each step took.

    Args:
        small: a bundle on which the same is done before.
        large: the bundle.
        touched: how many entities are asked for in each step.
        cache: folder of remembered digests.
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(small), str(large), str(touched)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "KBENCH_CACHE": str(cache)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: Spent(*values) for name, values in json.loads(done.stdout).items()}
