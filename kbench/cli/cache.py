"""`kbench cache`: the stored downstream models and plugs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from kbench.cli.messages import say
from kbench.errors import ArtifactError, UsageError
from kbench.files import cache_home, read_json
from kbench.store import Artifacts

__all__ = ["cache"]

_DAY = 86400


@click.group("cache")
def cache() -> None:
    """List, verify and prune stored models and plugs (in KBENCH_CACHE or ~/.cache/kbench)."""


@dataclass(frozen=True)
class _Item:
    folder: Path
    about: dict[str, object]
    bytes: int
    days: float

    @property
    def title(self) -> str:
        return f"{self.folder.parent.name} {self.folder.name}"


def _items() -> Iterator[_Item]:
    for folder in Artifacts(cache_home() / "artifacts").all():
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        days = max(0.0, time.time() - folder.stat().st_mtime) / _DAY  # clocks are set back, too
        try:
            about = read_json(folder / "artifact.json")
        except (OSError, ValueError):
            about = {}
        yield _Item(folder, about if isinstance(about, dict) else {}, size, days)


@cache.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
def ls(as_json: bool) -> None:
    """List what is stored: kind, address, size, age and what it belongs to."""
    from rich.table import Table

    from kbench.cli.terminal import Console

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("kind", "address", "MB", "days", "of"):
        table.add_column(name, justify="right" if name in ("MB", "days") else "left")
    total = 0
    for item in _items():
        total += item.bytes
        kind, key = item.folder.parent.name, item.folder.name
        if as_json:
            value = {"kind": kind, "address": key, "bytes": item.bytes, "of": item.about.get("of")}
            print(json.dumps(value))
            continue
        of = str(item.about.get("of", "(damaged)"))
        table.add_row(kind, key, f"{item.bytes / 1e6:.1f}", f"{item.days:.1f}", of)
    if not as_json:
        Console().print(table)
        Console().print(f"{total / 1e6:.1f} MB in {cache_home()}")


@cache.command("verify")
def verify() -> int:
    """Compare every stored file with its checksum; exit status 1 if one is damaged."""
    store = Artifacts(cache_home() / "artifacts")
    good = damaged = 0
    for item in _items():
        try:
            store.check(item.folder)
            good += 1
        except ArtifactError as error:
            damaged += 1
            say(str(error), err=True)
    click.echo(f"{good} good, {damaged} damaged")
    if damaged:
        click.echo("damaged ones are made again when needed; `kbench cache prune` removes them")
    return 1 if damaged else 0


@cache.command("prune")
@click.option("--days", type=click.FloatRange(min=0), help="Also remove what is older.")
@click.option("--all", "everything", is_flag=True, help="Remove everything.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(days: float | None, everything: bool, dry_run: bool) -> None:
    """Remove damaged artifacts and leftovers of interrupted runs; results are never touched."""
    if everything and days is not None:
        raise UsageError("--all and --days exclude each other; give one")
    store = Artifacts(cache_home() / "artifacts")
    removed = 0
    for item in _items():
        old = days is not None and item.days > days
        if everything or old or _damaged(store, item.folder):
            removed += item.bytes
            say(f"{'would remove' if dry_run else 'removed'} {item.title}")
            if not dry_run:
                shutil.rmtree(item.folder)
    for leftover in store.leftovers():
        say(f"{'would remove' if dry_run else 'removed'} leftover {leftover.name}")
        if not dry_run:
            shutil.rmtree(leftover)
    click.echo(f"{removed / 1e6:.1f} MB")


def _damaged(store: Artifacts, folder: Path) -> bool:
    try:
        store.check(folder)
    except ArtifactError:
        return True
    return False
