"""Text as it may be shown, wherever that is: one rule for terminals, files and pages.

An escape sequence in a label or an error could move the cursor, retitle the window, or write what
was never computed over what was; signs that turn the direction of writing, or that nobody sees,
could make one name look like another.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["drawable", "json_line", "plain", "steers"]

_STEERING = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, delete, C1
    "\u061c\u2028-\u202e\u2066-\u206f"  # ends of lines, embeddings, overrides, isolates
    "\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u3164\uffa0"  # unseen
    "\ufeff\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # halves of pairs, and what is no character
    "]"
    # What joins or parts letters has a sense in scripts that have such forms, and in pictures; what
    # chooses a form, after a picture or an ideograph; a mark of direction, in writing from right to
    # left. Elsewhere nobody sees them.
    "|(?<![\u0600-\u1fff\u2190-\ufdff\ufe0f\U00010a00-\U0001ffff])[\u200c\u200d]"
    "|(?<![\xa9\xae\u2000-\u32ff\u3400-\u9fff\uf900-\ufaff\U0001f000-\U0003ffff])"
    "[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
    "|(?<![\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc])[\u200e\u200f]"
)

_MEANT = re.compile(r"[\\\"'`]")


def steers(text: str) -> bool:
    """Returns whether a text holds a sign that steers what shows it, or that nobody sees."""
    return _STEERING.search(text) is not None


def plain(text: str) -> str:
    """Returns a text with a sign of replacement for each that steers what shows it."""
    if text.isascii() and text.isprintable():  # nearly all are, and a table has thousands
        return text
    return _STEERING.sub("\ufffd", text)


def drawable(name: str, most: int) -> str:
    """Returns a name as a chart can draw it: one line of some length.

    Signs to which the expressions of Vega give a meaning are replaced, as are those that steer.

    Args:
        name: of a stranger's method, task or metric.
        most: signs that there is room for.
    """
    text = _MEANT.sub("\ufffd", plain(" ".join(name.split())))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def json_line(value: Any) -> str:
    """Returns a value as JSON on one line; signs that steer are escaped, so that none is lost."""
    return _STEERING.sub(_escaped, json.dumps(value, ensure_ascii=False))


def _escaped(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
