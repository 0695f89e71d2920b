"""Where a result comes from: versions, commits, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from kbench.data.system import total_memory

__all__ = ["git_state", "hardware", "plugin", "versions"]

_PACKAGES = (
    *("torch", "transformers", "tokenizers", "numpy", "safetensors", "pyarrow", "pykeen"),
    *("peft", "datasets", "scipy"),
)


@cache
def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that results may depend on."""
    known = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


@cache
def git_state(package: str) -> dict[str, str | bool | None]:
    """Returns commit and dirty flag of the checkout a package is imported from, if it is one."""
    spec = find_spec(package)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    commit = _git(folder, "rev-parse", "HEAD") if folder else None
    # An installed package may lie inside somebody's checkout without being part of it.
    if commit is None or not _git(folder, "ls-files", "__init__.py"):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}


def plugin(target: str, distribution: str) -> dict[str, str | bool | None]:
    """Returns distribution, commit and dirty flag of a part ``module:Class``."""
    state = git_state(target.partition(":")[0].partition(".")[0])
    return {"distribution": distribution, **state}


@cache
def hardware() -> dict[str, str | int]:
    """Returns machine, processor, cores and memory."""
    machine: dict[str, str | int] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
    }
    if (memory := total_memory()) is not None:
        machine["memory_bytes"] = memory
    return machine


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _git(folder: Path | None, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
