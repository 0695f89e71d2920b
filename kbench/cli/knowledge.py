"""``kbench knowledge``: import a knowledge base, train its vectors, look into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbench.cli.messages import say
from kbench.cli.options import pair
from kbench.data.files import is_folder
from kbench.knowledge.vectors import VectorSettings
from kbench.parts import registry

if TYPE_CHECKING:
    from kbench.cli.terminal import Console
    from kbench.knowledge import Bundle
    from kbench.knowledge.importing import Report

__all__ = ["knowledge"]

_FOLDER = click.Path(path_type=Path, file_okay=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON to stdout.")


@click.group()
def knowledge() -> None:
    """Import a knowledge base, train its vectors, look into it."""


@knowledge.command("formats", short_help="List the formats that can be imported.")
@_JSON
def list_formats(as_json: bool) -> None:
    """List the formats that can be imported, and their options."""
    for name in registry.names("importers"):
        importer = registry.get("importers", name)
        if as_json:
            options = {key: vars(option) for key, option in importer.options.items()}
            click.echo(json.dumps({"name": name, **vars(importer.card), "options": options}))
            continue
        say(f"{name}: {importer.card.title} ({importer.card.source})")
        click.echo(f"  SRC is {importer.card.layout}")
        for key, option in importer.options.items():
            click.echo(f"  -o {key}={_values(option)}  {option.help}{_default(option)}")


def _values(option: Any) -> str:
    if option.choices:
        return "|".join(option.choices)
    return "FILE" if option.path else "TEXT"


def _default(option: Any) -> str:
    default = f"; default: {option.default}" if option.default is not None else ""
    return default + ("; repeatable" if option.repeatable else "")


@knowledge.command("import", short_help="Read a published knowledge base into a bundle.")
@click.argument("name", metavar="FORMAT")
@click.argument("source", metavar="SRC", type=_FOLDER)
@click.argument("target", metavar="DST", type=_FOLDER)
@click.option("--option", "-o", "options", multiple=True, metavar="KEY=VALUE",
              help="An option of the format; repeatable.")  # fmt: skip
@click.option("--replace", is_flag=True, help="Replace the bundle at DST, its vectors included.")
@_JSON
def import_bundle(
    name: str, source: Path, target: Path, options: tuple[str, ...], replace: bool, as_json: bool
) -> None:
    r"""Read a published knowledge base in FORMAT from folder SRC into a bundle at folder DST.

    The formats and their options: `kbench knowledge formats`. Bad rows are left out, counted,
    and the first of them shown.

    \b
    kbench knowledge import codex codex/data my-codex -o size=m -o sentences=wiki.jsonl
    """
    from rich.markup import escape

    importer = registry.get("importers", name)()
    console = _console()
    reading = f"reading {escape(str(source))} as {name}"
    with console.status(reading) as status:
        bundle, report = importer.run(
            source,
            target,
            [pair(option) for option in options],
            replace=replace,
            watch=lambda kind, rows: status.update(f"{reading}: {rows:,} {kind}"),
        )
    for problem in [*report.examples, *report.notes]:
        console.print(problem, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        _print_json(
            {
                "bundle": str(target),
                "digest": bundle.digest,
                **report.as_json(),
                "malformed": report.examples,
            }
        )
    else:
        console.print(_report_table(report))
        _hint(console, bundle)


def _report_table(report: Report) -> Any:
    from rich.table import Table

    table = Table("rows", "read", "kept", "dropped", title="import")
    for kind, row in report.as_json()["rows"].items():
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in row["dropped"].items())
        table.add_row(kind, f"{row['read']:,}", f"{row['kept']:,}", dropped or "0")
    for fact, number in report.facts.items():
        table.add_row(fact, "", f"{number:,}", "")
    return table


def _hint(console: Console, bundle: Bundle) -> None:
    entities, facts = bundle.unnamed()
    if entities:
        console.print(
            f"{entities:,} of {len(bundle):,} entities have no name (no label, no alias, an id "
            f"that is no words): no text finds them, and {facts:,} facts are not told",
            style="yellow", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    line = f"{bundle.folder}: {len(bundle):,} entities, digest {bundle.digest[:12]}"
    if not bundle.dimension:
        line += f"; no vectors yet: run `kbench knowledge train {bundle.folder}`"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _settings(command: Any) -> Any:
    """Gives a command one option for each of the settings of training."""
    for setting in reversed(fields(VectorSettings)):
        command = click.option(
            "--" + setting.name.replace("_", "-"),
            type=type(setting.default),
            default=setting.default,
            show_default=True,
            help=setting.metadata["help"],
        )(command)
    return command


@knowledge.command("train", short_help="Train entity vectors on the triples of a bundle.")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@_settings
@_JSON
def train(folder: Path, as_json: bool, **given: Any) -> None:
    """Train entity vectors on the triples of the bundle DIR, and store them in it.

    Older vectors are replaced. What was used is recorded in the card of the bundle.
    """
    from kbench.knowledge.vectors import train_vectors

    settings = VectorSettings(**given)
    with _progress(settings.epochs) as advance:
        bundle = train_vectors(folder, settings, advance)
    vectors = bundle.card["vectors"]
    if as_json:
        _print_json({"bundle": str(folder), "digest": bundle.digest, "vectors": vectors})
    else:
        _console().print(_pairs_table("vectors", vectors))


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[int, float], None]]:
    """Shows epochs, the loss and the time left on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(), transient=True) as shown:
        task = shown.add_task("training vectors", total=epochs)

        def advance(epoch: int, loss: float) -> None:
            shown.update(task, completed=epoch, description=f"training vectors, loss {loss:.4f}")

        yield advance


@knowledge.command("holdout", short_help="Write a bundle without what the tests of tasks hold.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=_FOLDER)
@click.option("--task", required=True, help="Tasks whose test and dev splits are held out.")
@click.option("--data", help="Where their data are.")
@click.option("--replace", is_flag=True, help="Replace the bundle at DST.")
@_JSON
def holdout(
    source: str, target: Path, task: str, data: str | None, replace: bool, as_json: bool
) -> None:
    """Write bundle DST: bundle SRC without what the tests of some tasks hold.

    Facts that join the head and tail of an example of test or dev are left out, and sentences
    with the words of one. So are the vectors, which were made of the facts: train them again.
    """
    from kbench.data import Split
    from kbench.knowledge.holdout import hold_out
    from kbench.knowledge.importing import check_target
    from kbench.parts.find import find_task

    check_target(target, replace)
    names = registry.expand("tasks", task)
    tasks = [find_task(name, data) for name in names]
    examples = [e for t in tasks for split in (Split.TEST, Split.DEV) for e in t.examples(split)]
    about = {"tasks": names, "data": [t.digest for t in tasks], "examples": len(examples)}
    bundle, dropped = hold_out(_open(source), target, examples, about)
    if as_json:
        _print_json({"bundle": str(target), "digest": bundle.digest, "dropped": dropped})
        return
    console = _console()
    console.print(_pairs_table("left out", {"examples asked about": len(examples), **dropped}))
    _hint(console, bundle)


@knowledge.command("info", short_help="Show what is in a bundle, and verify it.")
@click.argument("name", metavar="DIR")
@click.option("--entities", "-n", default=5, show_default=True, help="Examples to show.",
              type=click.IntRange(min=0))  # fmt: skip
@click.option("--verify/--no-verify", default=True, show_default=True,
              help="Compare every file with its digest in the card.")  # fmt: skip
@_JSON
def info(name: str, entities: int, verify: bool, as_json: bool) -> None:
    """Show the card of the bundle DIR, its counts and vectors, and some entities.

    DIR may also be the name of an installed knowledge base (`kbench ls knowledge`). It is an
    error if a file is missing or is not the one that the card states.
    """
    bundle = _open(name)
    if verify:
        bundle.verify()
    examples = [bundle.entity(row) for row in _examples(bundle, entities)]
    entities, facts = bundle.unnamed()
    about = {
        **bundle.card,
        "verified": verify,
        "coverage": _coverage(bundle),
        "names": {"entities without a name": entities, "facts not told for that": facts},
    }
    if as_json:
        _print_json({**about, "examples": [asdict(entity) for entity in examples]})
        return
    console = _console(stderr=False)
    for title, part in _sections(about):
        console.print(_pairs_table(title, part))
    for entity in examples:
        named = entity.name or "(no name)"
        types = ", ".join(entity.types[:5])
        console.print(f"{entity.id}  {named}  {types}", markup=False, highlight=False)


def _open(name: str) -> Bundle:
    from kbench.knowledge import Bundle

    if name not in registry.names("knowledge") and is_folder(Path(name)):
        return Bundle(name)  # without what `parts` imports
    from kbench.parts.find import find_knowledge

    return find_knowledge(name)


def _examples(bundle: Bundle, number: int) -> list[int]:
    """Returns rows spread over the bundle, those that have a name first."""
    named = [row for row, names in enumerate(bundle.each_name()) if names]
    rows = named if len(named) >= number else list(range(len(bundle)))
    step = max(1, len(rows) // max(1, number))
    return rows[::step][:number]


def _coverage(bundle: Bundle) -> dict[str, int]:
    """Counts the entities of which something is known."""
    return {
        "entities with a label": sum(map(bool, bundle.labels)),
        "entities with a vector": (bundle.card.get("vectors") or {}).get("entities", 0),
    }


def _sections(about: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Splits a card into tables: its plain fields, then each of its objects."""
    nested = {key: value for key, value in about.items() if isinstance(value, dict)}
    yield "knowledge base", {k: v for k, v in about.items() if k not in nested}
    yield from nested.items()


def _pairs_table(title: str, values: Mapping[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for key, value in values.items():
        shown = f"{value:,}" if type(value) is int else str(value)
        table.add_row(escape(key), escape(shown))
    return table


def _print_json(value: Mapping[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def _console(stderr: bool = True) -> Console:
    from kbench.cli.terminal import Console

    return Console(stderr=stderr)
