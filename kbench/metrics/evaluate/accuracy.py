"""Accuracy, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import faces


class Accuracy(faces.SingleLabel):
    """See :class:`kbench.metrics.Accuracy`."""

    metric = metrics.Accuracy
