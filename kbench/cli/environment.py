"""Options from the environment: the variable of each, and those that none reads; no option twice.

The variable of an option is made of the words of the command and of the option's long name, as a
user types both: ``kbench cache prune --dry-run`` reads ``KBENCH_CACHE_PRUNE_DRY_RUN``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from copy import copy
from difflib import get_close_matches
from typing import Any, cast

import click

from kbench.cli.messages import say
from kbench.errors import UsageError

__all__ = ["ENGINE", "HELP", "PREFIX", "below", "named", "unread", "variables"]

PREFIX = "KBENCH"
HELP = ["-h", "--help"]
ENGINE = frozenset({"KBENCH_CACHE", "KBENCH_HIDDEN_BYTES", "KBENCH_TEST_DATA"})
"""Those that are no options: read by the engine, and by its tests."""


def named(command: click.Command, prefix: str) -> click.Command:
    """Returns a copy of a command whose options are read from variables of their long names.

    So are those of its subcommands, whoever made them and whenever they are loaded. An option that
    takes one value is refused if it is given several: all but the last would be lost in silence.

    Args:
        command: left as it is.
        prefix: of its variables: ``KBENCH_RUN``.
    """
    own: Any = copy(command)
    own._help_option = None  # else that of whoever ran the command by itself before, without -h
    own.params = [_read(p, prefix) if isinstance(p, click.Option) else p for p in command.params]
    own.parse_args = lambda ctx, args: _parsed(command, own, ctx, args)
    if isinstance(command, click.Group):
        inner = command.get_command

        def get_command(ctx: click.Context, cmd_name: str) -> click.Command | None:
            found = inner(ctx, cmd_name)
            return found and named(found, below(prefix, cmd_name))

        own.get_command = get_command
    return cast("click.Command", own)


def _parsed(command: click.Command, own: Any, ctx: click.Context, args: list[str]) -> list[str]:
    """Parses arguments as the command's class does, once it is seen that no option is lost."""
    if not ctx.resilient_parsing:
        order = own.make_parser(ctx).parse_args([*args])[2]
        for option in {id(p): p for p in order if isinstance(p, click.Option)}.values():
            single = not option.multiple and not option.count
            valued = not option.is_flag or option.secondary_opts
            if single and valued and order.count(option) > 1:
                raise click.UsageError(
                    f"{max(option.opts, key=len)} is given {order.count(option)} times; it takes "
                    "one value, so give it once (several names stand in a comma list)"
                )
    parsed: list[str] = type(command).parse_args(own, ctx, args)
    return parsed


def below(prefix: str, name: str) -> str:
    """Returns the prefix of the variables of a command, or the variable of an option."""
    return f"{prefix}_{name.upper().replace('-', '_')}"


def _read(option: click.Option, prefix: str) -> click.Option:
    """Returns a copy of an option that reads the variables of its long names."""
    if not option.allow_from_autoenv:
        return option
    own = copy(option)
    given = [option.envvar] if isinstance(option.envvar, str) else [*(option.envvar or ())]
    long = [name[2:] for name in option.opts if name.startswith("--")]
    # What is said for one command counts before what is said for all.
    own.envvar = [*(below(prefix, name) for name in long or [option.name or ""]), *given]
    own.allow_from_autoenv = False  # else click would read the name of a variable of ours too
    if (option.multiple or option.nargs != 1) and option.type.envvar_list_splitter is None:
        kind: Any = copy(option.type)
        kind.split_envvar_value = _words
        own.type = kind
    return own


def _words(text: str) -> list[str]:
    """Splits the values of an option as a shell would: at blanks that are not in quotes."""
    try:
        return shlex.split(text)
    except ValueError as cause:
        raise click.BadParameter(f"{text!r}: {cause}; expected words as in a shell") from None


def variables(command: click.Command, prefix: str, parent: click.Context | None = None) -> set[str]:
    """Returns the variables that the options of a named command and its subcommands read."""
    # Nothing is parsed and nothing runs: the context only asks. A command keeps the option of its
    # help as it was first asked for.
    ctx = click.Context(
        command,
        info_name=command.name,
        parent=parent,
        resilient_parsing=True,
        help_option_names=HELP,
    )
    found: set[str] = set()
    for option in command.get_params(ctx):
        if isinstance(option, click.Option):
            read = option.envvar or (below(prefix, option.name or "") if _is_help(option) else ())
            found |= {read} if isinstance(read, str) else {*read}
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None:
                found |= variables(inner, below(prefix, name), ctx)
    return found


def _is_help(option: click.Option) -> bool:
    return option.name == "help" and option.allow_from_autoenv  # click's own, made when asked for


def unread(verb: str, verbs: Iterable[str], load: Callable[[str], click.Command]) -> None:
    """Refuses variables that begin as the options of a verb do, or of none, and that none reads.

    What begins as those of another verb is that verb's to refuse, when it is called, and is said
    here; but not what begins as a variable of the engine, which every verb reads
    (``KBENCH_CACHE_DIR``).

    Args:
        verb: which is called.
        verbs: the names of all.
        load: returns a verb, named, by its name.

    Raises:
        UsageError: there are such; the nearest are named.
    """
    prefixes = {name: f"{below(PREFIX, name)}_" for name in verbs}
    given = {name for name in os.environ if name.startswith(f"{PREFIX}_")} - ENGINE
    known: set[str] = set()
    # First those that are likely to read them; then all: one may read a variable of another form,
    # and the nearest may be of any.
    likely = [name for name in prefixes if any(each.startswith(prefixes[name]) for each in given)]
    for several in (likely, [name for name in prefixes if name not in likely]):
        if not given - known:
            return
        for name in several:
            try:
                known |= variables(load(name), below(PREFIX, name))
            except Exception:  # a verb that does not load says so when it is called
                continue
    others = tuple(prefix for name, prefix in prefixes.items() if name != verb)
    unknown = sorted(given - known)
    own = (prefixes[verb], *(f"{name}_" for name in ENGINE))
    asked = [name for name in unknown if name.startswith(own) or not name.startswith(others)]
    if asked:
        raise UsageError(_unread(asked, known))
    if unknown:
        say(f"warning: {_unread(unknown, known)}", err=True)


def _unread(unknown: Iterable[str], known: set[str]) -> str:
    said = "; ".join(f"{name}{_near(name, known | ENGINE)}" for name in unknown)
    return f"no option is read from the environment variable {said}; rename it, or unset it"


def _near(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=2, cutoff=0.8)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
