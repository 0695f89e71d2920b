"""Micro-F1 of label sets, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import faces


class LooseMicroF1(faces.MultiLabel):
    """See :class:`kbench.metrics.LooseMicroF1`."""

    metric = metrics.LooseMicroF1
