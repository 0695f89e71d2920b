"""How far scores move where only the order of sums differs: batches of evaluation, and threads.

``python scripts/measure_rounding.py`` prints the table of docs/results.md. One model is trained for
each embedded task, and plugs for it; then their test examples are predicted in batches of many
sizes, by one and by two threads, in each precision. At last a model is trained by two threads.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch

from kbench.data import Label, Split
from kbench.grid.grids import make_grid
from kbench.grid.runner import resolve
from kbench.parts.run_parts import Parts
from kbench.pipeline.models import tune
from kbench.pipeline.plugs import fit
from kbench.pipeline.prediction import predict
from kbench.pipeline.session import Session
from kbench.store import Artifacts

_SIZES = (1, 7, 32, 128, 400)
_CPU = torch.device("cpu")
_QUICK = {
    "map-tuning": {"start": "scratch", "task-specific": {"epochs": 2}},
    "kar": {"start": "scratch", "task-specific": {"epochs": 2}},
    "ernie": {"start": "scratch", "task-specific": {"epochs": 2}},
}

Found = tuple[list[Label], list[float]]


def main() -> None:
    """Measures and prints."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--limit", type=int, default=400, help="examples of each split at most")
    options.add_argument("--dtype", default="float32,bfloat16,float16", help="a comma list")
    chosen = options.parse_args()
    limit = chosen.limit
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Artifacts(Path(folder)), _CPU)
        for dtype in chosen.dtype.split(","):
            moved: dict[str, list[tuple[float, int, int]]] = {"batches": [], "threads": []}
            for parts in _runs(limit):
                base, *others = _predictions(session, parts, dtype)
                moved["batches"] += [_apart(base, other) for other in others[: len(_SIZES) - 1]]
                moved["threads"] += [_apart(base, other) for other in others[len(_SIZES) - 1 :]]
            for what, found in moved.items():
                most = max(score for score, _, _ in found)
                changed, of = sum(c for _, c, _ in found), sum(n for _, _, n in found)
                print(f"{dtype} {what}: scores move by {most:.1e}, {changed} of {of} predictions")
    if "float32" in chosen.dtype:
        print(_trained(limit))


def _runs(limit: int) -> Iterator[Parts]:
    grid = make_grid(
        {
            "task": "atlas-typing,atlas-relations,atlas-qa",
            "method": ["none", *_QUICK],
            "setting": "task-specific",
            "control": "none",
            "limit": limit,
            "options": {"tuning": {"full": {"epochs": 3}}, "method": _QUICK},
        },
        "here",
    )
    yield from map(Parts, resolve(grid))


def _predictions(session: Session, parts: Parts, dtype: str) -> Iterator[Found]:
    """Yields those in batches of 128 by one thread, of other sizes, and by two threads."""
    model, _ = tune(session, parts)
    plug = fit(session, parts, parts.spec.setting, model)[0] if parts.knowledge else None
    inputs = session.prepared(parts, Split.TEST, model, injected=plug is not None).inputs
    sizes = sorted(_SIZES, key=lambda size: size != 128)
    for threads, size in [*((1, size) for size in sizes), *((2, size) for size in sizes)]:
        torch.set_num_threads(threads)
        with plug.attach(model.lm) if plug else nullcontext():
            found = predict(model, inputs, _CPU, dtype, size)
        yield found.labels, found.scores
    torch.set_num_threads(1)


def _apart(one: Found, other: Found) -> tuple[float, int, int]:
    """The largest difference of scores of the same prediction, predictions that differ, and all."""
    triples = list(zip(one[0], other[0], one[1], other[1], strict=True))
    same = [abs(p - q) for a, b, p, q in triples if a == b]
    return max(same), len(triples) - len(same), len(triples)


def _trained(limit: int) -> str:
    """How far weights and scores move where models are trained by two threads instead of one."""
    weights, moved = 0.0, []
    for parts in (parts for parts in _runs(limit) if parts.knowledge is None):
        states, found = [], []
        for threads in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                session = Session(Artifacts(Path(folder)), _CPU)
                torch.set_num_threads(threads)
                states.append(tune(session, parts)[0].state_dict())
                torch.set_num_threads(1)
                found.append(next(_predictions(session, parts, "float32")))
        apart = (float((states[0][name] - states[1][name]).abs().max()) for name in states[0])
        weights = max(weights, *apart)
        moved.append(_apart(*found))
    most = max(score for score, _, _ in moved)
    changed, of = sum(c for _, c, _ in moved), sum(n for _, _, n in moved)
    return (
        f"trained by two threads: weights move by {weights:.1e}, scores by {most:.1e}, "
        f"{changed} of {of} predictions"
    )


if __name__ == "__main__":
    main()
