"""`kbench ls`: what is installed, from metadata and source text alone; nothing is imported."""

from __future__ import annotations

from collections.abc import Callable

import click

from kbench.cli.messages import say_json
from kbench.errors import UsageError, nearest
from kbench.parts.catalogue import Entry, Kind, entries
from kbench.parts.source_text import declared, defaults, settings, summary

__all__ = ["ls"]

_COLUMNS = ("name", "what it is", "from")
_OF_METHODS = ("name", "year", "settings", "needs", "from")
_RANKS = {"from": 3, "needs": 2, "year": 1}
"""What goes first where there is no room."""
_STYLES = {"name": "bold", "from": "dim"}


@click.command("ls")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
def ls(kind: str | None, as_json: bool) -> None:
    """List the parts of a KIND, or all.

    Kinds: tasks, methods, backbones, tunings, knowledge, importers, executors, trackers, verbs
    (that distributions add to kbench's own), published (figures of papers) and downloads (where
    data sets lie).
    """
    if kind is not None and kind not in list(Kind):
        raise UsageError(f"cannot list {kind!r}{nearest(kind, Kind)}")
    listed = [entry for each in Kind if kind in (None, each) for entry in entries(each)]
    if as_json:
        for entry in listed:
            say_json(_value(entry))
        return
    from rich.text import Text

    from kbench.cli.layout import Column, show
    from kbench.cli.terminal import Console

    columns = _OF_METHODS if kind == Kind.METHODS else _COLUMNS
    lines: list[dict[str, str | Text]] = []
    last = None
    for entry in listed:
        if kind is None and entry.kind != last:
            lines.append({"name": Text(str(entry.kind), style="bold cyan")})
        last = entry.kind
        lines.append({name: _SAID[name](entry) for name in columns})
    shown = [
        Column(
            name,
            [line.get(name, "") for line in lines],
            text=name not in ("name", "year"),
            rank=_RANKS.get(name, 0),
            style=_STYLES.get(name, ""),
            whole=True,
        )
        for name in columns
    ]
    show(Console(), shown)


def _of_card(name: str) -> Callable[[Entry], str]:
    return lambda entry: str(declared(entry).get(name) or "")


_SAID: dict[str, Callable[[Entry], str]] = {
    "name": lambda entry: entry.name,
    "what it is": summary,
    "from": lambda entry: entry.distribution,
    "year": _of_card("year"),
    "settings": lambda entry: ", ".join(settings(entry)),
    "needs": _of_card("needs"),
}
"""What a column says of a part. Only those that are shown are asked for: each reads source text."""


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
