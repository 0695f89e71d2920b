"""`kbench diff`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbench.cli import options as shared
from kbench.cli.messages import say, say_json
from kbench.errors import UsageError, nearest, one_line
from kbench.results.example_diff import BUCKETS

if TYPE_CHECKING:
    from rich.text import Text

    from kbench.cli.terminal import Console
    from kbench.data import Label
    from kbench.results.example_diff import Changed, Injected
    from kbench.store import Result

__all__ = ["diff"]

_SHOWN = {"gained": "gained", "lost": "lost", "wrong": "both wrong"}
_LONG = 200
"""Characters of a description that are shown."""


@click.command("diff")
@click.argument("a")
@click.argument("b", default="none")
@click.option("--task", help="The task, where results are of several.")
@click.option("--show", "wanted", default="gained,lost,wrong", show_default=True,
              help="Which examples: a comma list.")  # fmt: skip
@click.option("--bucket", type=click.Choice(BUCKETS), help="Only examples of such entities.")
@click.option("--label", help="Only examples with this label, gold or predicted: a glob.")
@click.option("-n", "--examples", "count", type=click.IntRange(min=0), default=3, show_default=True,
              help="How many of each.")  # fmt: skip
@click.option("--neighbours", type=click.IntRange(min=0), default=3, show_default=True,
              help="How many of the entities nearest to a vector are told.")  # fmt: skip
@click.option("--data", help="Where the task's data are, if not where they were.")
@click.option("--bundle", help="Where the knowledge base is, if not where it was.")
@shared.out
@click.option("--json", "as_json", is_flag=True, help="Print all such examples as JSON Lines.")
def diff(
    a: str,
    b: str,
    task: str | None,
    wanted: str,
    bucket: str | None,
    label: str | None,
    count: int,
    neighbours: int,
    data: str | None,
    bundle: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Show what run A gained and lost against run B, and what both have wrong.

    A and B are selections as of `kbench compare`, each of one run; of several seeds the first is
    taken unless named (seed=1). Without B it is the same model without knowledge. Each example
    comes with its text, and the knowledge that each run had of its mentions: with
    control=foreign that is another entity's. Of runs that differ in options alone the one that is
    best on dev is meant, unless an option or an id says which.
    """
    from dataclasses import replace

    from kbench.pipeline.buckets import Popularity
    from kbench.results.comparison import judge
    from kbench.results.example_diff import Texts, changes, injected, known
    from kbench.results.pairing import sides as sides_of
    from kbench.store import Results

    groups = [_change(name) for name in wanted.split(",")]
    store = Results(shared.opened(out))
    pair = sides_of(store, (a, b), task)
    ours, theirs, predictions = pair.ours, pair.theirs, pair.predictions
    for line in pair.said:
        say(f"warning: {line}", err=True)
    texts = Texts.of(ours, data)
    bases = {side: known(result, bundle) for side, result in (("ours", ours), ("theirs", theirs))}
    problems = dict.fromkeys([texts.problem, *(problem for _, problem in bases.values())])
    for problem in filter(None, problems):
        say(f"warning: {one_line(problem)}", err=True)
    base = next((base for base, _ in bases.values() if base is not None), None)
    popularity = Popularity.of(base) if base is not None and bucket in BUCKETS[2:] else None
    changed = [
        replace(each, example=texts.examples.get(each.id))
        for each in changes(*predictions, judge(ours))
        if each.change in groups
        and (bucket is None or each.within(bucket, popularity))
        and (label is None or each.about(label))
    ]
    chosen = changed if as_json else _first(changed, count)
    told = [each.example for each in chosen if each.example is not None]
    brought: dict[str, dict[str, list[Injected]]] = {}
    for side, result in (("ours", ours), ("theirs", theirs)):
        base = bases[side][0]
        if base is not None:
            lists = injected(result, base, told, neighbours)
            brought[side] = {e.id: items for e, items in zip(told, lists, strict=True)}
    if as_json:
        for each in chosen:
            sides = {side: items.get(each.id, []) for side, items in brought.items()}
            say_json(each.as_json(sides))
        return
    from kbench.cli.terminal import Console

    _print(changed, chosen, (ours, theirs), brought, Console())


def _change(name: str) -> str:
    if name.strip() not in _SHOWN:
        raise UsageError(f"--show {name!r}{nearest(name, _SHOWN)}")
    return _SHOWN[name.strip()]


def _first(changed: Sequence[Changed], count: int) -> list[Changed]:
    """The first of each kind of change."""
    return [each for name in _SHOWN.values() for each in _only(changed, name)[:count]]


def _only(changed: Sequence[Changed], change: str) -> list[Changed]:
    return [each for each in changed if each.change == change]


def _print(
    changed: Sequence[Changed],
    chosen: Sequence[Changed],
    sides: tuple[Result, Result],
    brought: Mapping[str, Mapping[str, Sequence[Injected]]],
    console: Console,
) -> None:
    from rich.text import Text

    from kbench.results.comparison import titles
    from kbench.results.identity import Names

    names, first = Names(sides), sides[0]
    (one, two), shared = titles(*sides, names)
    words = [names.of(first, name) for name in ("task", "backbone", "tuning")]
    place = "  ·  ".join([*words, *shared, f"seed {first.spec.seed}"])
    console.print(Text(f"{place}\nA {one}\nB {two}", style="bold cyan"))
    totals = [f"{len(_only(changed, name))} {name}" for name in _SHOWN.values()]
    console.print(Text(", ".join(totals)))
    for name in _SHOWN.values():
        several = _only(chosen, name)
        if several:
            heading = f"{name}: {len(several)} of {len(_only(changed, name))}"
            console.print(Text(f"\n{heading}", style="bold"))
        for each in several:
            console.print(_example(each))
            for side, letter in (("ours", "A"), ("theirs", "B")):
                items = brought.get(side, {}).get(each.id, ())
                for item in {item.entity: item for item in items}.values():
                    console.print(_knowledge(item, letter))
            if any(brought.values()) and not each.linked:
                console.print(Text("  nothing of it reached the model", style="dim"))


def _example(each: Changed) -> Text:
    from rich.text import Text

    from kbench.cli.show import marked

    text = marked(each.example) if each.example is not None else Text(each.id, style="dim")
    text.append(f"\n  = {_spelled(each.gold)}", style="green")
    guesses = zip("AB", (each.ours, each.theirs), each.probabilities, strict=True)
    for letter, guess, score in guesses:
        text.append(f"\n  {letter} ", style="cyan")
        text.append(f"{_spelled(guess)} ({score:.2f})", style="bold default")
    return text


def _knowledge(item: Injected, letter: str) -> Text:
    from rich.text import Text

    text = Text(f"  {letter} knows [{item.mention}] ", style="cyan")
    text.append(f"{item.entity} {item.label}", style="default")
    if item.instead is not None:
        text.append(f" — with the knowledge of {item.instead}", style="red")
    if item.types:
        text.append(f"  {', '.join(item.types)}", style="green")
    if item.description:
        long = len(item.description) > _LONG
        text.append(f"  {item.description[:_LONG]}{'…' if long else ''}", style="default")
    near = ", ".join(f"{label} {cosine:.2f}" for label, cosine in item.neighbours)
    near = near if item.vector else "no vector"
    text.append(f"  near: {near}" if item.vector and near else f"  {near}", style="dim")
    return text


def _spelled(label: Label) -> str:
    return label if isinstance(label, str) else ", ".join(label) or "(nothing)"
