"""``kbench fetch``: published data brought into a folder, and copies of them compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbench.cli.messages import say, say_json
from kbench.cli.options import examples
from kbench.errors import UsageError, one_line

if TYPE_CHECKING:
    from kbench.fetch.checking import Checked
    from kbench.fetch.folder import Brought, Step
    from kbench.fetch.listing import Part, Published

__all__ = ["fetch"]

_DATA = Path("data")


@examples("kbench fetch", "kbench fetch NAME --data data", "kbench fetch --check data")
@click.command("fetch", short_help="Bring published data sets and knowledge bases.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=_DATA,
              show_default=True, help="Folder of data: where it goes.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and fetch nothing.")
@click.option("--check", "copy", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
              help="Compare the copies in DIR with what is recorded; no network.")  # fmt: skip
@click.option("--replace", is_flag=True, help="Replace files that are there and are others.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0,
              show_default=True, help="Seconds of silence to wait out.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
def fetch(
    names: tuple[str, ...],
    data: Path,
    dry_run: bool,
    copy: Path | None,
    replace: bool,
    timeout: float,
    as_json: bool,
) -> int:
    """Bring the data sets and knowledge bases NAME from where they are published.

    A NAME is one of the list that comes without any, or a task or importer that reads it. Licence
    and citation are shown first. What came is compared with the recorded SHA-256; where none is
    recorded the one that was found is shown and remembered. What was interrupted goes on where it
    stopped. `kbench run` never fetches anything.
    """
    from kbench.fetch.listing import published, sequence

    if copy is not None:
        if dry_run or replace:
            raise UsageError("--check changes nothing: leave out --dry-run and --replace")
        return _check(copy, sequence(names) if names else [*published().values()], as_json)
    if not names:
        if dry_run or replace:
            raise UsageError("--dry-run and --replace want a NAME: `kbench fetch` lists them")
        _list(data, [*published().values()], as_json)
        return 0
    wanted = sequence(names)
    if dry_run:
        return max(_plan(data, each, as_json) for each in wanted)
    return max(_bring(data, each, replace, timeout, as_json) for each in wanted)


def _list(data: Path, known: Sequence[Published], as_json: bool) -> None:
    from kbench.fetch.folder import there

    standing = {each.name: there(data, each) for each in known}
    if as_json:
        for each in known:
            have, parts = standing[each.name]
            _print_json({**_about(each), "there": have, "parts": parts})
        return
    from kbench.cli.layout import Column, prose, show
    from kbench.cli.terminal import Console

    console = Console()
    columns = {
        "name": [each.name for each in known],
        "what it is": [each.title for each in known],
        "size": [each.shown_size if each.parts else "by hand" for each in known],
        "licence": [each.licence for each in known],
        f"in {data}": [_standing(data, each, *standing[each.name]) for each in known],
    }
    texts = ("what it is", "licence")
    ranks = {"licence": 2, "size": 1}
    shown = [
        Column(name, cells, text=name in texts, rank=ranks.get(name, 0), whole=True)
        for name, cells in columns.items()
    ]
    show(console, shown)
    hint = "kbench fetch NAME brings it; of those by hand it says how to get them."
    prose(console, hint, "dim")


def _standing(data: Path, published: Published, have: int, parts: int) -> str:
    from kbench.data.files import is_folder
    from kbench.fetch.folder import place

    if not parts:
        return "there" if is_folder(place(data, published)) else "no"
    return "yes" if have == parts else f"{have} of {parts}" if have else "no"


def _plan(data: Path, published: Published, as_json: bool) -> int:
    from kbench.fetch.folder import State, plan
    from kbench.fetch.listing import readable

    steps = plan(data, published)
    if as_json:
        _print_json({**_about(published), "steps": [_step(step) for step in steps]})
        return 0 if steps else 1
    _introduce(data, published)
    for step in steps:
        part = step.part
        size = "size unknown" if part.size is None else readable(part.size)
        kept = f", {readable(step.kept)} of it are there" if step.kept else ""
        sure = "" if part.sha256 or part.unpack else ", no digest recorded"
        what = part.to or f"{part.name}, unpacked to {', '.join(part.unpack.values())}"
        say(f"  {step.state}: {what} ({size}{kept}{sure}) from {part.address}")
    missing = sum(step.state == State.MISSING for step in steps)
    if steps:
        say(f"  nothing was fetched; {missing} of {len(steps)} would be")
    return 0 if steps else 1


def _step(step: Step) -> dict[str, Any]:
    part = step.part
    about = {"to": part.to, "unpack": dict(part.unpack), "address": part.address}
    content = {"bytes": part.bytes, "about": part.about, "sha256": part.sha256}
    return {**about, **content, "state": str(step.state), "kept": step.kept}


def _introduce(data: Path, published: Published) -> None:
    """Says what it is, whose, and under which licence, before anything is done."""
    from kbench.fetch.folder import place

    say(f"{published.name}: {published.title}")
    say(f"  licence: {published.licence}")
    say(f"  cite: {published.citation}")
    say(f"  source: {published.source}")
    if published.note:
        say(f"  {published.note}")
    if published.parts:
        say(f"  into: {place(data, published)}; size: {published.shown_size}")
    else:
        say(f"  not fetched: {published.by_hand}")


def _bring(data: Path, published: Published, replace: bool, timeout: float, as_json: bool) -> int:
    """Brings a data set; one that does not come does not keep the next from coming."""
    from kbench.fetch import folder
    from kbench.fetch.transfer import FetchError, Transfer

    if not as_json:
        _introduce(data, published)
    if not published.parts:
        if as_json:
            _print_json({**_about(published), "files": []})
        return 1
    try:
        with _progress() as (begin, watch):
            how = Transfer(timeout, watch=watch)
            brought = folder.fetch(data, published, how, begin, replace)
    except FetchError as error:
        say(f"error: {one_line(error)}", err=True)
        return 1
    except KeyboardInterrupt:
        _interrupted(data, published)
        raise
    if as_json:
        _print_json({**_about(published), "files": [_file(each) for each in brought]})
    else:
        _tell(data, published, brought)
    return 0


def _interrupted(data: Path, published: Published) -> None:
    from kbench.fetch.folder import kept
    from kbench.fetch.listing import readable

    say(
        f"{published.name}: {readable(kept(data, published))} of what was coming are kept in "
        f"{data / '.kbench-fetch' / published.name}; nothing half-written lies in the data",
        err=True,
    )


def _tell(data: Path, published: Published, brought: Sequence[Brought]) -> None:
    from kbench.fetch.folder import RECORD, place

    folder = place(data, published)
    for each in brought:
        state = "as recorded" if each.recorded else "found; none is recorded"
        say(f"  {each.path}: {each.found.bytes:,} bytes, SHA-256 {each.found.sha256} ({state})")
    if not brought:
        sure = all(part.sha256 for part in published.parts)
        hint = "" if sure else "; not all of it has a recorded digest, see --check"
        say(f"  {folder} has it all already{hint}")
    elif any(not each.recorded for each in brought):
        say(f"  what was found is remembered in {folder / RECORD}, for --check")
    for task in published.tasks[:1]:
        say(f"  next: kbench run --task {task} --data {data}")
    for importer in published.importers[:1]:
        say(f"  next: kbench knowledge import {importer} {folder} NEW-FOLDER")


@contextmanager
def _progress() -> Iterator[tuple[Callable[[Part], None], Callable[[int, int | None], None]]]:
    """Shows on a terminal which part comes, and how much of it is there."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from kbench.cli.terminal import Console

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    hidden = not console.is_terminal  # else it leaves blank lines in a file
    with Progress(*columns, console=console, transient=True, disable=hidden) as shown:
        task = shown.add_task("", total=None)

        def begin(part: Part) -> None:
            from rich.markup import escape

            shown.reset(task, description=escape(part.to or part.name), total=part.size)

        def watch(done: int, total: int | None) -> None:
            shown.update(task, completed=done, total=total)

        yield begin, watch


def _check(root: Path, wanted: Sequence[Published], as_json: bool) -> int:
    from kbench.fetch.checking import Verdict, check, folder_of

    status = found = 0
    for each in wanted:
        folder = folder_of(root, each, alone=len(wanted) == 1)
        if folder is None:
            continue
        checked = check(folder, each)
        there = [one for one in checked if one.verdict != Verdict.MISSING]
        if not there and len(wanted) > 1:  # another data set of the same folder
            continue
        found += 1
        status |= not there or any(one.verdict.bad for one in checked)
        if as_json:
            _print_json({"name": each.name, "folder": str(folder), "files": [*map(_row, checked)]})
        else:
            _judge(folder, each, checked)
    if not found:
        raise UsageError(
            f"{root} has no folder of a data set known here; `kbench fetch` lists them"
        )
    return status


def _judge(folder: Path, published: Published, checked: Sequence[Checked]) -> None:
    """Says how the files of a copy stand: how many are right, and each that is not."""
    from kbench.fetch.checking import Verdict

    counts = {verdict: sum(one.verdict == verdict for one in checked) for verdict in Verdict}
    words = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    say(f"{published.name} in {folder}: {'; '.join(words) or 'no digest of it is recorded'}")
    for one in checked:
        if one.verdict in (Verdict.RIGHT, Verdict.AS_FETCHED):
            continue
        digest = f" (SHA-256 {one.found.sha256}, {one.found.bytes:,} bytes)" if one.found else ""
        known = published.known.get(one.path)
        wanted = f", not {known.sha256}" if known and one.verdict == Verdict.DIFFERS else ""
        say(f"  {one.path}: {one.verdict}{digest}{wanted}")


def _about(published: Published) -> dict[str, Any]:
    shown = {k: v for k, v in vars(published).items() if k not in ("name", "parts", "files")}
    return {"name": published.name, **shown, "size": published.size}


def _file(brought: Brought) -> dict[str, Any]:
    return {"path": brought.path, **vars(brought.found), "recorded": brought.recorded}


def _row(checked: Checked) -> dict[str, Any]:
    content = vars(checked.found) if checked.found else {"bytes": None, "sha256": None}
    return {"path": checked.path, "verdict": str(checked.verdict), **content}


def _print_json(value: Any) -> None:
    say_json(value)
