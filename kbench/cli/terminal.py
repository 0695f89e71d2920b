"""Rich's console, of which nothing but rich's own styles steers the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from kbench.cli.messages import plain

__all__ = ["Console"]


class Console(RichConsole):
    """Prints texts of strangers as they look; see :mod:`kbench.cli.messages`."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yields the segments of what is to be printed, their texts plain."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)
