"""Metrics of answers in a model's own words, of chance beside them, and of ranked answers.

Of a question all acceptable answers count, the best of them. An empty answer is never right, and
an acceptable one of which nothing is left by a metric's normal form (``The``, ``!``) matches
nothing.

**Chance.** That an answer is found in what a model says may be luck: of three colours one is soon
named. So each metric stands beside its chance match, the same metric against the acceptable
answers of another question: of the same relation where that is known and has another, else any.
Which one is drawn once, by a fixed seed; it may have the same answer, as chance has it. What a
model knows is the difference of the two.
"""

from __future__ import annotations

import re
import string
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from kbench.data import Answers, Label
from kbench.errors import InputError, UsageError, nearest
from kbench.metrics.base import Array, Metric

__all__ = [
    "ChanceMatch",
    "Contains",
    "ExactMatch",
    "HasAnswer",
    "Hits",
    "PopqaMatch",
    "ReciprocalRank",
    "SpokenMetric",
    "TokenF1",
    "other_questions",
    "ranked_metrics",
    "spoken_metrics",
]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SpokenMetric(Metric):
    """The mean of what each answer is worth, from 0 to 1."""

    @abstractmethod
    def worth(self, answers: Sequence[str], said: str) -> float:
        """Returns what an answer is worth.

        Args:
            answers: the acceptable ones.
            said: what a model says.
        """

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns the worth, and one, of each example. ``[examples, 2]``.

        Raises:
            InputError: an example has no acceptable answer.
        """
        rows = [
            (self.worth(_answers(label), _said(guess)), 1.0)
            for label, guess in zip(labels, predictions, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 2)

    def right(self, label: Label, prediction: Label) -> bool:
        return self.worth(_answers(label), _said(prediction)) == 1.0

    def value(self, sums: Array) -> Array:
        return sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], 1.0)


@final
class PopqaMatch(SpokenMetric):
    """Share of answers that hold an acceptable one as it is, in lower case, or capitalised.

    The accuracy of PopQA (Mallen et al., ACL 2023): a substring of what is said, whose own case
    stays, so that an alias of a few letters may be found within a word.
    """

    name = "popqa"
    variant = "popqa-match"

    def worth(self, answers: Sequence[str], said: str) -> float:
        forms = ((a, a.lower(), a.capitalize()) for a in answers)
        return float(any(form in said for own in forms for form in own))


@final
class ExactMatch(SpokenMetric):
    """Share of answers that are an acceptable one, in SQuAD's normal form.

    Rajpurkar et al., EMNLP 2016: lower case, no ASCII punctuation, no articles, single blanks.
    """

    name = "em"
    variant = "exact-match"

    def worth(self, answers: Sequence[str], said: str) -> float:
        own = _normal(said)
        return float(bool(own) and any(own == _normal(answer) for answer in answers))


@final
class TokenF1(SpokenMetric):
    """Mean F1 of the words of an answer and of an acceptable one, in SQuAD's normal form.

    Rajpurkar et al., EMNLP 2016: words that occur twice count twice; the best acceptable answer.
    """

    name = "f1"
    variant = "token-f1"

    def worth(self, answers: Sequence[str], said: str) -> float:
        own = Counter(_normal(said).split())
        return max(_overlap(own, Counter(_normal(answer).split())) for answer in answers)


@final
class HasAnswer(SpokenMetric):
    """Share of answers that hold the words of an acceptable one, in a row.

    Karpukhin et al., EMNLP 2020 (DPR), and the retrieval score of EntityQuestions: in NFD and
    lower case, words being runs of letters, digits and marks, and any other visible sign a word of
    its own. Unlike a substring it finds nothing within a word.
    """

    name = "has_answer"
    variant = "has-answer"

    def worth(self, answers: Sequence[str], said: str) -> float:
        own = _words(said)
        return float(any(_words(a) != " " and _words(a) in own for a in answers))


@final
class Contains(SpokenMetric):
    """Share of answers that hold an acceptable one as a substring, both in SQuAD's normal form.

    The "acc" of FlashRAG (Jin et al., 2024).
    """

    name = "contains"
    variant = "contains-answer"

    def worth(self, answers: Sequence[str], said: str) -> float:
        own = _normal(said)
        return float(any(_normal(a) and _normal(a) in own for a in answers))


_SPOKEN: dict[str, type[SpokenMetric]] = {
    kind.variant: kind for kind in (HasAnswer, ExactMatch, TokenF1, PopqaMatch, Contains)
}


@final
class ChanceMatch(Metric):
    """What a metric of spoken answers gives against the acceptable answers of another question.

    Args:
        of: the metric's variant, such as ``has-answer``.
    """

    by_relation = True

    def __init__(self, of: str = HasAnswer.variant) -> None:
        if of not in _SPOKEN:
            raise UsageError(f"no metric of spoken answers is called {of!r}{nearest(of, _SPOKEN)}")
        self._metric = _SPOKEN[of]()
        self.name = f"{self._metric.name}_chance"
        self.variant = f"chance-match:{of}"

    def measure(self, answers: Answers) -> Array:
        if len(answers) < 2:  # nobody else is asked anything
            return np.zeros((len(answers), 2))
        others = other_questions(answers.relations or [""] * len(answers))
        labels = [answers.labels[other] for other in others.tolist()]
        return self._metric.statistics(labels, answers.predictions)

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns those of examples of which no relation is known. ``[examples, 2]``."""
        return self.measure(
            Answers(labels=labels, predictions=predictions, strata=[""] * len(labels))
        )

    def value(self, sums: Array) -> Array:
        return self._metric.value(sums)


def spoken_metrics() -> tuple[Metric, ...]:
    """Returns the metrics of spoken answers, each with its chance match; ``has-answer`` first.

    It ranks, since models that nothing was trained of say more than the answer, for which ``em``
    gives nothing; and it finds nothing within a word, as a substring does.
    """
    return tuple(
        metric for kind in _SPOKEN.values() for metric in (kind(), ChanceMatch(kind.variant))
    )


def ranked_metrics(among: str) -> tuple[Metric, ...]:
    """Returns the metrics of rankings; Hits@1 first.

    Args:
        among: what is ranked.
    """
    return Hits(among), ReciprocalRank(among)


def other_questions(relations: Sequence[str]) -> NDArray[np.int64]:
    """Returns for each question the number of another one, drawn by a fixed seed.

    Of the same relation where that is known and has another, else of any. Each is drawn once
    within its relation.

    Args:
        relations: of two questions or more; empty where it is not known.
    """
    order = np.random.default_rng(0).permutation(len(relations))
    others = np.empty(len(order), dtype=np.int64)
    others[order] = np.roll(order, -1)
    ordered = sorted(order.tolist(), key=lambda at: relations[at])
    for relation, group in groupby(ordered, key=lambda at: relations[at]):
        own = np.array([*group])
        if relation and len(own) > 1:
            others[own] = np.roll(own, -1)
    return others


class _Ranked(Metric):
    """A score of rankings: what is predicted is a list of answers, the best first.

    Args:
        among: what is ranked, such as ``128-of-train``; the variant says so, for among fewer
            candidates a right one is easier to find.
    """

    title: ClassVar[str]

    def __init__(self, among: str = "") -> None:
        self.variant = f"{self.title}:{among}" if among else self.title

    def statistics(self, labels: Sequence[Label], predictions: Sequence[Label]) -> Array:
        """Returns the worth of the first right answer's rank, and one. ``[examples, 2]``."""
        ranks = [_rank(label, guess) for label, guess in zip(labels, predictions, strict=True)]
        rows = [(self.worth(rank) if rank else 0.0, 1.0) for rank in ranks]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 2)

    def right(self, label: Label, prediction: Label) -> bool:
        return _rank(label, prediction) == 1

    @abstractmethod
    def worth(self, rank: int) -> float:
        """Returns what a rank is worth, from 1."""

    def value(self, sums: Array) -> Array:
        return sums[..., 0] / np.where(sums[..., 1] > 0, sums[..., 1], 1.0)


@final
class Hits(_Ranked):
    """Share of questions whose best candidate is an acceptable answer: Hits@1."""

    name = "hits_at_1"
    title = "hits-at-1"

    def worth(self, rank: int) -> float:
        return float(rank == 1)


@final
class ReciprocalRank(_Ranked):
    """Mean of one over the rank of the best acceptable answer; 0 where none is a candidate."""

    name = "mrr"
    title = "mean-reciprocal-rank"

    def worth(self, rank: int) -> float:
        return 1 / rank


def _rank(label: Label, ranking: Label) -> int:
    """The rank of the first acceptable answer, from 1; 0 if there is none."""
    right = {label} if isinstance(label, str) else {*label}
    several = (ranking,) if isinstance(ranking, str) else ranking
    return next((at for at, answer in enumerate(several, 1) if answer in right), 0)


def _answers(label: Label) -> list[str]:
    several = [label] if isinstance(label, str) else label
    known = [answer for answer in several if answer.strip()]
    if not known:
        raise InputError(
            f"a question has the acceptable answers {tuple(several)!r}; expected one with text: "
            "correct the data, or leave the question out"
        )
    return known


def _said(prediction: Label) -> str:
    return prediction if isinstance(prediction, str) else " ".join(prediction)


@lru_cache(maxsize=1 << 16)
def _normal(text: str) -> str:
    """SQuAD's normal form."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


@lru_cache(maxsize=1 << 16)
def _words(text: str) -> str:
    """The words of a text by DPR's simple tokenizer, in lower case, a blank around each."""
    pieces = []
    for sign in unicodedata.normalize("NFD", text):
        kind = unicodedata.category(sign)[0]
        if kind in "LNM":
            pieces.append(sign)
        else:
            pieces.append(" " if kind in "ZC" else f" {sign} ")
    words = "".join(pieces).lower().split()
    return " ".join(["", *words, ""]) if words else " "


def _overlap(said: Counter[str], answer: Counter[str]) -> float:
    shared = sum((said & answer).values())
    return 2 * shared / (said.total() + answer.total()) if shared else 0.0
