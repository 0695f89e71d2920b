"""Contains answer, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class Contains(shared.SingleLabel):
    """See :class:`kbench.metrics.Contains`."""

    metric = metrics.Contains
    any_answer = True
