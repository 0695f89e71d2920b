"""The metrics as modules of the ``evaluate`` library, for use outside kbench and without network.

Each is a file of this package with a thin face over the class in :mod:`kbench.metrics`::

    from evaluate import load
    from kbench.metrics.evaluate import module

    metric = load(module("micro-f1-without-null"))
    metric.compute(predictions=["born", "no_relation"], references=["born", "died"])
    # {"micro_f1": 0.666…}

Importing this imports nothing heavy; ``evaluate`` itself takes seconds.
"""

from __future__ import annotations

import re
from pathlib import Path

from kbench.errors import UsageError, nearest

__all__ = ["module", "variants"]

_HERE = Path(__file__).parent
_OTHERS = ("__init__", "shared")
_ASIDE = re.compile("[:@]")
_EPISODES = re.compile("accuracy@[0-9]+w[0-9]+s")


def variants() -> tuple[str, ...]:
    """Returns the variants that have a module, without what a metric is told."""
    own = [path for path in _HERE.glob("*.py") if path.stem not in _OTHERS]
    return tuple(sorted(path.stem.replace("_", "-") for path in own))


def module(variant: str) -> str:
    """Returns what ``evaluate.load`` takes for a metric's variant.

    What stands behind a colon is not in the file: the null label of ``micro-f1-without-null``
    is given to ``compute`` as ``null="NA"``, and a fallback or a vocabulary concerns the
    predictions alone. Behind an ``@`` stands which examples count. ``accuracy@5w1s`` and its kin
    have a module, ``n-way-k-shot-accuracy``, that sorts the examples by itself.

    Raises:
        UsageError: there is no such variant.
    """
    name = "n-way-k-shot-accuracy" if _EPISODES.fullmatch(variant) else _ASIDE.split(variant)[0]
    if name not in variants():
        raise UsageError(f"no metric has the variant {variant!r}{nearest(name, variants())}")
    return str(_HERE / f"{name.replace('-', '_')}.py")
