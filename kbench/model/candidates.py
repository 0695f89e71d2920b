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

The logits of a head are ``l(c | x)`` itself, which every scorer is a function of: they are stored
with what the others want (:class:`kbench.data.Likelihoods`), and a run is scored again by any of
them without its model.
"""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.data import SCORERS, Example, Label, Likelihoods, Prompt
from kbench.encoding import Inputs, Layout, Tree, Trees, encode
from kbench.errors import InputError
from kbench.model.freezing import dropout
from kbench.model.heads import Head, ManyLabels, OneLabel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kbench.encoding import Batch, Demonstrations, Encoded
    from kbench.model.language_model import LanguageModel

__all__ = [
    "AskedHead",
    "CandidateHead",
    "ScoredLabels",
    "TypeCandidateHead",
    "best",
    "best_threshold",
    "compared",
    "log_likelihoods",
    "numbered",
    "said_of_nothing",
]

_ID = re.compile(r"[PQ][0-9]+")
"""What Wikidata calls a relation or an entity."""
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


def said_of_nothing(
    lm: LanguageModel,
    prompt: Prompt,
    trees: Sequence[Tree],
    shown: Demonstrations | None = None,
    *,
    chat: bool = False,
) -> Tensor:
    """Returns ``l(c | x0)`` of the candidates of each of some trees, x0 being without an example.

    Args:
        lm: says it.
        prompt: how examples are put.
        trees: of candidates.
        shown: demonstrations, which are no part of an example, and stand before it.
        chat: whether the prompt is put as a message.

    Returns:
        ``[trees, candidates]``; minus infinity for candidates that a tree lacks.
    """
    text, size = prompt.nothing, len(trees)
    nothing = Example("of the prompt alone", text, (), "", blank=len(text))
    layout = Layout({}, left_to_right=True, chat=chat)
    inputs = encode(lm.tokenizer, [nothing] * size, [()] * size, layout)
    grown = Trees(inputs, tuple(trees), np.arange(size))
    if shown is not None:
        grown = grown.behind(shown, lm.max_length)
    device = lm.word_embeddings.weight.device
    said = []
    with dropout(lm, None), torch.no_grad():
        for number in range(size):
            own = []
            for batch in grown.collate(np.array([number])).to(device).parts:
                assert batch.tree is not None
                hidden = lm(batch, batch.tree.states)
                own.append(log_likelihoods(lm, hidden, batch)[0])
            said.append(reduce(torch.maximum, own))
    return torch.nn.utils.rnn.pad_sequence(said, batch_first=True, padding_value=-torch.inf)


def compared(scorer: str, said: Tensor, sizes: Tensor, nothing: Tensor) -> Tensor:
    """Returns what candidates are compared by.

    Args:
        scorer: one of :data:`SCORERS`.
        said: ``l(c | x)`` of each. ``[examples, candidates]``.
        sizes: of each, in tokens, characters or bytes.
        nothing: ``l(c | x0)`` of each.
    """
    if scorer == "pmi":
        return said - nothing.to(said.device)
    return said if scorer == "sum" else said / sizes.to(said.device)


class AskedHead(Head, ABC):
    """A head of candidates that stand behind a prompt.

    Args:
        prompt: how examples are put.
    """

    needs_lm_head = True

    def __init__(self, prompt: Prompt) -> None:
        super().__init__()
        self.prompt = prompt

    def put(self, example: Example) -> Example | None:
        return self.prompt.put(example)

    def known_words(
        self, labels: Sequence[str], tokenizer: PreTrainedTokenizerFast
    ) -> list[list[int]]:
        """Returns the tokens of labels as the prompt has them said.

        Raises:
            InputError: a label is no words, or none that the tokenizer knows.
        """
        words = [self.prompt.spelled(label) for label in labels]
        nameless = [word for word in words if _ID.fullmatch(word)]
        if nameless:
            raise InputError(
                f"{len(nameless)} of {len(words)} labels are ids, such as {nameless[0]!r}, which "
                "say nothing; expected words: give them in the task's prompt, Prompt(words=…), in "
                "the words of a card of your own, or take tuning head"
            )
        spelled = self.answer_tokens(tokenizer, words, joined=bool(self.prompt.closed))
        for label, word, tokens in zip(labels, words, spelled, strict=True):
            if not tokens or tokenizer.unk_token_id in tokens:
                raise InputError(
                    f"label {label!r} is put as {word!r}, which the backbone's tokenizer does not "
                    "know; expected words that it knows: give others in the task's prompt"
                )
        return spelled

    def reads(self, lm: LanguageModel, batch: Batch) -> Tensor | None:
        assert batch.tree is not None
        return batch.tree.states


class ScoredLabels(AskedHead, ABC):
    """The labels of a task as candidates: what goes for one label and for many.

    Args:
        labels: of the task.
        prompt: how examples are put, and how labels are spelled.
        scorer: one of :data:`SCORERS`.

    Attributes:
        persistent: whether what :meth:`settle` measures is a part of the model, and stored with it.
    """

    keeps_all = True
    compares = True
    persistent = True
    nothing: Tensor
    tokens: Tensor

    def __init__(self, labels: Sequence[str], prompt: Prompt, scorer: str) -> None:
        super().__init__(prompt)
        self.labels = tuple(labels)
        self.scorer = scorer
        words = [prompt.spelled(label) for label in self.labels]
        self._characters = tuple(len(word) for word in words)
        self._bytes = tuple(len(word.encode()) for word in words)
        size, kept = len(self.labels), self.persistent
        self.register_buffer("nothing", torch.zeros(size), persistent=kept)
        self.register_buffer("tokens", torch.ones(size, dtype=torch.int64), persistent=kept)

    def grown(
        self, inputs: Inputs, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
    ) -> Encoded:
        """Returns texts with the labels as their candidates."""
        return Trees(inputs, (self._tree(tokenizer),), np.zeros(len(inputs), dtype=np.int64))

    def settle(self, lm: LanguageModel, shown: Demonstrations | None = None) -> None:
        """Measures what the model says of the labels after the prompt without an example."""
        spelled = self.spelled(lm.tokenizer)
        trees = (Tree.of(spelled),)
        self.nothing.copy_(said_of_nothing(lm, self.prompt, trees, shown, chat=self.chat)[0])
        self.tokens.copy_(torch.tensor([len(tokens) for tokens in spelled]))

    def _tree(self, tokenizer: PreTrainedTokenizerFast) -> Tree:
        return Tree.of(self.spelled(tokenizer))

    def spelled(self, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
        """Returns the tokens of the labels.

        Raises:
            InputError: a label is no words, or none that the tokenizer knows.
        """
        return self.known_words(self.labels, tokenizer)

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns what the model says of the labels. ``[batch, labels]``."""
        return log_likelihoods(lm, hidden, batch)

    def scored(self, said: Tensor, scorer: str | None = None, of: Tensor | None = None) -> Tensor:
        """Returns what labels are compared by.

        Args:
            said: what the model says of them. ``[examples, labels]``.
            scorer: another one than the head's.
            of: the numbers of the labels that are told of, where these are not all, in their order;
                any where there is none. ``[examples, labels]``.
        """
        scorer = scorer or self.scorer
        sizes = torch.tensor(self._sizes.get(scorer, (1,) * len(self.labels)), device=said.device)
        values = (sizes, self.nothing.to(said.device))
        return compared(scorer, said, *(v if of is None else v[of] for v in values))

    @property
    def _sizes(self) -> dict[str, tuple[int, ...]]:
        return {
            "mean": tuple(self.tokens.tolist()),
            "char": self._characters,
            "byte": self._bytes,
        }

    @property
    def _thresholds(self) -> dict[str, float]:
        return {}

    def likelihoods(
        self, said: NDArray[np.float32], candidates: Sequence[Sequence[str]] = ()
    ) -> Likelihoods:
        return self.told(said, None)

    def told(self, said: NDArray[np.float32], which: NDArray[np.int32] | None) -> Likelihoods:
        """Returns what is said of labels with all that scorers make of it.

        Args:
            said: of each example. ``[examples, labels]``.
            which: their numbers, where these are not all. ``[examples, labels]``.
        """
        return Likelihoods(
            names=self.labels,
            sizes=self._sizes,
            nothing=self.nothing.cpu().numpy().copy(),
            said=said,
            which=which,
            scorer=self.scorer,
            thresholds=self._thresholds,
            fallback=getattr(self, "fallback", False),
        )


class CandidateHead(ScoredLabels, OneLabel):
    """One label: the candidate with the highest score; the first of several."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super().loss(self.scored(logits), targets)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        places, sure = best(self.scored(logits))
        return [self.labels[place] for place in places], sure


class TypeCandidateHead(ScoredLabels, ManyLabels):
    """A set of labels: the candidates whose score is above a threshold that dev chose.

    Attributes:
        thresholds: that score by each of :data:`SCORERS`; one for all labels. ``[scorers]``.
    """

    chooses = True
    thresholds: Tensor

    def __init__(
        self, labels: Sequence[str], prompt: Prompt, scorer: str, fallback: bool = False
    ) -> None:
        super().__init__(labels, prompt, scorer)
        self.fallback = fallback
        self.register_buffer("thresholds", torch.zeros(len(SCORERS)))

    @property
    def threshold(self) -> float:
        """That of its own scorer."""
        return self._thresholds[self.scorer]

    @property
    def _thresholds(self) -> dict[str, float]:
        return dict(zip(SCORERS, self.thresholds.tolist(), strict=True))

    def settle_on_dev(self, logits: Tensor, targets: Tensor) -> None:
        """Chooses the threshold that is best on dev by micro F1; between two scores.

        It does so for every scorer, so that a run can be scored again by another.
        """
        chosen = [best_threshold(self.scored(logits, name), targets) for name in SCORERS]
        self.thresholds.copy_(torch.tensor(chosen))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super().loss(self._above(logits), targets)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        return super().predict(self._above(logits), tokenizer, candidates)

    def _above(self, logits: Tensor) -> Tensor:
        """By how much the scores of labels are above the threshold. ``[examples, labels]``."""
        place = SCORERS.index(self.scorer)
        return self.scored(logits) - self.thresholds[place].to(logits.device)


def numbered(
    number: Mapping[str, int], candidates: Sequence[Sequence[str]], most: int
) -> NDArray[np.int64]:
    """Returns the numbers of the candidates of examples. ``[examples, most]``.

    Args:
        number: of each name.
        candidates: of each example, by their names.
        most: of an example; -1 stands for those that one lacks.
    """
    which = np.full((len(candidates), most), -1, dtype=np.int64)
    for row, own in enumerate(candidates):
        which[row, : len(own)] = [number[name] for name in own]
    return which


def best(scores: Tensor) -> tuple[list[int], list[float]]:
    """Returns the place of each example's highest score, and how probable it is.

    Args:
        scores: the first of several that are highest is taken. ``[examples, candidates]``.
    """
    # Not of the probabilities, in which what is nearly level becomes level.
    places = scores.argmax(-1)
    sure = scores.softmax(-1).gather(-1, places[:, None])[:, 0]
    return places.tolist(), sure.tolist()


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
