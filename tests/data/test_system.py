"""What other systems lack, hidden: nothing of it is needed to run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kbench.data import system


def test_memory_is_counted_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    here = system.peak_memory()
    assert here is not None
    assert 10e6 < here < 200e9
    import resource

    class Usage:
        ru_maxrss = 5_000_000

    monkeypatch.setattr(resource, "getrusage", lambda _: Usage)
    assert system.peak_memory() == 1024 * 5_000_000
    monkeypatch.setattr(sys, "platform", "darwin")  # which counts bytes
    assert system.peak_memory() == 5_000_000
    monkeypatch.setitem(sys.modules, "resource", None)  # Windows has none
    assert system.peak_memory() is None


def test_a_system_that_does_not_say_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (system.total_memory() or 0) > 1e8
    monkeypatch.delattr(os, "sysconf")
    assert system.total_memory() is None


def test_groups_are_ended_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, time; os.setsid(); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        monkeypatch.delattr(os, "killpg")
        system.kill_group(child.pid)
        assert child.poll() is None
        monkeypatch.undo()
        system.kill_group(child.pid)
        assert child.wait() < 0
    system.kill_group(child.pid)  # gone already
    monkeypatch.delattr(os, "setsid")
    system.lead_group()


def test_a_folder_that_cannot_be_opened_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.sync_folder(tmp_path)
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "open", None)
    system.sync_folder(tmp_path)


_HIDDEN = """
import builtins, os

imported = builtins.__import__


def importing(name, globals=None, *rest, **named):
    if name == "resource" and (globals or {}).get("__name__", "").startswith("kbench"):
        raise ImportError(name)
    return imported(name, globals, *rest, **named)


builtins.__import__ = importing
del os.setsid, os.killpg
"""
"""Hidden from kbench alone: here the libraries find out that they are on Linux, and use it."""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_grid_runs_without_what_windows_lacks(jobs: str, tmp_path: Path) -> None:
    """In processes of their own, too: each hides the same, by the way Python starts."""
    (tmp_path / "sitecustomize.py").write_text(_HIDDEN)
    words = ["run", "-t", "atlas-qa", "-m", "none", "--limit", "8", "--jobs", jobs, "--seed", "0,1",
             "--out", str(tmp_path / "out"), "--set", "tuning.full.epochs=1", "--json"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "kbench", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
             "KBENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"status": "ok"') == 2
    assert "peak_memory_bytes" not in done.stdout
    assert '"cores"' in done.stdout
