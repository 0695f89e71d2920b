"""Members of tar archives, beside what the standard library says of them."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest

from kbench.fetch.tar import TarError, entries, opened

FILES = {
    "a.txt": b"a",
    "d/empty": b"",
    "d/" + "long/" * 60 + "name.txt": b"x" * 1500,
    "d/" + "n" * 120: b"y" * 512,
    "d/Łódź – 東京.tsv": b"z" * 513,
    "d/last": bytes(range(256)) * 9,
}
FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def packed(path: Path, kind: int, mode: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, mode, format=kind) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def members(path: Path) -> list[tuple[str, bool, bytes]]:
    found = []
    with opened(path) as file:
        for entry in [*entries(file)]:
            file.seek(entry.at)
            found.append((entry.name, entry.folder, file.read(entry.size)))
    return found


def theirs(path: Path) -> list[tuple[str, bool, bytes]]:
    with tarfile.open(path) as archive:
        return [
            (m.name, m.isdir(), file.read() if (file := archive.extractfile(m)) else b"")
            for m in archive
        ]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("kind", FORMATS)
def test_members_are_those_of_the_standard_library(kind: str, mode: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "packed", FORMATS[kind], mode, FILES)
    assert members(path) == theirs(path)
    assert [content for _, folder, content in members(path) if not folder] == [*FILES.values()]


def test_names_in_two_parts(tmp_path: Path) -> None:
    files = {"p" * 90 + "/" + "n" * 90: b"1", "b": b"2"}
    path = packed(tmp_path / "packed", tarfile.USTAR_FORMAT, "w", files)
    assert members(path) == theirs(path)


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 10**15])
def test_sizes_beyond_what_octal_digits_hold(size: int, tmp_path: Path) -> None:
    info = tarfile.TarInfo("large")
    info.size = size
    for kind in FORMATS.values():
        head = info.tobuf(format=kind)
        (entry,) = entries(io.BytesIO(head))
        assert (entry.name, entry.size, entry.at) == ("large", size, len(head))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_archive_is_refused_or_says_what_the_library_says(
    kind: str, tmp_path: Path
) -> None:
    path = packed(tmp_path / "packed", FORMATS[kind], "w", FILES)
    whole, drawn, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        content = bytearray(whole)
        content[drawn.randrange(len(content) // 2)] ^= 1 << drawn.randrange(8)
        path.write_bytes(content)
        try:
            found = members(path)
        except TarError:
            refused += 1
        else:
            assert found == theirs(path)
    assert refused > 20


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>" * 200, b"a" * 512, b"\0" * 100 + b"1"],
    ids=["empty", "page", "a", "0"],
)
def test_what_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(TarError):
        list(entries(io.BytesIO(content)))


def test_a_header_that_is_larger_than_any_name_is_refused() -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    with pytest.raises(TarError, match="a header of 1,073,741,824 bytes"):
        list(entries(io.BytesIO(info.tobuf(format=tarfile.GNU_FORMAT))))
