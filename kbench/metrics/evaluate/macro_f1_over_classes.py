"""The mean F1 of the classes, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import faces


class MacroF1(faces.SingleLabel):
    """See :class:`kbench.metrics.MacroF1`."""

    metric = metrics.MacroF1
