"""Loose macro-F1 of label sets, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import faces


class LooseMacroF1(faces.MultiLabel):
    """See :class:`kbench.metrics.LooseMacroF1`."""

    metric = metrics.LooseMacroF1
