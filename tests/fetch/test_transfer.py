"""One file over the network: whole and right, or a line that says why not."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kbench.fetch import transfer
from kbench.fetch.transfer import FetchError, Transfer, part_of
from tests.fetch_server import Served, serving

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()
QUICK = Transfer(timeout=5, pauses=(0.0, 0.0))


def refused(url: str, path: Path, *known: Any, how: Transfer = QUICK) -> str:
    """The one line that is said when a file does not come; nothing lies under its name then."""
    with pytest.raises(FetchError) as raised:
        how.bring(url, path, *(known or (len(CONTENT), DIGEST)))
    assert not path.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_comes_whole_and_is_compared(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    how = Transfer(5, (), lambda done, total: seen.append((done, total)))
    with serving(a=Served(CONTENT)) as server:
        found = how.bring(f"{server.url}/a", tmp_path / "in" / "a", len(CONTENT), DIGEST)
    assert (found.bytes, found.sha256) == (len(CONTENT), DIGEST)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a"]
    assert (tmp_path / "in" / "a").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert server.asked[0][1]["user-agent"].startswith("kbench/")


@pytest.mark.parametrize("known", [(None, None), (len(CONTENT), DIGEST)])
def test_what_broke_off_is_gone_on_with(tmp_path: Path, known: tuple[Any, Any]) -> None:
    with serving(a=Served(CONTENT, breaks=[1000, 2000])) as server:
        found = QUICK.bring(f"{server.url}/a", tmp_path / "a", *known)
    assert found.sha256 == DIGEST
    ranges = [headers.get("range") for _, headers in server.asked]
    assert ranges == [None, "bytes=1000-", "bytes=3000-"]
    assert server.asked[1][1]["if-range"] == '"1"'


def test_what_breaks_off_again_and_again_is_kept_for_the_next_call(tmp_path: Path) -> None:
    path, once = tmp_path / "a", Transfer(5, ())
    with serving(a=Served(CONTENT, breaks=[1000])) as server:
        error = refused(f"{server.url}/a", path, how=once)
        assert "ends after 1,000 of 102,400 bytes; 1.0 kB are kept in" in error
        assert "run the same command again, it goes on from there" in error
        assert part_of(path).read_bytes() == CONTENT[:1000]
        once.bring(f"{server.url}/a", path, len(CONTENT), DIGEST)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1][1]["range"] == "bytes=1000-"


@pytest.mark.parametrize(
    "now",
    [
        Served(CONTENT, ranges=False),  # cannot serve pieces
        Served(CONTENT, tag='"2"'),  # another than before
        Served(CONTENT, shifted=7),  # serves another piece
    ],
)
def test_what_cannot_be_gone_on_with_begins_anew(tmp_path: Path, now: Served) -> None:
    path, once = tmp_path / "a", Transfer(5, ())
    with serving(a=Served(CONTENT[::-1], breaks=[1000])) as server:
        refused(f"{server.url}/a", path, None, None, how=once)
        server.files["a"] = now
        assert once.bring(f"{server.url}/a", path, None, None).sha256 == DIGEST


def test_a_part_of_which_nothing_is_certain_is_not_gone_on_with(tmp_path: Path) -> None:
    part_of(tmp_path / "a").write_bytes(b"something else")
    with serving(a=Served(CONTENT)) as server:
        assert QUICK.bring(f"{server.url}/a", tmp_path / "a", None, None).sha256 == DIGEST
    assert "range" not in server.asked[0][1]


@pytest.mark.parametrize("part", [b"x" * 1000, CONTENT + b"more", b"x" * len(CONTENT)])
def test_a_wrong_part_costs_a_second_try_alone(tmp_path: Path, part: bytes) -> None:
    part_of(tmp_path / "a").write_bytes(part)
    with serving(a=Served(CONTENT)) as server:
        QUICK.bring(f"{server.url}/a", tmp_path / "a", len(CONTENT), DIGEST)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_not_kept(tmp_path: Path) -> None:
    wrong = b"x" * len(CONTENT)
    with serving(a=Served(wrong)) as server:
        error = refused(f"{server.url}/a", tmp_path / "a")
    assert "has wrong bytes: SHA-256" in error
    assert DIGEST in error
    assert hashlib.sha256(wrong).hexdigest() in error
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("size", [len(CONTENT) - 5, len(CONTENT) + 5])
def test_another_length_than_recorded_is_refused_before_anything_is_taken(
    tmp_path: Path, size: int
) -> None:
    with serving(a=Served(CONTENT)) as server:
        error = refused(f"{server.url}/a", tmp_path / "a", size, None)
    assert f"has 102,400 bytes, not the {size:,} that are recorded" in error
    assert [*tmp_path.iterdir()] == []


def test_a_server_that_claims_more_than_it_sends(tmp_path: Path) -> None:
    with serving(a=Served(CONTENT, says=len(CONTENT) + 100)) as server:
        error = refused(f"{server.url}/a", tmp_path / "a", None, None)
    assert "ends too early, or sends another piece" in error
    with serving(a=Served(CONTENT[:-100], says=len(CONTENT), ranges=False)) as server:
        error = refused(f"{server.url}/a", tmp_path / "b")
    assert "ends after 102,300 of 102,400 bytes" in error


def test_a_server_that_claims_less_than_it_sends(tmp_path: Path) -> None:
    with serving(a=Served(CONTENT, says=len(CONTENT) - 100)) as server:
        assert "not the 102,400 that are recorded" in refused(f"{server.url}/a", tmp_path / "a")


def test_a_server_that_claims_nothing_and_does_not_end(tmp_path: Path) -> None:
    with serving(a=Served(CONTENT * 3, says=-1)) as server:
        error = refused(f"{server.url}/a", tmp_path / "a")
    assert "the server sends more than 102,400 bytes" in error
    assert [*tmp_path.iterdir()] == []
    with serving(a=Served(CONTENT, says=-1)) as server:
        assert QUICK.bring(f"{server.url}/a", tmp_path / "a", len(CONTENT), DIGEST)


def test_a_file_of_unknown_size_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_LARGEST", 1000)
    with serving(a=Served(CONTENT, says=-1)) as server:
        assert "sends more than 1,000" in refused(f"{server.url}/a", tmp_path / "a", None, None)


@pytest.mark.parametrize(
    ("served", "told"),
    [
        (Served(status=404), r"is not there \(any more: HTTP 404\)"),
        (Served(status=410), "HTTP 410"),
        (Served(status=403), r"may not be read \(HTTP 403\); get it by hand"),
        (Served(status=503), r"cannot serve it now \(HTTP 503\)"),
        (Served(status=418), "answers HTTP 418"),
        (Served(CONTENT, packed="gzip"), r"packs it \(gzip\) though asked not to"),
        (Served(to="http://example.invalid/a"), "leads on to .*, which is not https"),
        (Served(to="ftp://example.invalid/a"), "leads on to .*, which is not https"),
        (Served(to="file:///etc/passwd"), "leads on in a circle, or to what is not https"),
        (Served(to="/a"), "leads on in a circle, or to what is not https"),
    ],
)
def test_what_a_server_answers(tmp_path: Path, served: Served, told: str) -> None:
    with serving(a=served) as server:
        assert re.search(told, refused(f"{server.url}/a", tmp_path / "a"))


def test_a_moved_file_is_followed(tmp_path: Path) -> None:
    with serving(a=Served(to="/new/b")) as server:
        server.files["new/b"] = Served(CONTENT)
        QUICK.bring(f"{server.url}/a", tmp_path / "a", None, DIGEST)
    assert [name for name, _ in server.asked] == ["a", "new/b"]


def test_https_never_leads_to_http() -> None:
    request = transfer.Request("https://example.invalid/a")
    with pytest.raises(FetchError, match="not https"):
        transfer._Redirects().redirect_request(
            request, io.BytesIO(), 302, "", {}, "http://127.0.0.1/a"
        )


@pytest.mark.parametrize(
    "url", ["http://example.invalid/a", "ftp://example.invalid/a", "file:///etc/passwd", "a"]
)
def test_only_https_is_asked(tmp_path: Path, url: str) -> None:
    assert "is not https" in refused(url, tmp_path / "a")


def test_a_web_page_is_no_file(tmp_path: Path) -> None:
    page = Served(b"<html>log in</html>", kind="text/html; charset=utf-8")
    with serving(a=page) as server:
        error = refused(f"{server.url}/a", tmp_path / "a", None, None)
    assert "is a web page, not a file" in error


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    slow = Served(CONTENT, waits=1.0, piece=50_000)
    with serving(a=slow) as server:
        error = refused(f"{server.url}/a", tmp_path / "a", how=Transfer(0.2, ()))
    assert "silent for 0.2 s" in error
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/a"
        assert "no answer for 0.2 s" in refused(url, tmp_path / "b", how=Transfer(0.2, ()))


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/a"
    assert "cannot be reached (Connection refused)" in refused(url, tmp_path / "a")


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*arguments: Any, **more: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    error = refused("https://example.invalid/a", tmp_path / "a")
    assert "example.invalid is not found (Temporary failure in name resolution)" in error
    assert "are you offline?" in error


def test_too_little_room_is_told_before_anything_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with serving(a=Served(CONTENT)) as server:
        error = refused(f"{server.url}/a", tmp_path / "a")
    assert "102.4 kB are to come and 1.0 kB are free" in error


def test_a_disk_that_fills_up_keeps_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "a", transfer._One._write

    def full(one: Any, file: Any, block: bytes, flush: bool = False) -> None:
        if file.tell() >= 50_000:
            raise one._unwritten(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        write(one, file, block, flush)

    once = Transfer(5, ())
    with serving(a=Served(CONTENT, piece=10_000, waits=0.005)) as server:
        with monkeypatch.context() as patched:
            patched.setattr(transfer._One, "_write", full)
            error = refused(f"{server.url}/a", path, how=once)
        assert "no room left (No space left on device); what came is kept in" in error
        size = part_of(path).stat().st_size
        assert size >= 50_000
        once.bring(f"{server.url}/a", path, len(CONTENT), DIGEST)
    assert server.asked[-1][1]["range"] == f"bytes={size}-"
    assert path.read_bytes() == CONTENT


def test_a_damaged_note_of_a_part_is_no_obstacle(tmp_path: Path) -> None:
    part_of(tmp_path / "a").write_bytes(CONTENT[:10])
    for note in ("[]", "{", json.dumps({"url": 1})):
        (tmp_path / "a.part.json").write_text(note)
        with serving(a=Served(CONTENT)) as server:
            QUICK.bring(f"{server.url}/a", tmp_path / "a", None, None)
        assert (tmp_path / "a").read_bytes() == CONTENT
        (tmp_path / "a").rename(part_of(tmp_path / "a"))
