"""Hits at 1, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class Hits(shared.Ranking):
    """See :class:`kbench.metrics.Hits`."""

    metric = metrics.Hits
    any_answer = True
