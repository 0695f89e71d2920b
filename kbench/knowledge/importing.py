"""Importers: published layouts of knowledge bases, read into bundles.

An importer is a part like any other: a class registered under ``kbench.importers``. Its own
options reach it as ``KEY=VALUE`` pairs and are checked here, the same way for every format. What
it reads, keeps and drops is counted in a :class:`Report`; nothing is dropped in silence.

Free of torch.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tempfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar, cast, final

from kbench.data.files import atomic_folder, is_irregular
from kbench.errors import DataError, UsageError, first_line, nearest
from kbench.knowledge.bundle import Bundle
from kbench.knowledge.writing import LONGEST_ID, check_alone

__all__ = [
    "PACKED",
    "Importer",
    "ImporterCard",
    "Option",
    "Options",
    "Report",
    "by_id",
    "check_name",
    "check_target",
    "fields",
    "read_lines",
    "read_rows",
    "read_whole",
]

_T = TypeVar("_T")
_SHOWN = 5
"""Bad rows of one file that are spelled out; the rest are only counted."""
PACKED = (".gz", ".bz2", ".xz")
"""Endings of the names of packed files."""
_EMPTY_BZ2 = b"\x17\x72\x45\x38\x50\x90"
_NOTES = 20
"""Notes of one import that are kept."""
_LONGEST = 4 << 20
"""Bytes of a line: packed, a file of a few kilobytes can hold a line that fills the memory."""
_LONG = ("text", "row", "label")
"""What is no id, and may be long."""
_LARGEST = 4 << 30
"""Bytes of a file that is read as a whole."""
_WATCHED = 20_000
"""Rows between two calls of who watches."""


@dataclass(frozen=True)
class ImporterCard:
    """What a user must know of a format.

    Attributes:
        title: of the release or layout.
        layout: the files that SRC must hold, in one line.
        source: where such data comes from.
        licence: of the usual release; goes into the card of the bundle.
        citation: paper that introduced it, as of a task's card: ``Authors: Title, Venue Year``;
            empty where there is none.
    """

    title: str
    layout: str
    source: str
    licence: str
    citation: str = ""


@dataclass(frozen=True)
class Option:
    """A ``KEY=VALUE`` of an importer.

    Attributes:
        help: one line.
        default: the value when it is not given; None for none.
        choices: the values allowed; empty for any.
        path: the value is a file that must exist.
        repeatable: may be given more than once.
    """

    help: str
    default: str | None = None
    choices: tuple[str, ...] = ()
    path: bool = False
    repeatable: bool = False

    @property
    def value(self) -> str:
        """What is given, in words: one of its choices, a file or any text."""
        if self.choices:
            return "|".join(self.choices)
        return "FILE" if self.path else "TEXT"

    @property
    def told(self) -> str:
        """Its help, with its default and whether it may be repeated."""
        default = f"; default: {self.default}" if self.default is not None else ""
        return f"{self.help}{default}{'; repeatable' if self.repeatable else ''}"


@dataclass(frozen=True)
class Options:
    """The checked options of one import."""

    values: Mapping[str, tuple[str, ...]]

    def text(self, key: str) -> str | None:
        """Returns the value of a key, or None."""
        given = self.values[key]
        return given[0] if given else None

    def paths(self, key: str) -> tuple[Path, ...]:
        """Returns the files given for a key, in their order."""
        return tuple(Path(value) for value in self.values[key])


@dataclass
class Report:
    """What an import read, kept and dropped, by kind of row (``triples``, ``sentences``, …).

    Attributes:
        read: rows seen.
        kept: rows that went into the bundle.
        dropped: rows left out, by kind and reason; ``malformed`` is the reason of bad rows.
        facts: other numbers worth knowing.
        examples: the first malformed rows of each file, with their line numbers.
        notes: what whoever imports should know beyond counts, a line each.
        watch: is told a kind of row and how many were read so far, now and then.
    """

    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    facts: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    watch: Callable[[str, int], None] | None = None

    def see(self, kind: str, count: int = 1) -> None:
        """Counts rows of a kind that were read."""
        before = self.read[kind]
        self.read[kind] = before + count
        if self.watch and before // _WATCHED != (before + count) // _WATCHED:
            self.watch(kind, before + count)

    def drop(self, kind: str, reason: str, count: int = 1) -> None:
        """Counts rows of a kind that are well-formed and left out."""
        self.dropped.setdefault(kind, Counter())[reason] += count

    def malformed(self, kind: str, where: str, problem: str, before: int) -> None:
        """Counts a bad row, and spells it out if few of its file came ``before``."""
        self.drop(kind, "malformed")
        if before < _SHOWN:
            self.examples.append(f"{where}: {problem}; the {kind} row is left out")

    def note(self, line: str) -> None:
        """Keeps a line of what should be known, if there are not many yet."""
        if len(self.notes) < _NOTES and line not in self.notes:
            self.notes.append(line)

    def as_json(self) -> dict[str, Any]:
        """Returns the counts, by kind, and the notes."""
        kinds = dict.fromkeys([*self.read, *self.dropped])
        rows = {
            kind: {
                "read": self.read[kind],
                "kept": self.kept[kind],
                "dropped": dict(self.dropped.get(kind, {})),
            }
            for kind in kinds
        }
        return {"rows": rows, "facts": dict(self.facts), "notes": list(self.notes)}


class Importer(ABC):
    """Reads one published layout into a bundle.

    Give a ``card``, the ``options`` it understands, and implement :meth:`convert`.
    """

    revision: ClassVar[str] = "1"
    card: ClassVar[ImporterCard]
    options: ClassVar[Mapping[str, Option]] = {}

    @abstractmethod
    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        """Reads ``source`` and writes a bundle to ``target``, a path where nothing is yet.

        Raises:
            DataError: a file is missing, or is not of the format at all.
        """

    @final
    def run(
        self,
        source: Path,
        target: Path,
        given: Iterable[tuple[str, str]] = (),
        *,
        replace: bool = False,
        watch: Callable[[str, int], None] | None = None,
    ) -> tuple[Bundle, Report]:
        """Imports a knowledge base; ``target`` appears whole or not at all.

        Args:
            source: folder of the release.
            target: where the bundle goes.
            given: the options, as pairs in the order given.
            replace: whether a bundle that is there already may be replaced.
            watch: is told a kind of row and how many were read so far, now and then.

        Raises:
            UsageError: an option is not understood, or the target may not be replaced.
            DataError: a file is missing, or is not of the format at all.
        """
        checked = self.check(given)
        if not source.is_dir():
            raise DataError(source, "is no folder", self.card.layout)
        check_target(target, replace)
        report = Report(watch=watch)
        with _staged(target) as stage:
            self.convert(source, stage, checked, report)
        bundle = Bundle(target)
        entities, facts = bundle.unnamed()
        if entities:
            report.facts["entities without a name"] = entities
            report.facts["facts not told for want of a name"] = facts
        for kind, rows in report.read.items():
            if rows and not report.kept[kind]:
                report.note(f"none of the {rows} {kind} rows was kept")
        return bundle, report

    @classmethod
    def check(cls, given: Iterable[tuple[str, str]]) -> Options:
        """Checks ``KEY=VALUE`` pairs against the options of the importer.

        Raises:
            UsageError: an unknown key, a value that is not allowed, or a key given twice.
            DataError: a file that does not exist.
        """
        by_key: dict[str, list[str]] = {}
        for key, value in given:
            if key not in cls.options:
                raise UsageError(f"{cls.__name__} has no option {key!r}{nearest(key, cls.options)}")
            _check_value(key, value, cls.options[key])
            by_key.setdefault(key, []).append(value)
            if len(by_key[key]) > 1 and not cls.options[key].repeatable:
                raise UsageError(f"option {key!r} was given more than once; expected one value")
        defaults = {k: () if o.default is None else (o.default,) for k, o in cls.options.items()}
        return Options({**defaults, **{key: tuple(values) for key, values in by_key.items()}})


def _check_value(key: str, value: str, option: Option) -> None:
    if option.choices and value not in option.choices:
        raise UsageError(f"option {key}={value!r} is not allowed{nearest(value, option.choices)}")
    if option.path and not Path(value).is_file():
        raise DataError(value, "is no file", f"what option {key!r} asks for: {option.help}")


def check_target(target: Path, replace: bool) -> None:
    """Refuses a place where a bundle may not be written.

    Raises:
        UsageError: something else is there, or a bundle that is not to be replaced.
        DataError: other files lie among those of the bundle.
    """
    try:
        check_name("name", target.name)
    except ValueError as cause:
        raise UsageError(f"the folder {target.name!a} {cause}; give a new folder") from None
    if target.is_dir() and not any(target.iterdir()):
        return
    if (target / "card.json").is_file():
        if not replace:
            raise UsageError(f"{target} is a knowledge bundle already; give a new one or --replace")
        check_alone(target)
    elif target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists and is no knowledge bundle; give a new folder")


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Yields a path beside ``target``; the folder written there becomes ``target`` at the end.

    A bundle is written in two steps (facts, then vectors): a crash between them must not leave
    half of it, nor take an older one away.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name[:40]}.") as work:
        stage = Path(work) / target.name
        yield stage
        with atomic_folder(target) as scratch:
            for file in stage.iterdir():
                os.replace(file, scratch / file.name)


def read_rows(
    path: Path,
    kind: str,
    parse: Callable[[str], _T],
    report: Report,
    expected: str,
    header: int = 0,
) -> Iterator[tuple[int, _T]]:
    """Yields the rows of a text file with their line numbers, skipping those that are malformed.

    A row is malformed if it is not UTF-8 or ``parse`` raises ValueError for it. Blank lines hold
    no row.

    Args:
        path: the file, UTF-8, one row a line; unpacked on the way if it is packed.
        kind: what the rows are, for the report.
        parse: makes a value of a line (without its end).
        report: where rows read and malformed ones are counted.
        expected: the format in words.
        header: number of lines at the top that are no rows.

    Raises:
        DataError: the file cannot be read, or more of its rows are malformed than not: it is
            not of this format.
    """
    good = bad = 0
    first: tuple[int, str] | None = None
    for number, line in read_lines(path, expected):
        if number <= header or not line.strip():
            continue
        report.see(kind)
        try:
            value = parse(line.decode("utf-8"))
        except (ValueError, RecursionError) as cause:
            problem = "is not UTF-8" if isinstance(cause, UnicodeDecodeError) else str(cause)
            report.malformed(kind, f"{path}, line {number}", problem, before=bad)
            bad += 1
            first = first or (number, problem)
            continue
        good += 1
        yield number, value
    if first and bad > good:
        raise DataError(path, f"{first[1]} ({bad} of {good + bad} rows)", expected, line=first[0])


def read_lines(path: Path, expected: str) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a file without their ends, numbered from 1.

    What gzip, bzip2 or xz packed is unpacked a part at a time, whatever the file is called.

    Args:
        path: the file.
        expected: the format in words, for errors.

    Raises:
        DataError: the file is missing or cannot be read, or a line is longer than any row is.
    """
    with _opened(path, expected) as file:
        for number, line in enumerate(iter(partial(file.readline, _LONGEST), b""), 1):
            if len(line) == _LONGEST:
                raise DataError(path, f"is longer than {_LONGEST >> 20} MiB", expected, line=number)
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            yield number, text.rstrip(b"\r\n")


def read_whole(path: Path, expected: str) -> bytes:
    """Returns what a file holds, unpacked as :func:`read_lines` does.

    Args:
        path: the file.
        expected: the format in words, for errors.

    Raises:
        DataError: the file is missing or cannot be read, or is too large to be held.
    """
    with _opened(path, expected) as file:
        content = file.read(_LARGEST)
    if len(content) == _LARGEST:
        raise DataError(path, f"is larger than {_LARGEST >> 30} GiB", expected)
    return content


@contextmanager
def _opened(path: Path, expected: str) -> Iterator[IO[bytes]]:
    """Opens a file, and says in one line what stands against it."""
    try:
        with _unpacked(path) as file:
            yield file
    except FileNotFoundError:
        raise DataError(path, "is missing", expected) from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as cause:
        raise DataError(path, f"cannot be read ({first_line(cause)})", expected) from None


def _unpacked(path: Path) -> IO[bytes]:
    """Opens a file for what it holds, by its first bytes.

    Raises:
        OSError: it cannot be opened, or its name says that it is packed and it is not.
    """
    if is_irregular(path):
        raise OSError("it is no regular file")
    with path.open("rb") as file:
        start = file.read(10)
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(path))
    if start.startswith(b"\xfd7zXZ\0"):
        return cast("IO[bytes]", lzma.open(path))
    # Text may begin with BZh, but not with a number of a block and pi after it.
    if start.startswith(b"BZh") and start[4:] in (b"\x31\x41\x59\x26\x53\x59", _EMPTY_BZ2):
        return cast("IO[bytes]", bz2.open(path))
    if start and path.suffix in PACKED:
        raise OSError(f"its name ends in {path.suffix}, and it is not packed")
    return path.open("rb")


def by_id(
    rows: Iterable[tuple[int, tuple[str, _T]]], kind: str, report: Report
) -> Iterator[tuple[str, _T]]:
    """Yields rows without the blanks around their ids, those that are written so at the end.

    So a row ``" India"`` never takes the place of the row ``"India"``; it is held until all
    others are read. How many there are is a fact of the report.

    Args:
        rows: numbered rows of an id as it is written, and a value.
        kind: what the rows are, for the report.
        report: where rows with blanks around their id are counted.
    """
    held: list[tuple[str, _T]] = []
    for _, (name, value) in rows:
        bare = name.strip()
        if bare == name:
            yield name, value
        else:
            held.append((bare, value))
    if held:
        report.facts[f"{kind} with blanks around the id"] = len(held)
    yield from held


def fields(line: str, names: Sequence[str], separator: str | None = "\t") -> list[str]:
    """Splits a line into exactly the named fields, none of them empty or with a NUL.

    Raises:
        ValueError: the fields are not these.
    """
    # One more than belong there at most: a line may be nothing but separators.
    values = [field.strip() for field in line.split(separator, len(names))]
    if len(values) != len(names):
        number = line.count(separator) + 1 if separator else len(values)
        raise ValueError(f"has {number} fields where {' '.join(names)} belong")
    for name, value in zip(names, values, strict=True):
        check_name(name, value)
    return values


def check_name(what: str, value: str) -> str:
    """Returns an id or name if it can be one: not empty, no NUL, encodable.

    Raises:
        ValueError: it cannot.
    """
    if not value:
        raise ValueError(f"has an empty {what}")
    if "\0" in value:
        raise ValueError(f"has a NUL character in its {what}")
    if what not in _LONG and len(value) > LONGEST_ID:
        raise ValueError(f"has {len(value):,} letters in its {what}, more than {LONGEST_ID:,}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"has half a surrogate pair in its {what}") from None
    return value
