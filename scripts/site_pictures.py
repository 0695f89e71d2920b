"""The pictures of docs/leaderboard.md, taken in Chromium of a site that was built.

python -m scripts.site_pictures site docs

Each says of which results it is, so that a test can see that they are those of today.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["PICTURES", "results_of"]

PICTURES = {"leaderboard.png": (1400, 1200), "leaderboard-phone.png": (390, 844)}
"""Their sizes; a page of a phone begins at its matrix."""
_SCALE = 0.8
"""Dots of a picture to one of the page, to keep it small."""
_WORD = b"results\0"
_CHUNK = b"tEXt"


def results_of(picture: Path) -> str:
    """Returns the digest of the results that a picture is of; empty if it does not say."""
    _, mark, rest = picture.read_bytes().partition(_CHUNK + _WORD)
    return rest[:64].decode("ascii") if mark else ""


def _signed(picture: bytes, digest: str) -> bytes:
    """A PNG with a text of its own before its end."""
    text = _CHUNK + _WORD + digest.encode("ascii")
    chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    end = picture.rindex(b"IEND") - 4
    return picture[:end] + chunk + picture[end:]


def main(arguments: Sequence[str]) -> None:
    """Takes the pictures of a site into a folder."""
    from playwright.sync_api import ViewportSize, sync_playwright

    site, folder = map(Path, arguments)
    digest = json.loads((site / "kbench-site.json").read_text(encoding="utf-8"))["results"]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=options)
        for name, (width, height) in PICTURES.items():
            view: ViewportSize = {"width": width, "height": height}
            page = browser.new_page(viewport=view, device_scale_factor=_SCALE)
            page.goto((site / "index.html").resolve().as_uri())
            if width < 1000:
                page.evaluate("document.querySelector('.panel').scrollIntoView()")
            (folder / name).write_bytes(_signed(page.screenshot(), digest))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
