"""`kbench show`: a part's card, and examples with mentions and entities marked."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from kbench.cli.layout import pairs, prose
from kbench.cli.terminal import Console
from kbench.data import Example, Split, outermost
from kbench.data.files import is_folder
from kbench.errors import UsageError, nearest
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

if TYPE_CHECKING:
    from kbench.knowledge import Bundle

__all__ = ["marked", "show"]


@click.command("show")
@click.argument("name")
@click.option("-n", "--examples", type=click.IntRange(min=0), default=3, show_default=True)
@click.option("--data", help="Folder of the task's files, or hf:REPOSITORY[@REVISION].")
@click.option("--split", type=click.Choice([*map(str, Split)]), default="test", show_default=True)
def show(name: str, examples: int, data: str | None, split: str) -> None:
    """Show what is known of a part called NAME, or of a knowledge base in a folder."""
    console = Console()
    kinds = [kind for kind in Kind if name in registry.names(kind)]
    if not kinds and is_folder(Path(name)):
        from kbench.knowledge import Bundle

        _show_knowledge(Bundle(name).checked(), examples, console)
        return
    if not kinds:
        known = [entry.name for kind in Kind for entry in entries(kind)]
        raise UsageError(f"nothing is called {name!r}{nearest(name, known)}")
    for kind in kinds:
        entry = registry.find(kind, name)
        console.print(Text(f"{name}: {summary(entry)}", style="bold"))
        console.print(Text(f"{kind.one} of {entry.distribution}", style="dim"))
        if kind == Kind.TASKS:
            _show_task(entry, data, Split(split), examples, console)
        elif kind == Kind.KNOWLEDGE:
            from kbench.parts.find import find_knowledge

            _show_knowledge(find_knowledge(name), examples, console)
        else:
            about = {"settings": ", ".join(settings(entry)), "defaults": defaults(entry)}
            if kind in (Kind.METHODS, Kind.TUNINGS):
                about["types"] = option_types(entry)
                if constant(entry, "trains") is not False:
                    about["training"] = recipe_types()
            _show_card({**declared(entry), **about}, console)


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
        "options": task.options,
        "types": option_types(entry),
    }
    _show_card(about, console)
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
