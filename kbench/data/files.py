"""Files written so that a crash leaves the old one or the new one, and digests of their content."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from kbench.data.system import sync_folder
from kbench.errors import DataError, first_line, one_line

__all__ = [
    "BACKBONES",
    "REMEMBERED",
    "abandoned",
    "atomic_folder",
    "cache_home",
    "canonical_digest",
    "checked_once",
    "dump_yaml",
    "file_digest",
    "front_matter",
    "identity",
    "is_file",
    "is_folder",
    "is_irregular",
    "is_of_a_file",
    "load_json",
    "parse_yaml",
    "read_front_matter",
    "read_yaml",
    "remembered",
    "write_bytes",
    "write_json",
]

REMEMBERED = ("digests", "figures", "unpacked")
"""Folders of the cache that hold what was computed of files, and cost nothing but time if lost."""
BACKBONES = "backbones"
"""The folder of the cache that holds models which were given in memory."""
_BLOCK = 1 << 20
_TICK = 50_000_000
"""Nanoseconds within which a file system may give two changes one time."""
_SCRATCH = re.compile(r"\.(?P<name>.+)\.(tmp|old)-[^.]+")
_LONGEST = 100
"""Bytes of a name that is still followed by an end of its own; file systems allow 255 in all."""


def cache_home() -> Path:
    """The folder of models, plugs and memoised digests: ``KBENCH_CACHE`` or ``~/.cache/kbench``."""
    given = os.environ.get("KBENCH_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "kbench"


def canonical_digest(value: Any) -> str:
    """SHA-256 of a JSON value; the order of keys does not count, non-finite numbers are refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, remembered for large files while they stay untouched."""
    return remembered(path, "sha256", _sha256)


def remembered(path: Path, name: str, compute: Callable[[Path], str]) -> str:
    """Returns what is computed of a file's content, from memory if it is large and untouched.

    A file is taken for untouched while its :func:`identity` is the same.

    Args:
        path: the file.
        name: of what is computed.
        compute: does it.
    """
    if path.stat().st_size < 64 * _BLOCK:
        return compute(path)
    own = identity(path)
    memo = cache_home() / "digests" / f"{canonical_digest([name, *own])[:32]}.json"
    try:
        return str(load_json(memo)[name])
    except (OSError, ValueError, KeyError, TypeError):
        value = compute(path)
    with suppress(OSError):  # a read-only cache only costs the time of doing it again
        write_json(memo, {"identity": own, name: value})
    return value


def checked_once(paths: Sequence[Path], what: str, check: Callable[[], None]) -> None:
    """Runs a check of the content of files, unless these very files have passed it before.

    Which have is kept in the cache by the :func:`identity` of each. Files that are absent, or were
    changed a moment ago, are checked again the next time: another change within the same tick of
    the clock could not be told from that one.

    Args:
        paths: of all files that the check reads.
        what: is checked; another rule needs another name.
        check: raises where something is wrong.
    """
    known = [*map(identity, paths)]
    memo = cache_home() / "digests" / f"{canonical_digest([what, known])[:32]}.json"
    whole = all(map(is_of_a_file, known))
    if whole and memo.is_file():
        return
    check()
    settled = whole and time.time_ns() - max(path.stat().st_ctime_ns for path in paths) > _TICK
    if settled and known == [*map(identity, paths)]:
        with suppress(OSError):  # a read-only cache only costs the time of doing it again
            write_json(memo, {"checked": what, "identities": known})


def identity(path: Path) -> list[str | int]:
    """Returns what of a file changes with its content, without reading it.

    Its path, size, inode and times of modification and of change, which a user cannot set back;
    of a file that is not there the path alone.
    """
    own = str(path.absolute())
    try:
        stat = path.stat()
    except OSError:
        return [own]
    return [own, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def is_of_a_file(known: list[str | int]) -> bool:
    """Whether an :func:`identity` tells one content from another: that of what is absent does not.

    Args:
        known: what :func:`identity` gave.
    """
    return len(known) > 1


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a name that no file system could have is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file system could have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_irregular(path: Path) -> bool:
    """Returns whether no file is there but, say, a pipe: to open it would wait for its writer."""
    return path.exists() and not path.is_file()


def load_json(path: Path) -> Any:
    """Parses a UTF-8 JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, no JSON, or nested too deep to be followed.
    """
    if is_irregular(path):
        raise ValueError("it is no regular file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


_YAML_BYTES, _YAML_VALUES = 4 << 20, 100_000
"""What a YAML file may have, and what it may unpack to: aliases are counted wherever they stand."""

_CORE: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII), "-+0123456789"),
    (
        "float",
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            re.ASCII,
        ),
        "-+.0123456789",
    ),
    ("null", re.compile(r"~|null|Null|NULL|"), "~nN\0"),
    ("merge", re.compile(r"<<"), "<"),
)
"""Which plain words are no text in YAML 1.2 (core schema), with the signs that they begin with."""


class _Loader(yaml.SafeLoader):
    """Plain values of YAML 1.2 alone, and no key twice in a mapping.

    The library reads YAML 1.1, in which 010 is eight, 12:30 is 750, ``no`` is false, and 1e-4 is
    text: nobody who writes these without quotes means that.
    """

    _nodes = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Reads a value, and counts it before the next is read."""
        self._nodes += 1
        if self._nodes > _YAML_VALUES:
            raise yaml.YAMLError(f"holds more than {_YAML_VALUES:,} values")
        return super().compose_node(parent, index)

    def get_single_node(self) -> yaml.Node | None:
        """Reads a document that unpacks to no more than it may, aliases and merges included."""
        node = super().get_single_node()
        if node is not None and _unpacked(node, {}) > _YAML_VALUES:
            raise yaml.YAMLError(f"would unpack to more than {_YAML_VALUES:,} values")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Reads a mapping as it is written: what ``<<`` brings in may have keys of its own."""
        node = super().compose_mapping_node(anchor)
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                written = key.tag.endswith(":merge")  # a sign, of which no value is made
                name = key.value if written else self.construct_object(key)
                if name in seen:
                    problem = f"key {name!r} is there twice, first in line {seen[name]}"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen[name] = key.start_mark.line + 1
        return node

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        """Reads a whole number: zeros in front change nothing, 0o is octal, 0x hexadecimal."""
        text = str(self.construct_scalar(node))
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads, and readers of YAML 1.1 likewise.

    Text that looks like anything else to either is put in quotes.
    """


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)
for _name, _words, _first in _CORE:
    _pattern = re.compile(rf"(?:{_words.pattern})$", _words.flags)
    _signs = ["" if sign == "\0" else sign for sign in _first]
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, _signs)


def _unpacked(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, each alias for all that it names; a circle counts once."""
    if id(node) not in known:
        known[id(node)] = 1
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        items = node.value if isinstance(node, yaml.SequenceNode) else ()
        inner = [*items, *(each for pair in pairs for each in pair)]
        known[id(node)] = 1 + sum(_unpacked(each, known) for each in inner)
    return known[id(node)]


def dump_yaml(value: Any, style: str | None = None, *, readable: bool = True) -> str:
    """Returns a value as YAML in one line, as :func:`parse_yaml` reads it.

    Args:
        value: of plain values.
        style: quotes that text is put in.
        readable: whether what is not ASCII stays as it is, or is escaped.
    """
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        default_style=style,
        allow_unicode=readable,
        width=2**31,
    )
    return str(text).removesuffix("\n").removesuffix("\n...")


def front_matter(head: Mapping[str, Any], text: str = "") -> str:
    """Returns a page of Markdown with a mapping before it, as the Hugging Face hub reads cards.

    Args:
        head: of plain values.
        text: of the page.
    """
    return f"---\n{dump_yaml(dict(head))}\n---\n" + (f"\n{text}" if text else "")


def read_front_matter(path: Path) -> dict[str, Any]:
    """Returns the mapping before a page of Markdown; nothing where there is none that can be read.

    Args:
        path: the page.
    """
    try:
        with path.open("rb") as file:
            lines = file.read(_YAML_BYTES).decode().splitlines()
        end = lines.index("---", 1)
        head = parse_yaml("\n".join(lines[1:end])) if lines[0] == "---" else None
    except (OSError, ValueError, yaml.YAMLError):  # what another wrote for people
        return {}
    return head if isinstance(head, dict) else {}


def parse_yaml(text: str) -> Any:
    """Parses YAML 1.2 (core schema); nothing but plain values is made of it.

    Raises:
        yaml.YAMLError: it is none, or a mapping has a key twice.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError:
        raise
    except Exception as cause:  # PyYAML fails in many ways at a number or truth that is none
        raise yaml.YAMLError(f"{type(cause).__name__}: {first_line(cause)[:200]}") from None


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """Reads a YAML mapping; nothing but plain values is made of it.

    Raises:
        DataError: it is missing, is no YAML, has a key twice in a mapping, or is no mapping with
            names for keys.
    """
    try:
        if is_irregular(path) and not path.is_dir():
            raise OSError("it is no regular file")
        with path.open("rb") as file:
            content = file.read(_YAML_BYTES + 1)
        if len(content) > _YAML_BYTES:
            raise DataError(path, f"is longer than {_YAML_BYTES:,} bytes", expected)
        values = parse_yaml(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read())
    except OSError as cause:
        raise DataError(path, f"cannot be read ({first_line(cause)})", expected) from None
    except UnicodeDecodeError:
        raise DataError(path, "is not UTF-8 text", expected) from None
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        problem = getattr(cause, "problem", None) or f"is not YAML ({one_line(cause)})"
        raise DataError(path, problem, expected, mark.line + 1 if mark else None) from None
    if not isinstance(values, dict):
        raise DataError(path, f"holds {type(values).__name__}", expected)
    for key in values:
        if not isinstance(key, str):
            raise DataError(path, f"has the key {key!r}, which is no text", expected)
    return values


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, with two blanks of indent, in the order of the keys given."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Half of a surrogate pair (a file name in an error, say) is written as JSON's escape of it.
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: temporary neighbour, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes ``target`` if the block ends well, else vanishes.

    An existing ``target`` is replaced. Writers of one target take turns by a lock beside it; what
    a killed one left is cleared away by the next.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    name = _short(target.name)
    with FileLock(target.parent / f".{name}.lock"):
        _clear(target, name)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}.tmp-"))
        try:
            scratch.chmod(0o755)
            yield scratch
            for file in scratch.rglob("*"):
                if file.is_file():
                    with file.open("rb") as opened:
                        os.fsync(opened.fileno())
            if target.exists():
                # A folder cannot be renamed over a full one: move the old one aside first.
                old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}.old-"))
                os.replace(target, old / "folder")
                try:
                    os.replace(scratch, target)
                except BaseException:
                    os.replace(old / "folder", target)
                    old.rmdir()
                    raise
                shutil.rmtree(old)
            else:
                os.replace(scratch, target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        sync_folder(target.parent)


@contextmanager
def removed_folder(target: Path) -> Iterator[None]:
    """Removes a folder if the block ends well, and leaves it else; its writers wait meanwhile.

    It is renamed before it is emptied, so that nobody ever reads half of it, and whatever lies in
    it is taken away without a link being followed.
    """
    name = _short(target.name)
    with FileLock(target.parent / f".{name}.lock"):
        yield
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}.tmp-"))
        try:
            os.replace(target, scratch / "removed")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        sync_folder(target.parent)


def abandoned(folder: Path) -> Iterator[Path]:
    """Yields the scratch folders in a folder whose writers are gone, each while it is locked.

    Who writes holds a lock, and the system takes it from who dies: no clock is asked.
    """
    for path in sorted(folder.glob(".*")):
        scratch = _SCRATCH.fullmatch(path.name)
        if scratch and path.is_dir():
            try:
                with FileLock(folder / f".{scratch['name']}.lock", timeout=0):
                    yield path
            except Timeout:
                continue


def _clear(target: Path, name: str) -> None:
    """Removes what a killed writer of a target left; called under its lock."""
    for path in target.parent.glob(".*"):
        scratch = _SCRATCH.fullmatch(path.name)
        if scratch and scratch["name"] == name:
            if (path / "folder").exists() and not target.exists():
                os.replace(path / "folder", target)  # killed between taking away and putting back
            shutil.rmtree(path, ignore_errors=True)


def _short(name: str) -> str:
    """Returns a name, or what stands for it where nothing more could be written behind it."""
    content = os.fsencode(name)
    if len(content) <= _LONGEST:
        return name
    return f"{name[:20]}-{hashlib.sha256(content).hexdigest()[:16]}"
