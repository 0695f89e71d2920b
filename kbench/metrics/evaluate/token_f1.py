"""Token f1, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class TokenF1(shared.SingleLabel):
    """See :class:`kbench.metrics.TokenF1`."""

    metric = metrics.TokenF1
    any_answer = True
