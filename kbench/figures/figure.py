"""A figure: its points, its picture, and the files of both."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench.data.files import write_bytes
from kbench.errors import KbenchError, UsageError
from kbench.figures.drawing import chart
from kbench.figures.points import FIGURES, VALUES, Point, points
from kbench.results.shown import Shown
from kbench.store import Results

if TYPE_CHECKING:
    import altair as alt
    from pandas import DataFrame

__all__ = ["ENDINGS", "Figure", "check_ending", "figure"]

ENDINGS = (".pdf", ".svg", ".png")
_DOTS = 4
"""Dots of a PNG to a point: 288 an inch."""


@dataclass(frozen=True)
class Figure:
    """A figure of stored results. A notebook shows it as it stands.

    Attributes:
        kind: what it shows.
        points: a line a point, in per cent.
    """

    kind: str
    points: Sequence[Point]

    @cached_property
    def chart(self) -> alt.TopLevelMixin:
        """The picture, as a chart of Altair that can be changed further."""
        return chart(self.kind, self.points)

    @property
    def data(self) -> DataFrame:
        """The points as a frame of pandas."""
        import pandas as pd

        return pd.DataFrame([*self.points])

    def save(self, path: str | Path) -> list[Path]:
        """Writes the picture, and its points beside it as CSV.

        Args:
            path: of a PDF (fonts embedded), SVG or PNG, by its ending.

        Returns:
            both files.

        Raises:
            UsageError: the ending is another one.
            KbenchError: they cannot be written.
        """
        path = Path(path)
        check_ending(path)
        table = path.with_suffix(".csv")
        content = {path: self._picture(path.suffix.lower()), table: self._table()}
        for file, written in content.items():
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(file, written)
            except OSError as cause:
                reason = cause.strerror or cause
                raise KbenchError(f"{file}: cannot be written ({reason})") from cause
        return [*content]

    def _picture(self, ending: str) -> bytes:
        import vl_convert

        spec: Any = self.chart.to_dict()
        if ending == ".svg":
            return vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]).encode()
        if ending == ".pdf":
            return vl_convert.vegalite_to_pdf(spec, allowed_base_urls=[])
        return vl_convert.vegalite_to_png(spec, scale=_DOTS, allowed_base_urls=[])

    def _table(self) -> bytes:
        text = io.StringIO()
        names = dict.fromkeys(name for point in self.points for name in point)
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.points)
        return text.getvalue().encode()

    def _repr_mimebundle_(self, *args: Any, **options: Any) -> Any:
        return self.chart._repr_mimebundle_(*args, **options)


def check_ending(path: Path) -> None:
    """Refuses a file that no picture is written to.

    Raises:
        UsageError: its ending is another one.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}")


def figure(kind: str, shown: Shown, store: Results, value: str | None = None) -> Figure:
    """Returns a figure of the rows of a table.

    Args:
        kind: one of :data:`~kbench.figures.points.FIGURES`.
        shown: the rows.
        store: gives predictions.
        value: what is shown of a run, where the figure leaves it open.

    Raises:
        UsageError: there is no such figure or value, or nothing to show.
    """
    for what, name, known in (("figure", kind, FIGURES), ("value", value, VALUES)):
        if name is not None and name not in known:
            raise UsageError(f"no {what} {name!r}; expected one of {', '.join(known)}")
    return Figure(kind, points(kind, shown, store, value))
