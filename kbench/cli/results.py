"""`kbench results`: which results are stored, and the removal of some."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from kbench.cli import options as shared
from kbench.cli.messages import plain, say, say_json
from kbench.errors import UsageError
from kbench.results.selection import Selection
from kbench.spec import spelled
from kbench.store import Result, Results, Status
from kbench.store.packed import check_unpacked

__all__ = ["results"]

_SHORTEST = 4
"""Signs of an id that stand for it."""
_UNREADABLE = "unreadable"
_TERMS = "Terms as of `kbench compare` (METHOD,setting=general,…), or the beginnings of ids."


@dataclass(frozen=True)
class _Item:
    id: str
    result: Result | None
    problem: str
    bytes: int
    date: str

    @property
    def state(self) -> str:
        return str(self.result.status) if self.result else _UNREADABLE

    @property
    def words(self) -> str:
        """The run in words, or why that cannot be read."""
        if self.result is None:
            return self.problem
        spec = self.result.spec
        told = {"data": spec.data, "limit": spec.limit, "linker": spec.linker}
        told |= {"dtype": None if spec.dtype == "float32" else spec.dtype}
        told |= {"chat": "yes" if spec.chat else None}
        told |= {"weights": None if spec.weights == "float32" else spec.weights}
        more = [f"{name}={value}" for name, value in told.items() if value is not None]
        more += [f"{path}={spelled(value)}" for path, value in spec.settings]
        return " ".join([spec.title, *more])

    def as_json(self) -> dict[str, object]:
        value: dict[str, object] = {"id": self.id, "status": self.state}
        value |= {"started": self.date, "bytes": self.bytes}
        value["reason"] = self.result.reason if self.result else self.problem
        value["spec"] = self.result.spec.model_dump(mode="json") if self.result else None
        return value


@click.group("results")
def results() -> None:
    """List stored results, and remove some."""


def _selecting(command: click.Command) -> click.Command:
    """Gives a command what chooses results."""
    failed = click.Option(["--failed"], is_flag=True, help="Only those of runs that failed.")
    command.params[:0] = [click.Argument(["selections"], nargs=-1), failed]
    return command


@_selecting
@results.command("ls", epilog=_TERMS, short_help="List results.")
@shared.out
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
def ls(selections: tuple[str, ...], failed: bool, out: Path, as_json: bool) -> None:
    """List results: id, state, date, size and the run, controls too unless one is named."""
    from kbench.cli.layout import Column, show
    from kbench.cli.terminal import Console

    chosen = _chosen(Results(shared.opened(out)), selections, failed)
    if as_json:
        for item in chosen:
            say_json(item.as_json())
        return
    columns = [
        Column("id", [item.id[:12] for item in chosen]),
        Column("state", [item.state for item in chosen], rank=1),
        Column("date", [item.date[:16] for item in chosen], rank=2),
        Column("kB", [f"{item.bytes / 1e3:,.0f}" for item in chosen], side="right", rank=3),
        Column("run", [plain(item.words) for item in chosen], text=True, whole=True),
    ]
    show(Console(), columns)
    total = sum(item.bytes for item in chosen)
    say(f"{_counted(chosen)}, {total / 1e6:.1f} MB in {out}")


@_selecting
@results.command("rm", epilog=_TERMS, short_help="Remove results.")
@shared.out
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(selections: tuple[str, ...], failed: bool, out: Path, dry_run: bool, yes: bool) -> int:
    """Remove results, controls too unless one is named; models and plugs stay in the cache.

    What changed since it was listed, is a link, or holds other files is left. Exit status 1 then.
    """
    if not selections and not failed:
        raise UsageError(
            "say which results: terms such as map-tuning,task=atlas-qa, ids, or --failed"
        )
    check_unpacked(out)
    store = Results(shared.opened(out))
    chosen = _chosen(store, selections, failed)
    for item in chosen:
        say(f"{'would remove' if dry_run else 'to remove'} {item.id} {item.state} {item.words}")
    if dry_run or not chosen:
        say(f"{_counted(chosen)}; nothing is removed")
        return 0
    if not yes and not _confirmed(f"Remove {_counted(chosen)} from {out}?"):
        say("nothing is removed")
        return 1
    left = [(item, why) for item in chosen if (why := store.remove(item.id, item.result))]
    for item, why in left:
        say(f"left: {item.id} {why}", err=True)
    gone = {item.id for item, _ in left}
    size = sum(item.bytes for item in chosen if item.id not in gone)
    say(f"removed {len(chosen) - len(left)} of {_counted(chosen)}, {size / 1e6:.1f} MB")
    return 1 if left else 0


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(plain(question))
    except click.Abort:
        raise UsageError("nothing is removed: nobody could be asked; give --yes") from None


def _counted(items: Sequence[_Item]) -> str:
    return f"{len(items)} result{'' if len(items) == 1 else 's'}"


def _chosen(store: Results, selections: Iterable[str], failed: bool) -> list[_Item]:
    """Returns the results that any of the selections means; all without one.

    Raises:
        UsageError: a selection means nothing that is stored.
    """
    items = [item for entry in store.entries() if (item := _item(store, *entry))]
    stored = [item.result for item in items if item.result]
    wanted: set[str] = set()
    for text in selections:
        found = _meant(text, items, stored)
        if not found:
            raise UsageError(f"no stored result is {text!r}; `kbench results ls` lists all")
        wanted |= found
    return [
        item
        for item in items
        if (item.id in wanted or not selections) and (not failed or item.state == Status.FAILED)
    ]


def _meant(text: str, items: Sequence[_Item], stored: Sequence[Result]) -> set[str]:
    by_id = [item.id for item in items if item.id.startswith(text)]
    if len(text) >= _SHORTEST and by_id:
        if len(by_id) > 1:
            raise UsageError(f"{len(by_id)} ids begin with {text!r}: give more signs of it")
        return {*by_id}
    selection = Selection.parse(text, stored)
    # Unlike a comparison, which is of true knowledge unless it says so, this is of all.
    every = replace(selection, named={"control": "*", **selection.named})
    return {result.id for result in stored if result in every}


def _item(store: Results, key: str, result: Result | None, problem: str) -> _Item | None:
    try:
        stats = [file.lstat() for file in (store.folder / key).iterdir()]
    except FileNotFoundError:  # another process has just removed or replaced it
        return None
    made = result.provenance.started if result and result.provenance else ""
    changed = max((stat.st_mtime for stat in stats), default=0.0)
    date = made or time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(changed))
    return _Item(key, result, problem, sum(stat.st_size for stat in stats), date)
