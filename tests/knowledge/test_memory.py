"""A large text file is imported in little memory: what counts is the peak of a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kbench_tasks.knowledge.ernie import ErnieImporter

ROWS, DIMENSION = 100_000, 64
MATRIX_BYTES = ROWS * DIMENSION * 4
MIB = 1 << 20

MEASURE = """
import json, sys, time
from pathlib import Path
from kbench.knowledge import Bundle
from kbench_tasks.knowledge.ernie import ErnieImporter

def resident(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])

def imported():
    ErnieImporter().run(large, target, replace=True)

def held():
    lines = (large / "entity2vec.vec").read_text().splitlines()
    return [[float(value) for value in line.split()] for line in lines]

def opened():
    bundle = Bundle(target)
    assert bundle.has_vector(bundle.rows(["Q77", "Q99999"])).all()
    return bundle

work, do = Path(sys.argv[1]), globals()[sys.argv[2]]
large, target = work / "large", work / "kb"
ErnieImporter().run(work / "small", work / f"small-{sys.argv[2]}")  # what is loaded only once
Bundle(work / f"small-{sys.argv[2]}").rows(["Q1"])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
before, start = resident("VmRSS"), time.process_time()
kept = do()
print(json.dumps([resident("VmHWM") - before, time.process_time() - start]))
"""


def lay(folder: Path, rows: int, dimension: int = DIMENSION) -> None:
    """Writes a release whose rows repeat a few random ones, out of order."""
    folder.mkdir()
    values = np.random.default_rng(0).normal(size=(1000, dimension))
    text = "".join("\t".join(f"{value:.6f}" for value in row) + "\n" for row in values)
    with (folder / "entity2vec.vec").open("w") as file:
        for _ in range(rows // 1000):
            file.write(text)
    order = np.random.default_rng(1).permutation(rows).tolist()
    ids = "".join(f"Q{number}\t{row}\n" for number, row in enumerate(order))
    (folder / "entity2id.txt").write_text(f"{rows}\n{ids}")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process is read from /proc, which is not there")
    folder = tmp_path_factory.mktemp("memory")
    lay(folder / "large", ROWS)
    lay(folder / "small", 1000)
    return folder


def measured(work: Path, what: str) -> tuple[int, float]:
    """Returns the peak over what was there before, in bytes, and the seconds of CPU."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(work), what],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak, seconds = json.loads(done.stdout)
    return int(peak), float(seconds)


def test_the_peak_stays_far_below_what_holding_everything_takes(work: Path) -> None:
    peak, _ = measured(work, "imported")
    whole, _ = measured(work, "held")
    assert whole > 6 * MATRIX_BYTES  # so the measure can tell
    assert peak < 2.75 * MATRIX_BYTES, f"{peak / MIB:.0f} MiB, {whole / MIB:.0f} MiB if held"


def test_opening_a_bundle_takes_little(work: Path) -> None:
    ErnieImporter().run(work / "large", work / "kb", replace=True)
    opened, seconds = measured(work, "opened")
    assert opened < MATRIX_BYTES / 5, f"{opened / MIB:.1f} MiB"
    assert seconds < 0.5
