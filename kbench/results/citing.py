"""Whom to cite for stored results: their tasks, methods and knowledge bases, as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kbench import __version__
from kbench.errors import KbenchError, one_line
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.find import find_knowledge, task_of
from kbench.parts.source_text import declared
from kbench.store import Result

__all__ = ["Work", "bibtex", "cited"]

_PAPER = re.compile(r"(?P<authors>[^:]+): (?P<title>.+), (?P<venue>[^,]+?) (?P<year>[12]\d{3})\b")
_PRINTED = re.compile(r"(?P<title>[^()]+?) \((?:(?P<venue>[^(),:]+?) )?(?P<year>[12]\d{3})\)")
_AFTER = re.compile(
    r"\((?:after |[a-z]+: )?(?P<title>[A-Z][^()]+), (?:(?P<venue>[^,()]+?) )?(?P<year>[12]\d{3})\)"
)
"""The paper that something of kbench's own goes back to."""
_ANTHOLOGY = re.compile(r"[A-Z]\d\d-\d{4}|\d{4}\.[a-z0-9-]+\.\d+", re.ASCII)
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})", re.ASCII)
_DOI = re.compile(r"(?:doi:)?(10\.\d{4,}/[^\s{}]+)", re.ASCII)
_SPECIAL = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


@dataclass
class Work:
    """Something to cite.

    Attributes:
        key: of the entry.
        fields: by name, as plain text.
        used: for what: ``task lama``.
    """

    key: str
    fields: dict[str, str]
    used: list[str] = field(default_factory=list)


def cited(results: Iterable[Result]) -> tuple[list[Work], list[str]]:
    """Returns what results make use of, kbench first, and what nothing is known of.

    Args:
        results: of any status.
    """
    title = "kbench: a benchmark of knowledge injection into frozen language models"
    own = {"title": title, "author": "The kbench developers", "version": __version__}
    works = {_plainly(title): Work("kbench", own)}
    unknown: dict[str, None] = {}
    for result in results:
        for what, told in _parts(result):
            if not told:
                unknown[what] = None
            for fields in told:
                same = _plainly(fields["title"])
                work = works.setdefault(same, Work(_key(fields, works.values()), {}))
                # Of a paper that several parts stand on one may say more than another.
                work.fields = {**fields, **work.fields}
                if what not in work.used:
                    work.used.append(what)
    return [*works.values()], [*unknown]


def bibtex(works: Iterable[Work]) -> str:
    """Returns entries of BibTeX, each ``@misc``, with what it is cited for as its note."""
    entries = []
    for work in works:
        fields = {**work.fields, **({"note": ", ".join(work.used)} if work.used else {})}
        lines = [f"  {name} = {{{_written(name, text)}}}," for name, text in fields.items()]
        entries.append("\n".join([f"@misc{{{work.key},", *lines, "}"]))
    return "\n\n".join(entries)


def _written(name: str, text: str) -> str:
    shown = one_line(text) if name == "url" else "".join(_SPECIAL.get(c, c) for c in one_line(text))
    # Else BibTeX takes a name of several words for that of a person, and capitals for small ones.
    return f"{{{shown}}}" if name == "title" or shown == "The kbench developers" else shown


def _parts(result: Result) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yields each part of a run with the works it stands on; none if its card says nothing."""
    spec = result.spec
    with suppress(KbenchError):  # data that are not here still have a card, but of `custom`
        task = task_of(spec).card
        yield f"task {spec.task}", _works(task.citation, task.source, task.title)
    if spec.method in registry.names(Kind.METHODS):
        # Read from the source: to import a method takes seconds.
        about = declared(registry.find(Kind.METHODS, spec.method))
        if paper := str(about.get("paper", "")):
            yield f"method {spec.method}", [_method(about, paper)]
    if spec.knowledge is not None:
        with suppress(KbenchError):
            card = find_knowledge(spec.knowledge).card
            title = str(card.get("title") or card.get("name", ""))
            source, version = str(card.get("source", "")), str(card.get("version", ""))
            fields = {"title": title, "howpublished": source, "version": version}
            own = [{name: text for name, text in fields.items() if text}]
            yield f"knowledge {title}", _works(_citation(card), "", "") or own


def _citation(card: Mapping[str, Any]) -> str:
    """The papers of the format that a knowledge base was imported from, if it is known here."""
    made = card.get("import")
    name = str(made.get("format", "")) if isinstance(made, Mapping) else ""
    if name not in registry.names(Kind.IMPORTERS):
        return ""
    return str(declared(registry.find(Kind.IMPORTERS, name)).get("citation", ""))


def _method(about: Mapping[str, Any], paper: str) -> dict[str, str]:
    """The paper of a method as its card names it: ``Title (Venue Year)``, or within a sentence."""
    year, citation = str(about.get("year", "")), str(about.get("citation", ""))
    found = _AFTER.search(paper) or _PRINTED.match(paper)
    fields = {"title": found["title"] if found else paper}
    if authors := str(about.get("authors", "")):
        fields["author"] = _authors(authors)
    if found and found["venue"]:
        fields["howpublished"] = found["venue"]
    fields["year"] = found["year"] if found else year
    if found := _ARXIV.fullmatch(citation):
        fields["url"] = f"https://arxiv.org/abs/{found[1]}"
    elif _ANTHOLOGY.fullmatch(citation):
        fields["url"] = f"https://aclanthology.org/{citation}"
    elif found := _DOI.fullmatch(citation):
        fields["url"] = f"https://doi.org/{found[1]}"
    return fields


def _works(citation: str, source: str, title: str) -> list[dict[str, str]]:
    """The papers that a card names, as ``Authors: Title, Venue Year; …``; else the card's title."""
    found = [
        {
            "title": paper["title"],
            "author": _authors(paper["authors"]),
            "howpublished": paper["venue"],
            "year": paper["year"],
        }
        for piece in citation.split("; ")
        if (paper := _PAPER.match(piece.strip()))
    ]
    return found or ([{"title": title, "howpublished": source}] if title else [])


def _plainly(title: str) -> str:
    """What two ways to write one title have in common."""
    return re.sub(r"\W+", " ", title.casefold()).strip()


def _authors(text: str) -> str:
    """Names as BibTeX joins them, without words before them such as ``split of``."""
    names = re.sub(r"^.*\b(?:of|by) ", "", text.strip()).replace(" et al.", ", others")
    return " and ".join(re.split(r", | and ", names))


def _key(fields: dict[str, str], known: Iterable[Work]) -> str:
    """A key of the first author, year and first long word of the title; numbered if it is taken."""
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", fields["title"]) if len(word) > 3]
    surname = fields.get("author", "").split(" and ")[0].rpartition(" ")[2]
    author = re.sub(r"[^a-z]", "", surname.lower())
    stem = f"{author}{fields.get('year', '')}{words[0] if words else ''}" or "work"
    taken, key, number = {work.key for work in known}, stem, 2
    while key in taken:
        key, number = f"{stem}{number}", number + 1
    return key
