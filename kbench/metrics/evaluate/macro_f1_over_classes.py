"""The mean F1 of the classes, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class MacroF1(shared.SingleLabel):
    """See :class:`kbench.metrics.MacroF1`."""

    metric = metrics.MacroF1
