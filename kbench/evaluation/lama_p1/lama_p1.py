"""The mean over relations of P@1, for ``evaluate.load``."""

from kbench import strata
from kbench.evaluation import faces


class LamaPrecision(faces.Stratified):
    """See :class:`kbench.strata.LamaPrecision`."""

    metric = strata.LamaPrecision
    column = "relations"
