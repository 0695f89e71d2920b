"""What a model says of the candidates of examples: all that scorers are functions of.

Free of torch, and of NumPy until something is computed: results are scored again where no model is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kbench.data.examples import Label
from kbench.errors import UsageError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

__all__ = ["SCORERS", "Likelihoods"]

SCORERS = ("sum", "mean", "char", "byte", "pmi")
"""Ways to compare candidates of different length; see :mod:`kbench.model.candidates`."""


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """``l(c | x)``, the log-probability of candidates after texts, and what makes scores of it.

    Attributes:
        names: the answer that each candidate spells. ``[candidates]``.
        sizes: of each candidate in tokens, characters and bytes, by the scorer that divides by it
            (``mean``, ``char``, ``byte``); empty where candidates are other texts in each example.
            ``[candidates]`` each.
        nothing: ``l(c | x0)``, after the prompt without an example. ``[candidates]``; or, where
            candidates are other texts in each example, like ``said``.
        said: ``l(c | x)`` of the candidates of each example; minus infinity for those that an
            example has fewer than others. ``[examples, most]``.
        which: the candidates of each example, -1 for those that it lacks; None where each has all.
            ``[examples, most]``.
        scorer: by which the run compared them.
        thresholds: the score above which an answer is given, by scorer, where an example has
            several answers; empty where it has one.
        fallback: whether the best is given where none is above it.
        answers: where answers are ranked, the number of the answer that each candidate spells,
            those of one example rising; an answer is worth what its spellings are worth together,
            ``log Σ exp(score)``. Empty where one candidate is chosen, or several. ``[candidates]``.
    """

    names: tuple[str, ...]
    sizes: Mapping[str, tuple[int, ...]]
    nothing: Floats
    said: Floats
    which: Floats | None
    scorer: str
    thresholds: Mapping[str, float]
    fallback: bool = False
    answers: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.said)

    @property
    def scorers(self) -> tuple[str, ...]:
        """Those by which the candidates can be compared."""
        # Weights of ranked answers that were tuned by another scorer once came without x0.
        bare = bool(self.answers) and self.scorer != "pmi" and not self.nothing.any()
        known = {"sum", *self.sizes} if bare else {"sum", "pmi", *self.sizes}
        return tuple(name for name in SCORERS if name in known)

    def at(self, chosen: Sequence[int]) -> Likelihoods:
        """Returns those of some of the examples, by their numbers, in the order given."""
        rows = list(chosen)
        which = None if self.which is None else self.which[rows]
        nothing = self.nothing[rows] if self.nothing.ndim == 2 else self.nothing
        return replace(self, said=self.said[rows], which=which, nothing=nothing)

    def by(self, scorer: str) -> Likelihoods:
        """Returns the same, compared by another scorer.

        Raises:
            UsageError: it cannot be.
        """
        if scorer in self.scorers:
            return replace(self, scorer=scorer)
        if scorer in SCORERS:
            raise UsageError(
                f"scorer {scorer} wants what was not stored of these candidates; expected "
                f"{' or '.join(self.scorers)}"
            )
        raise UsageError(f"no scorer is called {scorer!r}{nearest(scorer, self.scorers)}")

    @property
    def scores(self) -> Floats:
        """What candidates are compared by, minus infinity where one lacks. ``[examples, most]``."""
        import numpy as np

        if self.scorer == "pmi":
            scores: Floats = self.said - self._own(self.nothing)
            return scores
        sizes = self.sizes.get(self.scorer)
        # In float32, as a head divides: else what is nearly level would be told apart otherwise.
        return self.said if sizes is None else self.said / self._own(np.array(sizes, np.float32))

    def predicted(self) -> list[Label]:
        """Returns the answers: the best candidate, the first of several; or all that are enough.

        Where answers are ranked, all of them, the best first.
        """
        import numpy as np

        if self.answers:
            return self.ranked()[0]
        scores = self.scores
        if not self.thresholds:
            best = scores.argmax(1)
            if self.which is not None:
                best = self.which[np.arange(len(best)), best]
            return [self.names[at] for at in best.tolist()]
        above = scores - np.float32(self.thresholds[self.scorer])
        given = above > 0
        if self.fallback:
            given |= above == above.max(1, keepdims=True)
        return [tuple(self.names[at] for at in np.flatnonzero(row).tolist()) for row in given]

    def _own(self, values: Floats) -> Floats:
        """Values of candidates, where those of examples stand."""
        if values.ndim == 2:
            return values
        own: Floats = values[None] if self.which is None else values[self.which]
        return own

    def ranked(self) -> tuple[list[Label], list[float]]:
        """Returns the answers of each example, the best first, and how probable the first is."""
        import numpy as np

        rankings: list[Label] = [()] * len(self)
        sure = [0.0] * len(self)
        scores = self.scores
        for rows, own in self._alike():
            masses, firsts = _together(
                scores[rows][:, : len(own)], [self.answers[at] for at in own]
            )
            order = (-masses).argsort(1, kind="stable")
            names = [self.names[own[first]] for first in firsts]
            top = masses.max(1, keepdims=True)
            best = np.exp(masses - top).sum(1)
            for row, ranks, share in zip(rows, order.tolist(), best.tolist(), strict=True):
                rankings[row] = tuple(names[at] for at in ranks)
                sure[row] = 1 / share
        return rankings, sure

    def _alike(self) -> list[tuple[list[int], list[int]]]:
        """Examples that have the same candidates, and these."""
        if self.which is None:
            return [([*range(len(self))], [*range(len(self.names))])]
        kinds: dict[bytes, list[int]] = {}
        for row, own in enumerate(self.which):
            kinds.setdefault(own.tobytes(), []).append(row)
        return [
            (rows, [at for at in self.which[rows[0]].tolist() if at >= 0])
            for rows in kinds.values()
        ]


def _together(scores: Floats, answers: Sequence[int]) -> tuple[Floats, list[int]]:
    """What spellings are worth together: ``log Σ exp`` over those of one answer.

    Args:
        scores: of spellings. ``[examples, spellings]``.
        answers: of which answer each is, those of one side by side.

    Returns:
        That of each answer, ``[examples, answers]``, and its first spelling.
    """
    import numpy as np

    firsts = [at for at, own in enumerate(answers) if not at or own != answers[at - 1]]
    sizes = np.diff([*firsts, len(answers)])
    values = np.ascontiguousarray(scores, dtype=np.float64)
    most = np.maximum.reduceat(values, firsts, axis=1)
    shares = np.exp(values - most.repeat(sizes, axis=1))
    masses: Floats = np.log(np.add.reduceat(shares, firsts, axis=1)) + most
    return masses, firsts
