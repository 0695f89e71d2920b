"""Loose macro-F1 of label sets, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class LooseMacroF1(shared.MultiLabel):
    """See :class:`kbench.metrics.LooseMacroF1`."""

    metric = metrics.LooseMacroF1
