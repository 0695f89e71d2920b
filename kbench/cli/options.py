"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["out"]

out = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kbench-results"),
    show_default=True,
    help="Folder of results.",
)
