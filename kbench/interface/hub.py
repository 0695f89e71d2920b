"""Results as a data set for the Hugging Face hub: tables that its viewer shows, and a card."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbench import __version__
from kbench.data.files import front_matter, write_bytes
from kbench.data.plain_text import plain
from kbench.errors import ArtifactError, UsageError, first_line, one_line
from kbench.interface.licences import licence_of_data
from kbench.interface.reading import Runs

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["TABLES", "export_hub"]

TABLES = {
    "runs": "a line a run: what it is, how it ended, its main score with interval, its costs",
    "table": "a line a run over its seeds, with differences and knowledge gains",
    "scores": "every metric of every run, in long form",
    "buckets": "the main metric by coverage, popularity and context",
    "predictions": "what was predicted of each test example; its text is not there",
}
"""The tables of the data set, each a configuration of its own."""


def export_hub(runs: Runs, folder: Path, *, title: str = "kbench results") -> list[Path]:
    """Writes results as a data set: a Parquet file for each of :data:`TABLES`, and ``README.md``.

    Args:
        runs: what to write.
        folder: where to; files of these names are replaced.
        title: of the card.

    Returns:
        the files.

    Raises:
        UsageError: there is no result.
        DataError: predictions are missing or damaged.
        ArtifactError: the folder cannot be written.
    """
    if not len(runs):
        raise UsageError(f"{runs.folder}: there is no such result to export")
    written = []
    try:
        for name in TABLES:
            path = folder / "data" / f"{name}.parquet"
            write_bytes(path, _parquet(_table(runs, name)))
            written.append(path)
        write_bytes(folder / "README.md", _card(runs, title).encode())
    except OSError as cause:
        raise ArtifactError(f"{folder}: cannot be written ({first_line(cause)})") from cause
    return [*written, folder / "README.md"]


def _table(runs: Runs, name: str) -> DataFrame:
    made: Any = getattr(runs, name)
    frame: DataFrame = made() if callable(made) else made
    for column in {"label", "prediction"} & {*frame.columns}:
        # Of one type for all tasks: an entity may have several types, a question several answers.
        frame[column] = frame[column].map(_several)
    return frame


def _several(value: object) -> list[str]:
    return [*map(str, value)] if isinstance(value, list | tuple) else [str(value)]


def _parquet(frame: DataFrame) -> bytes:
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _card(runs: Runs, title: str) -> str:
    configurations = [
        {"config_name": name, "data_files": f"data/{name}.parquet", "default": name == "table"}
        for name in ("table", *(each for each in TABLES if each != "table"))
    ]
    head = {
        "pretty_name": plain(one_line(title)),
        "tags": ["kbench", "knowledge-injection", "benchmark"],
        "license": "other",
        "configs": configurations,
    }
    lines = [
        f"# {plain(one_line(title))}",
        "",
        f"{len(runs)} results of kbench {__version__}, a benchmark of knowledge injection into "
        "frozen language models. Scores are fractions, with 95 % intervals. A `gain` is over "
        "the same method with the knowledge of entities that have nothing in common with "
        "those asked about (`control=foreign`); runs of controls are rows of their own, and "
        "no models to use.",
        "",
        *(f"- `{name}`: {what}." for name, what in TABLES.items()),
        "",
        "Data sets that were asked, and their licences:",
        "",
        *(f"- {line}" for line in _data_sets(runs)),
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'rows = load_dataset("OWNER/NAME", "table", split="train").to_pandas()',
        "```",
        "",
    ]
    return front_matter(head, "\n".join(lines))


def _data_sets(runs: Runs) -> Iterator[str]:
    for name, result in sorted({each.spec.task: each for each in runs}.items()):
        licence = plain(one_line(licence_of_data(result.spec)))
        yield f"{plain(name)}: {licence}"
