"""Strict accuracy of label sets, for ``evaluate.load``."""

from kbench import metrics
from kbench.evaluation import faces


class StrictAccuracy(faces.MultiLabel):
    """See :class:`kbench.metrics.StrictAccuracy`."""

    metric = metrics.StrictAccuracy
