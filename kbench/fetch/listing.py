"""What can be fetched, from where, and what is known of it: size, digest, licence.

It lies as ``*.json`` in packages that are offered through the entry-point group
``kbench.downloads``, a file a data set or knowledge base, called as it is. Nothing of it is code,
so a listing runs none.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from kbench.errors import DataError, PluginError, UsageError, first_line, nearest
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.registry import PluginWarning

__all__ = [
    "Known",
    "Part",
    "Published",
    "find",
    "inside",
    "is_loopback",
    "published",
    "reachable",
    "readable",
    "sequence",
]

_SHA256 = re.compile("[0-9a-f]{64}")
_EXPECTED = "a data set as docs/fetch.md says"
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Known:
    """A file whose content is known, however it came.

    Attributes:
        path: in the folder of the data set.
        bytes: its size.
        sha256: its digest.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """One thing to fetch: a file, or an archive of which some is unpacked.

    Attributes:
        url: its address, or
        hub: the data set of the Hugging Face hub that has it,
        revision: a commit of that,
        file: and its path there.
        to: the path of the file in the folder; empty for an archive.
        unpack: of an archive, which members go where: a file to a file, or a folder, which ends in
            a slash, to a folder (an empty text is the whole).
        bytes: its size, where it is known exactly.
        about: its size, where it is known about.
        sha256: its digest, where it is known.
    """

    url: str = ""
    hub: str = ""
    revision: str = ""
    file: str = ""
    to: str = ""
    unpack: Mapping[str, str] = field(default_factory=dict)
    bytes: int | None = None
    about: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """What it is called where it lies."""
        return PurePosixPath(self.file or urlsplit(self.url).path).name

    @property
    def size(self) -> int | None:
        """How much it is, exactly or about; None where nobody says it."""
        return self.about if self.bytes is None else self.bytes

    @property
    def address(self) -> str:
        """Where it lies, as one writes it."""
        return self.url or f"hf:{self.hub}@{self.revision}/{self.file}"


@dataclass(frozen=True)
class Published:
    """A data set or knowledge base that somebody published.

    Attributes:
        title: its name in print.
        folder: of the data folder, where readers look for it.
        licence: of the data.
        citation: paper that introduced it.
        source: the page of its publishers.
        tasks: that read it.
        importers: that read it.
        note: what else to know, such as who says the digests.
        parts: to fetch; none where it may not be, or cannot.
        files: that archives hold, or other copies, and whose content is known.
        by_hand: why it is not fetched and how to get it, where there are no parts.
        name: what it is fetched by.
    """

    title: str
    folder: str
    licence: str
    citation: str
    source: str
    tasks: tuple[str, ...] = ()
    importers: tuple[str, ...] = ()
    note: str = ""
    parts: tuple[Part, ...] = ()
    files: tuple[Known, ...] = ()
    by_hand: str = ""
    name: str = ""

    @property
    def size(self) -> int | None:
        """How much is fetched; None where nobody says it of all parts."""
        sizes = [part.size for part in self.parts]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    @property
    def shown_size(self) -> str:
        """How much is fetched, in words."""
        least = sum(part.size or 0 for part in self.parts)
        if self.size is not None:
            return readable(self.size)
        return f"{readable(least)} and more" if least else "unknown"

    @property
    def known(self) -> Mapping[str, Known]:
        """Every file whose content is known, by its path in the folder."""
        plain = [
            Known(part.to, part.bytes, part.sha256)
            for part in self.parts
            if part.to and part.sha256 and part.bytes is not None
        ]
        return {each.path: each for each in (*plain, *self.files)}


@cache
def published() -> Mapping[str, Published]:
    """Returns all that is known, by name.

    A package or file of a plugin that is broken is left out with a
    :class:`~kbench.parts.registry.PluginWarning`.
    """
    found: dict[str, Published] = {}
    origin: dict[str, str] = {}
    for name in registry.names(Kind.DOWNLOADS):
        try:
            package = registry.get(Kind.DOWNLOADS, name).__name__
            for each in _in(package):
                if each.name in found:
                    both = f"{origin[each.name]} and {package}"
                    raise PluginError(f"the data set {each.name!r} is offered by {both}")
                found[each.name], origin[each.name] = each, package
        except (PluginError, DataError) as error:
            warnings.warn(f"left out: {error}", PluginWarning, stacklevel=2)
    return dict(sorted(found.items()))


def find(name: str) -> Published:
    """Returns a data set by its own name, or that of a task or importer that reads it.

    Raises:
        UsageError: there is none; the nearest are named.
    """
    known = published()
    if name in known:
        return known[name]
    readers = {reader: each for each in known.values() for reader in (*each.tasks, *each.importers)}
    if name in readers:
        return readers[name]
    raise UsageError(f"nothing to fetch is called {name!r}{nearest(name, {*known, *readers})}")


def sequence(names: Sequence[str]) -> list[Published]:
    """Returns the data sets of several names, each once, in their order.

    Raises:
        UsageError: nothing is called so.
    """
    return [*{each.name: each for each in map(find, names)}.values()]


def inside(path: str) -> bool:
    """Whether a relative path stays in its folder on any system."""
    plain = PurePosixPath(path)
    return (
        bool(path.strip("/."))
        and not plain.is_absolute()
        and ".." not in plain.parts
        and not re.search(r'[\\:*?"<>|\x00-\x1f]', path)
    )


def reachable(url: str) -> bool:
    """Whether an address is https; or http of this very machine, which nobody listens in on."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or is_loopback(url))


def is_loopback(url: str) -> bool:
    """Whether an address is http of this very machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        own = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        own = False
    return parts.scheme == "http" and own


def _in(package: str) -> Iterator[Published]:
    paths = [path for path in files(package).iterdir() if path.name.endswith(".json")]
    for path in sorted(paths, key=lambda path: path.name):
        where = f"{package}/{path.name}"
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            made: Published = _made(Published, value)
            yield _sound(made, path.name.removesuffix(".json"))
        except (ValueError, RecursionError) as cause:
            raise DataError(where, first_line(cause), _EXPECTED) from None


def _made(kind: Any, value: Any) -> Any:
    """Makes a class of this module of a JSON object, each key of which must be a field of it.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a {kind.__name__} is {type(value).__name__}, not an object")
    hints = get_type_hints(kind)
    for key in value:
        if key not in hints or (key == "name" and kind is Published):
            raise ValueError(f"has the key {key!r}, which nobody reads")
    try:
        return kind(**{key: _typed(item, hints[key], key) for key, item in value.items()})
    except TypeError as cause:  # what has to be there is not
        raise ValueError(str(cause)) from None


def _typed(value: Any, hint: Any, key: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list):
        item = inner[0]
        return tuple(_typed(one, str, key) if item is str else _made(item, one) for one in value)
    if origin is Mapping and isinstance(value, dict):
        return {name: _typed(one, str, key) for name, one in value.items()}
    allowed = inner if origin is not None else (hint,)
    if type(value) not in allowed:
        raise ValueError(f"{key} is {json.dumps(value)[:60]}")
    return value


def _sound(made: Published, name: str) -> Published:
    """Returns it with its name.

    Raises:
        ValueError: an address is not safe, a path leaves the folder, a digest is none, or it is
            neither said how to fetch it nor why not.
    """
    if not inside(made.folder):
        raise ValueError(f"folder is {made.folder!r}, which is no folder in another")
    if bool(made.parts) == bool(made.by_hand):
        raise ValueError("has parts and by_hand, or neither")
    for part in made.parts:
        _check_part(part)
    for each in made.files:
        _check_content(each.path, each.bytes, each.sha256)
    return Published(**{**vars(made), "name": name})


def _check_part(part: Part) -> None:
    on_hub = bool(part.hub and part.revision and part.file)
    if bool(part.url) == on_hub:
        raise ValueError("a part has neither url nor hub, revision and file, or both")
    if part.url and not reachable(part.url):
        raise ValueError(f"url is {part.url!r}, which is not https")
    if bool(part.to) == bool(part.unpack):
        raise ValueError(f"{part.address} has neither to nor unpack, or both")
    _check_content(part.to or part.name, part.bytes, part.sha256)
    for member, target in part.unpack.items():
        if member.endswith("/") != (target == "" or target.endswith("/")):
            raise ValueError(f"unpacks {member!r} to {target!r}: a file to a folder")
        for path in filter(None, (member, target)):
            if not inside(path):
                raise ValueError(f"unpack has {path!r}, which leaves the folder")


def _check_content(path: str, size: int | None, digest: str | None) -> None:
    if not inside(path):
        raise ValueError(f"the path {path!r} leaves the folder")
    if size is not None and size < 0:
        raise ValueError(f"{path} has {size} bytes")
    if digest is not None and not _SHA256.fullmatch(digest):
        raise ValueError(f"{path} has the sha256 {digest!r}")


def readable(size: float) -> str:
    """Returns a number of bytes in words: ``14.3 MB``."""
    power = next(n for n in range(len(_UNITS)) if size < 1000 ** (n + 1) or n == len(_UNITS) - 1)
    return f"{size / 1000**power:.{1 if power else 0}f} {_UNITS[power]}"
