"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import click

from kbench.errors import UsageError

__all__ = ["chosen", "filters", "opened", "out"]

out = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kbench-results"),
    show_default=True,
    help="Folder of results.",
)


def filters(names: Iterable[str]) -> Callable[[click.Command], click.Command]:
    """Returns a decorator that gives a command an option for each field to choose results by."""

    def decorated(command: click.Command) -> click.Command:
        for name in reversed([*names]):
            option = click.Option([f"--{name}"], help=f"Only this {name}: a comma list of globs.")
            command.params.insert(0, option)
        return command

    return decorated


def chosen(thing: object, given: Mapping[str, str | None], names: Iterable[str]) -> bool:
    """Whether the fields of a run or figure fit the options given."""
    return all(
        any(fnmatchcase(getattr(thing, name) or "", glob.strip()) for glob in wanted.split(","))
        for name in names
        if (wanted := given[name])
    )


def opened(folder: Path) -> Path:
    """Returns a folder of results.

    Raises:
        UsageError: it is not there.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}; run `kbench run` first, or give --out")
    return folder
