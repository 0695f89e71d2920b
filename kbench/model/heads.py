"""Heads: from hidden states to logits, a loss, and predictions in the words of the task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.data import NONE_OF_THE_ABOVE, Example, Label, Likelihoods, Prompt
from kbench.data.predictions import as_stored
from kbench.encoding import answer_tokens, bare_tokens, inner_tokens, joined_tokens
from kbench.errors import KbenchError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kbench.encoding import Batch, Choices, Demonstrations, Encoded, Inputs
    from kbench.model.language_model import LanguageModel

__all__ = [
    "BlankHead",
    "Gold",
    "Head",
    "ManyLabels",
    "OneLabel",
    "PairHead",
    "RelationHead",
    "TypingHead",
    "VocabularyHead",
]


@dataclass(frozen=True)
class Gold:
    """The examples a head can learn from and be scored on.

    Attributes:
        kept: index of each kept example among those given. ``[kept]``.
        labels: gold label of each, as it is compared with predictions.
        targets: the same for the loss. ``[kept, ...]``.
        counts: what the head has to say of how they were made, by name.
        spelled: how the data spell what :meth:`Head.predict` calls a right answer, for each; empty
            where both are spelled alike.
    """

    kept: NDArray[np.int64]
    labels: list[Label]
    targets: NDArray[Any]
    counts: Mapping[str, int] = field(default_factory=dict)
    spelled: Sequence[Mapping[str, str]] = ()
    ranked: bool = False

    def named(self, predictions: Sequence[Label]) -> list[Label]:
        """Returns predictions in the words of the labels, as far as they are right.

        Rankings up to the first right answer; the first ten where none is right.
        """
        if self.ranked:
            return [as_stored(*both) for both in zip(self.labels, predictions, strict=True)]
        if not self.spelled:
            return list(predictions)
        return [
            own.get(guess, guess) if isinstance(guess, str) else guess
            for own, guess in zip(self.spelled, predictions, strict=True)
        ]


class Head(nn.Module, ABC):
    """The last step of a downstream model.

    Attributes:
        needs_lm_head: whether it reads the backbone's masked-LM head.
        keeps_all: whether :meth:`gold` keeps every example, whatever the tokenizer.
        chooses: whether it has something to choose on dev before anything is trained.
        speaks: whether predictions are not made of logits but of what the network says by itself.
        compares: whether its logits are what the model says of candidates, which
            :meth:`likelihoods` then tells.
        chats: whether it can be asked by a message.
        chat: whether answers come after a message that the tokenizer's chat template writes.
    """

    needs_lm_head = False
    keeps_all = False
    chooses = False
    compares = False
    speaks = False
    chats = True
    chat = False

    def answer(self, lm: LanguageModel, batch: Batch) -> Tensor:
        """Returns what :meth:`predict` makes predictions of, where :attr:`speaks` says so.

        Args:
            lm: the network, with whatever is attached to it.
            batch: to be answered.

        Raises:
            NotImplementedError: the head's predictions are made of logits.
        """
        raise NotImplementedError(f"{type(self).__name__} decides by logits")

    def answer_tokens(
        self, tokenizer: PreTrainedTokenizerFast, answers: Sequence[str], *, joined: bool = False
    ) -> list[list[int]]:
        """Returns the tokens of answers, as they are spelled after a prompt.

        Args:
            tokenizer: of the model.
            answers: in words.
            joined: whether they follow without a blank (:meth:`kbench.data.Prompt.joins`).
        """
        if self.chat:
            return answer_tokens(tokenizer, [*answers])
        return (joined_tokens if joined else inner_tokens)(tokenizer, [*answers])

    @abstractmethod
    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        """Turns labels into targets; leaves out what the head cannot express."""

    @abstractmethod
    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns logits ``[batch, classes]`` for hidden states ``[batch, tokens, width]``."""

    def put(self, example: Example) -> Example | None:
        """Returns an example as the head wants it read; None if it cannot be put so.

        As it stands: as it is. A head for models that read from left to right puts it as a text
        to go on with (:class:`kbench.data.Prompt`).
        """
        return example

    def grown(
        self, inputs: Inputs, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
    ) -> Encoded:
        """Returns encoded texts with what the head adds to each; as it stands nothing.

        Args:
            inputs: the texts.
            tokenizer: of the model.
            examples: that they are of, one each.
        """
        return inputs

    def settle(self, lm: LanguageModel, shown: Demonstrations | None = None) -> None:
        """Measures of a model that nothing was trained of what the head wants to know of it.

        As it stands nothing.

        Args:
            lm: the model.
            shown: what stands before every text.
        """

    def settle_on_dev(self, logits: Tensor, targets: Tensor) -> None:
        """Chooses on dev what the head has to choose, where :attr:`chooses` says that it does.

        Args:
            logits: of the examples. ``[examples, classes]``.
            targets: of :meth:`gold`.
        """
        raise NotImplementedError(f"{type(self).__name__} has nothing to choose")

    def reads(self, lm: LanguageModel, batch: Batch) -> Tensor | None:
        """Returns the positions whose hidden states :meth:`forward` reads; None for all.

        In the flattened ``[batch * tokens]``; the states elsewhere are then not computed to the
        end. As it stands: all.
        """
        return None

    def decide(self, scores: Tensor, choices: Choices) -> Tensor:
        """Returns logits of examples ``[examples, classes]``, where :meth:`forward` scores pairs.

        Raises:
            NotImplementedError: the head is not for pairs.
        """
        raise NotImplementedError(f"{type(self).__name__} does not compare pairs of texts")

    def likelihoods(
        self, said: NDArray[np.float32], candidates: Sequence[Sequence[str]] = ()
    ) -> Likelihoods:
        """Returns the logits of examples with all that makes scores of them, to be stored.

        Args:
            said: the logits. ``[examples, candidates]``.
            candidates: as of :meth:`predict`.

        Raises:
            NotImplementedError: :attr:`compares` says that they are no such thing.
        """
        raise NotImplementedError(f"{type(self).__name__} compares no candidates")

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean training loss, a scalar."""

    @abstractmethod
    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        """Returns predictions, and the probability the model gives each of them.

        Args:
            logits: of examples. ``[examples, classes]``.
            tokenizer: of the model.
            candidates: the labels that each example chooses between, where it has candidates of
                its own; else empty.
        """


class OneLabel(Head):
    """A head that decides for one of the labels.

    Attributes:
        labels: of the task, in the order of the logits.
    """

    labels: tuple[str, ...]

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        number = {label: position for position, label in enumerate(self.labels)}
        labels = [str(example.label) for example in examples]
        # A relation never seen in training cannot be predicted: it stays, and counts as wrong.
        targets = np.array([number.get(label, -1) for label in labels], dtype=np.int64)
        return Gold(np.arange(len(labels)), list(labels), targets)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, ignore_index=-1)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        scores, best = logits.softmax(-1).max(-1)
        return [self.labels[index] for index in best.tolist()], scores.tolist()


class ManyLabels(Head):
    """A head that decides for those of the labels whose logit is above 0.

    The score of a prediction is the probability of the whole set, ``prod_t p_t`` over predicted
    and ``1 - p_t`` over other labels.

    Attributes:
        labels: of the task, in the order of the logits.
        fallback: whether the best label is predicted where no logit is above 0 (all that share
            the highest logit).
    """

    labels: tuple[str, ...]
    fallback: bool

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        number = {label: position for position, label in enumerate(self.labels)}
        targets = np.zeros((len(examples), len(self.labels)), dtype=np.float32)
        for row, example in enumerate(examples):
            known = [number[label] for label in example.label if label in number]
            targets[row, known] = 1
        labels: list[Label] = [tuple(sorted(example.label)) for example in examples]
        return Gold(np.arange(len(examples)), labels, targets)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        on = logits > 0
        if self.fallback:
            on |= logits == logits.amax(-1, keepdim=True)
        scores = F.logsigmoid(torch.where(on, logits, -logits)).sum(-1).exp().tolist()
        chosen: list[Label] = [
            tuple(label for label, is_on in zip(self.labels, row, strict=True) if is_on)
            for row in on.tolist()
        ]
        return chosen, scores


class _LinearHead(Head):
    keeps_all = True

    def __init__(self, width: int, labels: Sequence[str], dropout: float) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, len(self.labels))
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = self.linear(self.dropout(lm.pool(hidden, batch.mask)))
        return logits

    def reads(self, lm: LanguageModel, batch: Batch) -> Tensor | None:
        return lm.pooled(batch)


@final
class RelationHead(_LinearHead, OneLabel):
    """Dropout and a linear layer on the pooled output; softmax over relations."""

    def __init__(self, width: int, labels: Sequence[str]) -> None:
        super().__init__(width, labels, dropout=0.1)


@final
class TypingHead(_LinearHead, ManyLabels):
    """A linear layer on the pooled output; a type is predicted where its logit is above 0.

    Args:
        width: of the pooled output.
        labels: the types.
        fallback: where no logit is above 0, predict the best type, as ERNIE does on FIGER and
            map-tuning on Wiki-ET; map-tuning also takes a logit of exactly 0. Without, nothing is
            predicted there: ERNIE and K-Adapter on OpenEntity, K-Adapter on FIGER.
    """

    def __init__(self, width: int, labels: Sequence[str], fallback: bool = False) -> None:
        super().__init__(width, labels, dropout=0.0)
        self.fallback = fallback


@final
class PairHead(Head):
    """Compares a text with the supports of each candidate (BERT-PAIR).

    Gao et al., "FewRel 2.0: Towards More Challenging Few-Shot Relation Classification", EMNLP
    2019, section 4, and the form of the map-tuning release. The pooled output of a pair gives a
    number that says how alike the two are; the logit of a candidate is its mean over the K
    supports. Where an example may be of none of its candidates, a pair gives two numbers, for
    alike and for unlike, and the logit of none is the least unlikeness to any candidate.

    Args:
        width: of the hidden states.
        none: whether an example may be of none of its candidates.
    """

    keeps_all = True

    def __init__(self, width: int, *, none: bool = False) -> None:
        super().__init__()
        self.none = none
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(width, 2 if none else 1)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        ways = max((len(example.candidates) for example in examples), default=0)
        targets = []
        for example in examples:
            names = [candidate.label for candidate in example.candidates]
            other = ways if self.none else -1
            targets.append(names.index(example.label) if example.label in names else other)
        labels: list[Label] = [str(example.label) for example in examples]
        return Gold(np.arange(len(examples)), labels, np.array(targets, dtype=np.int64))

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns the scores of pairs, ``[pairs, 1 or 2]``; :meth:`decide` makes logits of them."""
        scores: Tensor = self.linear(self.dropout(lm.pool(hidden, batch.mask)))
        return scores

    def reads(self, lm: LanguageModel, batch: Batch) -> Tensor | None:
        return lm.pooled(batch)

    def decide(self, scores: Tensor, choices: Choices) -> Tensor:
        """Returns the logits of candidates, and of none if that is an answer.

        Args:
            scores: of pairs. ``[pairs, 1 or 2]``.
            choices: whose they are.

        Returns:
            ``[examples, ways (+ 1)]``; minus infinity for candidates that an example lacks.
        """
        size = choices.examples * choices.ways
        total = scores.new_zeros(size, scores.shape[1]).index_add(0, choices.cells, scores)
        # Not `bincount`, which waits for the device to know how long its answer is.
        ones = torch.ones_like(choices.cells)
        count = ones.new_zeros(size).index_add(0, choices.cells, ones)[:, None]
        mean = (total / count.clamp(min=1)).view(choices.examples, choices.ways, -1)
        absent = (count == 0).view(choices.examples, choices.ways)
        alike = mean[..., -1].masked_fill(absent, -torch.inf)
        if not self.none:
            return alike
        unlike = mean[..., 0].masked_fill(absent, torch.inf).amin(1, keepdim=True)
        return torch.cat([alike, unlike], dim=1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, ignore_index=-1)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        """Returns the best candidate of each example by its name, or that it is of none."""
        scores, best = logits.softmax(-1).max(-1)
        chosen = zip(candidates, best.tolist(), strict=True)
        return [_named(names, number) for names, number in chosen], scores.tolist()


def _named(candidates: Sequence[str], number: int) -> str:
    """The label that a column of the logits stands for."""
    return candidates[number] if number < len(candidates) else NONE_OF_THE_ABOVE


class _AnsweringHead(Head):
    """The backbone's own head, read at the blank: at the mask, or at the token before it.

    Every answer that is one token is right; the loss has the first of them for its target. Case
    and accents are the tokenizer's affair: an answer is the token that it makes of the text at the
    blank. So ``Rome`` is ``rome`` where it folds case, ``ĠRome`` or ``▁Rome`` where a blank is
    part of the word after it, and at the beginning of a text what it makes of ``Rome`` there.

    Args:
        prompt: how examples are put to a model that reads from left to right, whose answer is the
            token that comes next; None for one that is asked at its mask.
    """

    needs_lm_head = True

    def __init__(self, prompt: Prompt | None = None) -> None:
        super().__init__()
        self.prompt = prompt

    def put(self, example: Example) -> Example | None:
        return example if self.prompt is None else self.prompt.put(example)

    def tokens(
        self, answers: Sequence[str], tokenizer: PreTrainedTokenizerFast, before: str = " "
    ) -> list[int | None]:
        """Returns the token of each answer; None where it is none that can be answered.

        Args:
            answers: in the words of the data.
            tokenizer: of the model.
            before: what stands before the answer, see :attr:`kbench.data.Example.before_blank`
                and :meth:`kbench.data.Prompt.lead`.
        """
        return self._single(answers, tokenizer, before)

    def _single(
        self, words: Sequence[str], tokenizer: PreTrainedTokenizerFast, before: str
    ) -> list[int | None]:
        """Returns the token that each word is where the answer stands."""
        if self.chat:
            return _alone(answer_tokens(tokenizer, [word.strip() for word in words]), tokenizer)
        return _single_tokens(words, tokenizer, before)

    def target(self, tokens: Sequence[int | None]) -> int | None:
        """Returns the token that an example is trained on, by those of its answers; None for none.

        An example without is left out.
        """
        return next((token for token in tokens if token is not None), None)

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        kept, labels, targets, spelled = [], list[Label](), [], []
        words: dict[int, str] = {}
        for index, (answers, tokens) in enumerate(self._answers(examples, tokenizer)):
            target = self.target(tokens)
            if target is None:
                continue
            own: dict[str, str] = {}
            for answer, token in zip(answers, tokens, strict=True):
                if token is not None:
                    if token not in words:
                        words[token] = _word(tokenizer, token)
                    own.setdefault(words[token], answer)
            kept.append(index)
            labels.append(answers)
            targets.append(target)
            spelled.append(own)
        numbers = np.array(kept, dtype=np.int64), np.array(targets, dtype=np.int64)
        return Gold(numbers[0], labels, numbers[1], spelled=spelled)

    def _answers(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast
    ) -> list[tuple[tuple[str, ...], list[int | None]]]:
        """Returns the answers of each example, and the token of each of them."""
        several = [
            (e.label,) if isinstance(e.label, str) else tuple(dict.fromkeys(e.label))
            for e in examples
        ]
        before = [self.prompt.lead(e) if self.prompt else e.before_blank for e in examples]
        known: dict[tuple[str, str], int | None] = {}
        for lead in dict.fromkeys(before):
            asked = (own for own, each in zip(several, before, strict=True) if each == lead)
            answers = list(dict.fromkeys(answer for own in asked for answer in own))
            tokens = self.tokens(answers, tokenizer, lead)
            known |= {(lead, a): token for a, token in zip(answers, tokens, strict=True)}
        return [
            (own, [known[lead, answer] for answer in own])
            for own, lead in zip(several, before, strict=True)
        ]

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        return lm.predict_tokens(hidden.flatten(0, 1)[batch.blank_index])

    def reads(self, lm: LanguageModel, batch: Batch) -> Tensor | None:
        return batch.blank_index

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        scores, best = torch.softmax(logits, -1).max(-1)
        words: list[Label] = [_word(tokenizer, token) for token in best.tolist()]
        return words, scores.tolist()


@final
class BlankHead(_AnsweringHead):
    """The backbone's own head at the blank; the answer is the best token of all."""


@final
class VocabularyHead(_AnsweringHead):
    """The masked-LM head at the blank with its softmax over a given vocabulary (LAMA).

    Petroni et al., "Language Models as Knowledge Bases?", EMNLP 2019, section 4: models are
    compared over the words that all of them have. A word counts if it is one token; words and
    answers keep their case, as far as the tokenizer does.

    Args:
        vocabulary: the words.
        before: what stands before the blanks of the examples, for a word may be another token
            behind a blank than at the beginning of a text.
        first: whether an example is kept by its first answer alone, as of LAMA, where that is the
            object of the fact; else by any.
        prompt: see :class:`BlankHead`.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        before: Sequence[str] = (" ",),
        first: bool = False,
        prompt: Prompt | None = None,
    ) -> None:
        super().__init__(prompt)
        self.vocabulary = tuple(vocabulary)
        self._before = tuple(before)
        self._first = first
        self._allowed: tuple[object, list[int]] | None = None
        self._columns: Tensor | None = None

    def tokens(
        self, answers: Sequence[str], tokenizer: PreTrainedTokenizerFast, before: str = " "
    ) -> list[int | None]:
        allowed = set(self.allowed(tokenizer))
        known = super().tokens(answers, tokenizer, before)
        return [token if token in allowed else None for token in known]

    def target(self, tokens: Sequence[int | None]) -> int | None:
        return tokens[0] if self._first and tokens else super().target(tokens)

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        counts = {"vocabulary_tokens": len(self.allowed(tokenizer))}
        return replace(super().gold(examples, tokenizer), counts=counts)

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns logits ``[batch, tokens]``, minus infinity outside the vocabulary."""
        logits = super().forward(lm, hidden, batch)
        kept = self._kept(lm.tokenizer, logits.device)
        nothing = torch.full_like(logits, -torch.inf)
        return nothing.index_copy(1, kept, logits.index_select(1, kept))

    def _kept(self, tokenizer: PreTrainedTokenizerFast, device: torch.device) -> Tensor:
        """The tokens of the vocabulary, copied to a device once."""
        allowed = self.allowed(tokenizer)
        if self._columns is None or self._columns.device != device:
            with torch.inference_mode(False):  # gradients may go through it later
                self._columns = torch.tensor(allowed, device=device)
        return self._columns

    def allowed(self, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Returns the tokens of the vocabulary, ascending.

        Raises:
            KbenchError: no word of it is one token.
        """
        if self._allowed is None or self._allowed[0] is not tokenizer:
            found = [self._single(self.vocabulary, tokenizer, lead) for lead in self._before]
            tokens = {token for several in found for token in several} - {None}
            if not tokens:
                raise KbenchError(
                    f"none of the {len(self.vocabulary)} words of the vocabulary is one token of "
                    "the backbone"
                )
            self._allowed = (tokenizer, sorted(token for token in tokens if token is not None))
            self._columns = None
        return self._allowed[1]


def _word(tokenizer: PreTrainedTokenizerFast, token: int) -> str:
    """What a token says, without the blank that it may begin with."""
    return str(tokenizer.decode([token])).strip()


def _single_tokens(
    words: Sequence[str], tokenizer: PreTrainedTokenizerFast, before: str = " "
) -> list[int | None]:
    """Returns the token that each word is behind a text; None if it is unknown or several.

    The tokenizer is shown the word with what stands before it, for that decides of the form.
    """
    bare = [word.strip() for word in words]
    if before == " ":
        behind = inner_tokens(tokenizer, bare)
    else:
        first, *pieces = bare_tokens(tokenizer, [before, *(before + word for word in bare)])
        behind = [ids[len(first) :] if ids[: len(first)] == first else [] for ids in pieces]
    return _alone(behind, tokenizer)


def _alone(
    several: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerFast
) -> list[int | None]:
    """The one token of each; None if it is unknown or there are several."""
    single = [ids[0] if len(ids) == 1 else None for ids in several]
    return [None if token == tokenizer.unk_token_id else token for token in single]
