"""Some of an archive written to a folder: plain files alone, none of them outside of it.

An archive of which any member would lie outside, is a link or a device, or is there twice is
refused as a whole: whoever made it so meant no good, or it is not the one that was meant.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path
from typing import IO

from kbench.errors import first_line
from kbench.fetch.listing import inside, readable
from kbench.fetch.tar import Entry, TarError, entries, opened
from kbench.fetch.transfer import FetchError

__all__ = ["unpack"]

_BLOCK = 1 << 20
_LARGEST = 64 << 30
_DAMAGED = (zipfile.BadZipFile, BadGzipFile, zlib.error, LZMAError, EOFError)
_LINK = 0o120000
_TYPE = 0o170000


@dataclass(frozen=True)
class _Member:
    """A file in an archive."""

    name: str
    size: int
    open: Callable[[], AbstractContextManager[Callable[[int], bytes]]]


def unpack(archive: Path, chosen: Mapping[str, str], folder: Path) -> list[str]:
    """Unpacks what is chosen of a zip or tar archive; returns the paths of the files.

    Args:
        archive: the file; what it is its content says, not its name.
        chosen: members and where they go; with a slash at the end all that begins so.
        folder: where to.

    Raises:
        FetchError: it is none, is damaged, holds what may not be unpacked, lacks what is chosen,
            or holds more than the disk has room for.
    """
    with _opened(archive) as members:
        targets = _targets(archive, members, chosen)
        size = sum(member.size for member, _ in targets)
        free = shutil.disk_usage(folder).free
        if size > min(free, _LARGEST):
            raise FetchError(
                f"{archive}: unpacks to {readable(size)}, and {readable(free)} are free in {folder}"
            )
        for member, target in targets:
            _write(member, folder / target)
    return [target for _, target in targets]


@contextmanager
def _opened(archive: Path) -> Iterator[list[_Member]]:
    """Opens an archive, and says in one line what stands against it."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                yield [*_of_zip(archive, packed)]
        else:
            with opened(archive) as file:
                yield [*_of_tar(archive, file)]
    except (*_DAMAGED, TarError) as cause:
        problem = f"is no zip or tar archive, or is damaged ({first_line(cause)})"
        raise FetchError(f"{archive}: {problem}; run the same command again") from None
    except (NotImplementedError, RuntimeError) as cause:  # a method or password zip has no use for
        raise FetchError(f"{archive}: cannot be unpacked ({first_line(cause)})") from None


def _of_zip(archive: Path, packed: zipfile.ZipFile) -> Iterator[_Member]:
    for info in packed.infolist():
        kind = (info.external_attr >> 16) & _TYPE
        _check(archive, info.filename, kind == _LINK)
        if not info.is_dir():

            @contextmanager
            def reader(info: zipfile.ZipInfo = info) -> Iterator[Callable[[int], bytes]]:
                with packed.open(info) as source:
                    yield source.read

            yield _Member(_plain(info.filename), info.file_size, reader)


def _of_tar(archive: Path, file: IO[bytes]) -> Iterator[_Member]:
    for entry in entries(file):
        _check(archive, entry.name, not (entry.plain or entry.folder))
        if entry.plain:

            @contextmanager
            def reader(entry: Entry = entry) -> Iterator[Callable[[int], bytes]]:
                file.seek(entry.at)
                left = entry.size

                def read(most: int) -> bytes:
                    nonlocal left
                    block = file.read(min(most, left))
                    left -= len(block)
                    return block

                yield read

            yield _Member(_plain(entry.name), entry.size, reader)


def _check(archive: Path, name: str, special: bool) -> None:
    plain = _plain(name).rstrip("/")
    if special:
        raise FetchError(f"{archive}: {name!r} in it is a link or device; it is not unpacked")
    if plain not in ("", ".") and not inside(plain):
        raise FetchError(f"{archive}: {name!r} in it would lie outside; it is not unpacked")


def _plain(name: str) -> str:
    while name.startswith("./"):
        name = name[2:]
    return name


def _targets(
    archive: Path, members: list[_Member], chosen: Mapping[str, str]
) -> list[tuple[_Member, str]]:
    found: dict[str, _Member] = {}
    used: set[str] = set()
    for member in members:
        for wanted, target in chosen.items():
            whole = wanted.endswith("/") and member.name.startswith(wanted)
            if not whole and member.name != wanted:
                continue
            path = target + member.name.removeprefix(wanted) if whole else target
            if path in found:
                raise FetchError(f"{archive}: has {member.name!r} twice; it is not unpacked")
            found[path] = member
            used.add(wanted)
    if absent := [wanted for wanted in chosen if wanted not in used]:
        raise FetchError(f"{archive}: has no {absent[0]}: it is another archive than was meant")
    return [(member, path) for path, member in found.items()]


def _write(member: _Member, path: Path) -> None:
    """Writes a member, and no more of it than it says to be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with member.open() as read, path.open("wb") as file:
        while block := read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise FetchError(f"{member.name!r} unpacks to more than it says")
            file.write(block)
    if left:
        raise EOFError(f"{member.name} is cut off")
