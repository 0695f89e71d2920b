"""A distribution whose methods go wrong, installed for a test and for the processes it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kbench.grid.plan import Place
from kbench.parts import catalogue

ROOT = Path(__file__).parents[2]
_TOYS = "kbench.testing.toys"
_PARTS = "tests.faults.parts"
_OFFERED = f"""[kbench.tasks]
toy-typing = {_TOYS}:ToyTyping
toy-relations = {_TOYS}:ToyRelations
[kbench.methods]
""" + "\n".join(
    f"{name.lower()} = {_PARTS}:{name}"
    for name in (
        "Raises", "Chatters", "Exits", "Panics", "Vanishes", "Crashes", "Hangs", "Leaks", "Unset",
        "Infinite", "Misreports",
    )
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "cache" / "artifacts", "cpu", 1)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Installs the toy tasks and the faulty methods; returns the folder they are installed in."""
    site = tmp_path / "site"
    about = site / "kbench_faulty-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kbench-faulty\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(_OFFERED)
    monkeypatch.syspath_prepend(str(site))
    catalogue._found.clear()
    yield site
    catalogue._found.clear()


Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(faulty: Path) -> Script:
    """Runs a Python script as another user of the same installation would; returns its end."""

    def run(text: str, *arguments: object, before: str = "", **more: str) -> object:
        command = [sys.executable, "-c", text, *map(str, arguments)]
        if before:
            # A mount namespace of its own: what is mounted there is gone with the process.
            command = [*_unshare(), "sh", "-c", f'{before} && exec "$@"', "sh", *command]
        paths = os.pathsep.join([str(faulty), str(ROOT)])
        given = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}
        return subprocess.run(
            command, env=given, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
        )

    return run  # type: ignore[return-value]


def _unshare() -> list[str]:
    """The command that gives a process mounts of its own; skips where the system forbids it."""
    for flags in (["--mount"], ["--mount", "--map-root-user", "--user"]):
        command = [shutil.which("unshare") or "unshare", *flags]
        probe = [*command, "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
        try:
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return command
        except OSError:
            continue
    pytest.skip("this system lets nobody mount a small file system, which the test needs")
