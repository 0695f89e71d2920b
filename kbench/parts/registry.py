"""Names to parts: looked up in the catalogue, imported when asked for."""

from __future__ import annotations

import os
import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any, NoReturn

from kbench.errors import (
    InterruptedByUser,
    PluginError,
    UsageError,
    lacking,
    nearest,
    with_type,
)
from kbench.parts.catalogue import Entry, Kind, entries

__all__ = ["Entry", "Kind", "PluginWarning", "expand", "find", "get", "load", "names"]

_ALL = "all"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_BASES = {
    Kind.TASKS: "kbench.task.Task",
    Kind.METHODS: "kbench.method.InjectionMethod",
    Kind.BACKBONES: "kbench.model.backbone.Backbone",
    Kind.TUNINGS: "kbench.training.tuning.Tuning",
    Kind.KNOWLEDGE: "kbench.knowledge.base.KnowledgeSource",
    Kind.IMPORTERS: "kbench.knowledge.importing.Importer",
    Kind.EXECUTORS: "kbench.grid.executor.Executor",
    Kind.TRACKERS: "kbench.grid.tracker.Tracker",
}
"""What a part of each kind is a subclass of."""


class PluginWarning(UserWarning):
    """A plugin that nobody asked for by name does not load."""


def names(kind: Kind | str) -> list[str]:
    """Returns the names of a kind, sorted."""
    return sorted({entry.name for entry in entries(Kind(kind))})


def find(kind: Kind | str, name: str) -> Entry:
    """Returns the entry of a name, without importing it.

    Raises:
        UsageError: no part has this name; the nearest are named.
        PluginError: two distributions offer the name.
    """
    kind = Kind(kind)
    offered = [entry for entry in entries(kind) if entry.name == name]
    if not offered:
        raise UsageError(f"no {kind.one} is called {name!r}{nearest(name, names(kind))}")
    if len(offered) > 1:
        both = " and ".join(f"{e.distribution} ({e.target})" for e in offered)
        raise PluginError(f"the {kind.one} {name!r} is offered by {both}: uninstall one of them")
    return offered[0]


def load(entry: Entry) -> Any:
    """Imports a part and returns it: a class, or what else :class:`Kind` says of its kind.

    Raises:
        PluginError: it cannot be imported; the message names the distribution and the cause.
            Or it is not what its kind asks for. Or its name holds signs that the command gives a
            meaning: commas, dots, globs.
    """
    this = f"the {entry.kind.one} {entry.name!r} of {entry.distribution}"
    if not _NAME.fullmatch(entry.name):
        raise PluginError(f"{this} cannot be asked for: a name is made of letters, digits, - and _")
    try:
        with _staying():
            part = EntryPoint(entry.name, entry.target, entry.kind).load()
    except BaseException as cause:  # a plugin may fail in any way it likes
        if isinstance(cause, KeyboardInterrupt) and _by_user(cause):
            raise
        if hint := lacking(cause):
            raise PluginError(f"{this} does not load: {hint}") from cause
        raise PluginError(
            f"{this} does not load: {with_type(cause)}; reinstall or uninstall that distribution"
        ) from cause
    expected, fits = _judged(entry.kind, part)
    if not fits:
        what = "class" if isinstance(part, type) else type(part).__name__
        raise PluginError(f"{this} is {what} {entry.target}, not a {expected}")
    return part


def _by_user(interrupt: KeyboardInterrupt) -> bool:
    """Whether somebody interrupts, not the plugin: where Python itself listens, who can tell?"""
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return listens or isinstance(interrupt, InterruptedByUser)


@contextmanager
def _staying() -> Iterator[None]:
    """Lets nothing that is imported end the process meanwhile, as if all had been done."""
    leave = os._exit

    def refuse(status: int) -> NoReturn:
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave


def get(kind: Kind | str, name: str) -> Any:
    """Returns a part by name; see :func:`find` and :func:`load` for what it is and raises."""
    return load(find(kind, name))


def expand(kind: Kind | str, wanted: str) -> list[str]:
    """Resolves a comma list of names, globs and ``all`` to names, in the order asked for.

    A part that is broken but was only swept in by a glob is left out with a
    :class:`PluginWarning`.

    Raises:
        UsageError: a name or glob matches nothing.
    """
    kind = Kind(kind)
    chosen: list[str] = []
    for piece in filter(None, (part.strip() for part in wanted.split(","))):
        glob = "*" if piece == _ALL else piece
        if any(sign in glob for sign in "*?["):
            matches = [name for name in names(kind) if fnmatchcase(name, glob)]
            if not matches:
                raise UsageError(f"no {kind.one} matches {piece!r}{nearest(piece, names(kind))}")
            chosen += [name for name in matches if _works(kind, name)]
        else:
            chosen.append(find(kind, piece).name)
    return list(dict.fromkeys(chosen))


def _judged(kind: Kind, part: object) -> tuple[str, bool]:
    """What a part of the kind has to be, and whether this one is."""
    if kind == Kind.VERBS:
        from click import Command  # it is there already when somebody asks for a command

        return "click command", isinstance(part, Command)
    if kind in (Kind.PUBLISHED, Kind.DOWNLOADS):
        return "package", isinstance(part, ModuleType) and hasattr(part, "__path__")
    # By name: to import it would load what a look at a command or an executor has no use for.
    base = _BASES[kind]
    if not isinstance(part, type):
        return "class", False
    return f"subclass of {base}", base in (f"{c.__module__}.{c.__qualname__}" for c in part.__mro__)


def _works(kind: Kind | str, name: str) -> bool:
    try:
        get(kind, name)
    except PluginError as error:
        warnings.warn(f"left out: {error}", PluginWarning, stacklevel=3)
        return False
    return True
