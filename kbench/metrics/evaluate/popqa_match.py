"""Popqa match, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class PopqaMatch(shared.SingleLabel):
    """See :class:`kbench.metrics.PopqaMatch`."""

    metric = metrics.PopqaMatch
    any_answer = True
