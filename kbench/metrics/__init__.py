"""Scores as sums of statistics of examples, their intervals and tests."""

from kbench.metrics.base import (
    Accuracy,
    Array,
    LooseMacroF1,
    LooseMicroF1,
    MacroF1,
    Metric,
    MicroF1WithoutNull,
    StrictAccuracy,
)
from kbench.metrics.candidates import AveragePrecision, ByScorer, is_beside, of_candidates
from kbench.metrics.statistics import Contrast, Interval, bootstrap_replicates
from kbench.metrics.stratified import LamaPrecision, Stratified, Within

__all__ = [
    "Accuracy",
    "Array",
    "AveragePrecision",
    "ByScorer",
    "Contrast",
    "Interval",
    "LamaPrecision",
    "LooseMacroF1",
    "LooseMicroF1",
    "MacroF1",
    "Metric",
    "MicroF1WithoutNull",
    "Stratified",
    "StrictAccuracy",
    "Within",
    "bootstrap_replicates",
    "is_beside",
    "of_candidates",
]
