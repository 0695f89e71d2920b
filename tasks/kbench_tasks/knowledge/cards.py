"""The card of an imported bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kbench.knowledge.importing import Importer, Option, Options, Report

__all__ = ["LICENCE", "card_of", "note_unread"]

_SHOWN = 10

LICENCE = Option("of the release, for the card; default: that of the usual one")


def card_of(
    importer: Importer, options: Options, report: Report, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the card of what an importer has read.

    Args:
        importer: gives title, licence and source.
        options: with a ``licence``; files that they name are kept by name, without their folders.
        report: how many rows were read, kept and dropped.
        about: the ``name`` of the bundle, the ``files`` that were read, and what else the card
            should say.
    """
    shown = {key: value for key, value in about.items() if key != "files"}
    beside = [path.name for key, o in importer.options.items() if o.path
              for path in options.paths(key)]  # fmt: skip
    return {
        "version": "1",
        "title": importer.card.title,
        "licence": options.text("licence") or importer.card.licence,
        "source": importer.card.source,
        **shown,
        "import": {
            "format": type(importer).__module__.rpartition(".")[2].replace("_", "-"),
            "revision": importer.revision,
            "files": [*about["files"], *beside],
            **report.as_json(),
        },
    }


def note_unread(report: Report, source: Path, read: Iterable[str], options: Options) -> None:
    """Notes which files of a folder are not read.

    Args:
        report: where to.
        source: the folder.
        read: names of files in it that are read.
        options: files that they name are read too.
    """
    known = {*read}
    given = {value for values in options.values.values() for value in values}
    others = [
        path.name
        for path in sorted(source.iterdir())
        if not path.name.startswith(".")
        and path.name not in known
        and not any(Path(value).is_file() and path.samefile(value) for value in given)
    ]
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        report.note(f"not read: {', '.join(others[:_SHOWN])}{more}")
