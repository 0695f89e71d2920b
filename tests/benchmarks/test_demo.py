"""The demos as a new user runs them: in a process of their own, with an empty store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Demands

WATCHED = """
import resource, subprocess, sys
left = subprocess.call(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(left)
"""
"""A process without children of its own before: what is largest is the demo's."""


@pytest.mark.parametrize(
    ("what", "more", "most"),
    [
        ("the demo grid, 18 runs", (), 150),
        ("the decoder demo, 13 runs", ("--demo", "decoder"), 90),
    ],
)
def test_demo(
    what: str, more: tuple[str, ...], most: int, demands: Demands, tmp_path: Path
) -> None:
    environment = {**os.environ, "KBENCH_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WATCHED,
            str(Path(sys.executable).with_name("kbench")),
            "run",
            *more,
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split()[-1]) * 1024 / 1e9  # of the largest process
    processes = min(4, os.cpu_count() or 1)
    detail = f"{processes} processes, the largest of {peak:.2f} GB"
    demands.below(what, seconds, most, detail)
    demands.once(lambda: None)
