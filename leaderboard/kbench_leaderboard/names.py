"""Names as files and matrices take them: no name out of a result ever becomes a path."""

from __future__ import annotations

import hashlib
import re

__all__ = ["short", "slug"]

_WIDEST = 44
"""Letters of a name in a matrix; beside it, in a title and on its page, it is whole."""
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")


def slug(name: str) -> str:
    """Returns a file name for a name: itself where it is plain, else a digest of it.

    Capitals are not plain, for some file systems take them for small letters; a digest begins with
    a sign that no plain name begins with.
    """
    if _PLAIN.fullmatch(name):
        return name
    return "_" + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]


def short(name: str) -> str:
    """Returns a name with its middle left out where it would be too wide for a matrix."""
    return name if len(name) <= _WIDEST else f"{name[: _WIDEST - 15]}…{name[-14:]}"
