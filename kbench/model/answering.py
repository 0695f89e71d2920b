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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.data import Example, Label, Prompt
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


@final
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
        answers, tokens = self._spelled(examples, tokenizer)
        spelled = dict(zip(tokens, in_words(tokenizer, [*tokens.values()]), strict=True))
        labels: list[Label] = [*answers]
        return Gold(
            np.arange(len(labels)),
            labels,
            np.zeros(len(labels), dtype=np.int64),
            spelled=[
                {spelled[answer]: answer for answer in reversed(several) if spelled[answer]}
                for several in answers
            ],
        )

    def _spelled(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast
    ) -> tuple[list[tuple[str, ...]], dict[str, list[int]]]:
        """The acceptable answers of examples, and the tokens of each answer."""
        answers = [_answers(example) for example in examples]
        known = list(dict.fromkeys(answer for several in answers for answer in several))
        return answers, dict(zip(known, self.answer_tokens(tokenizer, known), strict=True))

    def grown(
        self, inputs: Inputs, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
    ) -> Encoded:
        """Returns texts with the answers that the model is to learn."""
        answers, tokens = self._spelled(examples, tokenizer)
        trees: dict[tuple[int, ...], int] = {}
        which = [
            trees.setdefault(self._learnt([tokens[a] for a in several], tokenizer), len(trees))
            for several in answers
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


@final
class RankedHead(AskedHead):
    """Candidates of a question's relation, of which each has several names.

    Args:
        prompt: how examples are put.
        most: tokens of a name at most; what is longer is cut.
        relations: the candidates of each relation, of each its names, the first of which it is
            called by.
        scorer: one of :data:`kbench.model.candidates.SCORERS`.
    """

    nothing: Tensor

    def __init__(
        self,
        prompt: Prompt,
        most: int,
        relations: Mapping[str, Sequence[Sequence[str]]],
        scorer: str,
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
        self._number = {name: at for at, name in enumerate(self.relations)}
        self._wide = max(len(names) for own in self.relations.values() for names in own)
        self._long = max(map(len, self.relations.values()))
        self._sizes = {"char": self._filled(len), "byte": self._filled(lambda n: len(n.encode()))}
        size = (len(self.relations), self._long * self._wide)
        self.register_buffer("nothing", torch.zeros(size))

    def _filled(self, measure: Callable[[str], int]) -> Tensor:
        """What is measured of each name, 1 where there is none. ``[relations, names]``."""
        sizes = torch.ones(len(self.relations), self._long, self._wide)
        for at, own in enumerate(self.relations.values()):
            for number, names in enumerate(own):
                sizes[at, number, : len(names)] = torch.tensor([measure(name) for name in names])
        return sizes.flatten(1)

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        """Keeps every example: one whose answer is no candidate cannot be right.

        Raises:
            InputError: an example has no answer.
        """
        labels: list[Label] = [_answers(example) for example in examples]
        targets = []
        for example, label in zip(examples, labels, strict=True):
            own = self.relations.get(example.relation, ())
            right = (at for at, names in enumerate(own) if names[0] in label)
            targets.append(next(right, -1))
        counts = {"answers_among_candidates": sum(target >= 0 for target in targets)}
        return Gold(
            np.arange(len(labels)),
            labels,
            np.array(targets, dtype=np.int64),
            counts=counts,
            ranked=True,
        )

    def put(self, example: Example) -> Example | None:
        return super().put(example) if example.relation in self.relations else None

    def grown(
        self, inputs: Inputs, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
    ) -> Encoded:
        """Returns texts with the candidates of their relations."""
        names = tuple(tuple(own[0] for own in several) for several in self.relations.values())
        which = [self._number[example.relation] for example in examples]
        return Ranked(inputs, self._trees(tokenizer), np.array(which, dtype=np.int64), names=names)

    def _trees(self, tokenizer: PreTrainedTokenizerFast) -> tuple[Tree, ...]:
        """The names of each relation's candidates, those of one candidate side by side.

        A name that the tokenizer does not know is left out, and so is a candidate without another.

        Raises:
            InputError: it knows no candidate of a relation.
        """
        trees = []
        for relation, several in self.relations.items():
            names = {
                number * self._wide + at: name
                for number, own in enumerate(several)
                for at, name in enumerate(own)
            }
            tokens = (ids[: self.most] for ids in self.answer_tokens(tokenizer, [*names.values()]))
            spelled = {
                place: ids
                for place, ids in zip(names, tokens, strict=True)
                if ids and tokenizer.unk_token_id not in ids
            }
            if not spelled:
                raise InputError(
                    f"the backbone's tokenizer knows none of the {len(several)} candidates of "
                    f"{relation or 'the questions'}, such as {several[0][0]!r}; expected one that "
                    "it knows: use another backbone"
                )
            tree = Tree.of([*spelled.values()])
            owners = np.array([*spelled], dtype=np.int64)[tree.owners]
            trees.append(replace(tree, owners=owners, candidates=self._long * self._wide))
        return tuple(trees)

    def settle(self, lm: LanguageModel, shown: Demonstrations | None = None) -> None:
        """Measures what the model says of the names after the prompt without an example."""
        if self.scorer == "pmi":
            said = said_of_nothing(
                lm, self.prompt, self._trees(lm.tokenizer), shown, chat=self.chat
            )
            self.nothing.copy_(said.masked_fill(said.isinf(), 0))

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns the mass of the candidates. ``[batch, candidates]``."""
        tree = batch.tree
        assert tree is not None
        said = log_likelihoods(lm, hidden, batch)
        which = tree.which if tree.which is not None else torch.zeros_like(said[:, 0]).long()
        lengths = tree.lengths
        absent = lengths == 0
        sizes = self._sizes.get(self.scorer)
        sizes = lengths.clamp(min=1) if sizes is None else sizes.to(said.device)[which]
        # Numbers, not infinities: the logarithm of a sum of nothing has no gradient.
        low = torch.finfo(said.dtype).min
        score = compared(self.scorer, said.masked_fill(absent, 0), sizes, self.nothing[which])
        shape = (len(said), self._long, self._wide)
        mass = score.masked_fill(absent, low).view(shape).logsumexp(-1)
        return mass.masked_fill(absent.view(shape).all(-1), -torch.inf)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, ignore_index=-1)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        """Returns the ranking of each example's candidates, and the probability of the first."""
        scores = logits.softmax(-1).amax(-1).tolist()
        order = logits.argsort(dim=-1, descending=True, stable=True).tolist()
        some = logits.isfinite().sum(-1).tolist()  # the others are no candidates, or not known
        rankings: list[Label] = [
            tuple(own[at] for at in ranks[:count])
            for own, ranks, count in zip(candidates, order, some, strict=True)
        ]
        return rankings, scores


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
