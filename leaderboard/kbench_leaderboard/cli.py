"""`kbench leaderboard`."""

from __future__ import annotations

from pathlib import Path

import click

from kbench.cli.messages import say, say_json

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
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON Lines.")
def verify(files: tuple[Path, ...], data: Path | None, as_json: bool) -> int:
    """Check submissions: folders of results, one result's folder, or a .zip of either.

    Schema, addresses, digests and completeness are checked, every score is made again from the
    predictions, and these are held against the data of tasks that are installed, or in --data.
    Exit status 1 if anything is wrong.
    """
    from kbench_leaderboard.submission import opened, places, read
    from kbench_leaderboard.verify import verify as check

    wrong = 0
    for path in files:
        with opened(path) as folder:
            count = len(places(folder))
            problems = check(read(folder), data)
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

    done = join(sources, out)
    if as_json:
        say_json(vars(done))
    else:
        for key in done.conflicts:
            say(f"conflict: {key} is there with another outcome; nothing is written")
        say(
            f"{out}: {len(done.added)} added, {len(done.replaced)} replaced that had not ended "
            f"well, {len(done.same)} were there, {len(done.conflicts)} conflicts"
        )
    return int(bool(done.conflicts))


@leaderboard.command(short_help="Write a site of results.")
@click.option(
    "--results",
    "sources",
    multiple=True,
    required=True,
    type=_FILE,
    metavar="DIR",
    help="A folder of results or a .zip of one; may be given several times.",
)
@click.option("--out", required=True, type=_FILE, help="The folder of the site.")
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
    "--space", metavar="TITLE", help="Also the README.md of a static Space of the hub, titled so."
)
def build(
    sources: tuple[Path, ...],
    out: Path,
    data: Path | None,
    bundles: tuple[Path, ...],
    space: str | None,
) -> None:
    """Write a site of results: a folder of pages that needs no server and no network."""
    from kbench_leaderboard.site import build as make

    made = make(sources, out, data, bundles, space)
    for text in made.damaged:
        say(f"left out: {text}", err=True)
    say(
        f"{out / 'index.html'}: {made.runs} runs, {made.failed} of them failed or skipped; left "
        f"out {len(made.damaged)} damaged, {made.limited} with --limit, {made.twice} there twice"
    )
