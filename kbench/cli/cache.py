"""`kbench cache`: the stored models, plugs and hidden states, and models given in memory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click
from filelock import FileLock, Timeout

from kbench.cli.messages import say, say_json
from kbench.cli.options import Number
from kbench.data.files import BACKBONES, REMEMBERED, cache_home, is_folder
from kbench.errors import ArtifactError, KbenchError, UsageError
from kbench.store import Artifacts
from kbench.store.folder import AddressedFolder
from kbench.store.hidden_states import HiddenStateStore

__all__ = ["cache"]

_DAY = 86400


@click.group("cache")
def cache() -> None:
    """List, verify and prune stored models, plugs and hidden states, and models given in memory.

    They lie in KBENCH_CACHE or ~/.cache/kbench.
    """


@dataclass(frozen=True)
class _Item:
    store: AddressedFolder
    folder: Path
    of: object
    bytes: int
    days: float

    @property
    def title(self) -> str:
        return f"{self.folder.parent.name} {self.folder.name}"

    def problem(self) -> str | None:
        """What is wrong with it; None if it is as it was stored."""
        try:
            self.store.check(self.folder)
        except ArtifactError as error:
            return str(error)
        return None


def _stores() -> list[AddressedFolder]:
    stores: list[AddressedFolder] = [Artifacts(cache_home() / "artifacts"), HiddenStateStore()]
    if is_folder(cache_home() / BACKBONES):
        from kbench.model.in_memory import KeptBackbones  # takes seconds to import

        stores.append(KeptBackbones())
    return stores


def _items() -> Iterator[_Item]:
    for store in _stores():
        for folder in store.all():
            files = [file.stat() for file in folder.iterdir() if file.is_file()]
            # States are touched when they are used; clocks are set back, too.
            used = max(stat.st_mtime for stat in (folder.stat(), *files))
            days = max(0.0, time.time() - used) / _DAY
            try:
                about = store.read(folder)
            except (OSError, ValueError, KbenchError):
                about = {}
            of = about.get("of") if isinstance(about, dict) else None
            yield _Item(store, folder, of, sum(stat.st_size for stat in files), days)


def _forget(dry_run: bool) -> int:
    """Removes what is remembered of files and figures, and locks that nobody holds.

    Returns:
        the bytes of what was remembered.
    """
    size = 0
    for folder in (cache_home() / name for name in REMEMBERED):
        files = [path for path in folder.rglob("*") if path.is_file()]
        size += sum(path.stat().st_size for path in files)
        if files:
            say(f"{'would remove' if dry_run else 'removed'} {len(files)} remembered {folder.name}")
        if not dry_run:
            shutil.rmtree(folder, ignore_errors=True)
    for shelf in (shelf for store in _stores() for shelf in store.shelves() if not dry_run):
        for path in sorted(shelf.glob(".*")) if shelf.is_dir() else ():
            _unlock(path)
        with suppress(OSError):  # what still holds something stays
            shelf.rmdir()
    return size


def _unlock(path: Path) -> None:
    """Removes a lock, unless somebody holds it."""
    if path.suffix in (".lock", ".making") and path.is_file():
        with suppress(Timeout, OSError), FileLock(path, timeout=0):
            path.unlink()


@cache.command("ls", short_help="List what is stored.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
def ls(as_json: bool) -> None:
    """List what is stored: kind, address, size, age and what it belongs to."""
    from kbench.cli.layout import Column, prose, show
    from kbench.cli.terminal import Console

    rows: list[tuple[str, ...]] = []
    total = 0
    for item in _items():
        total += item.bytes
        kind, key = item.folder.parent.name, item.folder.name
        if as_json:
            value = {"kind": kind, "address": key, "bytes": item.bytes, "of": item.of}
            say_json(value)
            continue
        of = "(damaged)" if item.of is None else str(item.of)
        rows.append((kind, key, f"{item.bytes / 1e6:.1f}", f"{item.days:.1f}", of))
    if as_json:
        return
    ranks = {"kind": 0, "address": 0, "MB": 2, "days": 3, "of": 1}
    cells = zip(*rows, strict=True) if rows else ([] for _ in ranks)
    columns = [
        Column(name, [*column], "right" if name in ("MB", "days") else "left", name == "of", rank)
        for (name, rank), column in zip(ranks.items(), cells, strict=True)
    ]
    show(Console(), columns)
    prose(Console(), f"{total / 1e6:.1f} MB in {cache_home()}")


@cache.command("verify", short_help="Compare files with their checksums.")
def verify() -> int:
    """Compare every stored file with its checksum; exit status 1 if one is damaged."""
    good = damaged = 0
    for item in _items():
        problem = item.problem()
        if problem is None:
            good += 1
        else:
            damaged += 1
            say(problem, err=True)
    say(f"{good} good, {damaged} damaged")
    if damaged:
        say("damaged ones are made again when needed; `kbench cache prune` removes them")
    return 1 if damaged else 0


@cache.command("prune", short_help="Remove what is damaged, old, or all.")
@click.option("--days", type=Number(min=0), help="Also remove what is older.")
@click.option("--all", "everything", is_flag=True, help="Remove everything.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(days: float | None, everything: bool, dry_run: bool) -> None:
    """Remove what is damaged and leftovers of interrupted runs; results are never touched."""
    if everything and days is not None:
        raise UsageError("--all and --days exclude each other; give one")
    removed = 0
    for item in _items():
        old = days is not None and item.days > days
        if everything or old or item.problem():
            removed += item.bytes
            say(f"{'would remove' if dry_run else 'removed'} {item.title}")
            if not dry_run:
                shutil.rmtree(item.folder)
    for leftover in (path for store in _stores() for path in store.leftovers()):
        say(f"{'would remove' if dry_run else 'removed'} leftover {leftover.name}")
        if not dry_run:
            shutil.rmtree(leftover)
    if everything:
        removed += _forget(dry_run)
    say(f"{removed / 1e6:.1f} MB")
