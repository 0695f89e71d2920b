"""A head of types that a model writes in a list, in its own words, and that are read from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np

from kbench.data import Example, Label, Lists
from kbench.model.answering import SpokenHead
from kbench.model.heads import Gold

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

__all__ = ["ListHead"]


@final
class ListHead(SpokenHead):
    """The backbone's own head, which writes the labels that hold one after another.

    To learn is to find the list of an example's labels likelier, and the end of the text after it.
    What it writes and what is no label counts as said, and wrong: see
    :meth:`kbench.data.Lists.read`. There is no threshold, and no ranking of what was not written.

    Args:
        prompt: how examples are put, with the labels.
        most: tokens of a list at most.
    """

    keeps_all = True
    prompt: Lists

    def answers(self, example: Example) -> tuple[str, ...]:
        return (self.prompt.listed(example.labels),)

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        """Keeps every example.

        Raises:
            InputError: a label is no words, or none that the tokenizer knows.
        """
        self.known_words(self.prompt.among, tokenizer)
        labels: list[Label] = [tuple(sorted(example.label)) for example in examples]
        numbers = np.arange(len(labels))
        return Gold(numbers, labels, np.zeros(len(labels), dtype=np.int64))

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        """Returns the labels that were written, and the probability of the list."""
        said, scores = super().predict(logits, tokenizer, candidates)
        return [self.prompt.read(str(each)) for each in said], scores
