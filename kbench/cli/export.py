"""`kbench export`: what is stored, in forms that others read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbench.cli import options as shared
from kbench.cli.messages import say

if TYPE_CHECKING:
    from kbench.store import Result, Results

__all__ = ["export"]


@click.group("export")
def export() -> None:
    """Write what is stored in a form that can be handed on."""


@export.command("plug", short_help="A trained plug as a folder with a card.")
@click.argument("run")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--with-model",
    is_flag=True,
    help="Also what was tuned of the backbone: all of its weights.",
)
@click.option("--licence", default="", help="Of the weights, as the hub names it: mit, cc-by-4.0.")
@click.option("--push", "repository", metavar="OWNER/NAME", help="Upload it to the hub, too.")
@shared.out
def plug(
    run: str, folder: Path, with_model: bool, licence: str, repository: str | None, out: Path
) -> None:
    """Write the plug of RUN as FOLDER: weights, configuration, and a card made of its result.

    RUN is a selection of one run as of `kbench compare`; of several seeds the first is taken
    unless named (seed=1). `kbench.load_plug(FOLDER)` attaches it again (docs/plugs.md).
    """
    from kbench.interface.exporting import export_plug, push
    from kbench.store import Results

    store = Results(shared.opened(out))
    result = export_plug(store, run, folder, with_model=with_model, licence=licence)
    say(f"{folder}: the plug of {result.spec.label}")
    if repository is not None:
        say(push(folder, repository))


@export.command("eee", short_help="Results in the schema of Every Eval Ever.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("runs", required=False, metavar="[RUNS]")
@click.option("--organization", default="unknown", show_default=True, help="Who ran them.")
@click.option("--texts", is_flag=True, help="Also the texts of examples, if they may be handed on.")
@shared.out
def eee(folder: Path, runs: str | None, organization: str, texts: bool, out: Path) -> None:
    """Write results in the schema of Every Eval Ever, with a line for each example beside.

    RUNS is a selection as of `kbench compare`; all results if not given. Controls are no models:
    they stand as details of the runs that they belong to (docs/results.md).
    """
    from kbench.interface.eee import export_eee
    from kbench.store import Results

    store = Results(shared.opened(out))
    results = _selected(store, runs)
    made = export_eee(store, folder, results, organization=organization, texts=texts)
    say(f"{folder / 'data'}: {len(made)} results")


@export.command("hub", short_help="Results as a data set of the hub.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("runs", required=False, metavar="[RUNS]")
@click.option("--title", default="kbench results", show_default=True, help="Of the card.")
@click.option("--push", "repository", metavar="OWNER/NAME", help="Upload it to the hub, too.")
@shared.out
def hub(folder: Path, runs: str | None, title: str, repository: str | None, out: Path) -> None:
    """Write results as a data set of the Hugging Face hub: tables that its viewer shows, a card.

    RUNS is a selection as of `kbench compare`; all results if not given, controls and failed runs
    too. A site for a Space is made by `kbench leaderboard build --space` (docs/leaderboard.md).
    """
    from kbench.interface.exporting import push
    from kbench.interface.hub import export_hub
    from kbench.interface.reading import Runs
    from kbench.store import Results

    store = Results(shared.opened(out))
    results = _selected(store, runs)
    export_hub(Runs(store.folder, results), folder, title=title)
    say(f"{folder}: {len(results)} results")
    if repository is not None:
        say(push(folder, repository, "dataset"))


def _selected(store: Results, text: str | None) -> list[Result]:
    """The results that a selection means; all of them where none is given."""
    results = list(store)
    if text is None:
        return results
    from kbench.results.selection import Selection

    chosen = Selection.parse(text, results)
    return [result for result in results if result in chosen]
