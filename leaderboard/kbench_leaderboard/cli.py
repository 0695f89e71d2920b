"""`kbench leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbench.cli.messages import say, say_json
from kbench.errors import UsageError

if TYPE_CHECKING:
    from kbench_leaderboard.merge import Merged

__all__ = ["leaderboard"]

_FILE = click.Path(path_type=Path)


@click.group("leaderboard")
def leaderboard() -> None:
    """Verify, merge and show results, for a leaderboard that others can trust."""


@leaderboard.command(short_help="Check submissions.")
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option(
    "--data", type=_FILE, help="Data sets, for gold and examples; see `kbench run --data`."
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=3600,
    show_default=True,
    help="Seconds for each FILE; what is not checked by then is a finding.",
)
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON Lines.")
@click.option(
    "--rerun",
    "number",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also run N results again, drawn at random, and compare the predictions.",
)
@click.option("--draw", default=0, show_default=True, help="With --rerun: the seed of the draw.")
def verify(
    files: tuple[Path, ...],
    data: Path | None,
    time_limit: float,
    as_json: bool,
    number: int | None,
    draw: int,
) -> int:
    """Check submissions: folders of results, packed or not, a result's folder, or a .zip of them.

    Schema, addresses, digests and completeness are checked, every score is made again from the
    predictions, and these are held against the data of tasks that are installed, or in --data.
    Exit status 1 if anything is wrong; of what is run again, if a score lies outside the interval
    that is stated.
    """
    from kbench_leaderboard.in_time import InTime
    from kbench_leaderboard.submission import opened, places, read
    from kbench_leaderboard.verify import Problem
    from kbench_leaderboard.verify import verify as check

    wrong = 0
    for path in files:
        with opened(path) as folder:
            count = len(places(folder))
            entries = InTime(read(folder), time_limit)
            problems = check(entries, data)
            if number is not None:
                wrong += _rerun(folder, number, draw, data, as_json=as_json)
        if entries.ended and entries.seen < count:
            left = f"{count - entries.seen} of {count} results were not checked"
            problems.append(Problem("", f"{left}: the time is up (--time-limit {time_limit:g})"))
        wrong += bool(problems)
        if as_json:
            for problem in problems:
                say_json({"file": str(path), **vars(problem)})
            continue
        for problem in problems:
            where = f"{path}/{problem.where}" if problem.where else str(path)
            say(f"{where}: {problem.text}")
        bad = len({problem.where for problem in problems if problem.where})
        verdict = _verdict(bad, count) if count else "rejected, it holds no result"
        verdict = "rejected" if count and problems and not bad else verdict
        say(f"{path}: {verdict}")
    return int(wrong > 0)


def _rerun(folder: Path, number: int, draw: int, data: Path | None, *, as_json: bool) -> int:
    """Runs some results again and says what came of it; returns how many have another score."""
    from kbench_leaderboard.rerun import drawn, rerun

    chosen, outside = drawn(folder, number, draw), 0
    if not as_json:
        say(f"run again: {len(chosen)}, drawn with --draw {draw}")
    for one in rerun(chosen, data):
        outside += one.outside
        if as_json:
            say_json({"rerun": vars(one)})
        else:
            say(one.line)
    return outside


def _verdict(bad: int, count: int) -> str:
    """How many results are rejected, each counted once however much is wrong with it."""
    return f"{bad} of {count} results rejected" if bad else f"good, {count} of {count} results"


@leaderboard.command(short_help="Join folders of results into one.")
@click.argument("sources", nargs=-1, required=True, type=_FILE, metavar="SOURCE...")
@click.option("--out", required=True, type=_FILE, help="The folder that takes all results.")
@click.option("--json", "as_json", is_flag=True, help="Print what became of each id as JSON.")
def merge(sources: tuple[Path, ...], out: Path, as_json: bool) -> int:
    """Join folders of results into one, without loss or duplicates.

    All of them are checked first, and copied as they are. Exit status 1 if two results of one run
    differ; then nothing is written, nor if a result is contradicted by its own files.
    """
    from kbench_leaderboard.merge import merge as join

    return _told(join(sources, out), out, as_json=as_json)


def _told(done: Merged, out: Path, *, as_json: bool) -> int:
    """Says what became of results that were joined; returns the exit status."""
    if as_json:
        say_json(vars(done))
    else:
        for key in done.conflicts:
            say(f"conflict: {key} is there with another outcome; nothing is written")
        left = f", {len(done.left)} left for later" if done.left else ""
        say(
            f"{out}: {len(done.added)} added, {len(done.replaced)} replaced that had not ended "
            f"well, {len(done.same)} were there, {len(done.conflicts)} conflicts{left}"
        )
    return int(bool(done.conflicts))


@leaderboard.command(short_help="Pack results into a file a task.")
@click.argument("sources", nargs=-1, required=True, type=_FILE, metavar="SOURCE...")
@click.option("--out", required=True, type=_FILE, help="The folder of the packed results.")
@click.option(
    "--whole",
    is_flag=True,
    help="Leave for later what lacks its control, the model without knowledge, or a seed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what became of each id as JSON.")
def pack(sources: tuple[Path, ...], out: Path, whole: bool, as_json: bool) -> int:
    """Pack results into a file a task, some tenth of their size, beside what is packed there.

    All commands that read results read packed ones too. Results are joined and checked as by
    `merge`, and so is the exit status. With --whole what is there of a grid that still runs is a
    submission that verifies.
    """
    from kbench_leaderboard.merge import pack_up

    return _told(pack_up(sources, out, only_whole=whole), out, as_json=as_json)


@leaderboard.command(short_help="Name results of earlier revisions.")
@click.argument("files", nargs=-1, type=_FILE, metavar="[FILE...]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
def stale(files: tuple[Path, ...], as_json: bool) -> int:
    """Name results of earlier revisions: of the engine, or of a task, a tuning or a method.

    Without FILE those of the checkout, in leaderboard. Exit status 1 if there are any.
    """
    from kbench_leaderboard.stale import stale as found
    from kbench_leaderboard.submission import opened, read_results

    count = total = 0
    for path in files or reference():
        with opened(path) as folder:
            results = [*read_results(folder)]
        total += len(results)
        for one in found(results):
            count += 1
            say_json(vars(one)) if as_json else say(one.line)
    if not as_json:
        say(f"{count} of {total} results are of earlier revisions")
    return int(count > 0)


@leaderboard.command(short_help="Say why a result is no ranked row.")
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option("--id", "wanted", metavar="ID", help="Only the results whose id begins so.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON Lines.")
def absent(files: tuple[Path, ...], wanted: str | None, as_json: bool) -> None:
    """Say in a line why a result is no ranked row of the site of all FILES.

    What is left out, failed, is a control, was not chosen by dev, or lacks what is to stand
    beside it; nothing is said of the others.
    """
    from contextlib import ExitStack

    from kbench_leaderboard.absent import absent as found
    from kbench_leaderboard.submission import opened, places, read

    with ExitStack() as stack:
        folders = [stack.enter_context(opened(path)) for path in files]
        there = [place.name for folder in folders for place in places(folder)]
        lines = [*found(entry for folder in folders for entry in read(folder))]
    if wanted is not None and not any(name.startswith(wanted) for name in there):
        raise UsageError(f"the id of no result here begins with {wanted!r}; there are {len(there)}")
    for where, text in lines:
        if wanted is None or where.startswith(wanted):
            say_json({"id": where, "why": text}) if as_json else say(f"{where}: {text}")


def reference() -> tuple[Path, ...]:
    """Returns where the results of the checkout lie that this is, or is called in.

    Those of reference, and beside them what was submitted, a folder each.

    Raises:
        UsageError: they are not there.
    """
    from kbench.store import packs

    own = Path("leaderboard")
    for folder in (own, Path(__file__).resolve().parents[1]):
        if packs(folder / "results"):
            others = sorted(path for path in folder.glob("submissions/*") if packs(path))
            return (folder / "results", *others)
    raise UsageError(
        f"no packed results in {own / 'results'}, and none are given; expected a folder that "
        "`kbench run --out` wrote, or a checkout with the reference results"
    )


@leaderboard.command(short_help="Write a site of results.")
@click.option(
    "--results",
    "sources",
    multiple=True,
    type=_FILE,
    metavar="DIR",
    help="A folder of results, packed or not, or a .zip of one; may be given several times. "
    "Default: those of the checkout, in leaderboard/results and leaderboard/submissions.",
)
@click.option(
    "--out", default="site", show_default=True, type=_FILE, help="The folder of the site."
)
@click.option(
    "--data", type=_FILE, help="Data sets, for the texts of examples; see `kbench run --data`."
)
@click.option(
    "--knowledge",
    "bundles",
    multiple=True,
    type=_FILE,
    metavar="DIR",
    help="A knowledge base, for what runs brought in; may be given several times.",
)
@click.option(
    "--grid",
    type=_FILE,
    metavar="FILE",
    help="The grid that the results are of: the front page says how much of it is not there yet. "
    "Default: that of the checkout, with its results.",
)
@click.option(
    "--space", metavar="TITLE", help="Also the README.md of a static Space of the hub, titled so."
)
def build(
    sources: tuple[Path, ...],
    out: Path,
    data: Path | None,
    bundles: tuple[Path, ...],
    grid: Path | None,
    space: str | None,
) -> None:
    """Write a site of results: a folder of pages that needs no server and no network."""
    from kbench_leaderboard.site import build as make

    if not sources:
        sources = reference()
        own = sources[0].with_name("reference.yaml")
        grid = grid or (own if own.is_file() else None)
    made = make(sources, out, data, bundles, space, grid)
    for text in made.damaged:
        say(f"left out: {text}", err=True)
    say(
        f"{out / 'index.html'}: {made.runs} runs, {made.failed} of them failed or skipped; left "
        f"out {len(made.damaged)} damaged, {made.limited} with --limit, {made.twice} there twice"
    )


@leaderboard.command("open", short_help="Open the site in a browser.")
@click.argument("path", required=False, type=_FILE, metavar="[SITE|RESULTS]")
@click.option(
    "--out", default="site", show_default=True, type=_FILE, help="The folder of a site to build."
)
def open_(path: Path | None, out: Path) -> None:
    """Open a site in the browser, or that of some results, which is built where it is needed.

    Without an argument the site in --out, else that of kbench-results, else that of the reference
    results of the checkout. Where there is no browser, only the address is printed.
    """
    from kbench.store import packs
    from kbench_leaderboard.opening import open_in_browser, site_of
    from kbench_leaderboard.site import is_site
    from kbench_leaderboard.submission import places

    if path is None:
        mine = Path("kbench-results")
        there = mine.is_dir() and (places(mine) or packs(mine))
        path = out if is_site(out) else mine if there else reference()[0]
    front = site_of(path, out)
    say(front.resolve().as_uri())
    if not open_in_browser(front):
        say("no browser is here to open it", err=True)
