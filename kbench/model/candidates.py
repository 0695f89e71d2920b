"""Heads of models that read from left to right: which of given answers is likeliest to come next?

For a text x and a candidate c of tokens ``c_1 … c_n``

    l(c | x) = Σ_i log p(c_i | x, c_<i)

in float32. A scorer makes a number of it that candidates of different length are compared by:

    sum   l(c | x)
    mean  l(c | x) / n
    char  l(c | x) / characters of c
    byte  l(c | x) / bytes of c in UTF-8
    pmi   l(c | x) − l(c | x0)

where x0 is the same prompt without an example (domain-conditional PMI; Holtzman et al., "Surface
Form Competition: Why the Highest Probability Answer Isn't Always Right", EMNLP 2021). ``char`` and
``byte`` are what lm-evaluation-harness calls ``acc_norm`` and ``acc_bytes``; the blank between the
text and the candidate is not counted.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from kbench.data import Example, Prompt
from kbench.encoding import Inputs, Layout, Tree, Trees, answer_tokens, encode, inner_tokens
from kbench.errors import InputError
from kbench.model.freezing import dropout
from kbench.model.heads import ManyLabels, OneLabel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kbench.encoding import Batch, Encoded
    from kbench.model.language_model import LanguageModel

__all__ = ["SCORERS", "CandidateHead", "TypeCandidateHead", "best_threshold", "log_likelihoods"]

SCORERS = ("sum", "mean", "char", "byte", "pmi")
"""Ways to compare candidates; see above."""
_LOGITS = 1 << 25
"""Logits held at once where no gradient needs them: 128 MiB."""


def log_likelihoods(lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
    """Returns ``l(c | x)`` of every candidate of every example, in float32.

    Args:
        lm: gives the logits.
        hidden: last hidden states of the batch. ``[batch, tokens, width]``.
        batch: with trees of candidates.

    Returns:
        ``[examples, candidates]``; minus infinity for candidates that an example lacks.
    """
    tree = batch.tree
    assert tree is not None
    states = hidden.flatten(0, 1).index_select(0, tree.states)
    said = _said(lm, states, tree.places, tree.targets)
    total = said.new_zeros(tree.examples * tree.candidates).index_add(0, tree.cells, said)
    lengths = tree.lengths
    return total.view_as(lengths).masked_fill(lengths == 0, -torch.inf)


def _said(lm: LanguageModel, states: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """The log-probability of tokens, each after one of the states. ``[steps]``.

    Where no gradient needs them, logits are made and held of a part of the states at a time.
    """
    rows = max(1, _LOGITS // lm.word_embeddings.num_embeddings)
    rows = len(states) if states.requires_grad else rows
    said = states.new_zeros(len(places), dtype=torch.float32)
    for start in range(0, len(states), rows):
        logits = lm.predict_tokens(states[start : start + rows]).float()
        own = torch.nonzero((places >= start) & (places < start + rows)).flatten()
        at = places[own] - start
        said[own] = logits[at, targets[own]] - logits.logsumexp(-1)[at]
    return said


class _CandidateHead(nn.Module, ABC):
    """The labels of a task as candidates: what goes for one label and for many.

    Args:
        labels: of the task.
        prompt: how examples are put, and how labels are spelled.
        scorer: one of :data:`SCORERS`.
    """

    needs_lm_head = True
    keeps_all = True
    chat: bool = False
    nothing: Tensor

    def __init__(self, labels: Sequence[str], prompt: Prompt, scorer: str) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.prompt = prompt
        self.scorer = scorer
        words = [prompt.spelled(label) for label in self.labels]
        self._sizes = {
            "char": torch.tensor([len(word) for word in words]),
            "byte": torch.tensor([len(word.encode()) for word in words]),
        }
        self.register_buffer("nothing", torch.zeros(len(self.labels)))

    def put(self, example: Example) -> Example | None:
        return self.prompt.put(example)

    def grown(self, inputs: Inputs, tokenizer: PreTrainedTokenizerFast) -> Encoded:
        """Returns texts with the labels as their candidates."""
        return Trees(inputs, (self._tree(tokenizer),), np.zeros(len(inputs), dtype=np.int64))

    def settle(self, lm: LanguageModel) -> None:
        """Measures what the model says of the labels after the prompt without an example."""
        if self.scorer != "pmi":
            return
        text = self.prompt.nothing
        nothing = Example("the prompt without an example", text, (), "", blank=len(text))
        layout = Layout({}, left_to_right=True, chat=self.chat)
        inputs = encode(lm.tokenizer, [nothing], [()], layout)
        batch = self.grown(inputs, lm.tokenizer).collate(np.zeros(1, dtype=np.int64))
        batch = batch.to(self.nothing.device)
        with dropout(lm, None), torch.no_grad():
            hidden = lm(batch, self.reads(lm, batch))
            self.nothing.copy_(log_likelihoods(lm, hidden, batch)[0])

    def _tree(self, tokenizer: PreTrainedTokenizerFast) -> Tree:
        words = [self.prompt.spelled(label) for label in self.labels]
        spelled = (answer_tokens if self.chat else inner_tokens)(tokenizer, words)
        for label, word, tokens in zip(self.labels, words, spelled, strict=True):
            if not tokens or tokenizer.unk_token_id in tokens:
                raise InputError(
                    f"label {label!r} is put as {word!r}, which the backbone's tokenizer does not "
                    "know; expected words that it knows: give others in the task's prompt"
                )
        return Tree.of(spelled)

    def reads(self, lm: LanguageModel, batch: Batch) -> Tensor | None:
        assert batch.tree is not None
        return batch.tree.states

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns the scores of the labels. ``[batch, labels]``."""
        said = log_likelihoods(lm, hidden, batch)
        if self.scorer == "pmi":
            return said - self.nothing
        if self.scorer == "mean":
            assert batch.tree is not None
            return said / batch.tree.lengths
        sizes = self._sizes.get(self.scorer)
        return said if sizes is None else said / sizes.to(said.device)


class CandidateHead(_CandidateHead, OneLabel):
    """One label: the candidate with the highest score; the first of several."""


class TypeCandidateHead(_CandidateHead, ManyLabels):
    """A set of labels: the candidates whose score is above a threshold that dev chose.

    Attributes:
        threshold: that score; one for all labels.
    """

    chooses = True
    threshold: Tensor

    def __init__(
        self, labels: Sequence[str], prompt: Prompt, scorer: str, fallback: bool = False
    ) -> None:
        super().__init__(labels, prompt, scorer)
        self.fallback = fallback
        self.register_buffer("threshold", torch.zeros(()))

    def settle_on_dev(self, logits: Tensor, targets: Tensor) -> None:
        """Chooses the threshold that is best on dev by micro F1; between two scores."""
        self.threshold += best_threshold(logits, targets)

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns by how much the scores of labels are above the threshold. ``[batch, labels]``."""
        return super().forward(lm, hidden, batch) - self.threshold


def best_threshold(scores: Tensor, targets: Tensor) -> float:
    """Returns the score above which predicting labels gives the highest micro F1.

    It lies half-way to the next score below; of several that are best, the highest is taken.

    Args:
        scores: of labels. ``[examples, labels]``.
        targets: 1 for those that are right, else 0. ``[examples, labels]``.
    """
    order = torch.argsort(scores.flatten(), descending=True, stable=True)
    ranked, right = scores.flatten()[order].double(), targets.flatten()[order].double()
    hits = right.cumsum(0)
    taken = torch.arange(1, len(ranked) + 1, device=ranked.device)
    f1 = 2 * hits / (taken + right.sum()).clamp(min=1)
    # Scores that are equal are on the same side.
    below = torch.cat([ranked[1:], ranked[-1:] - 2])
    f1[ranked == below] = -1
    best = int(f1.argmax())
    return float((ranked[best] + below[best]) / 2)
