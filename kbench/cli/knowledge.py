"""``kbench knowledge``: import a knowledge base, train its vectors, look into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbench.cli.messages import say, say_json
from kbench.cli.options import Limit, examples, pair
from kbench.data.files import is_folder
from kbench.errors import PluginError, UsageError, one_line
from kbench.knowledge.vectors import VectorSettings
from kbench.parts import registry

if TYPE_CHECKING:
    from kbench.cli.terminal import Console
    from kbench.data import Example
    from kbench.knowledge import Bundle, KnowledgeBase
    from kbench.knowledge.importing import Report
    from kbench.knowledge.leakage import Pairs
    from kbench.task import Task

__all__ = ["knowledge"]

_FOLDER = click.Path(path_type=Path, file_okay=False)
_TABLES = ("published",)
"""Fields of a card that are tables of their own."""
_PARTS = ("link_prediction", "sources")
"""Parts of its objects that are."""
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
            say_json({"name": name, **vars(importer.card), "options": options})
            continue
        say(f"{name}: {importer.card.title} ({importer.card.source})")
        say(f"  SRC is {importer.card.layout}")
        for key, option in importer.options.items():
            say(f"  -o {key}={option.value}  {option.told}")


class _Formats(click.Command):
    """Names the formats that are installed, and their options, at the end of its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        lines = []
        for name in registry.names("importers"):
            try:
                importer = registry.get("importers", name)
            except PluginError as problem:
                lines.append((name, f"cannot be used: {one_line(problem)}"))
                continue
            lines.append((name, f"{importer.card.title}; -o {', '.join(importer.options)}"))
        with formatter.section("Formats"):
            formatter.write_dl(lines)


@examples("kbench knowledge import codex codex/data my-codex -o size=m -o sentences=wiki.jsonl")
@knowledge.command(
    "import", cls=_Formats, short_help="Read a published knowledge base into a bundle."
)
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
    """Read a published knowledge base in FORMAT from folder SRC into a bundle at folder DST.

    Bad rows are left out, counted, and the first of them shown. What the options of a format
    mean: `kbench show FORMAT`, or `kbench knowledge formats` of all.
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
        _print_report(console, report)
        _hint(console, bundle)


def _print_report(console: Console, report: Report) -> None:
    from kbench.cli.layout import Column, show

    rows = []
    for kind, row in report.as_json()["rows"].items():
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in row["dropped"].items())
        rows.append((kind, f"{row['read']:,}", f"{row['kept']:,}", dropped or "0"))
    rows += [(fact, "", f"{number:,}", "") for fact, number in report.facts.items()]
    names = ("rows", "read", "kept", "dropped")
    words = ("rows", "dropped")
    columns = [
        Column(name, cells, "left" if name in words else "right", name in words)
        for name, cells in zip(names, zip(*rows, strict=True), strict=True)
    ]
    show(console, columns, "import")


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

    Older vectors are replaced. What was used is recorded in the card of the bundle, and how well
    such vectors tell facts that they were not trained on: those of the graph's own test split,
    else some that are drawn. For that, vectors of all facts are trained a second time without
    them, unless that would take long; with `--train-on train` they are left out in the first
    place, and with `--ranked 0` nothing is measured.
    """
    from kbench.knowledge.vectors import train_vectors

    settings = VectorSettings(**given)
    with _progress(settings.epochs) as shown:
        bundle = train_vectors(folder, settings, shown(), shown("again for link prediction"))
    vectors = bundle.card["vectors"]
    if as_json:
        _print_json({"bundle": str(folder), "digest": bundle.digest, "vectors": vectors})
        return
    console = _console()
    for title, part in _sections({"vectors": vectors}):
        _print_pairs(console, title, part)
    _print_figures(console, bundle)


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[..., Callable[[int, float], None]]]:
    """Shows epochs, the loss and the time left on stderr, a bar for each training that begins."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(), transient=True) as shown:

        def bar(why: str = "") -> Callable[[int, float], None]:
            title = f"training vectors {why}".rstrip()
            task = shown.add_task(title, total=epochs, visible=not why)

            def advance(epoch: int, loss: float) -> None:
                told = f"{title}, loss {loss:.4f}"
                shown.update(task, completed=epoch, description=told, visible=True)

            return advance

        yield bar


@knowledge.command("merge", short_help="Join what several bundles know of the same entities.")
@click.argument("sources", metavar="SRC SRC…", nargs=-1, required=True)
@click.argument("target", metavar="DST", type=_FOLDER)
@click.option("--name", default="", help="Of the new bundle. Default: those of the sources.")
@click.option("--replace", is_flag=True, help="Replace the bundle at DST.")
@_JSON
def merge(sources: tuple[str, ...], target: Path, name: str, replace: bool, as_json: bool) -> None:
    """Write bundle DST: all that two or more bundles SRC know, by the ids of their entities.

    Facts, other names, types and sentences are united. Where labels, descriptions or texts of
    relations differ, the source that is given first counts; another label becomes an alias.
    Vectors of two graphs share no space, so they are left out: train them anew.
    """
    from kbench.knowledge.importing import check_target
    from kbench.knowledge.merging import merge as merge_bundles

    check_target(target, replace)
    made, counts = merge_bundles([_open(source) for source in sources], target, name)
    if as_json:
        own = made.card["counts"]
        _print_json({"bundle": str(target), "digest": made.digest, "counts": own, "same": counts})
        return
    console = _console()
    for line in made.card["merged"]["relation_texts_not_taken"]:
        say(f"relation {line}", err=True)
    for title, part in (("merged", counts), ("bundle", made.card["counts"])):
        _print_pairs(console, title, part)
    _hint(console, made)


@knowledge.command("holdout", short_help="Write a bundle without what the tests of tasks hold.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=_FOLDER)
@click.option("--task", required=True, help="Tasks whose test and dev splits are held out.")
@click.option("--data", help="Where their data are.")
@click.option("--set", "settings", multiple=True, metavar="task.TASK.KEY=VALUE",
              help="An option of a task, as for `kbench run`; repeatable.")  # fmt: skip
@click.option("--linker", help="gold, title or alias. Default: each task's own.")
@click.option("--limit", type=Limit(), help="Examples of each split, as for `kbench run`.")
@click.option("--seed", help="Taken as `kbench run` takes it; the examples hang on no seed.")
@click.option("--only-sentences", is_flag=True, help="Leave out sentences, and keep every fact.")
@click.option("--replace", is_flag=True, help="Replace the bundle at DST.")
@_JSON
def holdout(
    source: str, target: Path, only_sentences: bool, replace: bool, as_json: bool, **run: Any
) -> None:
    """Write bundle DST: bundle SRC without what the tests of some tasks hold.

    Facts that join the pair of an example of test or dev are left out: its head and tail, or what
    a question links and whoever is called as an answer is. So are sentences with the words of an
    example, and the vectors, which were made of the facts: train them again. Give the task, --set
    and --linker of the runs, so that the examples and their links are theirs. A task of which no
    pair is known is refused, unless only its sentences are to be left out.
    """
    from kbench.knowledge.holdout import hold_out, pairs_in_turn
    from kbench.knowledge.importing import check_target

    check_target(target, replace)
    asked, bundle = _asked(run), _open(source)
    pairs = [] if only_sentences else [_known_pairs(each, bundle) for each in asked]
    examples = [example for each in asked for example in each.examples]
    about: dict[str, object] = {
        "tasks": [each.name for each in asked],
        "data": [each.task.digest for each in asked],
        "options": {each.name: each.task.options for each in asked if each.task.options},
        "linkers": {each.name: each.linker for each in asked},
        "examples": len(examples),
        "examples_with_a_pair": sum(each.examples for each in pairs),
    }
    if pairs and any(each.linker == "alias" for each in asked):
        pairs = pairs_in_turn(bundle, pairs, lambda base: [each.pairs(base) for each in asked])
    made, dropped = hold_out(bundle, target, examples, pairs, about)
    if as_json:
        counted = {name: about[name] for name in ("examples", "examples_with_a_pair")}
        _print_json({"bundle": str(target), "digest": made.digest, **counted, "dropped": dropped})
        return
    console = _console()
    told = {
        "examples asked about": len(examples),
        "of them with a known pair": about["examples_with_a_pair"],
    }
    _print_pairs(console, "left out", {**told, **dropped})
    _hint(console, made)


@dataclass(frozen=True)
class _Asked:
    """A task whose tests are held out, with its examples of test and dev, and their linker."""

    name: str
    task: Task
    linker: str
    examples: list[Example]

    def pairs(self, base: KnowledgeBase) -> Pairs:
        """Returns the pairs of the examples in a knowledge base."""
        from kbench.knowledge.leakage import pairs_of

        return pairs_of(self.examples, base, self.linker)


def _asked(run: Mapping[str, Any]) -> list[_Asked]:
    """Returns the tasks of a `kbench run` with these options."""
    from kbench.data import Split
    from kbench.grid.grids import make_grids
    from kbench.parts.find import find_task

    settings = run["settings"]
    given = {name: value for name, value in run.items() if name != "settings" and value is not None}
    (grid,) = make_grids({"method": "all"}, "the options", given, settings)
    names = registry.expand("tasks", ",".join(grid.task))
    for text in settings:
        if text.split(".")[0] != "task" or text.split(".")[1] not in names:
            say(f"warning: --set {text!r} changes nothing here: it is of no task given", err=True)
    asked = []
    for name in names:
        task = find_task(name, grid.data, grid.options.get("task", {}).get(name, {}))
        splits = [task.examples(split) for split in (Split.TEST, Split.DEV)]
        if grid.limit is not None:
            from kbench.pipeline.preparation import limited  # brings torch

            splits = [limited(split, grid.limit) for split in splits]
        examples = [example for split in splits for example in split]
        asked.append(_Asked(name, task, grid.linker or task.linking, examples))
    return asked


def _known_pairs(asked: _Asked, bundle: Bundle) -> Pairs:
    """Returns the pairs of a task's examples.

    Raises:
        UsageError: there is none, so that no fact could be held out.
    """
    pairs = asked.pairs(bundle)
    if not len(pairs):
        raise UsageError(
            f"task {asked.name}: which facts tell its labels cannot be known: of "
            f"{len(asked.examples)} examples the linker {asked.linker} finds none with a head and "
            f"a tail, or a question's entity and an answer, in {bundle.name}; try another "
            "--linker, or --only-sentences, which keeps every fact"
        )
    return pairs


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
    bundle = _open(name, checked=False)
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
        _print_pairs(console, title, part)
    _print_figures(console, bundle)
    for entity in examples:
        named = entity.name or "(no name)"
        types = ", ".join(entity.types[:5])
        console.print(f"{entity.id}  {named}  {types}", markup=False, highlight=False)


def _open(name: str, *, checked: bool = True) -> Bundle:
    from kbench.knowledge import Bundle

    if name not in registry.names("knowledge") and is_folder(Path(name)):
        bundle = Bundle(name)  # without what `parts` imports
        return bundle.checked() if checked else bundle
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
    """Splits a card into tables: its plain fields, then each of its objects, and theirs."""
    nested = {key: value for key, value in about.items() if isinstance(value, dict)}
    if plain := {k: v for k, v in about.items() if k not in nested and k not in _TABLES}:
        yield "knowledge base", plain
    for title, part in nested.items():
        yield title, {k: v for k, v in part.items() if v != [] and k not in _PARTS}
        if isinstance(figures := part.get("link_prediction"), dict):
            yield "link prediction", figures
        if isinstance(sources := part.get("sources"), list):
            yield (
                "sources",
                {str(s.get("name")): _source(s) for s in sources if isinstance(s, dict)},
            )


def _source(said: Mapping[str, Any]) -> str:
    """Returns what the card of a merged bundle says of one it was made of, in a line."""
    counts = said.get("counts") or {}
    sizes = ", ".join(f"{counts.get(name, 0):,} {name}" for name in ("entities", "triples"))
    return f"{sizes}, digest {str(said.get('digest'))[:12]}, {said.get('licence')}"


def _print_figures(console: Console, bundle: Bundle) -> None:
    """Shows the link prediction of the vectors of a bundle beside published figures."""
    from kbench.cli.layout import Column, show

    rows = list(_figures(bundle.card))
    if not rows:
        return
    model, mrr, hits, whose = zip(*rows, strict=True)
    columns = [
        Column("model", model),
        Column("MRR", mrr, "right"),
        Column("Hits@10", hits, "right"),
        Column("figures of", whose, text=True),
    ]
    show(console, columns, "link prediction, filtered")


def _figures(card: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yields model, MRR, Hits@10 and whose figures they are; a card may be a stranger's."""
    vectors = card.get("vectors") or {}
    own, published = vectors.get("link_prediction"), card.get("published")
    if isinstance(own, dict):
        twin = " (a twin without them)" if str(own.get("of")).startswith("a twin") else ""
        whose = f"this bundle{twin}, {own.get('facts_ranked')} facts of {own.get('split')}"
        yield from _figure(own, vectors.get("model"), whose)
    for figure in published if isinstance(published, list) else ():
        if isinstance(figure, dict):
            yield from _figure(figure, figure.get("model"), f"test, {figure.get('source', '?')}")


def _figure(
    figure: Mapping[str, Any], model: Any, whose: str
) -> Iterator[tuple[str, str, str, str]]:
    if "mrr" in figure:
        yield str(model or "?"), str(figure["mrr"]), str(figure.get("hits_at_10", "?")), whose


def _print_pairs(console: Console, title: str, values: Mapping[str, Any]) -> None:
    from kbench.cli.layout import pairs

    shown = {key: f"{v:,}" if type(v) is int else str(v) for key, v in values.items()}
    pairs(console, shown, title)


def _print_json(value: Mapping[str, Any]) -> None:
    say_json(value)


def _console(stderr: bool = True) -> Console:
    from kbench.cli.terminal import Console

    return Console(stderr=stderr)
