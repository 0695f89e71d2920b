"""`kbench check`: the contracts of parts, checked on tiny parts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click
from rich.text import Text

from kbench.cli.layout import wrapped
from kbench.cli.messages import say_json
from kbench.cli.terminal import Console
from kbench.errors import UsageError, nearest
from kbench.parts import registry
from kbench.parts.catalogue import Entry, Kind, entries

if TYPE_CHECKING:
    from kbench.testing import Finding

__all__ = ["check"]

_ROOM = 20
"""Columns that figures have at least, or they are not wrapped by words."""
_KINDS = [kind for kind in Kind if kind.has_contracts]


@click.command("check")
@click.argument("name")
@click.option("--kind", type=click.Choice([*map(str, _KINDS)]), help="Only parts of this kind.")
@click.option(
    "--data",
    help="Of tasks whose data do not come with kbench: their folder, or one with a folder each, "
    "or hf:REPOSITORY[@REVISION]. They are then checked in full.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines, one a contract.")
def check(name: str, kind: str | None, data: str | None, as_json: bool) -> int:
    """Check the contracts of the parts called NAME: a comma list of names and globs, or all.

    Every contract gets a line: whether it holds, and the figures. The checks run on tiny parts
    that are made for them; nothing of yours is read but --data, and nothing written.
    """
    from kbench.testing.contracts import findings, names

    chosen = _chosen(name, [Kind(kind)] if kind else _KINDS)
    if data is not None and all(entry.kind != Kind.TASKS for entry in chosen):
        raise UsageError(f"--data is for tasks, and none is called {name!r}; leave it out")
    console = Console(highlight=False)
    started, count, broken = time.perf_counter(), 0, 0
    for entry in chosen:
        widest = max(map(len, names(entry.kind)))
        if not as_json:
            console.print(Text(f"{entry.kind.one} {entry.name}", style="bold"), end=" ")
            console.print(Text(f"of {entry.distribution}", style="dim"))
        for finding in findings(entry.kind, entry.name, data if entry.kind == Kind.TASKS else None):
            count += finding.checked
            broken += not finding.held
            if as_json:
                about = {"kind": entry.kind, "name": entry.name, **asdict(finding)}
                say_json(about)
            else:
                _print(finding, widest, console)
    if not as_json:
        seconds = time.perf_counter() - started
        end = f"{count - broken} of {count} contracts held ({seconds:.1f} s)"
        console.print(Text(end, style="bold red" if broken else "bold green"))
    return 1 if broken else 0


def _chosen(wanted: str, kinds: Sequence[Kind]) -> list[Entry]:
    """The parts asked for, broken ones too, each name once."""
    known = {(entry.kind, entry.name): entry for kind in kinds for entry in entries(kind)}
    chosen: dict[tuple[Kind, str], Entry] = {}
    for piece in filter(None, (part.strip() for part in wanted.split(","))):
        glob = "*" if piece == "all" else piece
        matches = {key: entry for key, entry in known.items() if fnmatchcase(entry.name, glob)}
        if not matches:
            _refuse_without_contracts(piece)
            names = {entry.name for entry in known.values()}
            raise UsageError(f"no part is called {piece!r}{nearest(piece, names)}")
        chosen |= matches
    if not chosen:
        raise UsageError("no part is asked for; try `kbench check all`, or `kbench ls`")
    return list(chosen.values())


def _refuse_without_contracts(name: str) -> None:
    for kind in Kind:
        if not kind.has_contracts and name in registry.names(kind):
            raise UsageError(f"the {kind.one} {name!r} has no contracts to check")


def _print(finding: Finding, widest: int, console: Console) -> None:
    """Prints a line; at a terminal, as many as the figures need, below each other."""
    fancy = console.is_terminal and not console.options.ascii_only
    marks = ("\u2713", "\u2717", "\u2013") if fancy else ("ok", "FAILED", "-")
    mark = marks[2] if not finding.checked else marks[0] if finding.held else marks[1]
    style = "dim" if not finding.checked else "green" if finding.held else "bold red"
    width = max(map(len, marks))
    line = Text(f"  {mark:<{width}} ", style=style)
    dim = "dim" if not finding.checked else "default"
    line.append(f"{finding.contract:<{widest}} ", style=dim)
    room = console.width - line.cell_len if console.is_terminal else 0
    figures = wrapped(finding.figure, room) if room >= _ROOM else Text(finding.figure)
    line.append(figures.plain.replace("\n", "\n" + " " * line.cell_len), style="dim")
    console.print(line, soft_wrap=True)
    if not finding.held:
        console.print(Text(f"    the contract: {finding.says}", style="red"), soft_wrap=True)
