"""`kbench leaderboard build`: one folder of pages that need no server, no network and no script.

Whatever stands in a result is a stranger's: every text is escaped by the templates, file names are
made here, and of each result only its two files are opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kbench.data.files import (
    atomic_folder,
    canonical_digest,
    file_digest,
    front_matter,
    load_json,
    write_bytes,
    write_json,
)
from kbench.errors import DataError, UsageError
from kbench.grid.asked import asked_for
from kbench.results.identity import Names
from kbench.results.published import figures
from kbench.store import Result, Status
from kbench_leaderboard.absent import unreadable
from kbench_leaderboard.board import parted
from kbench_leaderboard.content import Built, Content
from kbench_leaderboard.merge import told_apart
from kbench_leaderboard.planned import waiting
from kbench_leaderboard.sources import Sources, without_paths
from kbench_leaderboard.submission import LAYOUT, Entry, opened, places, read_entries

if TYPE_CHECKING:
    from kbench_leaderboard.making import Made

__all__ = ["build", "is_site", "results_digest", "shows"]

_MARK = "kbench-site.json"
_NEEDS = ("jinja2", "itables", "altair", "vl_convert")


def build(
    folders: Sequence[Path],
    out: Path,
    data: Path | None = None,
    bundles: Sequence[Path] = (),
    space: str | None = None,
    grid: Path | None = None,
) -> Built:
    """Builds the site of all results in some folders.

    Args:
        folders: of results, or archives of one.
        out: the folder of the site; one that was built before is replaced.
        data: where texts of test examples are read from, as for ``kbench run --data``.
        bundles: folders of knowledge bases, for what runs brought in.
        space: title of a static Space of the Hugging Face hub, whose card is written too.
        grid: the file of the grid that the results are of: the front page says how much of it is
            not there yet.

    Raises:
        UsageError: a package is missing, ``out`` holds something else than such a site, or the grid
            is none.
        DataError: a source is no folder of results, or a bundle is none.
    """
    _check_packages()
    _check_target(out)
    from kbench_leaderboard.making import Desk, made
    from kbench_leaderboard.pages import Pages

    Sources(data, bundles)  # which refuses what is no bundle
    asked = asked_for(grid) if grid else []
    with ExitStack() as stack:
        unpacked = [stack.enter_context(opened(path)) for path in folders]
        built, kept, folders_of = _kept(_entries(unpacked))
        built.asked = len(asked)
        built.lacking = len(waiting(asked, (result.spec for result in kept)))
        names = Names(kept)
        with atomic_folder(out) as scratch:
            desk = Desk(scratch, names, folders_of, data, tuple(bundles))
            groups = made(parted(kept, names), desk)
            Pages(scratch).write(_content(built, kept, groups, names))
            told = {"format": 1, "runs": built.runs, "results": results_digest(unpacked)}
            write_json(scratch / _MARK, told)
            if space is not None:
                head = {"title": space, "sdk": "static", "app_file": "index.html"}
                write_bytes(scratch / "README.md", front_matter(head).encode())
    return built


def is_site(folder: Path) -> bool:
    """Returns whether a folder holds a site that was built here."""
    return (folder / _MARK).is_file()


def shows(site: Path, results: Path) -> bool:
    """Returns whether a site is of the results in a folder or archive, as they are now.

    Raises:
        DataError: there are none.
    """
    try:
        told = load_json(site / _MARK)
    except (OSError, ValueError):
        return False
    with opened(results) as folder:
        return isinstance(told, dict) and told.get("results") == results_digest([folder])


def results_digest(folders: Iterable[Path]) -> str:
    """Returns what tells results from others: the SHA-256 of what each says of itself."""
    there = (place for folder in folders for place in places(folder) if not place.is_symlink())
    said = (place / "result.json" for place in there)
    mine = (path for path in said if path.is_file() and not path.is_symlink())
    return canonical_digest(sorted(map(file_digest, mine)))


def _check_packages() -> None:
    lacking = [name for name in _NEEDS if find_spec(name) is None]
    if lacking:
        raise UsageError(
            f"a site needs {', '.join(lacking)}: pip install 'knowledge-bench[leaderboard]'"
        )


def _check_target(out: Path) -> None:
    """Refuses to replace a folder that is not a site: somebody may have meant another one."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not is_site(out):
        raise UsageError(f"{out} is there and is no site; give --out a new folder, or remove it")


def _entries(folders: Iterable[Path]) -> Iterator[Entry]:
    """Yields results without their predictions, which are read with those of their group."""
    for folder in folders:
        if not places(folder):
            raise DataError(folder, "holds no result", LAYOUT)
        yield from read_entries(folder)


def _kept(entries: Iterable[Entry]) -> tuple[Built, list[Result], dict[str, Path]]:
    """Returns what is shown, and where each result of it lies, by its id."""
    built, kept, folders = Built(), dict[str, Result](), dict[str, Path]()
    for entry in entries:
        problem = unreadable(entry)
        if problem or entry.result is None:
            built.damaged.append(f"{entry.where}: {problem}")
        elif entry.result.spec.limit is not None:
            built.limited += 1
        elif (other := kept.get(entry.result.id)) is not None:
            built.twice += 1
            if told_apart(other, entry.result):
                built.damaged.append(f"{entry.where}: contradicts the same run, which is there")
        else:
            kept[entry.result.id] = without_paths(entry.result)
            folders[entry.result.id] = entry.folder
    built.runs = len(kept)
    return built, [*kept.values()], folders


def _content(built: Built, kept: Sequence[Result], groups: Sequence[Made], names: Names) -> Content:
    for one in groups:
        built.damaged += [f"{key}: {why}" for key, why in one.lost.items()]
        built.runs -= len(one.lost)
    built.damaged.sort()
    failed = [result for result in kept if result.status != Status.OK]
    built.failed = len(failed)
    failed.sort(key=lambda result: (result.spec.label, result.id))
    shown = [one.shown for one in groups if one.shown is not None]
    return Content(built, shown, failed, list(figures()), names)
