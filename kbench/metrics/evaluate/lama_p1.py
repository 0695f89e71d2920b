"""The mean over relations of P@1, for ``evaluate.load``."""

from kbench.metrics import stratified
from kbench.metrics.evaluate import shared


class LamaPrecision(shared.Stratified):
    """See :class:`kbench.metrics.LamaPrecision`."""

    metric = stratified.LamaPrecision
    column = "relations"
    any_answer = True
