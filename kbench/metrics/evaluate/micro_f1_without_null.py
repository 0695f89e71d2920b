"""TACRED's micro-F1, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class MicroF1WithoutNull(shared.SingleLabel):
    """See :class:`kbench.metrics.MicroF1WithoutNull`."""

    metric = metrics.MicroF1WithoutNull
