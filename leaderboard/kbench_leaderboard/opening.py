"""`kbench leaderboard open`: a site in the browser, built first where it shows other results."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

from kbench_leaderboard.site import build, is_site, shows

__all__ = ["open_in_browser", "site_of"]


def site_of(path: Path, out: Path) -> Path:
    """Returns the front page of a site, or of that of some results.

    Args:
        path: of a site, or of a folder or archive of results.
        out: where a site of results is, or is built if it shows others.

    Raises:
        UsageError: ``out`` holds something else than a site.
        DataError: the results are none.
    """
    if is_site(path):
        return path / "index.html"
    if not (is_site(out) and shows(out, path)):
        build([path], out)
    return out / "index.html"


def open_in_browser(page: Path) -> bool:
    """Opens a page; False where there is nothing to open it in.

    A browser in the terminal would take it from whoever called: none is started unasked.
    """
    asked = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if sys.platform.startswith("linux") and not asked:
        return False
    return webbrowser.open(page.resolve().as_uri())
