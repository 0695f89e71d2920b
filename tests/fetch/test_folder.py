"""A data set in the data folder: brought whole, remembered, compared, and never half there."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from kbench.fetch import folder
from kbench.fetch.checking import Verdict, check
from kbench.fetch.folder import RECORD, State, fetch, kept, place, plan, remembered, there
from kbench.fetch.listing import Known, Part, Published
from kbench.fetch.transfer import FetchError, Transfer
from tests.fetch_server import Served, Server, serving

ONE, TWO = b"one" * 1000, b"two" * 2000
QUICK = Transfer(5, ())


def packed(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, inner in files.items():
            archive.writestr(f"top/{name}", inner)
    return content.getvalue()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def toy(server: Server, *parts: Part, **more: Any) -> Published:
    """A data set of two files, one of which has a recorded digest, and of the parts given."""
    own = (
        Part(url=f"{server.url}/one", to="in/one", bytes=len(ONE), sha256=sha(ONE)),
        Part(url=f"{server.url}/two", to="two"),
    )
    about = {"title": "Toy", "licence": "MIT", "citation": "us", "source": "here", "name": "toy"}
    return Published(folder="toyset", **about, parts=(*own, *parts), **more)


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_new_folder_appears_whole_and_remembers(tmp_path: Path) -> None:
    with serving(one=Served(ONE), two=Served(TWO)) as server:
        published = toy(server)
        assert there(tmp_path, published) == (0, 2)
        brought = fetch(tmp_path, published, QUICK)
        assert [(each.path, each.recorded) for each in brought] == [
            ("in/one", True),
            ("two", False),
        ]
        assert files_of(tmp_path) == [f"toyset/{RECORD}", "toyset/in/one", "toyset/two"]
        record = json.loads((tmp_path / "toyset" / RECORD).read_text())["files"]
        assert record["in/one"]["state"] == "as recorded"
        assert record["two"] == {
            "bytes": len(TWO),
            "sha256": sha(TWO),
            "state": "found, nothing is recorded",
        }
        assert [step.state for step in plan(tmp_path, published)] == [
            State.RIGHT,
            State.AS_FETCHED,
        ]
        assert there(tmp_path, published) == (2, 2)
        asked = len(server.asked)
        assert fetch(tmp_path, published, QUICK) == []
        assert len(server.asked) == asked
        assert files_of(tmp_path) == [f"toyset/{RECORD}", "toyset/in/one", "toyset/two"]


def test_nothing_lies_in_the_data_until_all_is_there(tmp_path: Path) -> None:
    with serving(one=Served(ONE), two=Served(TWO, breaks=[700])) as server:
        published = toy(server)
        with pytest.raises(FetchError, match="ends after 700 of 6,000 bytes"):
            fetch(tmp_path, published, QUICK)
        assert not (tmp_path / "toyset").exists()
        assert kept(tmp_path, published) == 700
        assert [step.kept for step in plan(tmp_path, published)] == [0, 700]
        assert len(fetch(tmp_path, published, QUICK)) == 2
    assert [name for name, _ in server.asked] == ["one", "two", "two"]
    assert files_of(tmp_path) == [f"toyset/{RECORD}", "toyset/in/one", "toyset/two"]


def test_what_never_began_leaves_nothing(tmp_path: Path) -> None:
    with serving() as server, pytest.raises(FetchError, match="HTTP 404"):
        fetch(tmp_path, toy(server), QUICK)
    assert [*tmp_path.iterdir()] == []


def test_an_old_folder_is_completed_however_it_is_spelled(tmp_path: Path) -> None:
    old = tmp_path / "Toy-Set"
    (old / "in").mkdir(parents=True)
    (old / "in" / "one").write_bytes(ONE)
    (old / "mine").write_text("stays")
    with serving(two=Served(TWO)) as server:
        assert place(tmp_path, toy(server)) == old
        assert [each.path for each in fetch(tmp_path, toy(server), QUICK)] == ["two"]
    assert files_of(old) == [RECORD, "in/one", "mine", "two"]


@pytest.mark.parametrize("content", [b"x" * len(ONE), b"short"])
def test_another_file_stays_until_it_may_be_replaced(tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "toyset" / "in" / "one"
    other.parent.mkdir(parents=True)
    other.write_bytes(content)
    with serving(one=Served(ONE), two=Served(TWO)) as server:
        with pytest.raises(FetchError, match="is another file than the one that is recorded"):
            fetch(tmp_path, toy(server), QUICK)
        assert server.asked == []
        assert other.read_bytes() == content
        fetch(tmp_path, toy(server), QUICK, replacing=True)
    assert other.read_bytes() == ONE


def test_archives_are_unpacked_and_their_files_compared(tmp_path: Path) -> None:
    content = packed(a=b"a", b=b"b")
    known = (Known("deep/a", 1, sha(b"a")),)
    with serving(one=Served(ONE), two=Served(TWO), packed=Served(content)) as server:
        archive = Part(url=f"{server.url}/packed", unpack={"top/": "deep/"})
        published = toy(server, archive, files=known)
        brought = fetch(tmp_path, published, QUICK)
        assert {each.path: each.recorded for each in brought} == {
            "in/one": True,
            "two": False,
            "deep/a": True,
            "deep/b": False,
        }
        inside = ["deep/a", "deep/b", "in/one", "two"]
        assert files_of(tmp_path / "toyset") == [RECORD, *inside]
        states = [step.state for step in plan(tmp_path, published)]
        assert states == [State.RIGHT, State.AS_FETCHED, State.AS_FETCHED]
        verdicts = {one.path: one.verdict for one in check(tmp_path / "toyset", published)}
        assert verdicts == {
            "in/one": Verdict.RIGHT,
            "two": Verdict.AS_FETCHED,
            "deep/a": Verdict.RIGHT,
            "deep/b": Verdict.AS_FETCHED,
        }
        (tmp_path / "toyset" / "deep" / "b").unlink()
        assert plan(tmp_path, published)[2].state == State.MISSING
        assert {each.path for each in fetch(tmp_path, published, QUICK)} == {"deep/a", "deep/b"}


def test_what_is_in_an_archive_of_the_recorded_digest_is_as_recorded(tmp_path: Path) -> None:
    content = packed(a=b"a")
    with serving(one=Served(ONE), two=Served(TWO), packed=Served(content)) as server:
        archive = Part(
            url=f"{server.url}/packed",
            unpack={"top/a": "a"},
            bytes=len(content),
            sha256=sha(content),
        )
        brought = fetch(tmp_path, toy(server, archive), QUICK)
    assert [each.recorded for each in brought if each.path == "a"] == [True]


def test_wrong_bytes_in_an_archive_are_refused_and_the_rest_is_kept(tmp_path: Path) -> None:
    known = (Known("a", 1, sha(b"b")),)
    with serving(one=Served(ONE), two=Served(TWO), packed=Served(packed(a=b"a"))) as server:
        archive = Part(url=f"{server.url}/packed", unpack={"top/": ""})
        published = toy(server, archive, files=known)
        with pytest.raises(FetchError, match="a of the archive has wrong bytes"):
            fetch(tmp_path, published, QUICK)
        assert not (tmp_path / "toyset").exists()
        server.files["packed"] = Served(packed(a=b"b"))
        fetch(tmp_path, published, QUICK)
    assert [name for name, _ in server.asked].count("one") == 1
    assert (tmp_path / "toyset" / "a").read_bytes() == b"b"


def test_no_room_is_told_before_anything_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with serving(one=Served(ONE), two=Served(TWO)) as server:
        with pytest.raises(FetchError, match=r"3\.0 kB are to come and 10 bytes are free"):
            fetch(tmp_path, toy(server), QUICK)
        assert server.asked == []
    assert [*tmp_path.iterdir()] == []


def test_a_disk_that_fills_up_while_unpacking_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder, "unpack", full)
    with serving(one=Served(ONE), two=Served(TWO), packed=Served(packed(a=b"a"))) as server:
        archive = Part(url=f"{server.url}/packed", unpack={"top/": ""})
        with pytest.raises(FetchError, match=r"no room left .* what came is kept; make room"):
            fetch(tmp_path, toy(server, archive), QUICK)
    assert not (tmp_path / "toyset").exists()


def test_another_disk_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, target = os.replace, tmp_path / "toyset"
    target.mkdir()

    def across(source: Any, to: Any) -> None:
        if ".kbench-fetch" in str(source) and str(target) in str(to):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, to)

    monkeypatch.setattr(os, "replace", across)
    with serving(one=Served(ONE), two=Served(TWO)) as server:
        fetch(tmp_path, toy(server), QUICK)
    assert files_of(tmp_path) == [f"toyset/{RECORD}", "toyset/in/one", "toyset/two"]


def test_one_at_a_time(tmp_path: Path) -> None:
    with serving(one=Served(ONE), two=Served(TWO)) as server:
        lock = tmp_path / ".kbench-fetch" / "toyset.lock"
        lock.parent.mkdir()
        with FileLock(lock):
            (tmp_path / ".kbench-fetch" / "toy" / "files").mkdir(parents=True)
            with pytest.raises(FetchError, match="another kbench fetch is at it"):
                fetch(tmp_path, toy(server), QUICK)
            # Whoever is at it finds all as it was, though nothing has come yet.
            assert (tmp_path / ".kbench-fetch" / "toy" / "files").is_dir()
            assert lock.exists()


def test_what_was_changed_since_stays_until_it_may_be_replaced(tmp_path: Path) -> None:
    with serving(one=Served(ONE), two=Served(TWO), packed=Served(packed(a=b"a"))) as server:
        published = toy(server, Part(url=f"{server.url}/packed", unpack={"top/": "in/"}))
        fetch(tmp_path, published, QUICK)
        for name, was in {"two": TWO, "in/a": b"a"}.items():
            mine = tmp_path / "toyset" / name
            mine.write_bytes(b"mine")
            with pytest.raises(FetchError, match="was changed since it was fetched"):
                fetch(tmp_path, published, QUICK)
            assert mine.read_bytes() == b"mine"
            fetch(tmp_path, published, QUICK, replacing=True)
            assert mine.read_bytes() == was


def test_a_file_of_an_archive_that_is_there_and_another_stays(tmp_path: Path) -> None:
    mine = tmp_path / "toyset" / "in" / "a"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    content = packed(a=b"a", b=b"b")
    with serving(one=Served(ONE), two=Served(TWO), packed=Served(content)) as server:
        archive = Part(url=f"{server.url}/packed", unpack={"top/a": "in/a", "top/b": "b"})
        published = toy(server, archive)
        with pytest.raises(FetchError, match="toyset/in/a: is another file than the one that came"):
            fetch(tmp_path, published, QUICK)
        assert files_of(tmp_path / "toyset") == ["in/a"]
        assert mine.read_bytes() == b"mine"
        fetch(tmp_path, published, QUICK, replacing=True)
        assert (mine.read_bytes(), (tmp_path / "toyset" / "b").read_bytes()) == (b"a", b"b")
    assert len(server.asked) == 3  # nothing came twice


def test_what_may_not_be_fetched_says_how_to_get_it(tmp_path: Path) -> None:
    about = {"title": "Toy", "licence": "no", "citation": "us", "source": "here", "name": "toy"}
    published = Published(folder="toyset", **about, by_hand="write to them")
    with pytest.raises(FetchError, match="toy is not fetched: write to them"):
        fetch(tmp_path, published, QUICK)
    assert [*tmp_path.iterdir()] == []


def test_a_copy_is_compared_file_by_file(tmp_path: Path) -> None:
    with serving(one=Served(ONE), two=Served(TWO)) as server:
        published = toy(server, files=(Known("other", 1, sha(b"o")), Known("absent", 1, sha(b"o"))))
        fetch(tmp_path, published, QUICK)
    mine = tmp_path / "toyset"
    (mine / "in" / "one").write_bytes(b"spoilt")
    (mine / "two").write_bytes(b"changed")
    (mine / "other").write_bytes(b"o")
    verdicts = {one.path: one.verdict for one in check(mine, published)}
    assert verdicts == {
        "in/one": Verdict.DIFFERS,
        "two": Verdict.CHANGED,
        "other": Verdict.RIGHT,
    }
    strange = {"files": {"../../secret": {"bytes": 1, "sha256": "0"}}}
    (mine / RECORD).write_text(json.dumps(strange))
    assert remembered(mine) == {}
    (mine / RECORD).write_text("{")
    (mine / "in" / "one").unlink()
    assert remembered(mine) == {}
    verdicts = {one.path: one.verdict for one in check(mine, published)}
    assert verdicts["in/one"] == Verdict.MISSING
    assert verdicts["two"] == Verdict.UNKNOWN
