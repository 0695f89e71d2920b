"""Heads of questions that a model answers in its own words, or by ranking what it might say.

**In its own words.** The text is gone on with greedily, up to so many tokens, the end of a text or
the first new line. To learn is to find the first acceptable answer likelier, and the end of the
text after it: ``− log p(answer | x)`` of all its tokens.

**Ranked.** The candidates of a question are those of its relation, each under several names. A
candidate is worth what its names are worth together, as a tree scores them
(:mod:`kbench.model.candidates`)::

    mass(c) = log Σ_names exp(score(name | x))

and to learn is to find the right one likelier than the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.data import Example, Label, Likelihoods, Prompt
from kbench.encoding import Continued, Inputs, Ranked, Tree
from kbench.errors import InputError
from kbench.model.candidates import AskedHead, compared, log_likelihoods, said_of_nothing
from kbench.model.generation import ends_of, go_on, in_words
from kbench.model.heads import Gold

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kbench.encoding import Batch, Demonstrations, Encoded
    from kbench.model.language_model import LanguageModel

__all__ = ["RankedHead", "SpokenHead"]


class SpokenHead(AskedHead):
    """The backbone's own head, which says the answer token by token.

    Args:
        prompt: how examples are put.
        most: tokens of an answer at most.
    """

    speaks = True

    def __init__(self, prompt: Prompt, most: int) -> None:
        super().__init__(prompt)
        self.most = most
        self._ends: Tensor | None = None

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        """Keeps every example.

        An answer that the model says as its tokenizer writes it, without case or with blanks
        around signs, is called by the name that the data have for it.

        Raises:
            InputError: an example has no answer.
        """
        answers, joined, tokens = self._spelled(examples, tokenizer)
        spelled = dict(zip(tokens, in_words(tokenizer, [*tokens.values()]), strict=True))
        labels: list[Label] = [*answers]
        return Gold(
            np.arange(len(labels)),
            labels,
            np.zeros(len(labels), dtype=np.int64),
            spelled=[
                {
                    spelled[answer, join]: answer
                    for answer in reversed(several)
                    if spelled[answer, join]
                }
                for several, join in zip(answers, joined, strict=True)
            ],
        )

    def answers(self, example: Example) -> tuple[str, ...]:
        """Returns the acceptable answers of an example, the one that is learnt first.

        Raises:
            InputError: it has none.
        """
        return _answers(example)

    def _spelled(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast
    ) -> tuple[list[tuple[str, ...]], list[bool], dict[tuple[str, bool], list[int]]]:
        """The acceptable answers of examples, whether they join its text, and their tokens."""
        answers = [self.answers(example) for example in examples]
        joined = [self.prompt.joins(example) for example in examples]
        tokens: dict[tuple[str, bool], list[int]] = {}
        for join in (False, True):
            asked = (own for own, each in zip(answers, joined, strict=True) if each == join)
            known = list(dict.fromkeys(answer for several in asked for answer in several))
            spelled = self.answer_tokens(tokenizer, known, joined=join)
            tokens |= {(each, join): ids for each, ids in zip(known, spelled, strict=True)}
        return answers, joined, tokens

    def grown(
        self, inputs: Inputs, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
    ) -> Encoded:
        """Returns texts with the answers that the model is to learn."""
        answers, joined, tokens = self._spelled(examples, tokenizer)
        trees: dict[tuple[int, ...], int] = {}
        which = [
            trees.setdefault(self._learnt([tokens[a, join] for a in own], tokenizer), len(trees))
            for own, join in zip(answers, joined, strict=True)
        ]
        return Continued(
            inputs, tuple(Tree.of([answer]) for answer in trees), np.array(which, dtype=np.int64)
        )

    def _learnt(
        self, answers: Sequence[list[int]], tokenizer: PreTrainedTokenizerFast
    ) -> tuple[int, ...]:
        """The tokens of the first answer that the tokenizer knows, and the end of the text."""
        whole = (own for own in answers if own and tokenizer.unk_token_id not in own)
        end = tokenizer.eos_token_id
        answer = [*next(whole, answers[0]), *([] if end is None else [int(end)])]
        return tuple(answer[: self.most])

    def answer(self, lm: LanguageModel, batch: Batch) -> Tensor:
        """Returns how likely each answer is, as a logarithm, and its tokens.

        Returns:
            ``[batch, 1 + most]``.
        """
        if self._ends is None or self._ends.device != batch.ids.device:
            self._ends = ends_of(lm)
        tokens, said = go_on(lm, batch, self.most, self._ends)
        return torch.cat([said[:, None], tokens.to(said.dtype)], 1)  # exact: below 2 ** 24

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns the log-probability of the answer that is to be learnt. ``[batch, 1]``."""
        return log_likelihoods(lm, hidden, batch)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -logits.mean()

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        """Returns what was said, and its probability, of what :meth:`answer` returns."""
        tokens = logits[:, 1:].round().long().tolist()
        words: list[Label] = [*in_words(tokenizer, tokens)]
        return words, logits[:, 0].exp().tolist()


_JOINED = "joined"
"""What is said of candidates that follow their texts without a blank."""


@dataclass(frozen=True)
class _Spelled:
    """The names of candidates that a tokenizer knows, those of one row behind another's.

    A row is a relation; where answers may follow without a blank, those spelled so have rows of
    their own behind all others.

    Attributes:
        trees: of the names of each row, in their order.
        starts: where the names of each row begin, and where the last end.
        names: the candidate that each is a name of, called by its first.
        places: of each among all of its row: the number of its candidate times the most names
            that one has, and its own.
        sizes: of each in tokens, characters and bytes.
    """

    trees: tuple[Tree, ...]
    starts: Tensor
    names: tuple[str, ...]
    places: Tensor
    sizes: Mapping[str, tuple[int, ...]]


@final
class RankedHead(AskedHead):
    """Candidates of a question's relation, of which each has several names.

    The logits are ``l(name | x)`` of the names, those of one candidate side by side.

    Args:
        prompt: how examples are put.
        most: tokens of a name at most; what is longer is cut.
        relations: the candidates of each relation, of each its names, the first of which it is
            called by.
        scorer: one of :data:`kbench.data.SCORERS`.
        joined: whether an answer may follow its text without a blank
            (:meth:`kbench.data.Prompt.joins`).
    """

    compares = True
    nothing: Tensor

    def __init__(
        self,
        prompt: Prompt,
        most: int,
        relations: Mapping[str, Sequence[Sequence[str]]],
        scorer: str,
        *,
        joined: bool = False,
    ) -> None:
        super().__init__(prompt)
        self.most = most
        if not any(relations.values()):
            raise InputError(
                "no question has candidates to rank: there is no answer in train; take "
                "answers=open, or give a train split"
            )
        self.relations = {name: tuple(map(tuple, own)) for name, own in relations.items() if own}
        self.scorer = scorer
        self.joined = joined
        forms = ((), (_JOINED,)) if joined else ((),)
        self._rows = [(name, *form) for form in forms for name in self.relations]
        self._number = {row: at for at, row in enumerate(self._rows)}
        self._wide = max(len(names) for own in self.relations.values() for names in own)
        self._long = max(map(len, self.relations.values()))
        self._spelled: _Spelled | None = None
        size = (len(self._rows), self._long * self._wide)
        self.register_buffer("nothing", torch.zeros(size))

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        """Keeps every example: one whose answer is no candidate cannot be right.

        The targets are the place of the right candidate, -1 where there is none, and the number of
        the row that its relation is spelled in. ``[examples, 2]``.

        Raises:
            InputError: an example has no answer.
        """
        labels: list[Label] = [_answers(example) for example in examples]
        targets = []
        for example, label in zip(examples, labels, strict=True):
            own = self.relations.get(example.relation, ())
            right = (at for at, names in enumerate(own) if names[0] in label)
            targets.append((next(right, -1), self._number.get(self._row(example), 0)))
        return Gold(
            np.arange(len(labels)),
            labels,
            np.array(targets, dtype=np.int64).reshape(-1, 2),
            counts={"answers_among_candidates": sum(place >= 0 for place, _ in targets)},
            ranked=True,
        )

    def put(self, example: Example) -> Example | None:
        return super().put(example) if example.relation in self.relations else None

    def grown(
        self, inputs: Inputs, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
    ) -> Encoded:
        """Returns texts with the candidates of their relations, which they are told by."""
        which = [self._number[self._row(example)] for example in examples]
        return Ranked(
            inputs,
            self._spell(tokenizer).trees,
            np.array(which, dtype=np.int64),
            names=tuple(self._rows),
        )

    def _row(self, example: Example) -> tuple[str, ...]:
        """What the candidates of an example are called by: its relation, and how they follow."""
        joins = self.joined and self.prompt.joins(example)
        return (example.relation, *((_JOINED,) if joins else ()))

    def _spell(self, tokenizer: PreTrainedTokenizerFast) -> _Spelled:
        """Spells the names of each relation's candidates, those of one candidate side by side.

        A name that the tokenizer does not know is left out, and so is a candidate without another.

        Raises:
            InputError: it knows no candidate of a relation.
        """
        trees, starts = list[Tree](), [0]
        names, places, sizes = list[str](), list[int](), list[tuple[int, int, int]]()
        for relation, *form in self._rows:
            several = self.relations[relation]
            whole = [
                (number * self._wide + at, own[0], name)
                for number, own in enumerate(several)
                for at, name in enumerate(own)
            ]
            tokens = self.answer_tokens(tokenizer, [name for *_, name in whole], joined=bool(form))
            known = [
                (ids[: self.most], each)
                for ids, each in zip(tokens, whole, strict=True)
                if ids and tokenizer.unk_token_id not in ids[: self.most]
            ]
            if not known:
                raise InputError(
                    f"the backbone's tokenizer knows none of the {len(several)} candidates of "
                    f"{relation or 'the questions'}, such as {several[0][0]!r}; expected one that "
                    "it knows: use another backbone"
                )
            trees.append(Tree.of([ids for ids, _ in known]))
            starts.append(starts[-1] + len(known))
            for ids, (place, candidate, name) in known:
                names.append(candidate)
                places.append(place)
                sizes.append((len(ids), len(name), len(name.encode())))
        of_each = dict(zip(("mean", "char", "byte"), zip(*sizes, strict=True), strict=True))
        self._spelled = _Spelled(
            tuple(trees), torch.tensor(starts), tuple(names), torch.tensor(places), of_each
        )
        return self._spelled

    def settle(self, lm: LanguageModel, shown: Demonstrations | None = None) -> None:
        """Measures what the model says of the names after the prompt without an example."""
        own = self._spell(lm.tokenizer)
        said = said_of_nothing(lm, self.prompt, own.trees, shown, chat=self.chat)
        for row, tree in enumerate(own.trees):
            places = own.places[own.starts[row] : own.starts[row + 1]].to(self.nothing.device)
            self.nothing[row, places] = said[row, : tree.candidates].to(self.nothing)

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns what the model says of the names. ``[batch, names]``."""
        return log_likelihoods(lm, hidden, batch)

    def masses(self, said: Tensor, which: Tensor) -> Tensor:
        """Returns what candidates are worth, each by all its names. ``[batch, candidates]``.

        Args:
            said: what the model says of names. ``[batch, names]``.
            which: the row of each. ``[batch]``.
        """
        own, device = self._known, said.device
        starts, places = own.starts.to(device), own.places.to(device)
        names = starts[which][:, None] + torch.arange(said.shape[1], device=device)
        absent = names >= starts[which + 1][:, None]
        names = names.clamp(max=len(places) - 1)
        sizes = torch.tensor(own.sizes.get(self.scorer, own.sizes["mean"]), device=device)[names]
        nothing = self.nothing[which].gather(1, places[names])
        score = compared(self.scorer, said.masked_fill(absent, 0), sizes, nothing)
        # Numbers, not infinities: the logarithm of a sum of nothing has no gradient.
        low = torch.finfo(score.dtype).min
        nowhere = self._long * self._wide
        whole = score.new_full((len(said), nowhere + 1), low)
        whole = whole.scatter(1, places[names].masked_fill(absent, nowhere), score)
        mass: Tensor = whole[:, :nowhere].view(-1, self._long, self._wide).logsumexp(-1)
        return mass.masked_fill(mass <= low / 2, -torch.inf)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.masses(logits, targets[:, 1]), targets[:, 0], ignore_index=-1)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        """Returns the ranking of each example's candidates, and the probability of the first."""
        return self.likelihoods(logits.float().cpu().numpy(), candidates).ranked()

    def likelihoods(
        self, said: NDArray[np.float32], candidates: Sequence[Sequence[str]] = ()
    ) -> Likelihoods:
        own = self._known
        starts = own.starts.tolist()
        which = np.full(said.shape, -1, dtype=np.int32)
        answers, nothing = [], []
        for at, (start, end) in enumerate(pairwise(starts)):
            places = own.places[start:end]
            answers.append(places // self._wide + at * self._long)
            nothing.append(self.nothing[at].cpu()[places])
        for row, own_row in enumerate(candidates):
            start, end = starts[self._number[tuple(own_row)] :][:2]
            which[row, : end - start] = np.arange(start, end)
        return Likelihoods(
            names=own.names,
            sizes=own.sizes,
            nothing=torch.cat(nothing).numpy(),
            said=said,
            which=which,
            scorer=self.scorer,
            thresholds={},
            answers=tuple(torch.cat(answers).tolist()),
        )

    @property
    def _known(self) -> _Spelled:
        """The names as the tokenizer of the texts last read spells them."""
        assert self._spelled is not None
        return self._spelled


def _answers(example: Example) -> tuple[str, ...]:
    """The acceptable answers of an example.

    Raises:
        InputError: there is none.
    """
    known = tuple(dict.fromkeys(answer for answer in example.labels if answer.strip()))
    if not known:
        raise InputError(
            f"example {example.id} has no acceptable answer; expected one with text: correct the "
            "data, or leave the question out"
        )
    return known
