"""A site in Debian's Chromium, with the network off."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kbench.parts.catalogue import Kind
from kbench.results.published import Figure, Source
from kbench.testing import registered
from kbench_leaderboard import site
from tests.board_world import LONG, skipped, write, write_front
from tests.conftest import registered_toys

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    # Chromium's own sandbox does not start for root, as in containers.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


@dataclass
class Visit:
    """A page and what it did behind the reader's back."""

    page: Page
    home: str
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def open(self, path: str = "index.html") -> Page:
        self.page.goto(f"{self.home}/{path}")
        return self.page

    def check(self) -> None:
        assert not self.messages
        assert not [url for url in self.requests if not url.startswith(("file:", "data:"))]


@pytest.fixture(scope="session")
def site_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of two backbones, a run that was skipped and a published figure."""
    folder = tmp_path_factory.mktemp("browser")
    source = Source(
        title="A Paper",
        citation="arXiv:2305.17691",
        where="table 1",
        kind="readme",
        verified=True,
        note="",
    )
    words = ("toy-relations", "test", "best", "bert", None, None, "accuracy", "accuracy")
    figure = Figure(source, *words, "fraction", 0.777, "")
    with registered_toys(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "figures", lambda: iter([figure]))
        for backbone in ("bert", "roberta"):
            write(folder / "results", backbone=backbone)
        skipped(folder / "results")
        site.build([folder / "results"], folder / "site")
    return folder / "site"


@pytest.fixture(scope="session")
def front_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of an encoder and a decoder on three tasks, with names of 500 letters."""
    folder = tmp_path_factory.mktemp("front")
    with registered_toys(), registered(Kind.TASKS, **{LONG: "kbench.testing.toys:ToyRelations"}):
        write_front(folder / "results", long_task=True)
        site.build([folder / "results"], folder / "site")
    return folder / "site"


def visit(browser: Browser, folder: Path, **options: Any) -> Iterator[Visit]:
    context = browser.new_context(offline=True, **options)
    found = Visit(context.new_page(), folder.as_uri())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("console", lambda message: found.messages.append(message.text))
    found.page.on("pageerror", lambda error: found.messages.append(str(error)))
    yield found
    found.check()
    context.close()


@pytest.fixture
def desk(browser: Browser, site_folder: Path) -> Iterator[Visit]:
    yield from visit(browser, site_folder, viewport={"width": 1440, "height": 1000})


@pytest.fixture
def dark(browser: Browser, site_folder: Path) -> Iterator[Visit]:
    yield from visit(browser, site_folder, color_scheme="dark")


@pytest.fixture
def phone(browser: Browser, site_folder: Path) -> Iterator[Visit]:
    yield from visit(browser, site_folder, viewport={"width": 390, "height": 800}, has_touch=True)


@pytest.fixture
def plain(browser: Browser, site_folder: Path) -> Iterator[Visit]:
    """A browser without JavaScript."""
    yield from visit(browser, site_folder, java_script_enabled=False)


@pytest.fixture
def front(browser: Browser, front_folder: Path) -> Iterator[Visit]:
    yield from visit(browser, front_folder, viewport={"width": 1400, "height": 1000})


@pytest.fixture
def front_plain(browser: Browser, front_folder: Path) -> Iterator[Visit]:
    yield from visit(browser, front_folder, java_script_enabled=False)


@pytest.fixture
def front_phone(browser: Browser, front_folder: Path) -> Iterator[Visit]:
    size = {"width": 390, "height": 800}
    yield from visit(browser, front_folder, viewport=size, has_touch=True)


@pytest.fixture
def front_dark(browser: Browser, front_folder: Path) -> Iterator[Visit]:
    yield from visit(browser, front_folder, color_scheme="dark")
