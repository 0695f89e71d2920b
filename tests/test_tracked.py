"""What version control holds: sources, and nothing that comes of working with them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LONG

ROOT = Path(__file__).resolve().parents[1]
STRAY = re.compile(
    r"""(?:^|/)(?:
        \.?venv | \.tox | \.nox | pyvenv\.cfg | site-packages | node_modules  # environments
        | kbench-results | site | dist | build | htmlcov | \.coverage[^/]*  # results
        | [^/]*\.(?:time | prof | lprof | log | pid | sock) | \.benchmarks  # timings and traces
        | __pycache__ | \.[^/]*_cache | \.hypothesis | [^/]*\.(?:pyc | pyo | egg-info)  # caches
        | [^/]*\.(?:orig | rej | bak | swp | tmp) | [^/]*~ | \.DS_Store  # of merging and editing
    )(?:/|$)""",
    re.VERBOSE,
)


def test_no_tracked_file_is_a_leftover_of_work() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git, or no git: nothing is tracked")
    listing = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip(f"git does not read this checkout: {listing.stderr.strip()}")
    tracked = listing.stdout.split("\0")[:-1]
    assert "pyproject.toml" in tracked
    assert [path for path in tracked if STRAY.search(path)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".venv",
        "venv/pyvenv.cfg",
        "tests/plugin/.tox/log",
        "kbench-results/ab/result.json",
        "site/index.html",
        "docs/run.time",
        "run.prof",
        "scripts/train.log",
        "ray.pid",
        ".benchmarks/0001.json",
        "kbench/__pycache__/spec.cpython-311.pyc",
        ".mypy_cache/x.json",
        "knowledge_bench.egg-info/PKG-INFO",
        "README.md.orig",
        "kbench/spec.py.rej",
    ],
)
def test_a_leftover_is_known(path: str) -> None:
    assert STRAY.search(path)


@pytest.mark.parametrize(
    "path",
    [
        "leaderboard/kbench_leaderboard/site.py",
        "kbench/cli/cache.py",
        "kbench/store/results.py",
        "docs/results.md",
        "scripts/build_atlas/texts.py",
        "tests/benchmarks/conftest.py",
        ".ci/run",
    ],
)
def test_a_source_is_no_leftover(path: str) -> None:
    assert STRAY.search(path) is None


def test_files_that_run_first_are_there() -> None:
    assert [name for name in LONG if not (ROOT / "tests" / name).is_file()] == []
