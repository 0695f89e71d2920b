"""The one way out for what the command prints: text as it looks, and JSON that loses nothing.

Whatever kbench prints goes through :func:`say` or :func:`say_json`, and tables through
:class:`kbench.cli.terminal.Console`; what may be shown, :mod:`kbench.data.plain_text` says, by
which pages go too. Files keep what they were given.
"""

from __future__ import annotations

from typing import Any

import click

from kbench.data.plain_text import json_line, plain, steers

__all__ = ["plain", "say", "say_json", "steers"]


def say(text: str, err: bool = False) -> None:
    """Prints a text, as it looks."""
    click.echo(plain(text), err=err)


def say_json(value: Any) -> None:
    """Prints a value as JSON on one line; signs that steer are escaped, so that none is lost."""
    click.echo(json_line(value))
