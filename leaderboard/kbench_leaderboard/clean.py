"""Texts of strangers as pages show them: nothing that steers, and nobody's home folder.

Whatever a page, the data of its script or a chart says goes through :func:`clean`, wherever in a
result it comes from: spec, command, reasons, hardware.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from kbench.cli.messages import plain

__all__ = ["clean"]

_HOME = re.compile(
    r"(?<!\w)(?:/(?:export/|var/|usr/)?(?:home|Users)/[^/\s'\"`,;:|&<>()\[\]{}]+"
    r"|/root(?![\w.-])"
    r"|[A-Za-z]:[\\/]+Users[\\/]+[^\\/\s'\"`,;:|&<>()\[\]{}]+)"
)
"""The home folder of somebody, whose name is nobody's business."""


def clean(value: Any) -> Any:
    """Returns what of a value may be shown: its texts plain, ``~`` for home folders.

    Args:
        value: text, or what JSON is made of; markup that a template made is left, and so is
            anything else.
    """
    if isinstance(value, str):
        return value if hasattr(value, "__html__") else _text(value)
    if isinstance(value, Mapping):
        return {clean(key): clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [*map(clean, value)]
    return value


@lru_cache(maxsize=1 << 14)
def _text(text: str) -> str:
    """Cleans a text: the same few names stand on every page."""
    return _HOME.sub("~", plain(text))
