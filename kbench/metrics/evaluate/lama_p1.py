"""The mean over relations of P@1, for ``evaluate.load``."""

from kbench.metrics import stratified
from kbench.metrics.evaluate import faces


class LamaPrecision(faces.Stratified):
    """See :class:`kbench.metrics.LamaPrecision`."""

    metric = stratified.LamaPrecision
    column = "relations"
