"""Accuracy, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class Accuracy(shared.SingleLabel):
    """See :class:`kbench.metrics.Accuracy`."""

    metric = metrics.Accuracy
    any_answer = True
