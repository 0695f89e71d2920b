"""The command. Each verb is a small module that is imported only when called."""

from __future__ import annotations

import os
import sys
import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from io import TextIOWrapper
from typing import Any

import click

from kbench import __version__
from kbench.cli.messages import say
from kbench.errors import KbenchError, PluginError, UsageError, first_line, nearest, one_line

__all__ = ["main"]

_VERBS = {
    "run": "Run a grid of tasks, methods and controls; without arguments, the demo.",
    "table": "Show stored results as a table.",
    "compare": "Compare stored runs, paired by example: difference, interval, p-value.",
    "diff": "Show the examples that two runs predict otherwise, and the knowledge behind them.",
    "score": "Make all metrics again from the stored predictions; say which value differs.",
    "ls": "List the installed tasks, methods, backbones, tunings or knowledge bases.",
    "show": "Show the card of a part, and examples of a task.",
    "knowledge": "Import, train and inspect knowledge bases.",
    "new": "Write a small distribution with a method of your own, to install and change.",
    "check": "Check the contracts that hold for every part.",
    "schema": "Print the JSON schema of result.json.",
    "cache": "List, verify and prune stored models and plugs.",
    "doctor": "Check this installation.",
}


class _Verbs(click.Group):
    """A group whose commands are imported when called, not when listed.

    Distributions offer more through the entry-point group ``kbench.verbs``: a click command each.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_VERBS, *_offered()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _VERBS:
            module = import_module(f"kbench.cli.{cmd_name}")
            command: click.Command = getattr(module, cmd_name)
            return command
        point = _offered().get(cmd_name)
        return _loaded(point) if point else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        more = {name: _summary(point) for name, point in _offered().items()}
        with formatter.section("Commands"):
            formatter.write_dl(list({**_VERBS, **more}.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _VERBS and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            if args[0] not in known:
                raise UsageError(f"no command is called {args[0]!r}{nearest(args[0], known)}")
        return super().resolve_command(ctx, args)


@cache  # what is installed is looked through once
def _offered() -> dict[str, EntryPoint]:
    """The verbs of distributions, by name; none takes the place of one of kbench's own."""
    found = sorted(entry_points(group="kbench.verbs"), key=lambda point: point.name)
    return {point.name: point for point in found if point.name not in _VERBS}


def _loaded(point: EntryPoint) -> click.Command:
    try:
        command = point.load()
    except Exception as cause:  # a stranger's module may fail in any way
        raise PluginError(
            f"command {point.name} ({point.value}) cannot be loaded: {cause}"
        ) from cause
    if not isinstance(command, click.Command):
        raise PluginError(f"command {point.name} ({point.value}) is no click command")
    return command


def _summary(point: EntryPoint) -> str:
    try:
        return _loaded(point).get_short_help_str(limit=70)
    except PluginError:
        return "(cannot be loaded: call it to see why)"


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kbench")
def _kbench() -> None:
    """Compare knowledge injection methods on the same frozen language models.

    `kbench run` without arguments runs the embedded demo. Every option can also be given as an
    environment variable, such as KBENCH_RUN_SEED for `kbench run --seed`.
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and leaves with its exit status: 0 all ok, 1 a run failed, 2 usage."""
    warnings.showwarning = _warn
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # whatever the locale, what it lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    if not sys.warnoptions:
        # Libraries warn their developers; what kbench itself has to say is shown always.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"kbench.*")
    try:
        status = _kbench.main(
            arguments, prog_name="kbench", standalone_mode=False, auto_envvar_prefix="KBENCH"
        )
    except (click.exceptions.Abort, KeyboardInterrupt):
        _leave("interrupted; what was finished is stored, the same command goes on from there", 130)
    except BrokenPipeError:
        # The reader of a pipe went away (`kbench table | head`): not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except click.ClickException as error:
        _leave(f"error: {one_line(error.format_message())}", 2)
    except KbenchError as error:
        _leave(f"error: {one_line(error)}", 2)
    except OSError as error:
        # A disk that is full, a folder that may not be read: no fault of the program.
        where = f"{error.filename}: " if error.filename else ""
        _leave(f"error: {one_line(where + first_line(error))}", 2)
    sys.exit(status if isinstance(status, int) else 0)


def _leave(message: str, status: int) -> None:
    say(message, err=True)
    sys.exit(status)


def _warn(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
    say(f"warning: {one_line(str(message))}", err=True)
