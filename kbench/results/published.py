"""Figures that papers and their repositories publish, for comparison by eye.

They lie as ``*.json`` in packages that are offered through the entry-point group
``kbench.published``, a file a source: what the source is, and tables of scores with the split, the
exact metric and what else is known. They are never mixed with what kbench measured: another split,
another convention or another seed is enough to move a score by more than the methods differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from kbench.errors import DataError, first_line
from kbench.parts import registry
from kbench.parts.catalogue import Kind

__all__ = ["Figure", "Source", "figures"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Model):
    """Where figures come from.

    Attributes:
        title: of the paper, and what of it was read.
        citation: ACL Anthology, arXiv or DOI id.
        where: a page or file.
        kind: ``repository``: outputs that lie in the paper's repository; ``readme``: a table in
            it; ``secondary``: somebody else's copy.
        verified: whether the figures were seen at their source.
        note: what a reader must know before comparing anything.
    """

    title: str
    citation: str
    where: str
    kind: Literal["repository", "readme", "secondary"]
    verified: bool
    note: str


class _Row(_Model):
    method: str
    backbone: str
    tuning: str | None
    setting: str | None
    values: tuple[float | None, ...]
    note: str = ""


class _Table(_Model):
    task: str
    split: str
    unit: Literal["fraction", "perplexity"]
    metrics: tuple[str, ...]
    variants: tuple[str, ...]
    note: str = ""
    rows: tuple[_Row, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for row in self.rows:
            if not len(row.values) == len(self.metrics) == len(self.variants):
                raise ValueError(f"{row.method}: not one value and one variant for each metric")
            known = [value for value in row.values if value is not None]
            if self.unit == "fraction" and not all(0 <= value <= 1 for value in known):
                raise ValueError(f"{row.method}: a value is no fraction")
        return self


class _File(_Model):
    source: Source
    tables: tuple[_Table, ...]


@dataclass(frozen=True)
class Figure:
    """One published score.

    Attributes:
        source: where it comes from.
        task: name of the task, kbench's where it has it.
        split: what was evaluated, in words.
        method: kbench's name where it has the method; ``none`` for a model without knowledge.
        backbone: as published; empty where it is not said.
        tuning: likewise, or None.
        setting: kbench's name of it, or None.
        metric: its name.
        variant: its exact definition, as kbench names it.
        unit: of the value.
        value: the score.
        note: anything else.
    """

    source: Source
    task: str
    split: str
    method: str
    backbone: str
    tuning: str | None
    setting: str | None
    metric: str
    variant: str
    unit: str
    value: float
    note: str

    def as_json(self) -> dict[str, Any]:
        """Returns the figure as a JSON value, marked as published."""
        return {"published": True, **vars(self), "source": self.source.model_dump()}


@cache
def figures() -> Sequence[Figure]:
    """Returns every published figure, by package and source.

    Raises:
        DataError: a file does not hold such figures.
        PluginError: a package does not load, or two distributions offer one name.
    """
    names = registry.names(Kind.PUBLISHED)
    packages = sorted({registry.get(Kind.PUBLISHED, name).__name__ for name in names})
    return tuple(figure for package in packages for figure in _in(package))


def _in(package: str) -> Iterator[Figure]:
    paths = [path for path in files(package).iterdir() if path.name.endswith(".json")]
    for path in sorted(paths, key=lambda path: path.name):
        try:
            content = _File.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as cause:
            problem = f"cannot be read ({first_line(cause)})"
            raise DataError(f"{package}/{path.name}", problem, "published figures") from cause
        for table in content.tables:
            yield from _of(content.source, table)


def _of(source: Source, table: _Table) -> Iterator[Figure]:
    for row in table.rows:
        for metric, variant, value in zip(table.metrics, table.variants, row.values, strict=True):
            if value is not None:
                yield Figure(
                    source=source,
                    task=table.task,
                    split=table.split,
                    method=row.method,
                    backbone=row.backbone,
                    tuning=row.tuning,
                    setting=row.setting,
                    metric=metric,
                    variant=variant,
                    unit=table.unit,
                    value=value,
                    note=" ".join(filter(None, (table.note, row.note))),
                )
