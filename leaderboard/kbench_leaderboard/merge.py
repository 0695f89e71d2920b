"""Folders of results made one: nothing is lost, nothing is there twice, nothing is made true.

All sources and what is there already are checked before anything is written; what is taken over is
copied byte by byte, so that whatever was wrong with it still is.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory

from kbench.data.files import atomic_folder, file_digest
from kbench.errors import DataError
from kbench.store import Predictions, Result, Status, check_unpacked, pack, packs, unpack
from kbench_leaderboard.submission import FILES, LAYOUT, Entry, opened, places, read, read_entries
from kbench_leaderboard.together import whole
from kbench_leaderboard.untrue import unsound

__all__ = ["Merged", "merge", "pack_up", "told_apart"]

_SHOWN = 3
_ROUNDED = 1e-3
"""By so much a probability may differ between two machines that predict the same."""


@dataclass
class Merged:
    """What became of the results of all sources, by id; nothing where there is a conflict."""

    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Held:
    """A result that was checked, without its predictions: those of all may outgrow memory."""

    entry: Entry
    digests: tuple[str, ...]

    @property
    def ended_well(self) -> bool:
        assert self.entry.result is not None
        return self.entry.result.status == Status.OK


def merge(sources: Sequence[Path], target: Path) -> Merged:
    """Puts the results of all sources into a folder.

    Two results of one id are the same run. If both ended well and say the same, one is kept; a run
    that ended well replaces one that failed or was skipped. If both ended well and differ, in
    scores or in predictions, that is a conflict: somebody must look, and nothing is written.

    Raises:
        DataError: a source, or what is there already, cannot be read, or a result is contradicted
            by its own files; or a file changed meanwhile. Nothing is written but in the last case.
        ArtifactError: the target holds packed results, beside which no other would be read.
    """
    check_unpacked(target)
    done = Merged()
    with ExitStack() as stack:
        known, taken = dict[str, _Held | None](), dict[str, _Held]()
        for source in sources:
            for held in _checked(source, stack.enter_context(opened(source))):
                key = held.entry.folder.name
                if key not in known:
                    known[key] = _there(target, key)
                if _put(held, taken.get(key, known[key]), done):
                    taken[key] = held
        there = {key for key in taken if known[key] is not None}
        if done.conflicts:
            return Merged(conflicts=[*dict.fromkeys(done.conflicts)])
        done.added = [key for key in taken if key not in there]
        done.replaced = [key for key in taken if key in there]
        for key, held in taken.items():
            _copy(held, target / key)
    return done


def pack_up(sources: Sequence[Path], target: Path, *, only_whole: bool = False) -> Merged:
    """Puts the results of all sources into a folder of packed ones, as :func:`merge` does.

    Args:
        sources: folders of results, packed or not, or archives of one.
        target: the folder of packed ones; what is there already stays.
        only_whole: leave those of the sources for later that lack what is to stand beside them, see
            :func:`kbench_leaderboard.together.whole`.

    Raises:
        DataError: as of :func:`merge`; or the target holds folders of runs.
    """
    if target.is_dir() and places(target) and not packs(target):
        raise DataError(
            target, "holds something else than packed results", "a folder of them, or a new one"
        )
    with TemporaryDirectory(prefix="kbench-") as scratch:
        if packs(target):
            unpack(target, Path(scratch))
        packed = {path.name for path in Path(scratch).iterdir()}
        done = merge(sources, Path(scratch))
        if only_whole:
            there = {e.where: e.result for e in read_entries(Path(scratch)) if e.result}
            # What is packed may be nowhere else: it stays, though it be no longer whole.
            for key in there.keys() - whole(there).keys() - packed:
                shutil.rmtree(Path(scratch) / key)
                done.left.append(key)
            done.added = [key for key in done.added if key not in done.left]
        if done.added or done.replaced:
            pack(Path(scratch), target)
    return done


def _checked(source: Path, folder: Path) -> Iterator[_Held]:
    """Yields the results of a source, all of them sound.

    Raises:
        DataError: one is not; the first few are named.
    """
    wrong: list[str] = []
    for entry in read(folder):
        found = [entry.problem] if entry.result is None else [*unsound(entry)]
        wrong += [f"{entry.where} {text}" for text in found]
        if not wrong:
            own = Entry(entry.where, entry.folder, entry.result)
            yield _Held(own, _digests(entry.folder))
    if wrong:
        more = f", and {len(wrong) - _SHOWN} more findings" if len(wrong) > _SHOWN else ""
        raise DataError(source, f"{'; '.join(wrong[:_SHOWN])}{more}", LAYOUT)


def _there(target: Path, key: str) -> _Held | None:
    """Returns what the target holds of an id; as :func:`_checked` raises."""
    folder = target / key
    return next(_checked(target, folder), None) if folder.is_dir() else None


def _digests(folder: Path) -> tuple[str, ...]:
    return tuple(file_digest(folder / name) for name in FILES if (folder / name).is_file())


def _put(theirs: _Held, ours: _Held | None, done: Merged) -> bool:
    """Returns whether a result is to be taken over; says what it is where it is not."""
    key = theirs.entry.folder.name
    if ours is None or (theirs.ended_well and not ours.ended_well):
        return True
    both = theirs.ended_well and ours.ended_well
    (done.conflicts if both and _differ(ours, theirs) else done.same).append(key)
    return False


def _differ(ours: _Held, theirs: _Held) -> bool:
    one, two = ours.entry.result, theirs.entry.result
    assert one is not None
    assert two is not None
    if told_apart(one, two):
        return True
    if ours.digests[1:] == theirs.digests[1:]:
        return False
    ours_told, theirs_told = (next(read(held.entry.folder)).predictions for held in (ours, theirs))
    return not _alike(ours_told, theirs_told)


def told_apart(one: Result, two: Result) -> bool:
    """Whether two results of the same run, which ended well, say that something else came of it."""
    ended = {one.status, two.status} == {Status.OK}
    return ended and _outcome(one) != _outcome(two)


def _outcome(result: Result) -> tuple[object, ...]:
    own = result.metrics, result.main_metric, result.dev
    return (*own, result.coverage, result.buckets, result.frozen)


def _alike(one: Predictions | None, two: Predictions | None) -> bool:
    """Whether two machines predict the same: in all but the last bits of probabilities."""
    if one is None or two is None:
        return one is two
    exact = {each.name for each in fields(Predictions)} - {"scores", "likelihoods"}
    if any([*getattr(one, name)] != [*getattr(two, name)] for name in exact):
        return False
    pairs: Iterable[tuple[float, float]] = zip(one.scores, two.scores, strict=True)
    return all(math.isclose(ours, theirs, abs_tol=_ROUNDED) for ours, theirs in pairs)


def _copy(held: _Held, target: Path) -> None:
    """Copies the two files of a result as they are.

    Raises:
        DataError: they are not those that were checked.
    """
    with atomic_folder(target) as scratch:
        for name in FILES:
            if (held.entry.folder / name).is_file():
                shutil.copyfile(held.entry.folder / name, scratch / name)
        if _digests(scratch) != held.digests:
            raise DataError(
                held.entry.folder, "has changed meanwhile", "files that stay as they are"
            )
