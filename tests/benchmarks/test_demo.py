"""The demo as a new user runs it: `kbench run` in a process of its own, with an empty store."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from .conftest import Demands

SECONDS = 180


def test_demo(demands: Demands, tmp_path: Path) -> None:
    environment = {**os.environ, "KBENCH_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    done = subprocess.run(
        [Path(sys.executable).with_name("kbench"), "run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    # Of the largest of all processes that ended so far; no benchmark's is larger.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    demands.below("the demo grid, 15 runs", seconds, SECONDS, f"peak memory {peak:.2f} GB")
    demands.once(lambda: None)
