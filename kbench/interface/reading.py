"""Stored results for programs: data frames of runs, scores and predictions, and comparisons."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kbench.data.files import is_folder
from kbench.errors import UsageError, nearest
from kbench.interface import frames
from kbench.results.comparison import judge
from kbench.results.example_diff import Texts, changes
from kbench.results.identity import FIELDS, Names, fits
from kbench.results.pairing import compared, sides
from kbench.results.shown import shown
from kbench.store import Predictions, Result, Results
from kbench.store.packed import results_folder

if TYPE_CHECKING:
    from pandas import DataFrame

    from kbench.figures.figure import Figure

__all__ = ["Runs", "load"]


class Runs:
    """Stored results, as frames of pandas. Made by :func:`kbench.load` and :func:`kbench.run`.

    Figures are fractions and SI units. What belongs beside a run (the model without knowledge,
    its controls) is taken from the whole folder, also where it is not among these runs.

    Args:
        folder: of results.
        results: those that are meant; all of the folder if not given.

    Attributes:
        folder: of results.
        results: each with all that its ``result.json`` says.

    Examples:
        >>> runs = load("kbench-results")
        >>> runs
        <6 results in kbench-results>
        >>> runs.where(method="map-tuning", control="none").runs[["task", "seed", "score"]]
                      task  seed  score
        0  atlas-relations     0    0.9
        1  atlas-relations     1    0.9
    """

    def __init__(self, folder: Path, results: Sequence[Result] | None = None) -> None:
        self.folder = folder
        self._store = Results(folder)
        self.results: tuple[Result, ...] = tuple(self._store if results is None else results)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __repr__(self) -> str:
        return f"<{len(self)} results in {self.folder}>"

    def where(self, **fields: str) -> Runs:
        """Returns some of the runs.

        Args:
            fields: by the name of a field of a run (``task``, ``method``, ``setting``, …, as the
                columns of :attr:`runs`) a comma list of globs, as of ``kbench table --task``.

        Raises:
            UsageError: there is no such field.
        """
        for name in fields:
            if name not in FIELDS:
                raise UsageError(f"where: no field {name!r}{nearest(name, FIELDS)}")
        return Runs(self.folder, [each for each in self.results if self._fits(each, fields)])

    def _fits(self, result: Result, fields: dict[str, str]) -> bool:
        return all(
            any(fits(result, name, glob.strip(), self._names) for glob in wanted.split(","))
            for name, wanted in fields.items()
        )

    @cached_property
    def _names(self) -> Names:
        return Names([*self._store])

    @property
    def runs(self) -> DataFrame:
        """A line a result: id, status, reason, what it is of, its main score, dev, its costs."""
        return frames.run_frame(self.results, self._names)

    def table(self, *, metric: str | None = None, all: bool = False) -> DataFrame:
        """Returns a line a run over its seeds, as ``kbench table --format csv`` has it.

        With score, ``delta`` (against no knowledge), ``gain`` (against foreign knowledge), their
        intervals, coverage, locality and costs.

        Args:
            metric: another metric than the main one.
            all: also the variants that dev did not choose.

        Raises:
            UsageError: no result has the metric.

        Examples:
            >>> rows = load("kbench-results").table().sort_values("score", ignore_index=True)
            >>> rows[["method", "control", "score", "delta", "gain"]]
                   method  control  score  delta  gain
            0        none     none    0.5    NaN   NaN
            1  map-tuning  foreign    0.7    0.2   NaN
            2  map-tuning     none    0.9    0.4   0.2
        """
        found = shown(self._store, self.results, metric=metric, everything=all)
        _say(found.hidden)
        return frames.table_frame(found)

    def scores(self) -> DataFrame:
        """Returns every metric in long form: a line a result (a run and seed) and metric.

        Examples:
            >>> runs = load("kbench-results").where(method="none")
            >>> runs.scores()[["method", "metric", "main", "value", "n"]]
              method    metric  main  value    n
            0   none  accuracy  True    0.5  100
            1   none  accuracy  True    0.5  100
        """
        return frames.score_frame(self.results, self._names)

    def buckets(self) -> DataFrame:
        """Returns the main metric by coverage, popularity and context, in long form."""
        return frames.bucket_frame(self.results, self._names)

    def predictions(self) -> DataFrame:
        """Returns what was predicted: a line a result and test example.

        Raises:
            DataError: predictions are missing or damaged.
        """
        return frames.prediction_frame(self._predicted(), self._names)

    def _predicted(self) -> Iterator[tuple[Result, Predictions]]:
        for result in self.results:
            if (found := self._store.predictions(result)) is not None:
                yield result, found

    def compare(
        self,
        a: str | None = None,
        b: str | None = None,
        *,
        metric: str | None = None,
        family: str = "all",
        force: bool = False,
    ) -> DataFrame:
        """Compares runs, paired by test example and seed, as ``kbench compare``.

        Args:
            a: a method, terms such as ``map-tuning,setting=general``, or the beginning of an id;
                every run with the true knowledge if not given.
            b: likewise; what it does not name is as in ``a``. If not given, a run is compared
                with its own ``none`` and its own controls.
            metric: another metric than the main one.
            family: what Holm's correction is over: all comparisons, or those that share a field.
            force: compare what is not comparable, and say so.

        Returns:
            a line a comparison: ``difference``, ``low``, ``high``, ``p``, ``holm``, …

        Raises:
            UsageError: the words mean nothing that is stored, or what cannot be compared.

        Examples:
            >>> found = load("kbench-results").compare("map-tuning", "none")
            >>> found[["metric", "score_a", "score_b", "difference"]]
                 metric  score_a  score_b  difference
            0  accuracy      0.9      0.5         0.4
        """
        words = [text for text in (a, b) if text is not None]
        made, said = compared(
            self._store,
            words,
            every=a is None,
            fits=self._among(),
            metric=metric,
            family=family,
            force=force,
        )
        _say(said)
        return frames.comparison_frame(made)

    def plot(
        self,
        kind: str,
        *,
        value: str | None = None,
        metric: str | None = None,
        all: bool = False,
    ) -> Figure:
        """Draws the runs with the true knowledge, as ``kbench plot``.

        Args:
            kind: ``forest``, ``matrix``, ``buckets``, ``cost`` or ``seeds``.
            value: what forest, matrix and cost show: ``gain``, ``delta``, ``net`` or ``score``.
            metric: another metric than the main one.
            all: also the variants that dev did not choose.

        Returns:
            the figure: a notebook shows it, ``save`` writes it, ``data`` has its points.

        Raises:
            UsageError: there is no such figure, or nothing to show.
        """
        from kbench.figures.figure import figure

        found = shown(self._store, self.results, metric=metric, everything=all)
        _say(found.hidden)
        return figure(kind, found, self._store, value)

    def _among(self) -> Callable[[Result, Names], bool]:
        ids = {result.id for result in self.results}
        return lambda result, names: result.id in ids

    def diff(
        self, a: str, b: str = "none", *, task: str | None = None, data: str | None = None
    ) -> DataFrame:
        """Returns the examples that two runs do not both have right, as ``kbench diff``.

        Args:
            a: a selection of one run, as of :meth:`compare`.
            b: likewise.
            task: the task, where results are of several.
            data: where the data of the task are, if not where they were.

        Returns:
            a line an example: ``change`` (``gained``, ``lost``, ``both wrong``), labels, text.

        Raises:
            UsageError: they are no two runs, or not over the same examples.
        """
        pair = sides(self._store, (a, b), task)
        texts = Texts.of(pair.ours, data)
        _say([*pair.said, *filter(None, [texts.problem])])
        found = changes(*pair.predictions, judge(pair.ours))
        told = [replace(each, example=texts.examples.get(each.id)) for each in found]
        return frames.changed_frame(told)


def load(folder: str | Path = "kbench-results") -> Runs:
    """Returns the results of a folder. No model is loaded, and neither torch.

    Args:
        folder: what ``--out`` was, or one of packed results.

    Raises:
        UsageError: it is not there.
        DataError: it holds packed results that cannot be read.
    """
    if not is_folder(Path(folder)):
        raise UsageError(f"no folder {folder}; expected what --out or out= was of a run")
    return Runs(results_folder(Path(folder)))


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        warnings.warn(line, stacklevel=3)
