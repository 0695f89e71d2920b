"""`kbench cite`."""

from __future__ import annotations

from pathlib import Path

import click

from kbench.cli import options as shared
from kbench.cli.messages import say

__all__ = ["cite"]


@click.command("cite")
@click.argument("runs", required=False, metavar="[RUNS]")
@shared.out
def cite(runs: str | None, out: Path) -> None:
    """Print BibTeX of kbench and of the tasks, methods and knowledge bases of stored results.

    RUNS is a selection as of `kbench compare`, with any control unless one is named; all results
    if not given. Entries are made of what the parts say of themselves: look at them before you
    print them.
    """
    from dataclasses import replace

    from kbench.data.files import is_folder
    from kbench.results.citing import bibtex, cited
    from kbench.results.selection import Selection
    from kbench.store import Results

    given = runs is not None
    results = list(Results(shared.opened(out))) if given or is_folder(out) else []
    if runs is not None:
        chosen = Selection.parse(runs, results)
        chosen = replace(chosen, named={"control": "*", **chosen.named})
        results = [result for result in results if result in chosen]
    works, unknown = cited(results)
    say(bibtex(works))
    for what in unknown:
        say(f"warning: {what}: its card names nothing to cite", err=True)
