"""The members of a tar archive: what they are called, what they are, where their content lies.

The standard library's ``tarfile`` comes with calls that write where an archive says, and no source
of kbench imports it (a test sees to that). What is needed of the format is little: plain files of
ustar, GNU and pax archives. Nothing is written here, and what is not known is refused.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

__all__ = ["Entry", "TarError", "entries", "opened"]

_BLOCK = 512
_LONGEST = 1 << 20
"""Bytes of a name, or of what a pax header says, at most."""
_PLAIN, _FOLDER = frozenset({b"0", b"\0", b"7"}), b"5"
_NAME, _LINK, _PAX, _GLOBAL = b"L", b"K", b"x", b"g"


class TarError(Exception):
    """What is no tar archive, or is damaged, or says what is not known here."""


@dataclass(frozen=True)
class Entry:
    """A member.

    Attributes:
        name: as the archive has it, without a slash at its end.
        plain: whether it is a plain file.
        folder: whether it is a folder; what is neither is a link or a device.
        size: of its content, in bytes.
        at: where that begins, in the archive as it is without compression.
    """

    name: str
    plain: bool
    folder: bool
    size: int
    at: int


def opened(path: Path) -> IO[bytes]:
    """Opens an archive without its compression (gzip, bzip2, xz), which its first bytes tell."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(path))
    if magic.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.open(path))
    if magic == b"\xfd7zXZ\0":
        return cast("IO[bytes]", lzma.open(path))
    return path.open("rb")


def entries(file: IO[bytes]) -> Iterator[Entry]:
    """Yields the members of an archive, in their order.

    Args:
        file: it, without compression.

    Raises:
        TarError: it is none, or is damaged.
    """
    at, said = 0, dict[str, str]()
    while (head := _read(file, at, _BLOCK)).strip(b"\0"):
        kind, size = _checked(head), int(said.get("size", _number(head[124:136])))
        at += _BLOCK
        end = at + -(-size // _BLOCK) * _BLOCK
        if kind == _PAX:
            said |= _pax(_read(file, at, size))
        elif kind == _NAME:
            said["path"] = _text(_read(file, at, size).rstrip(b"\0"))
        elif kind not in (_LINK, _GLOBAL):
            name = said.get("path") or _name(head)
            folder = kind == _FOLDER or (kind == b"\0" and name.endswith("/"))
            yield Entry(name.rstrip("/"), kind in _PLAIN and not folder, folder, size, at)
            said = {}
            end = end if kind in _PLAIN else at
        at = end
    if not at and not head:
        raise TarError("it is empty")


def _read(file: IO[bytes], at: int, size: int) -> bytes:
    """Reads a header, or what one says; nothing where the archive ends."""
    if size > _LONGEST:
        raise TarError(f"a header of {size:,} bytes")
    try:
        file.seek(at)
        content = file.read(size)
    except OSError as cause:  # what decompresses has no error of its own for all that is wrong
        raise TarError(str(cause)) from cause
    if len(content) < size and (content or size != _BLOCK):
        raise TarError("it is cut off")
    return content


def _checked(head: bytes) -> bytes:
    """Returns the kind of a member, of a header whose sum is right."""
    sums = head[:148] + b" " * 8 + head[156:]
    if _number(head[148:156]) != sum(sums):
        raise TarError("a header whose sum is wrong")
    return head[156:157]


def _number(field: bytes) -> int:
    """A number in octal digits, or in bytes where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    digits = field.split(b"\0")[0].strip()
    if digits and not digits.isdigit():
        raise TarError("a header with a number that is none")
    try:
        return int(digits or b"0", 8)
    except ValueError as cause:
        raise TarError("a header with a number that is none") from cause


def _name(head: bytes) -> str:
    name = head[:100].split(b"\0")[0]
    before = head[345:500].split(b"\0")[0] if head[257:263] == b"ustar\0" else b""
    return _text(before + b"/" + name if before else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, str]:
    """What of a pax header says which file is meant: ``LENGTH KEY=VALUE`` a record."""
    said: dict[str, str] = {}
    while content.strip(b"\0"):
        length, _, rest = content.partition(b" ")
        size = int(length) if length.isdigit() else 0
        key, _, value = rest[: size - len(length) - 1].partition(b"=")
        if not 0 < size <= len(content) or not value.endswith(b"\n") or key.startswith(b"GNU.sp"):
            raise TarError("a pax header that is not understood")
        if key in (b"path", b"size"):
            said[key.decode()] = _text(value[:-1])
        content = content[size:]
    if not said.get("size", "0").isdecimal():
        raise TarError("a pax header with a size that is none")
    return said
