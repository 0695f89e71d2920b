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
from kbench.metrics.follow import FollowRate
from kbench.metrics.statistics import Contrast, Interval, bootstrap_replicates
from kbench.metrics.stratified import LamaPrecision, Stratified, Within

__all__ = [
    "Accuracy",
    "Array",
    "Contrast",
    "FollowRate",
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
]
