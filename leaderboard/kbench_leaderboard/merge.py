"""Folders of results made one: nothing is lost, nothing is there twice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from kbench.errors import DataError
from kbench.store import Result, Results, Status
from kbench_leaderboard.submission import LAYOUT, Entry, opened, read

__all__ = ["Merged", "merge"]


@dataclass
class Merged:
    """What became of the results of all sources, by id."""

    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], target: Path) -> Merged:
    """Puts the results of all sources into a folder.

    Two results of one id are the same run. If both ended well and say the same, one is kept; a run
    that ended well replaces one that failed or was skipped. If both ended well and differ, the one
    that is there stays, and the other is a conflict: somebody must look.

    Raises:
        DataError: a source cannot be read, in whole or in part; nothing is written then.
    """
    done, store = Merged(), Results(target)
    with ExitStack() as stack:
        folders = [stack.enter_context(opened(source)) for source in sources]
        for source, folder in zip(sources, folders, strict=True):
            for entry in read(folder):
                if entry.result is None:
                    raise DataError(source, f"{entry.where} {entry.problem}", LAYOUT)
        # Read again, not kept: the predictions of all may outgrow memory.
        for folder in folders:
            for entry in read(folder):
                _put(entry, store, done)
    return done


def _put(entry: Entry, store: Results, done: Merged) -> None:
    ours, theirs = store.load(entry.folder.name), entry.result
    assert theirs is not None
    if ours is None or (ours.status != Status.OK and theirs.status == Status.OK):
        (done.added if ours is None else done.replaced).append(theirs.id)
        store.save(theirs, entry.predictions)
    elif theirs.status == Status.OK and _outcome(ours) != _outcome(theirs):
        done.conflicts.append(theirs.id)
    else:
        done.same.append(theirs.id)


def _outcome(result: Result) -> tuple[object, ...]:
    return result.metrics, result.coverage, result.buckets, result.frozen
