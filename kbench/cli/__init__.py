"""The command. Each verb is a small module that is imported only when called."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from kbench import __version__
from kbench.cli import environment, verbs
from kbench.cli.elsewhere import elsewhere
from kbench.cli.messages import plain, say
from kbench.errors import InterruptedByUser, KbenchError, first_line, lacking, one_line

__all__ = ["command", "main"]

_INTERRUPTED = 130
_LONGEST = 2000
"""Characters of an error, which may quote what was given."""
_STORED = "interrupted; what was finished is stored, the same command goes on from there"


class _UnreadError(Exception):
    """The reader of a pipe went away (`kbench table | head`), which is no error of anyone."""


class _Verbs(click.Group):
    """A group whose commands are imported when called, not when listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return verbs.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        return _loaded(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name and not ctx.resilient_parsing and not {*rest} & {*ctx.help_option_names}:
            environment.unread(name, verbs.names(), _loaded)
        return name, command, rest

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)  # where help is printed
        except BrokenPipeError:
            raise _UnreadError from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # of which click would make an exit status of its own
            raise _UnreadError from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(plain(name), plain(verbs.about(name))) for name in verbs.names()])


def _loaded(name: str) -> click.Command:
    return environment.named(verbs.load(name), environment.below(environment.PREFIX, name))


@click.group(cls=_Verbs, context_settings={"help_option_names": environment.HELP})
@click.version_option(__version__, prog_name="kbench", allow_from_autoenv=False)
def _kbench() -> None:
    """Compare knowledge injection methods on the same frozen language models.

    `kbench run` without arguments runs the embedded demo. Every option can also be given as an
    environment variable, made of the command and the option's long name: KBENCH_RUN_SEED for
    `kbench run --seed`. KBENCH_OUT is the folder of results of every command, KBENCH_CACHE where
    models, plugs and what was fetched are kept (else ~/.cache/kbench), KBENCH_HIDDEN_BYTES how much
    room kept hidden states may take; NO_COLOR leaves colours out.

    Exit status: 0 all is well, 1 a run failed or a check found something, 2 a call that cannot be
    understood or carried out, 130 interrupted.
    """


def command() -> click.Group:
    """Returns the command with all its verbs, for whoever reads its help or its options."""
    return _kbench


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and leaves with its exit status: 0 all ok, 1 a run failed, 2 usage."""
    with _interruptible():
        _main(arguments)


def _main(arguments: list[str] | None) -> None:
    warnings.showwarning = _warn
    _prepare_streams()
    if not sys.warnoptions:
        # Libraries warn their developers; what kbench itself has to say is shown always.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"kbench.*")
    try:
        status = _kbench.main(
            arguments,
            prog_name="kbench",
            standalone_mode=False,
            auto_envvar_prefix=environment.PREFIX,
        )
    except (click.exceptions.Abort, KeyboardInterrupt):
        _leave(_STORED, _INTERRUPTED)
    except (BrokenPipeError, _UnreadError):
        _unread(0)
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.ctx.get_help() if error.ctx else "")
        sys.exit(0)
    except (click.ClickException, KbenchError, OSError, ModuleNotFoundError) as error:
        _leave(f"error: {_problem(error)}", 2)
    code = status if isinstance(status, int) else 0
    try:
        sys.stdout.flush()  # what is still held would be written, and fail, after all is said
    except BrokenPipeError:
        _unread(code)
    sys.exit(code)


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed: what is said there is for nobody
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, TextIOWrapper):  # whatever the locale, what it lacks is escaped
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets a first Ctrl-C end what goes on in order, and a second one end that at once.

    Else the second would be told as a crash, wherever the first had come to. Where interruptions
    are ignored, as of a command in the background, they stay so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def first(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
        raise InterruptedByUser

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _unread(status: int) -> NoReturn:
    """Ends where nobody reads on; what is still held goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _problem(error: click.ClickException | KbenchError | OSError | ModuleNotFoundError) -> str:
    """What was wrong with a call, in a line.

    Raises:
        ModuleNotFoundError: a module is missing that no extra of kbench brings.
    """
    if isinstance(error, ModuleNotFoundError):
        if not (hint := lacking(error)):
            raise error
        return hint
    if isinstance(error, click.NoSuchOption) and (known := elsewhere(error.option_name)):
        return f"there is no option {error.option_name}: {known}"
    if isinstance(error, click.ClickException):
        return one_line(error.format_message())
    if isinstance(error, KbenchError):
        return one_line(error)
    # A disk that is full, a folder that may not be read: no fault of the program.
    where = f"{error.filename}: " if error.filename else ""
    return one_line(where + first_line(error))


def _leave(message: str, status: int) -> None:
    # What was given may be of any length, and stands in what is said of it.
    say(message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…", err=True)
    sys.exit(status)


def _warn(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
    say(f"warning: {one_line(str(message))}", err=True)
