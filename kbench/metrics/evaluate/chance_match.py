"""Chance match, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class ChanceMatch(shared.SingleLabel):
    """See :class:`kbench.metrics.ChanceMatch`."""

    metric = metrics.ChanceMatch
    any_answer = True
