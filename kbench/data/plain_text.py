"""Text of strangers as plain text: nothing in it steers a terminal, or breaks a picture."""

from __future__ import annotations

import re

__all__ = ["plain"]

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb\ufffe\uffff]"
)


def plain(text: str) -> str:
    """Returns a text with a sign of replacement for each that steers what shows it.

    Also for those that XML, and so SVG, cannot hold.
    """
    return _STEERING.sub("\ufffd", text)
