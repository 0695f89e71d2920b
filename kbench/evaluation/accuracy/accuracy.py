"""Accuracy, for ``evaluate.load``."""

from kbench import metrics
from kbench.evaluation import faces


class Accuracy(faces.SingleLabel):
    """See :class:`kbench.metrics.Accuracy`."""

    metric = metrics.Accuracy
