"""Text for the terminal, safe from what it says: texts of strangers may hold what steers it.

An escape sequence in a label or an error could move the cursor, retitle the window, or write what
was never computed over what was; signs that turn the direction of writing could do the latter too.
"""

from __future__ import annotations

import re

import click

__all__ = ["plain", "say"]

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)


def plain(text: str) -> str:
    """Returns a text with a sign of replacement for each that steers a terminal."""
    return _STEERING.sub("\ufffd", text)


def say(text: str, err: bool = False) -> None:
    """Prints a text, as it looks."""
    click.echo(plain(text), err=err)
