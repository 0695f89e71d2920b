"""Heads that ask for a word that stands for a label: yes or no of each, or the letter of one.

What is asked stands in the candidates, whose tokens all examples share: ``city? Answer: yes`` and
``city? Answer: no``, or a list of all labels and each of its letters. So a text is read once, as
ever; the question in a candidate is read, once for all its answers, and only these are said.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from kbench.data import Likelihoods, Prompt
from kbench.encoding import Tree
from kbench.errors import InputError, UsageError
from kbench.model.candidates import (
    CandidateHead,
    ScoredLabels,
    TypeCandidateHead,
    said_of_nothing,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

    from kbench.encoding import Demonstrations
    from kbench.model.language_model import LanguageModel

    Floats = NDArray[np.float32]

__all__ = ["LetterHead", "VerdictHead"]

_SCORERS = ("sum", "pmi")


class _Chosen(ScoredLabels, ABC):
    """Labels that are told by words that stand for them.

    The logits are what is said of all candidates, of each label as many, one behind the other:
    of the word that stands for the label, after the text and the question. What follows of a label
    is compared as it is, or less the same after nothing.

    Args:
        labels: of the task.
        prompt: with the candidates of labels.
        scorer: ``sum`` or ``pmi``.
        own: what the head beside it takes.

    Raises:
        UsageError: the scorer is another.
    """

    chats = False
    by = ""

    def __init__(self, labels: Sequence[str], prompt: Prompt, scorer: str, **own: Any) -> None:
        super().__init__(labels, prompt, scorer, **own)
        if scorer not in _SCORERS:
            raise UsageError(
                f"scorer is {scorer}, and labels are told by {self.by} here, which are no longer "
                f"of one than of another; expected {' or '.join(_SCORERS)}"
            )
        self._candidates = prompt.candidates(self.labels)

    @abstractmethod
    def question(self, candidate: int) -> int:
        """Returns the number of the question that a candidate answers."""

    @abstractmethod
    def of_labels(self, said: Tensor) -> Tensor:
        """Returns what is said of labels.

        Args:
            said: of their candidates. ``[examples, candidates]``.

        Returns:
            ``[examples, labels]``.
        """

    def _tree(self, tokenizer: PreTrainedTokenizerFast) -> Tree:
        self.spelled(tokenizer)  # that the labels themselves are words
        joined = bool(self.prompt.closed)
        spelled = self.answer_tokens(tokenizer, self._candidates, joined=joined)
        unknown = [
            text
            for text, tokens in zip(self._candidates, spelled, strict=True)
            if not tokens or tokenizer.unk_token_id in tokens
        ]
        if unknown:
            raise InputError(
                f"the backbone's tokenizer does not know all of {unknown[0]!r}; expected words "
                "that it knows: take ask=name"
            )
        return Tree.of(spelled, self._asked(spelled))

    def _asked(self, spelled: Sequence[Sequence[int]]) -> list[int]:
        """How many tokens of each candidate are its question: all of that begin with them."""
        own: dict[int, list[Sequence[int]]] = {}
        numbers = [self.question(at) for at in range(len(spelled))]
        for number, tokens in zip(numbers, spelled, strict=True):
            own.setdefault(number, []).append(tokens)
        sizes = {number: _begun_alike(several) for number, several in own.items()}
        return [sizes[number] for number in numbers]

    def settle(self, lm: LanguageModel, shown: Demonstrations | None = None) -> None:
        trees = (self._tree(lm.tokenizer),)
        said = said_of_nothing(lm, self.prompt, trees, shown, chat=self.chat)
        self.nothing.copy_(self.of_labels(said)[0])

    def scored(self, said: Tensor, scorer: str | None = None, of: Tensor | None = None) -> Tensor:
        return super().scored(self.of_labels(said), scorer, of)

    @property
    def _sizes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def told(self, said: Floats, which: NDArray[np.int32] | None) -> Likelihoods:
        return super().told(self.of_labels(torch.from_numpy(said)).numpy(), which)


@final
class VerdictHead(_Chosen, TypeCandidateHead):
    """The labels of which the model rather says yes than no; above a threshold that dev chose.

        s(label | x) = log Σ p(yes | x, label) − log Σ p(no | x, label)

    over the words with and without a capital.

    Args:
        labels: of the task.
        prompt: asks of each.
        scorer: ``sum`` or ``pmi``, which takes off s(label) after the prompt without an example.
        fallback: whether the best is given where none is above the threshold.

    Raises:
        UsageError: the scorer is another.
    """

    by = "yes and no"

    def question(self, candidate: int) -> int:
        return candidate // 4

    def of_labels(self, said: Tensor) -> Tensor:
        words = said.view(len(said), len(self.labels), 2, -1).logsumexp(-1)
        return words[..., 0] - words[..., 1]


@final
class LetterHead(_Chosen, CandidateHead):
    """The label whose letter the model says, in a list of all and in the list turned round.

        s(label | x) = ½ Σ_order log p(letter of the label in it | x, order, one of its letters)

    Args:
        labels: of the task.
        prompt: lists them.
        scorer: ``sum`` or ``pmi``, which takes off s(label) after the prompt without an example.

    Raises:
        UsageError: the scorer is another, or there are more labels than letters.
    """

    by = "letters"

    def question(self, candidate: int) -> int:
        return candidate % 2

    def of_labels(self, said: Tensor) -> Tensor:
        return said.view(len(said), len(self.labels), 2).log_softmax(1).mean(-1)


def _begun_alike(several: Sequence[Sequence[int]]) -> int:
    """With how many tokens all begin, and leave one at least."""
    size = min(map(len, several)) - 1
    return next((at for at in range(size) if len({own[at] for own in several}) > 1), size)
