"""The head of relations that are told by a statement each, filled with the names of an example.

Which sentence goes on best after the text: "Ann was born in Rome." or "Ann lives in Rome."? With
templates as the options a model says more of relations than with their names (Zhang et al.,
"Aligning Instruction Tasks Unlocks Large Language Models as Zero-Shot Relation Extractors", ACL
Findings 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.data import NONE_OF_THE_ABOVE, Example, Label, Likelihoods, Prompt
from kbench.encoding import Inputs, Layout, Ranked, Tree, encode, inner_tokens, joined_tokens
from kbench.encoding.trees import behind_nothing
from kbench.errors import InputError, UsageError
from kbench.model.candidates import AskedHead, best, log_likelihoods, numbered
from kbench.model.freezing import dropout
from kbench.model.heads import Gold

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kbench.encoding import Batch, Encoded
    from kbench.model.language_model import LanguageModel

__all__ = ["StatementHead"]

_SCORERS = ("sum", "pmi")


@final
class StatementHead(AskedHead):
    """The label whose statement scores highest after the text; the first of several.

    ``pmi`` is ``l(statement | text) − l(statement)``: the names, which all statements of an example
    share, have their say taken out. It is read of each example, and without the plug, whatever that
    does, so that rows of a grid differ in the first number alone.

    The logits are both numbers of each candidate, one behind the other.

    Args:
        labels: of the task, or of all episodes.
        prompt: with a statement of each.
        scorer: ``sum`` or ``pmi``. Statements of one example differ in length by their words alone.
        none: whether an example with candidates may be of none of them.

    Raises:
        UsageError: the scorer is another.
        InputError: a label has no statement.
    """

    keeps_all = True
    compares = True
    chats = False

    def __init__(
        self, labels: Sequence[str], prompt: Prompt, scorer: str, *, none: bool = False
    ) -> None:
        super().__init__(prompt)
        if scorer not in _SCORERS:
            raise UsageError(
                f"scorer is {scorer}, and relations are told by statements here, which are other "
                f"texts in each example; expected {' or '.join(_SCORERS)}"
            )
        self.labels = (*labels, NONE_OF_THE_ABOVE) if none else tuple(labels)
        missing = [label for label in self.labels if label not in prompt.statements]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(self.labels)} labels have no statement, such as "
                f"{missing[0]!r}; expected one of each: give them in the task's prompt, "
                "Prompt(statements=…)"
            )
        self.scorer = scorer
        self._none = none
        self._number = {label: at for at, label in enumerate(self.labels)}

    def gold(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> Gold:
        """Keeps every example; its target is the place of its label among its candidates."""
        places = []
        for example in examples:
            own = self._names(example)
            places.append(own.index(str(example.label)) if example.label in own else -1)
        labels: list[Label] = [str(example.label) for example in examples]
        return Gold(np.arange(len(labels)), labels, np.array(places, dtype=np.int64))

    def _names(self, example: Example) -> tuple[str, ...]:
        if not example.candidates:
            return self.labels
        own = tuple(candidate.label for candidate in example.candidates)
        return (*own, NONE_OF_THE_ABOVE) if self._none else own

    def grown(
        self, inputs: Inputs, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]
    ) -> Encoded:
        """Returns texts with the statements of their candidates, filled with their names."""
        names = tuple(self._names(example) for example in examples)
        trees = _Statements(self.prompt, tokenizer, examples, names)
        return Ranked(inputs, trees, np.arange(len(examples)), names=names)

    def forward(self, lm: LanguageModel, hidden: Tensor, batch: Batch) -> Tensor:
        """Returns what the model says of statements after the text and after nothing.

        ``[batch, 2 * candidates]``
        """
        said = log_likelihoods(lm, hidden, batch)
        nothing = torch.zeros_like(said)
        if self.scorer == "pmi" or not said.requires_grad:
            bare = behind_nothing(batch, _start(lm.tokenizer))
            assert bare.tree is not None
            with lm.bare(), dropout(lm, None), torch.no_grad():
                nothing = log_likelihoods(lm, lm(bare, bare.tree.states), bare)
        return torch.stack([said, nothing], -1).flatten(1)

    def scored(self, logits: Tensor) -> Tensor:
        """Returns what statements are compared by. ``[examples, candidates]``."""
        said, nothing = logits[:, ::2], logits[:, 1::2]
        if self.scorer == "sum":
            return said
        return said - nothing.masked_fill(said.isneginf(), 0)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.scored(logits), targets, ignore_index=-1)

    def predict(
        self,
        logits: Tensor,
        tokenizer: PreTrainedTokenizerFast,
        candidates: Sequence[Sequence[str]] = (),
    ) -> tuple[list[Label], list[float]]:
        """Returns the candidate of the best statement of each example."""
        places, sure = best(self.scored(logits))
        return [own[at] for own, at in zip(candidates, places, strict=True)], sure

    def likelihoods(
        self, said: NDArray[np.float32], candidates: Sequence[Sequence[str]] = ()
    ) -> Likelihoods:
        which = numbered(self._number, candidates, said.shape[1] // 2).astype(np.int32)
        nothing = np.where(which < 0, np.float32(0), said[:, 1::2])
        everywhere = np.array_equal(which, np.tile(np.arange(len(self.labels)), (len(which), 1)))
        return Likelihoods(
            names=self.labels,
            sizes={},
            nothing=nothing,
            said=said[:, ::2].copy(),
            which=None if everywhere else which,
            scorer=self.scorer,
            thresholds={},
        )


def _start(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What a text begins with that is empty."""
    nothing = Example("nothing", "", (), "", blank=0)
    start: list[int] = encode(
        tokenizer, [nothing], [()], Layout({}, left_to_right=True)
    ).ids.tolist()
    return start


@final
class _Statements(Sequence[Tree]):
    """The trees of examples, each made where it is asked for: all together would fill the memory.

    Args:
        prompt: with the statements.
        tokenizer: spells them.
        examples: whose they are.
        names: the candidates of each.
    """

    def __init__(
        self,
        prompt: Prompt,
        tokenizer: PreTrainedTokenizerFast,
        examples: Sequence[Example],
        names: Sequence[Sequence[str]],
    ) -> None:
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._examples = examples
        self._names = names

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, at: int) -> Tree: ...

    @overload
    def __getitem__(self, at: slice) -> list[Tree]: ...

    def __getitem__(self, at: int | slice) -> Tree | list[Tree]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        example = self._examples[at]
        said = [self._prompt.answer(example, name) for name in self._names[at]]
        spelling = joined_tokens if self._prompt.joins(example) else inner_tokens
        spelled = spelling(self._tokenizer, said)
        for text, tokens in zip(said, spelled, strict=True):
            if not tokens:
                raise InputError(
                    f"example {example.id}: the backbone's tokenizer knows nothing of the "
                    f"statement {text!r}; expected words that it knows"
                )
        return Tree.of(spelled)

    def __iter__(self) -> Iterator[Tree]:
        return (self[at] for at in range(len(self)))
