"""Exact match, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class ExactMatch(shared.SingleLabel):
    """See :class:`kbench.metrics.ExactMatch`."""

    metric = metrics.ExactMatch
    any_answer = True
