"""A third party's distribution, really installed: `tests/plugin`, as `kbench new` writes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kbench.cli import main

PLUGIN = Path(__file__).parent / "plugin"
FILES = ("README.md", "gated_map.py", "pyproject.toml", "test_gated_map.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the distribution, as a user would have it."""
    copy = tmp_path_factory.mktemp("plugin") / "gated-map"
    shutil.copytree(PLUGIN, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def site(folder: Path) -> Path:
    """Where pip installed it."""
    target = folder.parent / "site"
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *options]
    done = subprocess.run(
        [*command, "--target", str(target), str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


def _run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(site),
            "KBENCH_CACHE": str(cwd / "cache"),
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
    )


def _kbench(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _run(site, cwd, "-c", "from kbench.cli import main; main()", *arguments)


def test_it_is_what_kbench_new_writes(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["new", "method", "gated-map", "--out", str(tmp_path)])
    assert left.value.code == 0
    for name in FILES:
        new, kept = (
            re.sub(r"year=\d{4}", "year=", (place / name).read_text(encoding="utf-8"))
            for place in (tmp_path / "gated-map", PLUGIN)
        )
        assert new == kept, f"tests/plugin/{name} and the templates of `kbench new` differ"
    assert sorted(path.name for path in (tmp_path / "gated-map").iterdir()) == sorted(FILES)


def test_it_is_listed_and_shown(site: Path, tmp_path: Path) -> None:
    done = _kbench(site, tmp_path, "ls", "methods")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("gated-map"))
    for word in ("task-specific", "entity vectors", "kbench-gated-map 0.1.0"):
        assert word in line
    done = _kbench(site, tmp_path, "show", "gated-map")
    assert "an affine map of entity vectors with a learned gate" in done.stdout.lower()
    assert "method of kbench-gated-map 0.1.0" in done.stdout


def test_it_keeps_every_contract_in_under_a_minute(site: Path, tmp_path: Path) -> None:
    done = _kbench(site, tmp_path, "check", "gated-map")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "method gated-map of kbench-gated-map 0.1.0"
    assert not any("FAILED" in line for line in lines)
    held = re.fullmatch(r"(\d+) of (\d+) contracts held \((.*) s\)", lines[-1])
    assert held is not None
    assert held[1] == held[2]
    assert float(held[3]) < 60


def test_its_own_tests_pass_where_it_is_installed(folder: Path, site: Path) -> None:
    done = _run(site, folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_it_runs_beside_the_built_in_methods(site: Path, tmp_path: Path) -> None:
    done = _kbench(
        site, tmp_path, "run", "--task", "atlas-typing", "--method", "none,gated-map",
        "--setting", "task-specific", "--limit", "24", "--device", "cpu", "--json",
        "--set", "tuning.full.epochs=1", "--set", "method.gated-map.task-specific.epochs=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    cells = [(r["spec"]["method"], r["spec"]["control"], r["status"]) for r in results]
    assert cells == [
        ("none", "none", "ok"),
        ("gated-map", "none", "ok"),
        ("gated-map", "foreign", "ok"),
        ("gated-map", "same-type", "ok"),
    ]
    assert results[1]["frozen"]["before"] == results[1]["frozen"]["after"]
    assert results[1]["cost"]["trainable_parameters"] == 64 * 128 + 2 * 128
