"""Strict accuracy of label sets, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class StrictAccuracy(shared.MultiLabel):
    """See :class:`kbench.metrics.StrictAccuracy`."""

    metric = metrics.StrictAccuracy
