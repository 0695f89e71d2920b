"""Tables in terminals of every width: numbers are printed whole, and what is lacking is said."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from kbench.cli.columns import columns_of, headings
from kbench.cli.layout import Column, show, wrapped
from kbench.cli.render import print_table
from kbench.results.tables import Estimate, Locality, Row
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Result, Score, Status

NUMBER = re.compile(r"(?:(?<![\w-])[+-])?\d+(?:,\d{3})*(?:\.\d+)?%?")


def row(method: str, learning_rate: float, control: Control = Control.NONE) -> Row:
    spec = RunSpec(
        task="atlas-relations",
        backbone="bert-base-cased",
        tuning="full",
        method=method,
        setting=Setting.TASK_SPECIFIC,
        knowledge="wikidata5m",
        control=control,
        seed=0,
        options={"tuning": {"full": {"learning_rate": learning_rate, "epochs": 12345}}},
    )
    result = Result(
        id=f"{abs(hash((method, learning_rate, control))):032x}"[:32],
        status=Status.OK,
        spec=spec,
        main_metric="accuracy",
        metrics={"accuracy": Score(value=0.5, low=0.4, high=0.6, n=9, variant="accuracy")},
        cost={
            "trainable_parameters": 46070784,
            "train_seconds": 12345,
            "evaluate_seconds_per_example": 0.00144,
            "peak_memory_bytes": 1.5e9,
            "knowledge_bytes": 12_345_678,
        },
    )
    return Row(
        (result,),
        Estimate(0.5123, 0.4812, 0.5456),
        Estimate(-0.0834, -0.1267, -0.0401),
        Estimate(0.1178, 0.0723, 0.1634),
        Estimate(0.1002, 0.0551, 0.1449),
        Estimate(0.0176, -0.0083, 0.0431),
        Locality(0.075, 4567),
        0.0012,
    )


ROWS = [
    row("map-tuning", 0.00012345),
    row("adapter-no-knowledge", 0.5),
    row("a-method-of-a-very-long-name-2024", 0.5, Control.SHUFFLED),
]


def printed(width: int, columns: str | None = None) -> list[str]:
    screen = io.StringIO()
    print_table(ROWS, Console(file=screen, width=width), columns=headings(columns))
    return screen.getvalue().splitlines()


@pytest.mark.parametrize("width", range(40, 161))
def test_no_number_is_cut_at_any_width(width: int) -> None:
    lines = printed(width)
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    expected = {
        n for each in ROWS for cell in columns_of(each).values() for n in NUMBER.findall(cell)
    }
    allowed = expected | {"0.00012345", "0.5", "12345", "95%", "2024", "5"}
    body = text.partition("In per cent")[0]
    # Whatever looks like a number is one of those that there are, never a piece of one.
    assert {*NUMBER.findall(body)} - allowed == set()
    for figure in ("51.2", "48.1", "54.6", "0.00012345"):
        assert figure in body
    told = " ".join(lines).partition("Left out for want of room")[2]
    for name, figure in (
        ("trained", "46,070,784"),
        ("Δ none", "-12.7"),
        ("knowledge gain", "+16.3"),
        ("memory", "1.5 GB"),
        ("broken", "4567"),
    ):
        assert (figure in body) != (name in told), name


@pytest.mark.parametrize("width", [40, 50, 60, 100, 140])
def test_columns_that_are_asked_for_go_on_below(width: int) -> None:
    lines = printed(
        width, "score,delta,gain,trained,seconds,latency,memory,knowledge-bytes,locality"
    )
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    for figure in ("51.2", "-12.7", "+16.3", "46,070,784", "12345 s", "1.5 GB", "12.3 MB", "4567"):
        assert figure in text
    assert "Left out" not in text


def test_the_order_in_which_columns_go() -> None:
    lost = [
        [name for name in ("trained", "Δ none", "knowledge gain") if name in told]
        for width in range(60, 30, -1)
        for told in [" ".join(printed(width)).partition("Left out")[2]]
    ]
    for one, two in pairwise(lost):
        assert {*one} <= {*two}
    assert [] in lost or ["trained"] in lost
    assert not any("knowledge gain" in each and "Δ none" not in each for each in lost)


@pytest.mark.parametrize("width", [12, 20, 33, 80])
def test_a_table_of_any_verb_keeps_its_figures(width: int) -> None:
    columns = [
        Column("name", ["a-name-of-2024", Text("日本語の名前", style="bold")], text=True),
        Column("n", ["8,320", "1,234,567"], "right"),
        Column("difference", ["+1.0 [+0.5, +1.5]", "-2.0 [-12.5, +1.5]"], "right", rank=1),
        Column("rest", ["0123456789abcdef0123456789abcdef", "x"], rank=2),
    ]
    screen = io.StringIO()
    show(Console(file=screen, width=width), columns)
    text = screen.getvalue()
    for figure in ("8,320", "1,234,567", "2024"):
        assert figure in text
    gone = " ".join(text.split()).partition("Left out")[2]
    for name, figures in (("difference", ("[-12.5,", "+1.5]")), ("rest", ("f0123456789abcdef",))):
        assert (name in gone) or all(figure in text for figure in figures)
    if width >= 33:
        assert max(map(cell_len, text.splitlines())) <= width


@pytest.mark.parametrize("width", range(1, 30))
def test_wrapping_keeps_every_sign_and_every_number(width: int) -> None:
    for text in ("learning_rate=0.001, epochs=12", "of 8,320 (1.5e-07) [+12.5, -3.0] at bert/v2"):
        lines = wrapped(text, width).plain.split("\n")
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        for number in re.findall(r"\d[\d.,e-]*\d", text):
            assert any(number in line for line in lines), number
        longest = max(len(word) for word in re.split(r"[ =]", text))
        assert all(len(line.rstrip()) <= max(width, longest) for line in lines)


def test_rows_without_figures_have_none_cut() -> None:
    bare = replace(ROWS[0], delta=None, gain=None, locality=None)
    screen = io.StringIO()
    print_table([bare], Console(file=screen, width=50))
    assert "51.2" in screen.getvalue()


def test_words_that_are_whole_are_cut_after_columns_went() -> None:
    """But for those longer than any column, which are cut at their signs in any case."""
    named = Column("name", ["adapter-no-knowledge"])
    texts = Column("what", ["encoder-decoder models, a/path/that/is/longer/than/any"], text=True)
    origin = Column("from", ["knowledge-bench"], rank=1)

    def lines(width: int, whole: bool) -> list[str]:
        console = Console(file=io.StringIO(), width=width)
        show(console, [named, replace(texts, whole=whole), origin])
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().splitlines()

    for width in (40, 48, 52, 60, 80):
        text = " ".join(lines(width, whole=True))
        assert "encoder-decoder" in text
        assert ("Left out for want of room: from" in text) == (width < 54)
        assert max(map(cell_len, lines(width, whole=True))) <= max(width, 38)
    assert "encoder-decoder" not in " ".join(lines(48, whole=False))
    assert "encoder-decoder" not in " ".join(lines(32, whole=True))


@pytest.mark.parametrize("text", ["a" * 400_000, "a " * 200_000, " " * 400_000, "1" * 400_000])
def test_a_long_text_is_wrapped_in_a_time_that_goes_with_its_length(text: str) -> None:
    start = time.process_time()
    wrapped(text, 60)
    assert time.process_time() - start < 20


def test_a_text_that_steers_is_as_wide_as_it_is_shown() -> None:
    console = Console(file=io.StringIO(), width=40)
    show(console, [Column("run", ["\u202e" * 39 + " ab cd"], text=True)])
    assert isinstance(console.file, io.StringIO)
    assert max(map(cell_len, console.file.getvalue().splitlines())) <= 40
