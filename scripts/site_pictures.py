"""The pictures of docs/leaderboard.md, taken in Chromium of a site that was built.

python -m scripts.site_pictures site docs
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

_PICTURES = {"leaderboard.png": (1400, 1200), "leaderboard-phone.png": (390, 844)}
"""Their sizes; a page of a phone begins at its matrix."""
_SCALE = 0.8
"""Dots of a picture to one of the page, to keep it small."""


def main(arguments: Sequence[str]) -> None:
    """Takes the pictures of a site into a folder."""
    from playwright.sync_api import ViewportSize, sync_playwright

    site, folder = map(Path, arguments)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=options)
        for name, (width, height) in _PICTURES.items():
            view: ViewportSize = {"width": width, "height": height}
            page = browser.new_page(viewport=view, device_scale_factor=_SCALE)
            page.goto((site / "index.html").resolve().as_uri())
            if width < 1000:
                page.evaluate("document.querySelector('.panel').scrollIntoView()")
            page.screenshot(path=folder / name)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
