"""What every benchmark is held to, and the one table that all of them end in."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kbench.testing.toys import write_backbone

LAYERS, WIDTH, VOCABULARY = 6, 384, 8000
"""The network of the demands. Its vocabulary is a quarter of BERT's, which favours the plain form:
the more words, the more its masked-LM head over every position costs."""


@dataclass(frozen=True)
class Line:
    """A figure and what is demanded of it."""

    what: str
    figure: str
    demand: str
    detail: str
    met: bool


_LINES: list[Line] = []


class Demands:
    """Measures, notes a line of the table, and fails where the demand is missed.

    Args:
        benchmark: pytest-benchmark's fixture, which keeps what was measured.
    """

    def __init__(self, benchmark: Any) -> None:
        self._benchmark = benchmark

    def ratio(
        self,
        what: str,
        ours: Callable[[], object],
        other: Callable[[], object],
        *,
        least: float,
        rounds: int = 5,
        against: str = "plain form",
    ) -> float:
        """Times two forms in turn, so that a busy machine slows both, and compares medians.

        Args:
            what: is measured.
            ours: kbench's form.
            other: the form that it is compared with.
            least: that the other's median is to be of ours.
            rounds: of both, after one that does not count.
            against: a name for the other form.
        """
        taken: list[float] = []

        def before() -> None:
            start = time.perf_counter()
            other()
            taken.append(time.perf_counter() - start)

        self._benchmark.pedantic(ours, setup=before, rounds=rounds, warmup_rounds=1)
        mine, theirs = self._benchmark.stats["median"], statistics.median(taken[1:])
        detail = f"{_seconds(mine)}, {against} {_seconds(theirs)}"
        figure = theirs / mine
        self.note(what, f"{figure:.2f} ×", f"at least {least:g} ×", detail, figure >= least)
        return figure

    def below(self, what: str, figure: float, most: float, detail: str = "") -> None:
        """Notes seconds that are to be less than so many."""
        self._benchmark.extra_info[what] = figure
        self.note(what, _seconds(figure), f"below {_seconds(most)}", detail, figure < most)

    def once(self, ours: Callable[[], object]) -> None:
        """Hands pytest-benchmark one round, where a test measures by itself."""
        self._benchmark.pedantic(ours, rounds=1)

    def note(self, what: str, figure: str, demand: str, detail: str, met: bool) -> None:
        """Notes any line.

        Raises:
            AssertionError: the demand is missed.
        """
        _LINES.append(Line(what, figure, demand, detail, met))
        assert met, f"{what}: {figure}, demanded {demand} ({detail})"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


@pytest.fixture
def demands(benchmark: Any) -> Demands:
    return Demands(benchmark)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of the size that the demands name."""
    folder = tmp_path_factory.mktemp("benchmarks") / "bert"
    return write_backbone(folder, layers=LAYERS, width=WIDTH, vocabulary=VOCABULARY, positions=128)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _LINES:
        return
    terminalreporter.section("figures and demands")
    for line in _table():
        terminalreporter.write_line(line)


def _table() -> Iterator[str]:
    import torch

    yield f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    yield ""
    yield "| what | figure | demand | medians |"
    yield "|---|---|---|---|"
    for line in _LINES:
        missed = "" if line.met else " **missed**"
        yield f"| {line.what} | {line.figure} | {line.demand}{missed} | {line.detail} |"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.is_file() else ())
        if line.startswith("model name")
    ]
    return f"{len(names)} × {names[0]}" if names else platform.processor() or platform.machine()
