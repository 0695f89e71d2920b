"""The accuracy over the queries of N-way K-shot episodes, for ``evaluate.load``."""

from collections.abc import Sequence

from kbench import metrics
from kbench.metrics import stratified
from kbench.metrics.evaluate import shared


class NWayKShotAccuracy(shared.Stratified):
    """Accuracy over all queries of the episodes of each setting, such as ``5w1s``.

    ``right / (episodes * N * Q)``, which is the mean over episodes, since all are of one size.
    """

    metric = metrics.Accuracy
    column = "settings"

    def measures(self, settings: Sequence[str]) -> Sequence[metrics.Metric]:
        """Returns one accuracy for each setting that occurs."""
        return [stratified.Within(setting, self.metric()) for setting in sorted(set(settings))]
