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

__all__ = ["ALIASED", "SCORERS", "Likelihoods"]

SCORERS = ("sum", "mean", "char", "byte", "pmi")
"""Ways to compare candidates of different length; see :mod:`kbench.model.candidates`."""
ALIASED = "mass"
"""The scorer of answers that have several spellings: what all of them have together."""


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """``l(c | x)``, the log-probability of candidates after texts, and what makes scores of it.

    Attributes:
        names: the answer that each candidate spells; candidates of one name are its aliases.
            ``[candidates]``.
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
    """

    names: tuple[str, ...]
    sizes: Mapping[str, tuple[int, ...]]
    nothing: Floats
    said: Floats
    which: Floats | None
    scorer: str
    thresholds: Mapping[str, float]
    fallback: bool = False

    def __len__(self) -> int:
        return len(self.said)

    @property
    def scorers(self) -> tuple[str, ...]:
        """Those by which the candidates can be compared."""
        aliased = len({*self.names}) < len(self.names) and not self.thresholds
        known = tuple(name for name in SCORERS if name in ("sum", "pmi") or name in self.sizes)
        return (*known, ALIASED) if aliased else known

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
        if scorer == ALIASED and scorer not in self.scorers:
            raise UsageError(
                f"scorer {scorer} is what several spellings of an answer have together, and no "
                f"answer has several here; expected {' or '.join(self.scorers)}"
            )
        if scorer not in self.scorers:
            raise UsageError(f"no scorer is called {scorer!r}{nearest(scorer, self.scorers)}")
        return replace(self, scorer=scorer)

    @property
    def scores(self) -> Floats:
        """What candidates are compared by, minus infinity where one lacks. ``[examples, most]``."""
        import numpy as np

        if self.scorer == ALIASED:
            return self._mass()
        if self.scorer == "pmi":
            scores: Floats = self.said - self._own(self.nothing)
            return scores
        sizes = self.sizes.get(self.scorer)
        # In float32, as a head divides: else what is nearly level would be told apart otherwise.
        return self.said if sizes is None else self.said / self._own(np.array(sizes, np.float32))

    def predicted(self) -> list[Label]:
        """Returns the answers: the best candidate, the first of several; or all that are enough."""
        import numpy as np

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

    def _mass(self) -> Floats:
        """``log Σ exp l`` over the aliases of each one's answer. ``[examples, most]``."""
        import numpy as np

        number = {name: at for at, name in enumerate(dict.fromkeys(self.names))}
        answers = self._own(np.array([number[name] for name in self.names]))
        cells = np.arange(len(self))[:, None] * len(number) + answers
        said = self.said.astype(np.float64)
        most = said.max(1, keepdims=True)
        total = np.bincount(cells.ravel(), np.exp(said - most).ravel(), len(self) * len(number))
        with np.errstate(divide="ignore"):
            mass: Floats = np.log(total[cells]) + most
        return np.where(np.isneginf(said), said, mass)
