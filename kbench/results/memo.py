"""Figures that resampling gave, remembered until anything they were computed from changes.

In ``cache_home() / "figures"``, a small file for each question. What a figure hangs on is in its
address: the files of the results (path, size, inode, times of modification and of change, which a
user cannot set back), and the code that computes it. So nothing stale is ever found, and a cache
that is lost or cannot be written only costs time. Of a file that is absent nothing is known but its
path, so what was computed without one is not remembered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kbench.data.files import (
    cache_home,
    canonical_digest,
    identity,
    is_of_a_file,
    load_json,
    write_json,
)
from kbench.errors import KbenchError
from kbench.results.comparison import metric_of
from kbench.store import Result, Results

__all__ = ["memoised"]

_MOST = 2000
"""Files; of more the older half goes."""
_CODE = (
    "kbench.results.comparison",
    "kbench.data.predictions",
    "kbench.metrics.base",
    "kbench.metrics.statistics",
    "kbench.results.tables",
)


def memoised(of: Any, results: Sequence[Result], store: Results, make: Callable[[], Any]) -> Any:
    """Returns what ``make`` gives, from memory if nothing has changed.

    Args:
        of: the question, as a JSON value.
        results: all that the answer is computed from.
        store: where they lie.
        make: computes the answer, a JSON value.
    """
    paths = [path for result in results for path in store.files(result)]
    files = [*map(identity, (*paths, *_code(results)))]
    if not all(map(is_of_a_file, files)):
        return make()
    key = canonical_digest([of, len(results), files])[:32]
    folder = cache_home() / "figures"
    try:
        return load_json(folder / f"{key}.json")["answer"]
    except (OSError, ValueError, KeyError, TypeError):
        answer = make()
    with suppress(OSError):
        _bound(folder)
        write_json(folder / f"{key}.json", {"of": of, "answer": answer})
    return answer


def _code(results: Iterable[Result]) -> list[Path]:
    """The files of code that figures of some results are computed by."""
    names = {*_CODE}
    for result in {(r.spec.task, r.main_metric): r for r in results}.values():
        with suppress(KbenchError):  # then there is no such figure
            names.add(type(metric_of(result, result.main_metric or "")).__module__)
    files = [getattr(sys.modules[name], "__file__", None) for name in sorted(names)]
    return [Path(path) for path in files if path]


def _bound(folder: Path) -> None:
    known = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in known[: len(known) // 2] if len(known) >= _MOST else ():
        path.unlink(missing_ok=True)
