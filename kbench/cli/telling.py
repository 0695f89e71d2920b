"""What `kbench run` tells while it works: bars at a terminal, lines with the time elsewhere.

In a batch job nobody sees bars, and a grid that says nothing for hours looks like one that hangs:
there each stage has a line when it begins, as at a terminal with ``-v``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from kbench.cli.messages import plain
from kbench.cli.terminal import Console
from kbench.errors import UsageError
from kbench.grid.plan import Cell, Events
from kbench.results.notes import left_out, silent, unknown_words
from kbench.store import Result, Status

__all__ = ["QUIET", "USUAL", "VERBOSE", "Teller", "showing"]

QUIET, USUAL, VERBOSE = -1, 0, 1
"""How much is told: what went wrong alone; what is finished too; and what begins."""
_MARKS = {
    Status.OK: ("ok", "green"),
    Status.SKIPPED: ("skipped", "yellow"),
    Status.REFUSED: ("REFUSED", "bold red"),
}


@final
class Teller:
    """Says lines to a person and to a file.

    Args:
        loudness: the least of what is said to the person; the file is told everything.
        file: lines with their time are added at its end; None for none.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, loudness: int = USUAL, file: Path | None = None) -> None:
        self.console = Console(stderr=True)
        self.loudness = loudness
        self._file = file
        self._out: Callable[[Text], None] | None = None
        if file is not None:
            try:
                file.open("a").close()
            except OSError as cause:
                reason = cause.strerror or cause
                raise UsageError(f"--log-file {file}: cannot be written ({reason})") from cause

    def say(self, line: str | Text, style: str = "", level: int = USUAL) -> None:
        """Says a line.

        Args:
            line: what to say.
            style: of it at a terminal.
            level: one of :data:`QUIET`, :data:`USUAL` and :data:`VERBOSE`.
        """
        text = line if isinstance(line, Text) else Text(line, style=style)
        self._log(text.plain)
        if level <= self.loudness:
            self._show(text)

    def begins(self, stage: str, steps: int) -> None:
        """Says that a stage begins, where nobody would see it by a bar."""
        line = f"{stage}, {steps:,} steps"
        self._log(line)
        if self.loudness >= (VERBOSE if self.console.is_terminal else USUAL):
            self._show(Text(f"{time.strftime('%H:%M:%S')} {line}"))

    @contextmanager
    def through(self, out: Callable[[Text], None]) -> Iterator[None]:
        """Says lines above the bars inside the block."""
        self._out = out
        try:
            yield
        finally:
            self._out = None

    def _show(self, text: Text) -> None:
        if self._out:
            self._out(text)
        else:
            self.console.print(text, soft_wrap=True)

    def _log(self, line: str) -> None:
        if self._file is None:
            return
        try:
            with self._file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {plain(line)}\n")
        except OSError as cause:  # a full disk must not end the runs that go on
            lost, self._file = self._file, None
            self.say(f"warning: {lost} is written no more ({cause.strerror or cause})", level=QUIET)


@contextmanager
def showing(
    teller: Teller, total: int, swept: Callable[[Cell], bool], debug: bool = False
) -> Iterator[Events]:
    """Yields events that draw two bars, and say a line for each finished run.

    Of a variant of what is ``swept`` the score on dev is told, for it may be no more than one of
    those that dev does not choose.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    off = not total or teller.loudness < USUAL
    with Progress(*columns, console=teller.console, transient=True, disable=off) as bars:
        grid = bars.add_task("runs", total=total)
        current = bars.add_task("", total=None, visible=False)
        begins = Beginnings(teller.begins)

        def step(what: str, done: int, steps: int) -> None:
            begins.see(0, what, done, steps)
            bars.update(current, description=what, completed=done, total=steps, visible=True)

        def finished(cell: Cell, result: Result) -> None:
            bars.update(current, visible=False)
            bars.advance(grid)
            fine = result.status in (Status.OK, Status.SKIPPED)
            teller.say(_line(result, swept(cell)), level=USUAL if fine else QUIET)
            if debug and result.trace:
                teller.say(result.trace.rstrip(), level=QUIET)

        def above(text: Text) -> None:
            bars.console.print(text, soft_wrap=True)

        with teller.through(above):
            yield Events(step, finished, teller.say, begins.see)


@final
class Beginnings:
    """Tells the first step of each stage from its others, whatever goes on beside it.

    Args:
        tell: called with the stage and its steps.
    """

    def __init__(self, tell: Callable[[str, int], None]) -> None:
        self._tell = tell
        self._at: dict[int, tuple[str, int]] = {}

    def see(self, process: int, stage: str, done: int, steps: int) -> None:
        """Takes note of a step of a process: it begins a stage, or the same one anew.

        Two processes may be at stages of one title: what tells them apart are seeds, say.
        """
        before, so_far = self._at.get(process, ("", 0))
        if stage != before or done <= so_far:
            self._tell(stage, steps)
        self._at[process] = stage, done


def _line(result: Result, variant: bool) -> Text:
    word, style = _MARKS.get(result.status, ("FAILED", "bold red"))
    line = Text(f"{word:<8}", style=style)
    line.append(result.spec.label, style="default")
    if variant and result.dev is not None:
        line.append(f"  {100 * result.dev:.1f} on dev", style="bold")
    elif not variant and result.score:
        line.append(f"  {100 * result.score.value:.1f}", style="bold")
    for note in filter(None, (left_out(result), unknown_words(result), silent(result))):
        line.append(f"  {note}", style="italic")
    if result.reason:
        line.append(f"  {result.reason}", style="italic")
    return line
