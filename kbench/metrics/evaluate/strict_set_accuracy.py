"""Strict accuracy of label sets, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import faces


class StrictAccuracy(faces.MultiLabel):
    """See :class:`kbench.metrics.StrictAccuracy`."""

    metric = metrics.StrictAccuracy
