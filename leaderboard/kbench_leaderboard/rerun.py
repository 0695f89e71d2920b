"""Some runs of a submission made again: what no check of files can know, a sample can.

What a model predicts follows from the run's spec alone, so whoever doubts a submission runs
some of it. The spec is read as of a stranger: parts are those that are installed, by their names,
and no path is followed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from kbench import run
from kbench.errors import KbenchError, Unsupported, UsageError, first_line
from kbench.parts.registry import Kind, names
from kbench.store import Predictions, Result, Status, read_predictions
from kbench_leaderboard.sources import leads_elsewhere
from kbench_leaderboard.submission import FILES, Entry, places, read

__all__ = ["Rerun", "drawn", "rerun"]

_KINDS = {
    "task": Kind.TASKS,
    "backbone": Kind.BACKBONES,
    "tuning": Kind.TUNINGS,
    "method": Kind.METHODS,
    "knowledge": Kind.KNOWLEDGE,
}


@dataclass(frozen=True)
class Rerun:
    """What came of a run that was made again.

    Attributes:
        where: its folder in the submission.
        run: in words.
        differ: examples that are predicted otherwise; None if it could not be run.
        examples: all of them.
        moved: by how much a probability moved at most.
        outside: whether the score made here lies outside the interval that is stated.
        text: the scores, or why it could not be run.
    """

    where: str
    run: str
    differ: int | None = None
    examples: int = 0
    moved: float = 0.0
    outside: bool = False
    text: str = ""

    @property
    def line(self) -> str:
        """What came of it, in a line."""
        if self.differ is None:
            return f"{self.where} {self.run}: cannot be run again here: {self.text}"
        if not self.differ and not self.moved:
            return f"{self.where} {self.run}: the same predictions to the last bit"
        wrong = ", OUTSIDE the stated interval" if self.outside else ""
        return (
            f"{self.where} {self.run}: {self.differ} of {self.examples} predictions differ, "
            f"probabilities by {self.moved:.1e} at most; {self.text}{wrong}"
        )


def drawn(folder: Path, number: int, seed: int) -> list[Path]:
    """Returns the folders of some runs of a submission that ended well, drawn at random.

    Args:
        folder: of the submission.
        number: how many; all, if there are fewer.
        seed: of the draw.
    """
    well = [entry.folder for entry in read(folder) if _ended_well(entry)]
    return sorted(random.Random(seed).sample(well, min(number, len(well))))


def _ended_well(entry: Entry) -> bool:
    return entry.result is not None and entry.result.status == Status.OK


def rerun(folders: Sequence[Path], data: Path | None = None) -> Iterator[Rerun]:
    """Runs some results of a submission again, and yields how what came of each compares.

    Everything is made in a temporary folder, but for models and plugs that the user's own cache
    holds, which are addressed by content.

    Args:
        folders: of results.
        data: where data of tasks are that do not bring theirs, as for ``kbench run --data``.
    """
    with TemporaryDirectory(prefix="kbench-") as scratch:
        for folder in folders:
            (entry,) = (entry for place in places(folder) for entry in read(place))
            result = entry.result
            if result is None or entry.predictions is None:
                yield Rerun(folder.name, "", text=entry.problem or "it has no predictions")
                continue
            try:
                _check_here(result, data)
                made = _made(result, data, Path(scratch))
                again = read_predictions(Path(scratch) / made.id / FILES[1])
                yield _compared(entry, result, entry.predictions, made, again)
            except (KbenchError, Warning) as error:
                yield Rerun(folder.name, result.spec.label, text=first_line(error))


def _check_here(result: Result, data: Path | None) -> None:
    """Refuses runs of what is not installed: a path of another machine leads nowhere here.

    Raises:
        Unsupported: a part is not here.
    """
    spec = result.spec
    for field, kind in _KINDS.items():
        name = getattr(spec, field)
        if name is not None and name not in names(kind):
            raise Unsupported(f"{field} {name[:60]} is not installed here")
    if spec.data is not None and data is None:
        raise Unsupported("its data are not here: give --data")
    if leads_elsewhere(spec.options):
        raise Unsupported("an option of it names a file")


def _made(result: Result, data: Path | None, out: Path) -> Result:
    """Runs what a result says that it was."""
    spec = result.spec
    threads = result.provenance.hardware.get("threads") if result.provenance else None
    found = run(
        task=spec.task,
        method=spec.method,
        backbone=spec.backbone,
        tuning=spec.tuning,
        setting=str(spec.setting),
        knowledge=spec.knowledge or "atlas",
        control=str(spec.control),
        seed=[spec.seed],
        limit=spec.limit,
        data=str(data) if spec.data is not None else None,
        linker=spec.linker,
        dtype=spec.dtype,
        weights=spec.weights,
        chat=spec.chat,
        options=spec.options,
        out=out,
        threads=threads if isinstance(threads, int) and 0 < threads < 256 else None,
    )
    (made,) = found.results
    if made.status != Status.OK:
        raise Unsupported(f"it is {made.status} here: {made.reason}")
    if made.id != result.id:
        raise UsageError(f"what its spec says is another run here ({made.id})")
    return made


def _compared(
    entry: Entry, stated: Result, theirs: Predictions, made: Result, ours: Predictions
) -> Rerun:
    one, two = stated.score, made.score
    if [*theirs.ids] != [*ours.ids] or one is None or two is None:
        return Rerun(entry.where, stated.spec.label, text="other examples are tested here")
    pairs = zip(theirs.predictions, ours.predictions, strict=True)
    moved = (abs(a - b) for a, b in zip(theirs.scores, ours.scores, strict=True))
    return Rerun(
        entry.where,
        stated.spec.label,
        differ=sum(before != after for before, after in pairs),
        examples=len(ours.ids),
        moved=max(moved, default=0.0),
        outside=not one.low <= two.value <= one.high,
        text=f"{stated.main_metric} {two.value:.4f} here, stated {one.value:.4f} "
        f"[{one.low:.4f}, {one.high:.4f}]",
    )
