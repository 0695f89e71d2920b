"""`kbench score`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbench.cli import options as shared
from kbench.cli.messages import say, say_json
from kbench.data import SCORERS
from kbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kbench.results.rescoring import Again
    from kbench.store import Result, Results

__all__ = ["score"]

_FILTERS = ("task", "method", "setting", "tuning", "backbone", "knowledge", "control")


@shared.filters(_FILTERS)
@click.command("score")
@click.argument("runs", required=False, metavar="[RUNS]")
@shared.out
@click.option(
    "--scorer",
    type=click.Choice(SCORERS),
    help="Instead, what another comparison of candidates would have given.",
)
@click.option(
    "--external",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Instead, score predictions made elsewhere, and store them: JSON Lines of id, prediction.",
)
@click.option("--name", help="With --external: what made them.")
@click.option("--data", help="With --external: the folder of the task's files.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="With --external: of their run.")
@click.option("--json", "as_json", is_flag=True, help="Print every score as JSON Lines.")
def score(
    runs: str | None,
    out: Path,
    scorer: str | None,
    file: Path | None,
    name: str | None,
    data: str | None,
    seed: int | None,
    as_json: bool,
    **filters: str | None,
) -> int:
    """Make all metrics again from stored predictions, without data, model or knowledge.

    RUNS is a selection as of `kbench compare`, with any control unless one is named. Says which
    stored value differs; exit status 1 if any does.

    With --scorer the runs that chose among candidates are scored as if they had compared these so
    (docs/decoders.md); exit status 1 if there is none.

    With --external the predictions of FILE for the test split of --task are scored and stored as a
    result of the method external:NAME; --backbone says what model is behind them
    (docs/results.md).
    """
    elsewhere = {"--name": name, "--data": data, "--seed": seed}
    if file is not None:
        filtered = {f"--{key}": value for key, value in filters.items()}
        others = {"RUNS": runs, "--scorer": scorer, **filtered}
        _check_alone("--external", {**others, "--task": None, "--backbone": None})
        return _external(file, out, elsewhere, filters, as_json=as_json)
    _check_alone("no --external", elsewhere)
    from kbench.results.identity import Names
    from kbench.results.selection import Selection
    from kbench.store import Results, Status

    store = Results(shared.opened(out))
    results = [result for result in store if result.status == Status.OK]
    names = Names(results)
    if runs:
        chosen = Selection.parse(runs, results)
        chosen = replace(chosen, named={"control": "*", **chosen.named})
        results = [result for result in results if result in chosen]
    results = [r for r in results if shared.chosen(r, filters, _FILTERS, names)]
    shared.check_fitting(results, filters)
    if scorer is not None:
        return _by(store, results, scorer, as_json=as_json)
    scores = wrong = 0
    for result in results:
        rescored, problem = _again(store, result)
        scores += len(rescored)
        problems = [f"{each.name}: {each.differs}" for each in rescored if each.differs]
        problems += [problem] if problem else []
        wrong += len(problems)
        if as_json:
            value: dict[str, Any] = {"id": result.id, "spec": result.spec.model_dump(mode="json")}
            value |= {"scores": [each.as_json() for each in rescored], "problem": problem}
            say_json(value)
            continue
        for text in problems:
            say(f"{result.id[:12]} {result.spec.label}: {text}")
    if not as_json:
        verdict = f"{wrong} differ or cannot be made again" if wrong else "all as stored"
        say(f"{len(results)} results, {scores} scores: {verdict}")
    return int(wrong > 0)


def _check_alone(what: str, others: Mapping[str, object]) -> None:
    for name, value in others.items():
        if value is not None:
            raise UsageError(f"{name} has no meaning with {what}")


def _external(
    file: Path,
    out: Path,
    given: Mapping[str, Any],
    filters: Mapping[str, str | None],
    *,
    as_json: bool,
) -> int:
    """Stores predictions made elsewhere as a result, and prints its scores."""
    from kbench.results.external import external
    from kbench.store import Results

    task, name = filters["task"], given["--name"]
    if task is None or name is None:
        raise UsageError("--external needs --task, whose test split it is of, and --name")
    result, found = external(
        file,
        name,
        task,
        data=given["--data"],
        backbone=filters["backbone"],
        seed=given["--seed"] or 0,
    )
    result = Results(out).save(result, found)
    if as_json:
        say_json(result.as_json())
    else:
        told = ", ".join(f"{name} {100 * one.value:.1f}" for name, one in result.metrics.items())
        say(f"{result.id[:12]} {result.spec.label}: {told}")
    return 0


def _by(store: Results, results: Sequence[Result], scorer: str, *, as_json: bool) -> int:
    """Prints what another scorer makes of each result; returns the exit status."""
    from kbench.errors import KbenchError
    from kbench.results.rescoring import by_scorer

    done = 0
    for result in results:
        try:
            predictions = store.predictions(result)
            if predictions is None or predictions.likelihoods is None:
                continue
            made = by_scorer(result, predictions, scorer)
        except KbenchError as error:
            say(f"{result.id[:12]} {result.spec.label}: {error}", err=True)
            continue
        done += 1
        own = predictions.likelihoods.scorer
        if as_json:
            scores = {name: each.model_dump() for name, each in made.items()}
            value = {"id": result.id, "spec": result.spec.model_dump(mode="json")}
            value |= {"scorer": scorer, "stored": own, "scores": scores}
            say_json(value)
            continue
        told = ", ".join(
            f"{name} {100 * each.value:.1f} (by {own} {100 * result.metrics[name].value:.1f})"
            for name, each in made.items()
            if each.n  # of a stratum that no example is in there is none
        )
        say(f"{result.id[:12]} {result.spec.label}: by {scorer} {told}")
    if not as_json:
        rest = len(results) - done
        say(f"{done} results by {scorer}" + (f", {rest} not by candidates" if rest else ""))
    return int(not done)


def _again(store: Results, result: Result) -> tuple[list[Again], str]:
    """The scores of a result, and why there are none if so."""
    from kbench.errors import KbenchError
    from kbench.results.rescoring import again

    try:
        predictions = store.predictions(result)
        if predictions is None:
            return [], "has no predictions"
        return again(result, predictions), ""
    except KbenchError as error:
        return [], str(error)
