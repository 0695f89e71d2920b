"""Has answer, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class HasAnswer(shared.SingleLabel):
    """See :class:`kbench.metrics.HasAnswer`."""

    metric = metrics.HasAnswer
    any_answer = True
