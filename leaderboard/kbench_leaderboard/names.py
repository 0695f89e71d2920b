"""File names made by us: no name out of a result ever becomes a path."""

from __future__ import annotations

import hashlib
import re

__all__ = ["slug"]

_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")


def slug(name: str) -> str:
    """Returns a file name for a name: itself where it is plain, else a digest of it.

    Capitals are not plain, for some file systems take them for small letters; a digest begins with
    a sign that no plain name begins with.
    """
    if _PLAIN.fullmatch(name):
        return name
    return "_" + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
