"""The head of few-shot tasks for models that read from left to right.

The supports of an example stand before it with the names of their classes, and the classes of its
episode are its candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.data import NONE_OF_THE_ABOVE, Example, Label, Likelihoods, Prompt
from kbench.encoding import Inputs, Ranked, Tree
from kbench.model.candidates import ScoredLabels, best, numbered
from kbench.model.heads import Gold

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kbench.encoding import Encoded

__all__ = ["EpisodeHead"]


@final
class EpisodeHead(ScoredLabels):
    """The classes of an example's episode: the candidate with the highest score.

    What is said of a class after nothing is said after the prompt alone, without supports: it is
    one number a class, whatever episode it is in.

    Args:
        labels: the classes of all episodes.
        prompt: how examples are put, and how classes are spelled.
        scorer: one of :data:`kbench.data.SCORERS`.
        none: whether an example may be of none of its candidates, which is then one of them.
    """

    # Classes of a test are no part of a model that was tuned on others.
    persistent = False
    chats = False

    def __init__(
        self, labels: Sequence[str], prompt: Prompt, scorer: str, *, none: bool = False
    ) -> None:
        super().__init__((*labels, NONE_OF_THE_ABOVE) if none else labels, prompt, scorer)
        self._none = none
        self._number = {label: at for at, label in enumerate(self.labels)}

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        """Keeps every example; its target is the place of its class, and what its candidates are.

        The targets are ``[examples, 1 + candidates]``, -1 for candidates that an example lacks.
        """
        names = [self._names(example) for example in examples]
        places = [
            own.index(str(example.label)) if example.label in own else -1
            for example, own in zip(examples, names, strict=True)
        ]
        which = numbered(self._number, names, max(map(len, names), default=0))
        targets = np.column_stack([np.array(places, dtype=np.int64), which])
        labels: list[Label] = [str(example.label) for example in examples]
        return Gold(np.arange(len(labels)), labels, targets)

    def _names(self, example: Example) -> tuple[str, ...]:
        own = tuple(candidate.label for candidate in example.candidates)
        return (*own, NONE_OF_THE_ABOVE) if self._none else own

    def grown(
        self, inputs: Inputs, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
    ) -> Encoded:
        """Returns texts with the classes of their episodes as their candidates."""
        names = [self._names(example) for example in examples]
        kinds = {own: at for at, own in enumerate(dict.fromkeys(names))}
        spelled = dict(zip(self.labels, self.spelled(tokenizer), strict=True))
        trees = tuple(Tree.of([spelled[name] for name in own]) for own in kinds)
        which = np.array([kinds[own] for own in names], dtype=np.int64)
        return Ranked(inputs, trees, which, names=tuple(kinds))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        which = targets[:, 1 : 1 + logits.shape[1]]
        scores = self.scored(logits, of=which).masked_fill(which < 0, -torch.inf)
        return F.cross_entropy(scores, targets[:, 0], ignore_index=-1)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        """Returns the best candidate of each example by its name."""
        which = torch.from_numpy(numbered(self._number, candidates, logits.shape[1])).to(
            logits.device
        )
        places, sure = best(self.scored(logits, of=which))
        return [own[at] for own, at in zip(candidates, places, strict=True)], sure

    def likelihoods(
        self, said: NDArray[np.float32], candidates: Sequence[Sequence[str]] = ()
    ) -> Likelihoods:
        return self.told(said, numbered(self._number, candidates, said.shape[1]).astype(np.int32))
