"""Micro-F1 of label sets, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class LooseMicroF1(shared.MultiLabel):
    """See :class:`kbench.metrics.LooseMicroF1`."""

    metric = metrics.LooseMicroF1
