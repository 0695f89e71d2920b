"""Mean reciprocal rank, for ``evaluate.load``."""

from kbench import metrics
from kbench.metrics.evaluate import shared


class ReciprocalRank(shared.Ranking):
    """See :class:`kbench.metrics.ReciprocalRank`."""

    metric = metrics.ReciprocalRank
    any_answer = True
