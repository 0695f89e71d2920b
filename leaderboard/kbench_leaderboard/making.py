"""What a site shows of each group alone: its board, its comparisons, the pages of its runs.

No group knows of another. So where there are many results, groups are made in processes beside
each other; and what ends its process there, as a library of charts may, is the loss of one group.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from kbench.errors import with_type
from kbench.grid.pool import Limits, Pool, Tell
from kbench.results.identity import Names
from kbench.store import Result
from kbench_leaderboard.board import Shelf, group_of
from kbench_leaderboard.charts import chart
from kbench_leaderboard.compared import compared
from kbench_leaderboard.content import Shown, samples
from kbench_leaderboard.pages import Pages
from kbench_leaderboard.sources import Sources

__all__ = ["Desk", "Made", "made"]

_MANY = 200
"""Results that are worth the seconds which other processes take to begin."""
_MOST = 4
"""Processes at once: each holds the predictions of a group."""

_Item: TypeAlias = tuple[int, Sequence[Result]]


@dataclass(frozen=True)
class Desk:
    """What all groups of a site are made from.

    Attributes:
        site: the folder that pages are written into.
        names: of the parts of all results.
        folders: where each result lies, by its id.
        data: where texts of test examples are read from, if anywhere.
        bundles: folders of knowledge bases.
    """

    site: Path
    names: Names
    folders: Mapping[str, Path]
    data: Path | None = None
    bundles: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Made:
    """What became of a group; its own pages are written.

    Attributes:
        shown: what other pages show of it; None where nothing is.
        lost: why a result is not shown, by its id.
    """

    shown: Shown | None
    lost: Mapping[str, str] = field(default_factory=dict)


def made(parts: Sequence[Sequence[Result]], desk: Desk) -> list[Made]:
    """Makes all groups of a site, in as many processes as it pays to have.

    Args:
        parts: the results of each group.
        desk: what they are made from.

    Returns:
        what became of each, in their order.
    """
    cores = os.cpu_count() or 1
    size = min(cores, _MOST, len(parts)) if sum(map(len, parts)) >= _MANY else 1
    found = dict(_worked([*enumerate(parts)], size, desk))
    return [found[at] for at in range(len(parts))]


def _worked(items: Sequence[_Item], size: int, desk: Desk) -> Iterator[tuple[int, Made]]:
    """Yields the number of each group with what became of it, as they end."""
    if size < 2:
        maker = _Maker(desk)
        yield from ((item[0], maker(item)) for item in items)
        return
    left = sorted(items, key=lambda item: len(item[1]))  # the largest first, from the end
    pool: Pool[_Item, Made] = Pool(partial(_begun, desk), size, Limits())
    for (at, results), one in pool.work(lambda _: left.pop() if left else None):
        if isinstance(one, Made):
            yield at, one
        else:
            Pages(desk.site).remove(results)
            yield at, Made(None, _all(results, one.reason))


def _begun(desk: Desk, _seat: int, _tell: Tell) -> _Maker:
    return _Maker(desk)


def _all(results: Sequence[Result], why: str) -> dict[str, str]:
    return {result.id: f"cannot be shown ({why})" for result in results}


class _Maker:
    """Makes one group after the other; predictions are in memory for as long as one takes."""

    def __init__(self, desk: Desk) -> None:
        self._names = desk.names
        self._shelf = Shelf(desk.folders)
        self._sources = Sources(desk.data, desk.bundles)
        self._pages = Pages(desk.site)

    def __call__(self, item: _Item) -> Made:
        _, results = item
        lost: dict[str, str] = {}
        try:
            lost = {r.id: why for r in results if (why := self._shelf.problem(r))}
            whole = [result for result in results if result.id not in lost]
            return Made(self._shown(whole) if whole else None, lost)
        except Exception as error:  # whatever a stranger's results raise, the others are shown
            self._pages.remove(results)
            return Made(None, {**_all(results, with_type(error)), **lost})
        finally:
            self._shelf.forget()

    def _shown(self, results: Sequence[Result]) -> Shown:
        group = group_of(results, self._shelf, self._names)
        examples = self._sources.examples(group.lines[0].first)
        self._pages.compare(group, compared(group, self._shelf, examples))
        predictions = ((r, self._shelf.predictions(r)) for r in group.results)
        told = {r.id: samples(r, found, self._sources) for r, found in predictions}
        self._pages.runs(group, told, self._names)
        return Shown(group, chart(group))
