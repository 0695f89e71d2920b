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
from kbench.metrics.beside import beside, beside_named, is_beside
from kbench.metrics.candidates import AveragePrecision, ByScorer
from kbench.metrics.follow import FollowRate
from kbench.metrics.spoken import (
    ChanceMatch,
    Contains,
    ExactMatch,
    HasAnswer,
    Hits,
    PopqaMatch,
    ReciprocalRank,
    SpokenMetric,
    TokenF1,
)
from kbench.metrics.standings import Standing, standings
from kbench.metrics.statistics import Contrast, Interval, bootstrap_replicates
from kbench.metrics.stratified import LamaPrecision, Stratified, Within

__all__ = [
    "Accuracy",
    "Array",
    "AveragePrecision",
    "ByScorer",
    "ChanceMatch",
    "Contains",
    "Contrast",
    "ExactMatch",
    "FollowRate",
    "HasAnswer",
    "Hits",
    "Interval",
    "LamaPrecision",
    "LooseMacroF1",
    "LooseMicroF1",
    "MacroF1",
    "Metric",
    "MicroF1WithoutNull",
    "PopqaMatch",
    "ReciprocalRank",
    "SpokenMetric",
    "Standing",
    "Stratified",
    "StrictAccuracy",
    "TokenF1",
    "Within",
    "beside",
    "beside_named",
    "bootstrap_replicates",
    "is_beside",
    "standings",
]
