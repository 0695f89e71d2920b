"""Archives of strangers: what is chosen comes out, and nothing lands outside."""

from __future__ import annotations

import io
import random
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from kbench.fetch.transfer import FetchError
from kbench.fetch.unpacking import unpack

Maker = Callable[[Path, dict[str, bytes]], Path]


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


BOTH = pytest.mark.parametrize("make", [zipped, tarred])


def refused(archive: Path, folder: Path, chosen: dict[str, str] | None = None) -> str:
    with pytest.raises(FetchError) as raised:
        unpack(archive, chosen or {"d/": ""}, folder)
    return str(raised.value)


@BOTH
def test_what_is_chosen_comes_out(make: Maker, tmp_path: Path) -> None:
    files = {"d/a.txt": b"a", "d/e/b.txt": b"b" * 3_000_000, "d/left": b"", "other/c": b"c"}
    archive = make(tmp_path / "packed", {f"./{name}": files[name] for name in files})
    out = tmp_path / "out"
    out.mkdir()
    chosen = {"d/e/": "deep/", "d/a.txt": "one/first.txt"}
    assert sorted(unpack(archive, chosen, out)) == ["deep/b.txt", "one/first.txt"]
    assert (out / "deep" / "b.txt").read_bytes() == files["d/e/b.txt"]
    assert (out / "one" / "first.txt").read_bytes() == b"a"
    assert sum(path.is_file() for path in out.rglob("*")) == 2


@BOTH
@pytest.mark.parametrize("name", ["../x", "d/../../x", "/etc/x", "d/a\\..\\..\\x", "C:/x", "d/.."])
def test_a_path_outside_spoils_the_whole(make: Maker, tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / "packed", {"d/a": b"a", name: b"x"})
    out = tmp_path / "in" / "out"
    out.mkdir(parents=True)
    assert "would lie outside; it is not unpacked" in refused(archive, out)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["packed"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_of_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "packed.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("d/link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert "is a link or device" in refused(path, tmp_path)


def test_links_of_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("d/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert "is a link or device" in refused(path, tmp_path)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.tar"
    with tarfile.open(path, "w") as archive:
        for content in (b"a", b"b"):
            info = tarfile.TarInfo("d/a")
            info.size = 1
            archive.addfile(info, io.BytesIO(content))
    assert "has 'd/a' twice" in refused(path, tmp_path)


@BOTH
def test_what_is_chosen_has_to_be_there(make: Maker, tmp_path: Path) -> None:
    archive = make(tmp_path / "packed", {"d/a": b"a"})
    assert "has no e/: it is another archive" in refused(archive, tmp_path, {"d/": "", "e/": "e/"})
    assert "has no d/b:" in refused(archive, tmp_path, {"d/b": "b"})


@pytest.mark.parametrize("cut", [10, 200, 2000])
@BOTH
def test_a_damaged_archive_is_one_line(make: Maker, tmp_path: Path, cut: int) -> None:
    noise = random.Random(0).randbytes(5000)
    archive = make(tmp_path / "packed", {"d/a": noise, "d/b": noise})
    archive.write_bytes(archive.read_bytes()[:cut])
    assert "is no zip or tar archive, or is damaged" in refused(archive, tmp_path)


def test_what_is_no_archive_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "packed.zip"
    path.write_text("<html>")
    assert "is no zip or tar archive" in refused(path, tmp_path)


def test_more_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "packed", {"d/bomb": bytes(10_000_000)})
    assert archive.stat().st_size < 20_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    assert "unpacks to 10.0 MB, and 5.0 MB are free" in refused(archive, tmp_path)


def test_a_zip_that_lies_about_what_is_in_it(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "packed", {"d/a": bytes(100_000)})
    content = archive.read_bytes().replace((100_000).to_bytes(4, "little"), b"\x05\0\0\0")
    archive.write_bytes(content)
    assert "damaged" in refused(archive, tmp_path)
    assert not (tmp_path / "a").exists() or (tmp_path / "a").stat().st_size <= 5


def test_a_locked_zip_is_one_line(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "packed", {"d/a": b"a"})
    content = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    archive.write_bytes(content)
    assert "cannot be unpacked" in refused(archive, tmp_path)
