"""`kbench show`: a part's card, and examples with mentions and entities marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from rich.text import Text

from kbench.cli.layout import Column, pairs, prose
from kbench.cli.layout import show as show_table
from kbench.cli.terminal import Console
from kbench.data import Example, Split, outermost
from kbench.data.files import is_file, is_folder
from kbench.errors import KbenchError, PluginError, UsageError, lacking, nearest
from kbench.parts import registry
from kbench.parts.catalogue import Entry, Kind, entries
from kbench.parts.source_text import (
    constant,
    declared,
    defaults,
    option_types,
    recipe_types,
    settings,
    summary,
)
from kbench.spec import spelled

if TYPE_CHECKING:
    from kbench.knowledge import Bundle
    from kbench.method import InjectionMethod
    from kbench.model import Backbone
    from kbench.training import Tuning

__all__ = ["marked", "show"]


@click.command("show")
@click.argument("name")
@click.option("-n", "--examples", type=click.IntRange(min=0), default=3, show_default=True,
              help="How many of a task, or entities of a knowledge base.")  # fmt: skip
@click.option("--data", help="Folder of the task's files, or hf:REPOSITORY[@REVISION].")
@click.option("--split", type=click.Choice([*map(str, Split)]), default="test", show_default=True,
              help="Of a task, from which examples are shown.")  # fmt: skip
def show(name: str, examples: int, data: str | None, split: str) -> None:
    """Show what is known of a part called NAME, or of a model or knowledge base in a folder.

    Of a method or tuning that is how it trains, too, and of every part its options with what
    they may be; of a task and a knowledge base, a few examples.
    """
    console = Console()
    kinds = [kind for kind in Kind if name in registry.names(kind)]
    if not kinds:
        _show_path(Path(name), examples, console)
        return
    for number, kind in enumerate(kinds):
        if number:
            console.print()
        entry = registry.find(kind, name)
        console.print(Text(name, style="bold"), soft_wrap=True)
        if told := summary(entry):
            prose(console, told)
        prose(console, f"{kind.one} of {entry.distribution}", "dim")
        if kind == Kind.TASKS:
            _show_task(entry, data, Split(split), examples, console)
        elif kind == Kind.KNOWLEDGE:
            from kbench.parts.find import find_knowledge

            _show_knowledge(find_knowledge(name), examples, console)
        elif kind == Kind.BACKBONES:
            with _as_far_as_known(console):
                _show_backbone(registry.load(entry)(), console)
        elif kind == Kind.IMPORTERS:
            _show_importer(entry, console)
        else:
            _show_part(entry, console)


def _show_path(path: Path, examples: int, console: Console) -> None:
    """Shows what lies at a path: a model or a knowledge base.

    Raises:
        UsageError: nothing does.
    """
    if is_file(path / "config.json") or path.suffix.lower() == ".gguf":
        from kbench.parts.find import find_backbone

        _show_backbone(find_backbone(str(path), download=False), console)
    elif is_folder(path):
        from kbench.knowledge import Bundle

        _show_knowledge(Bundle(path).checked(), examples, console)
    else:
        known = [entry.name for kind in Kind for entry in entries(kind)]
        raise UsageError(f"nothing is called {str(path)!r}{nearest(str(path), known)}")


def _show_part(entry: Entry, console: Console) -> None:
    """A method, a tuning, or another part that is known by its source alone."""
    about = {**declared(entry), "settings": ", ".join(settings(entry))}
    _show_card(about, console)
    kind = entry.kind.removesuffix("s")
    trained = entry.kind in (Kind.METHODS, Kind.TUNINGS)
    _show_options(entry, f"--set {kind}.{entry.name}.KEY=VALUE" if trained else "", console)
    if trained and constant(entry, "trains") is not False:
        with _as_far_as_known(console):
            _show_recipes(entry, kind, console)


@contextmanager
def _as_far_as_known(console: Console) -> Iterator[None]:
    """What a part says by itself is left out, in a line, where it does not load."""
    try:
        yield
    except ModuleNotFoundError as problem:
        if not (hint := lacking(problem)):
            raise
        prose(console, f"more is not known here: {hint}", "yellow")
    except PluginError as problem:
        prose(console, f"more is not known here: {problem}", "yellow")


def _show_tuning(tuning: Tuning, console: Console) -> None:
    """The options of a tuning that the family of the task sets, and those of prompts."""
    from kbench.task import Family
    from kbench.training.tuning import PROMPT_TYPES

    own = {
        str(family): ", ".join(
            f"{name} {spelled(value)}"
            for name, value in tuning.defaults_for(family).items()
            if value != tuning.defaults.get(name)
        )
        for family in Family
    }
    if lines := {family: told for family, told in own.items() if told}:
        console.print()
        pairs(console, lines, "defaults of families")
    if tuning.prompts:
        types = {name: PROMPT_TYPES[name].expected for name in tuning.prompts}
        heading = "options of prompts, for models that read from left to right"
        _show_table(tuning.prompts, types, heading, console)


def _show_recipes(entry: Entry, kind: str, console: Console) -> None:
    from kbench.parts.recipes import recipes_of_method, recipes_of_tuning

    of_method = entry.kind == Kind.METHODS
    if not of_method:
        _show_tuning(registry.load(entry)(), console)
    lines = dict((recipes_of_method if of_method else recipes_of_tuning)(entry.name))
    if not lines:
        return
    how = f"{kind}.{entry.name}.SETTING.KEY" if of_method else f"{kind}.{entry.name}.KEY"
    types = recipe_types()
    if of_method:
        read = cast("type[InjectionMethod]", registry.get(Kind.METHODS, entry.name)).recipe_fields
        types = {name: told for name, told in types.items() if name in read}
    _show_types(types, f"how it trains (--set {how}=VALUE)", console)
    console.print()
    _show_lines(
        lines, "recipes; a task's and a backbone's change the fields that they name", console
    )


def _show_options(entry: Entry, how: str, console: Console) -> None:
    """The options of a part, their defaults, and what each may be."""
    known = defaults(entry)
    if not known:
        return
    typed = entry.kind in (Kind.TASKS, Kind.METHODS, Kind.TUNINGS)
    types = option_types(entry) if typed else {}
    _show_table(known, types, f"options ({how})" if how else "options", console)


def _show_table(
    known: Mapping[str, Any], types: Mapping[str, str], heading: str, console: Console
) -> None:
    """Options with their defaults and what they may be."""
    console.print()
    columns = [
        Column("option", [*known], style="bold"),
        Column(
            "default",
            [v if isinstance(v, str) else spelled(v) for v in known.values()],
            text=True,
            whole=True,
        ),
        Column("what it may be", [types.get(name, "") for name in known], text=True, whole=True),
    ]
    if not any(columns[-1].cells):
        del columns[-1]
    show_table(console, columns, heading)


def _show_lines(lines: Mapping[str, str], heading: str, console: Console) -> None:
    """Recipes by what they are for, either of which may be long."""
    of = Column("for", [*lines], text=True, whole=True, style="bold")
    show_table(console, [of, Column("how", [*lines.values()], text=True, whole=True)], heading)


def _show_types(types: Mapping[str, str], heading: str, console: Console) -> None:
    console.print()
    names = Column("field", [*types], style="bold")
    show_table(
        console,
        [names, Column("what it may be", [*types.values()], text=True, whole=True)],
        heading,
    )


def _show_backbone(backbone: Backbone, console: Console) -> None:
    """A backbone: how large it is, what may be done with it, and how it wants to be trained."""
    from kbench.parts.recipes import said

    about: dict[str, str] = {}
    try:
        size, form = backbone.size(), backbone.form()
        way = "from left to right" if form.left_to_right else "both ways"
        about = {
            "reads": way,
            "form": f"{form.kind}, {form.layers} layers of width {form.width}",
            "parameters": f"{size.parameters:,}",
            "weights": f"{size.bytes:,} bytes",
        }
    except KbenchError as problem:
        about = {"size": f"unknown: {problem}"}
    about["licence"] = backbone.licence or "not stated"
    pairs(console, about)
    if backbone.recipes:
        console.print()
        lines = {what: said(fields) for what, fields in backbone.recipes.items()}
        _show_lines(lines, "recipes, in the place of the published ones", console)


def _show_importer(entry: Entry, console: Console) -> None:
    importer = registry.load(entry)
    _show_card(vars(importer.card), console)
    options = importer.options
    if not options:
        return
    console.print()
    columns = [
        Column("option", [*options], style="bold"),
        Column("value", [option.value for option in options.values()], text=True, whole=True),
        Column("what", [option.told for option in options.values()], text=True, whole=True),
    ]
    show_table(console, columns, "options of `kbench knowledge import` (-o KEY=VALUE)")


def _show_card(card: Any, console: Console) -> None:
    values = asdict(card) if is_dataclass(card) and not isinstance(card, type) else card
    pairs(console, {k: _words(v) for k, v in values.items() if v not in ("", None, {})})


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}".rstrip() for key, item in value.items())
    return str(value)


def _show_task(entry: Entry, data: str | None, split: Split, count: int, console: Console) -> None:
    task = registry.load(entry)(data)
    _show_card(vars(task.card), console)
    metrics = ", ".join(metric.variant for metric in task.metrics)
    about = {
        "family": str(task.family),
        "metrics": f"{metrics} (the first selects and ranks)",
        "linker": task.linking,
        "tuning": f"{task.tuning}; of models that read from left to right {task.decoder_tuning}",
    }
    _show_card(about, console)
    _show_options(entry, f"--set task.{entry.name}.KEY=VALUE", console)
    if task.recipes:
        from kbench.parts.recipes import said

        console.print()
        lines = {tuning: said(fields) for tuning, fields in task.recipes.items()}
        _show_lines(lines, "recipes of tunings, as published", console)
    if task.card_keys:
        console.print("\nwhat its card may say:")
        _show_card(task.card_keys, console)
    if not count or (task.card.obtain and data is None):
        return
    examples = task.examples(split)
    console.print(f"\n{len(examples)} examples in {split}; the first {min(count, len(examples))}:")
    for example in examples[:count]:
        prose(console, _labelled(example))


def marked(example: Example) -> Text:
    """Returns the text with each mention in brackets, its role and entity behind it."""
    text = Text(f"{example.id}\n  ", style="dim")
    position = 0
    for mention in outermost(example.mentions):
        _append(text, example, position, mention.start)
        text.append(f"[{example.text[mention.start : mention.end]}]", style="bold default")
        text.append(f"({mention.role}: {mention.entity or 'not linked'})", style="cyan")
        position = mention.end
    _append(text, example, position, len(example.text))
    return text


def _labelled(example: Example) -> Text:
    text = marked(example)
    label = example.label if isinstance(example.label, str) else ", ".join(example.label)
    text.append(f"\n  = {label}", style="green")
    if example.candidates:
        offered = ", ".join(f"{c.label} ({len(c.support)})" for c in example.candidates)
        text.append(f"\n  among {offered}", style="dim")
    return text


def _append(text: Text, example: Example, start: int, end: int) -> None:
    """Adds the text between mentions, with ``[MASK]`` where the answer belongs."""
    blank = example.blank
    if blank is None or not start <= blank <= end:
        text.append(example.text[start:end], style="default")
        return
    text.append(example.text[start:blank], style="default")
    text.append("[MASK]", style="bold magenta")
    text.append(example.text[blank:end], style="default")


def _show_knowledge(bundle: Bundle, count: int, console: Console) -> None:
    _show_card({k: v for k, v in bundle.card.items() if k not in ("files", "schema")}, console)
    step = max(1, len(bundle) // max(1, count))
    for row in range(0, min(len(bundle), step * count), step):
        entity = bundle.entity(row)
        line = Text(f"{entity.id}  ", style="cyan")
        line.append(entity.name or "(no name)", style="bold default")
        line.append(f"  {', '.join(entity.types)}", style="green")
        line.append(f"  {entity.description}", style="default")
        prose(console, line)
