"""How a table in a text file is written: a header, quotation marks, the order of its columns.

Tables of triples and names come from many hands. What is certain of a file is followed, and said
in the report; what is likely and not certain is refused or said, never guessed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

from kbench.errors import DataError
from kbench.knowledge.importing import Option, Report, read_lines, read_rows

__all__ = [
    "AS_FOUND",
    "HEADER",
    "ORDER",
    "QUOTES",
    "Dialect",
    "read_table",
    "read_titles",
    "read_triple_table",
]

_T = TypeVar("_T")

QUOTES = Option("of fields: by the rules of csv, none, or as the file shows", default="auto",
                choices=("auto", "csv", "none"))  # fmt: skip
HEADER = Option("whether the first line of each file names its columns", default="auto",
                choices=("auto", "yes", "no"))  # fmt: skip
ORDER = Option("of the columns of triples: h head, r relation, t tail; default: as a header says, "
               "else hrt, refused where it looks wrong", choices=("hrt", "htr", "rht"))  # fmt: skip

_PADDED = "triples with blanks around a field"
_COUNT = re.compile(r"[0-9]{1,18}")
_WHOLE = re.compile(rb'"(?:[^"]|"")*"')
_FIELD = rb'(?:"(?:[^"]|"")*"|[^"\t]*)'
_FIELDS = re.compile(rb"(?:^|\t)(%b)" % _FIELD)
_LINE = re.compile(rb"%b(?:\t%b)*" % (_FIELD, _FIELD))
_FRAMED = re.compile(rb"""(?:^|\t)\ *(?:'[^\t]+'|"[^\t]+")\ *(?=\t|$)""")


def _words(bases: str, endings: str) -> frozenset[str]:
    pairs = product(bases.split(), ["", *endings.split()])
    return frozenset(base + ending for base, ending in pairs)


_ROLES = (
    _words("head h subject subj sub s source src from start e1 entity1 node1 arg1 left lhs item",
           "id entity entityid label name uri iri node"),
    _words("relation relationship rel r predicate pred p property prop edge link type",
           "id label name uri iri type"),
    _words("tail t object obj o target to end dst dest destination e2 entity2 node2 arg2 right rhs "
           "value", "id entity entityid label name uri iri node"),
)  # fmt: skip
"""Words for the columns of triples, without blanks, marks and case."""
_ID = _words("id qid pid entity item node key uri iri identifier concept wikidata relation rel "
             "predicate property", "id uri iri")  # fmt: skip
_VALUE = _words("label name title alias aliases altlabel preflabel text description desc abstract "
                "summary definition type class category", "s")  # fmt: skip
_LANGUAGE = re.compile(r"[\W_]+[a-z]{2,3}\W*$")
_TITLES = frozenset({"entity", "page", "article", "pagetitle", "wikipediatitle", "wikipedia"})


@dataclass(frozen=True)
class Dialect:
    """What whoever imports says of the files; ``auto`` leaves it to what they show.

    Attributes:
        header: ``auto``, ``yes`` or ``no``.
        quotes: ``auto``, ``csv`` or ``none``.
        order: of the columns of triples, ``hrt`` and the like; None for the usual one.
        hints: whether the importer has these as options, so that errors may name them.
    """

    header: str = "auto"
    quotes: str = "auto"
    order: str | None = None
    hints: bool = False

    def hint(self, option: str) -> str:
        """Returns what to add to an error that an option can settle."""
        return f"; or say which: -o {option}" if self.hints else ""


AS_FOUND = Dialect()
"""Nothing is said of the files."""


def read_table(
    path: Path,
    kind: str,
    parse: Callable[[str], _T],
    report: Report,
    expected: str,
    known: Container[str] = (),
    dialect: Dialect = AS_FOUND,
) -> Iterator[tuple[int, _T]]:
    """Yields the rows of a table of ids, in the dialect that the file shows.

    Args:
        path: the file.
        kind: what the rows are, for the report.
        parse: makes a value of a line of fields with tabs between them.
        report: where rows are counted, and the dialect is noted.
        expected: the format in words.
        known: ids that are no names of a column.
        dialect: what is said of the file.

    Raises:
        DataError: the file cannot be read, is not of this format, or its dialect is not certain.
    """
    plain, first = _plain(path, "first", expected, report, dialect)
    header = dialect.header == "yes"
    if first and dialect.header == "auto" and first[0] not in known:
        is_id = [_bare(name) in _ID for name in first]
        if is_id[0] and any(map(_is_value, first[1:])):
            header = True
        elif not is_id[0] and _is_value(first[0]) and any(is_id[1:]):
            raise DataError(path, f"begins with the columns {_shown(first)}", expected, line=1)
        elif is_id[0]:
            report.note(
                f"{path.name}, line 1: {_shown(first)} is read as a row{_if_header(dialect)}"
            )
    if header:
        report.note(f"{path.name}, line 1: {_shown(first)} is read as a header")
    yield from read_rows(path, kind, lambda line: parse(plain(line)), report, expected, int(header))


def read_triple_table(
    path: Path,
    parse: Callable[[str], _T],
    report: Report,
    expected: str,
    dialect: Dialect = AS_FOUND,
) -> Iterator[tuple[int, _T]]:
    """Yields the rows of a table of triples as :func:`read_table` does.

    A header says the order of the columns, if nobody else does; ``parse`` is given head, relation
    and tail. A first line of one number says how many rows there are, as OpenKE writes it.

    Raises:
        DataError: the file cannot be read, is not of this format, or its dialect is not certain.
    """
    plain, first = _plain(path, "all", expected, report, dialect)
    roles = [_role(name) for name in first] if dialect.header != "no" and len(first) == 3 else []
    named = {role for role in roles if role is not None}
    if len(named) == 2 and dialect.header == "auto":
        raise DataError(path, f"may begin with a header ({_shown(first)})",
                        f"{expected}, without a header or with `head TAB relation TAB tail`"
                        + dialect.hint("header=yes or header=no"), line=1)  # fmt: skip
    stated = first[0] if len(first) == 1 and _COUNT.fullmatch(first[0]) else None
    if stated and not dialect.order:
        raise DataError(path, f"begins with the number {stated} alone, as files of OpenKE do, "
                        "whose columns are head, tail, relation",
                        expected + dialect.hint("order=htr"), line=1)  # fmt: skip
    header = len(named) == 3 or dialect.header == "yes"
    if header:
        report.note(f"{path.name}, line 1: {_shown(first)} is read as a header")
    order = [(dialect.order or "hrt").index(role) for role in "hrt"]
    if len(named) == 3 and not dialect.order:
        order = [roles.index(role) for role in range(3)]
    before = report.read["triples"]

    def ordered(line: str) -> _T:
        values = plain(line).split("\t")
        if len(values) == 3:
            if any(value != value.strip() for value in values):
                report.facts[_PADDED] = report.facts.get(_PADDED, 0) + 1
            values = [values[at] for at in order]
        return parse("\t".join(values))

    top = int(header or stated is not None)
    yield from read_rows(path, "triples", ordered, report, expected, top)
    read = report.read["triples"] - before
    if stated and read != int(stated):
        raise DataError(path, f"holds {read} rows and states {stated}", expected, line=1)


def read_titles(
    path: Path, kind: str, parse: Callable[[str], _T], report: Report, expected: str
) -> Iterator[tuple[int, _T]]:
    """Yields the rows of a table ``title TAB id`` in the dialect that the file shows.

    Titles may be in quotation marks of their own.

    Raises:
        DataError: the file cannot be read or is not of this format.
    """
    plain, first = _plain(path, "none", expected, report, AS_FOUND)
    titled = len(first) == 2 and (_is_value(first[0]) or _bare(first[0]) in _TITLES)
    header = titled and _bare(first[1]) in _ID
    if header:
        report.note(f"{path.name}, line 1: {_shown(first)} is read as a header")
    yield from read_rows(path, kind, lambda line: parse(plain(line)), report, expected, int(header))


def _bare(name: str) -> str:
    """Returns the name of a column without case, marks, blanks and a number at its end."""
    return re.sub(r"[\W_]+|\d+$", "", name.casefold())


def _is_value(name: str) -> bool:
    """Whether a column is of names, texts or types: ``label_en``, ``rdfs:label``, ``itemLabel``."""
    forms = [name, *name.split(":")]
    bares = [_bare(own) for form in forms for own in (form, _LANGUAGE.sub("", form))]
    # What is labelled may stand before: itemLabel, entity_name.
    return any(
        bare in _VALUE or any(bare.removeprefix(word) in _VALUE for word in _ID if word != bare)
        for bare in bares
    )


def _role(name: str) -> int | None:
    """Returns the place of a column in a triple, by its name."""
    bare = re.sub(r"[\W_]+", "", name.casefold())
    return next((role for role, words in enumerate(_ROLES) if bare in words), None)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name[:20] for name in names[:4])


def _if_header(dialect: Dialect) -> str:
    return "; if it is a header: -o header=yes" if dialect.hints else "; leave out a header"


def _plain(
    path: Path, keys: str, expected: str, report: Report, dialect: Dialect
) -> tuple[Callable[[str], str], list[str]]:
    """Returns what takes the quotation marks off a line, and the fields of the first.

    ``keys`` says which fields are ids, whose marks can only be those of csv: all, the first, none.
    """
    marks = _Marks.of(path, expected, keys)
    quoted = dialect.quotes == "csv"
    if dialect.quotes == "auto":
        quoted = marks.certain and marks.consistent
        marks.tell(path, quoted, expected, report, dialect)
    plain = _unquoted if quoted else str
    first = marks.first.decode("utf-8", "replace")
    try:
        names = plain(first).split("\t")
    except ValueError:
        names = []
    return plain, [name.strip() for name in names] if first.strip() else []


@dataclass
class _Marks:
    """The quotation marks of a file.

    Attributes:
        first: its first line.
        consistent: whether all of them are as csv writes them.
        rows: lines that are not blank.
        marked: lines with a field that is quoted as a whole.
        keys: lines with an id that is; ``key`` is the first of them.
        doubled: lines with such a field with marks or a tab inside.
        opened: lines with a field that opens with a mark and closes nowhere.
        framed: lines with a field between two marks that are none of csv.
    """

    first: bytes = b""
    consistent: bool = True
    rows: int = 0
    marked: int = 0
    keys: int = 0
    key: int = 0
    doubled: int = 0
    opened: int = 0
    framed: int = 0

    @classmethod
    def of(cls, path: Path, expected: str, keys: str) -> _Marks:
        """Looks at all lines, closely at those with marks."""
        marks = cls()
        for number, line in read_lines(path, expected):
            if number == 1:
                marks.first = line
            if line.strip():
                marks.rows += 1
            if b'"' in line:
                marks._see(number, line, keys)
            elif b"'" in line:
                marks.framed += bool(_FRAMED.search(line))
        return marks

    def _see(self, number: int, line: bytes, keys: str) -> None:
        fits = bool(_LINE.fullmatch(line))
        self.consistent = self.consistent and fits
        wholes = [value.strip() for value in (_FIELDS.findall(line) if fits else line.split(b"\t"))]
        quoted = [bool(_WHOLE.fullmatch(value)) for value in wholes]
        self.marked += any(quoted)
        if any(quoted) if keys == "all" else quoted[0] and keys == "first":
            self.keys += 1
            self.key = self.key or number
        pairs = zip(wholes, quoted, strict=True)
        self.doubled += any(
            whole and (b'""' in value[1:-1] or b"\t" in value) for value, whole in pairs
        )
        self.opened += line.count(b'"') % 2 and any(value.startswith(b'"') for value in wholes)
        self.framed += not any(quoted) and bool(_FRAMED.search(line))

    @property
    def certain(self) -> bool:
        """Whether they can only be marks of csv, if they are consistent."""
        return bool(self.keys or self.doubled or 1 < self.rows == self.marked)

    def tell(
        self, path: Path, quoted: bool, expected: str, report: Report, dialect: Dialect
    ) -> None:
        """Notes how they are read, or refuses the file."""
        if quoted:
            report.note(f"{path.name}: quotation marks are read by the rules of csv")
        elif self.keys:
            raise DataError(path, "has ids in quotation marks, and marks that are not of csv",
                            f"{expected}, all by the rules of csv or all without"
                            + dialect.hint("quotes=csv or quotes=none"), line=self.key)  # fmt: skip
        elif self.marked:
            report.note(f"{path.name}: quotation marks around the fields of {self.marked} rows are "
                        f"kept{_csv(dialect)}")  # fmt: skip
        if 2 * self.framed > self.rows > 1:
            report.note(f"{path.name}: marks around the fields of {self.framed} rows are kept: "
                        'they are not of csv, which has " alone and doubles it inside')  # fmt: skip
        if self.opened:
            report.note(f"{path.name}: {self.opened} lines open a quotation mark and do not close "
                        "it; a field of several lines is not read as one")  # fmt: skip


def _csv(dialect: Dialect) -> str:
    return "; if they are those of csv: -o quotes=csv" if dialect.hints else ""


def _unquoted(line: str) -> str:
    """Returns the fields of a line of csv with tabs between them.

    Raises:
        ValueError: its quotation marks do not fit.
    """
    try:
        row = next(csv.reader([line], delimiter="\t", strict=True), [])
    except csv.Error as cause:
        raise ValueError(f"has quotes that do not fit ({cause})") from None
    return "\t".join(value.replace("\t", " ") for value in row)
