"""The front page as a reader has it: which method to use, from a file and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.board_world import LONG

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from tests.browser.conftest import Visit

ENCODER = ".panel[data-backbone=kbench-tiny]"
DECODER = ".panel[data-backbone=kbench-tiny-lm]"


def methods(page: Page, panel: str = ENCODER) -> list[str]:
    return page.locator(f"{panel} .matrix tbody th a").all_inner_texts()


def column(page: Page, name: str, panel: str = ENCODER) -> list[str]:
    """What is to be seen in a column."""
    number = head(page, name, panel).evaluate("head => head.cellIndex + 1")
    cells = page.locator(f"{panel} .matrix tbody tr > :nth-child({number})").all_inner_texts()
    return [cell.split("\n")[0].strip() for cell in cells]


def figure(page: Page, name: str) -> Locator:
    return page.get_by_role("radio", name=name, exact=True)


def head(page: Page, name: str, panel: str = ENCODER) -> Locator:
    return page.locator(f"{panel} .matrix th[data-column={name}]")


def test_it_answers_and_does_not_rank_what_cannot_be_told_apart(front: Visit) -> None:
    page = front.open()
    answers = page.locator(".answers li").all_inner_texts()
    assert "first (general) gains most of those in the first rank, +5" in answers[0]
    assert "shares that rank with 1 of the other 2" in answers[0]
    assert "from the best mean rank: equal (task-specific)." in answers[0]
    assert "second (general) gains most" in answers[1]
    ranks = dict(zip(methods(page), column(page, "rank"), strict=True))
    assert (ranks["first"], ranks["equal"], ranks["second"]) == ("1", "1", "2")
    (long,) = [rank for name, rank in ranks.items() if name.startswith("long-")]
    assert long == "–"
    page.locator(f"{ENCODER} details", has_text="Not in the order").locator("summary").click()
    missing = page.locator(f"{ENCODER} details", has_text="Not in the order").inner_text()
    assert "toy-typing, toy-relations: no result" in missing
    assert "kar (general): toy-relations: skipped: kar cannot be run" in missing


def test_the_encoder_and_the_decoder_stand_side_by_side(front: Visit) -> None:
    page = front.open()
    left, right = (page.locator(name).bounding_box() for name in (ENCODER, DECODER))
    assert left
    assert right
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    assert "encoder" in page.locator(f"{ENCODER} h2").inner_text()
    assert "decoder" in page.locator(f"{DECODER} h2").inner_text()


def test_a_task_is_sorted_by_and_the_address_keeps_it(front: Visit) -> None:
    page = front.open()
    task = head(page, "toy-qa", DECODER)
    task.click()
    expect(task).to_have_attribute("aria-sort", "descending")
    assert methods(page, DECODER) == ["second", "first", "none"]
    task.click()
    expect(task).to_have_attribute("aria-sort", "ascending")
    assert [name for name in methods(page, DECODER) if name != "none"] == ["first", "second"]
    page.reload()
    assert [name for name in methods(page, DECODER) if name != "none"] == ["first", "second"]
    # Settings stay apart until they are put into one list.
    head(page, "method").click()
    expect(head(page, "method")).to_have_attribute("aria-sort", "ascending")
    assert methods(page)[:4:3] == ["first", "equal"]
    page.check("input[name=together]")
    assert methods(page) == sorted(methods(page))
    assert "together=yes" in page.url


def test_another_figure_is_one_click_away(front: Visit) -> None:
    page = front.open()
    gains = column(page, "toy-qa")
    figure(page, "score, foreign").check()
    shown = dict(zip(methods(page), column(page, "toy-qa"), strict=True))
    assert 20 < float(shown["first"]) < 40
    assert shown["none"] == "–"
    figure(page, "score without knowledge").check()
    assert column(page, "toy-qa") != gains
    assert "figure=none" in page.url
    page.reload()
    assert figure(page, "score without knowledge").is_checked()
    page.click("button[type=reset]")
    expect(figure(page, "knowledge gain")).to_be_checked()
    assert column(page, "toy-qa") == gains
    assert all(gain.startswith(("+", "−")) for gain in gains if gain not in ("–", "·", "0.0"))


def test_filters_hide_and_links_lead_back_to_them(front: Visit) -> None:
    page = front.open()
    page.select_option("select[name=backbone]", "kbench-tiny")
    assert page.locator(ENCODER).is_visible()
    assert not page.locator(DECODER).is_visible()
    page.select_option("select[name=setting]", "task-specific")
    assert methods(page) == ["equal", "none"]
    assert page.locator("#status").inner_text() == "2 rows of 1 model are shown."
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert methods(page) == ["equal", "none"]
    page.click("button[type=reset]")
    page.select_option("select[name=seeds]", "2")
    assert methods(page) == ["first", "none"]
    page.goto(f"{front.home}/index.html#figure=<b>&backbone=x&sort0=no-asc&sort7=a-desc&seeds=9")
    page.reload()
    assert len(methods(page)) == 5
    assert figure(page, "knowledge gain").is_checked()


def test_an_interval_is_there_for_pointer_and_keyboard_and_leads_to_the_story(
    front: Visit,
) -> None:
    page = front.open()
    cell = page.locator(f"{ENCODER} tr", has=page.get_by_role("link", name="first", exact=True))
    cell = cell.locator("td.v a").nth(1)
    tip = cell.locator(".tip")
    assert not tip.is_visible()
    cell.hover()
    assert "knowledge gain +" in tip.inner_text()
    assert "score, same-type" in tip.inner_text()
    page.mouse.move(0, 0)
    assert not tip.is_visible()
    for _ in range(60):
        page.keyboard.press("Tab")
        if cell.evaluate("cell => cell === document.activeElement"):
            break
    assert tip.is_visible()
    assert "seeds 0, 1" in tip.inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*.html")
    story = page.locator("main").inner_text()
    for part in ("foreign knowledge", "same-type knowledge", "no knowledge", "1,000 parameters"):
        assert part in story, part
    assert "kbench run --task toy-" in story
    assert page.locator("#predictions").is_visible()
    page.get_by_role("link", name="foreign knowledge").click()
    page.wait_for_url("**/runs/*.html")
    page.get_by_role("link", name="true knowledge").click()


def test_all_is_there_without_a_script(front_plain: Visit) -> None:
    page = front_plain.open()
    assert not page.locator("#filters").is_visible()
    gains = column(page, "toy-qa")
    figure(page, "net gain").check()
    figure(page, "score").check()
    assert column(page, "toy-qa") != gains
    page.locator(f"{ENCODER} .cell").first.focus()
    assert page.locator(f"{ENCODER} .tip").first.is_visible()
    page.locator(f"{ENCODER} .behind summary").click()
    table = page.locator(f"{ENCODER} .behind table")
    assert table.locator("tbody tr").count() == 19  # 15 cells, and four averages
    assert "[+" in table.inner_text()
    assert page.locator(f"{ENCODER} .forest svg").is_visible()


def test_nothing_scrolls_sideways(front: Visit, front_phone: Visit, front_folder: Path) -> None:
    """Not with names of 500 letters either, on any kind of page."""
    paths = ["index.html", "tables.html"]
    for kind in ("methods", "tasks", "compare", "runs"):
        pages = sorted((front_folder / kind).glob("*.html"))
        paths += [f"{kind}/{path.name}" for path in pages if LONG in path.read_text()][:1]
    assert len(paths) == 6
    for visit in (front, front_phone):
        for path in paths:
            page = visit.open(path)
            wide, there = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= there, path
    page = front.open()
    for region in page.locator(".panel > .scroll").all():
        assert region.evaluate("region => region.scrollWidth <= region.clientWidth")
    # On a phone the method stays where its figures are scrolled.
    page = front_phone.open()
    region = page.locator(f"{ENCODER} > .scroll")
    region.evaluate("region => { region.scrollLeft = 1000; }")
    assert region.evaluate("region => region.scrollLeft > 0")
    box = page.locator(f"{ENCODER} .matrix tbody th").first.bounding_box()
    assert box
    assert box["x"] >= 0


def test_gains_and_losses_differ_by_sign_and_by_what_all_eyes_tell_apart(front: Visit) -> None:
    """Blue against orange: how they differ does not hang on red against green."""
    page = front.open()
    parts = page.evaluate(
        """['p4', 'n4'].map((name) => {
          const mark = document.createElement('span');
          mark.className = name;
          document.body.append(mark);
          return getComputedStyle(mark).backgroundColor.match(/\\d+/g).map(Number);
        })"""
    )
    (_, _, gain), (_, _, loss) = parts
    assert gain - loss > 100  # of blue, which all of the common forms of colour blindness see


FAULTS = pytest.mark.faults


@pytest.mark.parametrize(
    "scheme", ["front_dark", *(pytest.param(n, marks=FAULTS) for n in ("front", "front_phone"))]
)
def test_axe_finds_nothing_serious(scheme: str, request: pytest.FixtureRequest) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = request.getfixturevalue(scheme).open()
    page.locator("details.behind summary").first.click()
    found = Axe().run(page, options={"preload": False}).response["violations"]
    serious = [
        (each["id"], [node["html"][:300] for node in each["nodes"][:2]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert not serious
