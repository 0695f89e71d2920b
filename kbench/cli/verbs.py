"""The verbs of the command: kbench's own, and those that distributions add.

A distribution offers a verb, a click command, through the entry-point group ``kbench.verbs``.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

import click

from kbench.errors import PluginError, UsageError, nearest
from kbench.parts import registry
from kbench.parts.catalogue import Entry, Kind
from kbench.parts.source_text import summary

__all__ = ["OWN", "about", "load", "names"]

OWN = {
    "run": "Run a grid of tasks, methods and controls; without arguments, the demo.",
    "table": "Show stored results as a table.",
    "compare": "Compare stored runs, paired by example: difference, interval, p-value.",
    "diff": "Show the examples that two runs predict otherwise, and the knowledge behind them.",
    "plot": "Draw figures of stored results, as PDF, SVG or PNG.",
    "export": "Write what is stored in a form that can be handed on: plugs, results.",
    "score": "Make all metrics again from the stored predictions; say which value differs.",
    "cite": "Print BibTeX of the tasks, methods and knowledge of stored results.",
    "results": "List stored results, and remove some.",
    "ls": "List what is installed: tasks, methods, knowledge bases and all other parts.",
    "show": "Show what is known of a part: card, options, recipes, examples.",
    "fetch": "Bring published data sets and knowledge bases, or compare copies of them.",
    "knowledge": "Import, train and inspect knowledge bases.",
    "new": "Write a small distribution with a part of your own, to install and change.",
    "check": "Check the contracts that hold for every part.",
    "validate": "Check grid files, without running anything.",
    "schema": "Print the JSON schema of result.json, or of a grid file.",
    "cache": "List, verify and prune stored models and plugs.",
    "doctor": "Check this installation.",
}
"""kbench's own, each a module here, and what the help says of it."""


def names() -> list[str]:
    """Returns the names of all verbs: kbench's own first, in the order of the help."""
    return list(dict.fromkeys([*OWN, *registry.names(Kind.VERBS)]))


def load(name: str) -> click.Command:
    """Imports a verb.

    Raises:
        UsageError: there is none of this name; the nearest are named.
        PluginError: it does not load, or it is offered twice.
    """
    if name in registry.names(Kind.VERBS):
        return cast("click.Command", registry.load(_added(name)))
    if name not in OWN:
        raise UsageError(f"no command is called {name!r}{nearest(name, names())}")
    return cast("click.Command", getattr(import_module(f"kbench.cli.{name}"), name))


def about(name: str) -> str:
    """Returns what the help says of a verb; imports it only if its source does not tell."""
    if name not in registry.names(Kind.VERBS):
        return OWN[name]
    try:
        entry = _added(name)
        return summary(entry) or registry.load(entry).get_short_help_str(limit=70)
    except PluginError:
        return "(cannot be loaded: call it to see why)"


def _added(name: str) -> Entry:
    """The verb of a distribution; an error if kbench or another distribution has one too."""
    entry = registry.find(Kind.VERBS, name)
    if name in OWN:
        raise PluginError(
            f"the command {name!r} is offered by {entry.distribution} ({entry.target}) and is one "
            f"of kbench's own: uninstall {entry.distribution}"
        )
    return entry
