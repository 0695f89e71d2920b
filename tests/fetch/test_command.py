"""`kbench fetch` as a user meets it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kbench.fetch.folder import RECORD
from kbench.fetch.listing import published
from kbench.parts.catalogue import Entry, Kind, entries, override
from tests.calling import call
from tests.fetch_server import Served, Server, serving

DATA = b"a line\n" * 5000
_ABOUT = {"licence": "CC BY 4.0", "citation": "Us: A Set, 2020", "source": "https://a.invalid"}
_CALL = """
import signal, sys
# What runs in the background may have been started such that it cannot be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
from kbench.parts.catalogue import Entry, Kind, override
override(Kind.DOWNLOADS, (Entry("toy", sys.argv[1], "toy 1", Kind.DOWNLOADS),))
from kbench.cli import main
main(sys.argv[2:])
"""

Listed = Callable[..., str]


def toy(server: Server, **more: Any) -> dict[str, Any]:
    part = {"to": "a.txt", "url": f"{server.url}/a"}
    return {"title": "A set", "folder": "aset", **_ABOUT, "parts": [part], **more}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Offers data sets, and nothing else, as a distribution would; returns their package."""
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.chdir(tmp_path)
    before, name = entries(Kind.DOWNLOADS), f"toydownloads_{uuid4().hex}"
    package = tmp_path / "packages" / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Toys."""\n')

    def offer(**sets: dict[str, Any]) -> str:
        for one, content in sets.items():
            (package / f"{one.replace('_', '-')}.json").write_text(json.dumps(content))
        override(Kind.DOWNLOADS, (Entry("toy", name, "toy 1", Kind.DOWNLOADS),))
        published.cache_clear()
        return name

    yield offer
    override(Kind.DOWNLOADS, before)
    published.cache_clear()


def test_a_set_comes_with_its_licence_said_first(
    listed: Listed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(a=Served(DATA)) as server:
        listed(aset=toy(server, tasks=["a-task"], importers=["an-importer"]))
        status, out, err = call(capsys, "fetch", "a-task")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "aset: A set"
    assert lines[1:4] == [
        "  licence: CC BY 4.0",
        "  cite: Us: A Set, 2020",
        "  source: https://a.invalid",
    ]
    assert f"  a.txt: 35,000 bytes, SHA-256 {sha(DATA)} (found; none is recorded)" in lines
    assert f"  what was found is remembered in data/aset/{RECORD}, for --check" in lines
    assert "  next: kbench run --task a-task --data data" in lines
    assert "  next: kbench knowledge import an-importer data/aset NEW-FOLDER" in lines
    assert "verified" not in out
    assert (tmp_path / "data" / "aset" / "a.txt").read_bytes() == DATA
    status, out, _ = call(capsys, "fetch", "aset")
    assert status == 0
    assert "data/aset has it all already" in out


def test_a_dry_run_asks_nobody_and_writes_nothing(
    listed: Listed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(a=Served(DATA)) as server:
        listed(aset=toy(server))
        status, out, _ = call(capsys, "fetch", "aset", "--dry-run", "--data", "elsewhere")
        assert server.asked == []
    assert status == 0
    assert f"to fetch: a.txt (size unknown, no digest recorded) from {server.url}/a" in out
    assert "nothing was fetched; 1 of 1 would be" in out
    assert not (tmp_path / "elsewhere").exists()


def test_the_list_says_what_is_there(
    listed: Listed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(a=Served(DATA)) as server:
        by_hand = {"title": "B set", "folder": "b", **_ABOUT, "by_hand": "ask them"}
        listed(aset=toy(server), bset=by_hand)
        _, out, _ = call(capsys, "fetch")
        assert "in data" in out
        assert "ask them" not in out
        call(capsys, "fetch", "aset")
        _, out, _ = call(capsys, "fetch", "--json")
    rows = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert (rows["aset"]["there"], rows["aset"]["parts"]) == (1, 1)
    assert rows["bset"]["by_hand"] == "ask them"
    assert rows["aset"]["licence"] == "CC BY 4.0"


def test_what_is_got_by_hand_says_how_and_the_rest_comes(
    listed: Listed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(a=Served(DATA)) as server:
        by_hand = {"title": "B set", "folder": "b", **_ABOUT, "by_hand": "ask them"}
        listed(aset=toy(server), bset=by_hand)
        status, out, _ = call(capsys, "fetch", "bset", "aset")
    assert status == 1
    assert "  not fetched: ask them" in out
    assert (tmp_path / "data" / "aset" / "a.txt").exists()


def test_a_failure_is_one_line_and_the_next_still_comes(
    listed: Listed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(a=Served(DATA)) as server:
        gone = {**toy(server), "parts": [{"to": "a", "url": f"{server.url}/gone"}]}
        listed(gone={**gone, "folder": "gone"}, aset=toy(server))
        status, _, err = call(capsys, "fetch", "gone", "aset")
    assert status == 1
    assert err.startswith(f"error: {server.url}/gone: is not there")
    assert err.count("\n") == 1
    assert (tmp_path / "data" / "aset" / "a.txt").exists()


def test_a_name_that_is_none(listed: Listed, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        listed(aset=toy(server))
    status, _, err = call(capsys, "fetch", "asett")
    assert status == 2
    assert "nothing to fetch is called 'asett'; did you mean aset?" in err
    for words in (["--dry-run"], ["--replace"], ["--check", "data", "--dry-run"]):
        status, _, err = call(capsys, "fetch", *words)
        assert (status, err.count("\n")) == (2, 1)


def test_copies_are_checked(
    listed: Listed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        part = {"to": "a.txt", "url": f"{server.url}/a", "bytes": len(DATA), "sha256": sha(DATA)}
        listed(aset=toy(server, parts=[part]), other=toy(server, folder="other"))
        copy = tmp_path / "mine" / "a_set"
        status, _, err = call(capsys, "fetch", "--check", "mine")
        assert (status, "no folder mine" in err) == (2, True)
        copy.mkdir(parents=True)
        (copy / "a.txt").write_bytes(DATA)
        status, out, _ = call(capsys, "fetch", "--check", "mine")
        assert (status, out) == (0, "aset in mine/a_set: 1 as recorded\n")
        for words in (["mine/a_set", "aset"], ["mine/a_set"]):
            status, out, _ = call(capsys, "fetch", "--check", *words)
            assert (status, out) == (0, "aset in mine/a_set: 1 as recorded\n")
        (copy / "a.txt").write_bytes(DATA[::-1])
        status, out, _ = call(capsys, "fetch", "--check", "mine")
        assert status == 1
        assert f"differs from the recorded (SHA-256 {sha(DATA[::-1])}, 35,000 bytes)" in out
        assert sha(DATA) in out
        (copy / "a.txt").unlink()
        status, out, _ = call(capsys, "fetch", "--check", "mine", "aset", "--json")
        assert status == 1
        assert json.loads(out)["files"][0]["verdict"] == "missing"
        assert server.asked == []


def _started(package: str, tmp_path: Path, *words: str, **environment: str) -> Any:
    paths = [str(tmp_path / "packages"), *filter(None, sys.path)]
    return subprocess.Popen(
        [sys.executable, "-c", _CALL, package, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interruption_keeps_what_came_and_the_same_command_goes_on(
    listed: Listed, tmp_path: Path
) -> None:
    with serving(a=Served(DATA, piece=500, waits=0.3)) as server:
        package = listed(aset=toy(server))
        process = _started(package, tmp_path, "fetch", "aset")
        part = tmp_path / "data" / ".kbench-fetch" / "aset" / "files" / "a.txt.part"
        until = time.monotonic() + 60
        while not (part.exists() and len(server.asked) == 1) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(1.5)  # some pieces come, which are written when the file is closed
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "aset: " in err
        assert "are kept in data/.kbench-fetch/aset; nothing half-written lies in the data" in err
        assert "the same command goes on from there" in err
        assert "Traceback" not in err
        size = part.stat().st_size
        assert 0 < size < len(DATA)
        assert not (tmp_path / "data" / "aset").exists()
        server.files["a"].waits = 0.0
        process = _started(package, tmp_path, "fetch", "aset")
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert server.asked[-1][1]["range"] == f"bytes={size}-"
    assert (tmp_path / "data" / "aset" / "a.txt").read_bytes() == DATA


def test_the_hub_is_asked_by_its_own_library(listed: Listed, tmp_path: Path) -> None:
    with serving(**{"datasets/us/aset/resolve/abc/in/a%20b.txt": Served(DATA)}) as server:
        part = {"to": "a.txt", "hub": "us/aset", "revision": "abc", "file": "in/a b.txt"}
        package = listed(aset=toy(server, parts=[part]))
        hub = {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "1"}
        process = _started(package, tmp_path, "fetch", "aset", **hub)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "hf:us/aset@abc/in/a b.txt: is not fetched: HF_HUB_OFFLINE is set" in err
        process = _started(package, tmp_path, "fetch", "aset", **{**hub, "HF_HUB_OFFLINE": "0"})
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    assert (tmp_path / "data" / "aset" / "a.txt").read_bytes() == DATA
