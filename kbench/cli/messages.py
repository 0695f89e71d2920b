"""Text for the terminal, safe from what it says: texts of strangers may hold what steers it.

An escape sequence in a label or an error could move the cursor, retitle the window, or write what
was never computed over what was; signs that turn the direction of writing could do the latter too.
"""

from __future__ import annotations

import click

from kbench.data.plain_text import plain

__all__ = ["plain", "say"]


def say(text: str, err: bool = False) -> None:
    """Prints a text, as it looks."""
    click.echo(plain(text), err=err)
