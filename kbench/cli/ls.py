"""`kbench ls`: what is installed, from metadata and source text alone; nothing is imported."""

from __future__ import annotations

import json

import click

from kbench.errors import UsageError, nearest
from kbench.parts.catalogue import Entry, Kind, entries
from kbench.parts.source_text import declared, defaults, settings, summary

__all__ = ["ls"]

_COLUMNS = ("name", "what it is", "from")
_OF_METHODS = ("name", "year", "settings", "needs", "from")
_STYLES = {"name": "bold", "from": "dim"}


@click.command("ls")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
def ls(kind: str | None, as_json: bool) -> None:
    """List the parts of a KIND, or all.

    Kinds: tasks, methods, backbones, tunings, knowledge, importers, executors, verbs (that
    distributions add to kbench's own) and published (figures of papers).
    """
    if kind is not None and kind not in list(Kind):
        raise UsageError(f"cannot list {kind!r}{nearest(kind, Kind)}")
    listed = [entry for each in Kind if kind in (None, each) for entry in entries(each)]
    if as_json:
        for entry in listed:
            print(json.dumps(_value(entry), ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    from kbench.cli.terminal import Console

    columns = _OF_METHODS if kind == Kind.METHODS else _COLUMNS
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name == "name")
    last = None
    for entry in listed:
        if kind is None and entry.kind != last:
            table.add_row(Text(str(entry.kind), style="bold cyan"))
        last = entry.kind
        cells = _columns(entry)
        table.add_row(*(Text(cells[name], style=_STYLES.get(name, "")) for name in columns))
    Console().print(table)


def _columns(entry: Entry) -> dict[str, str]:
    card = declared(entry)
    return {
        "name": entry.name,
        "what it is": summary(entry),
        "from": entry.distribution,
        "year": str(card.get("year") or ""),
        "settings": ", ".join(settings(entry)),
        "needs": str(card.get("needs", "")),
    }


def _value(entry: Entry) -> dict[str, object]:
    value: dict[str, object] = {
        "kind": entry.kind,
        "name": entry.name,
        "summary": summary(entry),
        "distribution": entry.distribution,
        "target": entry.target,
        "card": declared(entry),
    }
    if entry.kind == Kind.METHODS:
        value |= {"settings": settings(entry), "defaults": defaults(entry)}
    return value
