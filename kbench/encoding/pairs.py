"""Texts beside each other: every pair of texts is an input, and several pairs make an example.

An example with candidates (N-way K-shot) is compared with every text that supports one of them,
``[CLS] text [SEP] support [SEP]`` (BERT-PAIR; Gao et al., "FewRel 2.0", EMNLP 2019). Each text is
tokenized once, in however many episodes it occurs; a batch of pairs is a few gathers. All pairs
of all episodes form one list, so that pairs of like length share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from kbench.data import Example
from kbench.encoding.batch import Batch, Choices, ragged
from kbench.encoding.inputs import Inputs, TokenKind
from kbench.encoding.tokens import affixes, pair_affixes
from kbench.errors import Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "Comparisons",
    "Pairs",
    "compared",
    "room_of_text",
    "supports",
]


@dataclass(frozen=True)
class Comparisons:
    """Which texts are compared.

    Attributes:
        texts: every text once.
        left: number of the example's own text. ``[pairs]``.
        right: number of the support's. ``[pairs]``.
        candidates: number of the support's candidate within its example. ``[pairs]``.
        bounds: ``[examples + 1]``, into the pairs.
        names: labels of the candidates of each example.
    """

    texts: list[Example]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    candidates: NDArray[np.int64]
    bounds: NDArray[np.int64]
    names: list[tuple[str, ...]]

    def texts_of(self, example: int) -> list[int]:
        """Returns the numbers of an example's text and of its supports."""
        start, end = self.bounds[example : example + 2]
        return [int(self.left[start]), *self.right[start:end].tolist()]


def compared(examples: Sequence[Example]) -> Comparisons:
    """Lists the pairs of examples with candidates, in the order of their candidates."""
    numbers: dict[tuple[object, ...], int] = {}
    texts: list[Example] = []

    def number(example: Example) -> int:
        place = numbers.setdefault((example.text, example.mentions), len(texts))
        if place == len(texts):
            texts.append(example)
        return place

    rows: list[tuple[int, int, int]] = []
    bounds = [0]
    for example in examples:
        own = number(example)
        for place, candidate in enumerate(example.candidates):
            rows += [(own, number(support), place) for support in candidate.support]
        bounds.append(len(rows))
    left, right, candidates = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    names = [tuple(candidate.label for candidate in example.candidates) for example in examples]
    return Comparisons(texts, left, right, candidates, np.array(bounds, dtype=np.int64), names)


def supports(of: Comparisons) -> tuple[list[tuple[int, str]], list[list[int]]]:
    """Lists the supports of examples, each once, where they are shown and not compared.

    Returns:
        the number of the text of each support and the name of its candidate; and which of them each
        example has: one of each candidate, then a second of each.
    """
    numbers: dict[tuple[int, str], int] = {}
    own = []
    for names, (start, end) in zip(of.names, pairwise(of.bounds.tolist()), strict=True):
        places = of.candidates[start:end].tolist()
        turns = [places[:at].count(place) for at, place in enumerate(places)]
        order = sorted(range(len(places)), key=lambda at: (turns[at], places[at]))
        texts = of.right[start:end].tolist()
        keys = [(texts[at], names[places[at]]) for at in order]
        own.append([numbers.setdefault(key, len(numbers)) for key in keys])
    return [*numbers], own


def room_of_text(tokenizer: PreTrainedTokenizerFast, max_length: int) -> int:
    """Returns how long a text may be, its own specials included, so that any pair fits."""
    one, two = affixes(tokenizer), pair_affixes(tokenizer)
    free = max_length - len(one.before) - len(two.between) - len(two.after)
    return free // 2 + len(one.before) + len(one.after)


@dataclass(frozen=True)
class Pairs:
    """Encoded comparisons.

    Attributes:
        texts: the texts, without specials around them.
        of: which of them are compared.
        before: specials before the first text.
        between: specials between the two.
        after: specials after the second.
    """

    texts: Inputs
    of: Comparisons
    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def encoded(cls, tokenizer: PreTrainedTokenizerFast, inputs: Inputs, of: Comparisons) -> Pairs:
        """Makes pairs of texts that were encoded each for itself.

        Raises:
            Unsupported: facts hang at mentions (a visible matrix), which is defined for one text.
        """
        if inputs.branches is not None:
            raise Unsupported("facts that hang at mentions are defined for one text, not for pairs")
        one, two = affixes(tokenizer), pair_affixes(tokenizer)
        bare = _bare(inputs, len(one.before), len(one.after), len(two.after))
        return cls(bare, of, one.before, two.between, two.after)

    def __len__(self) -> int:
        return len(self.of.bounds) - 1

    @property
    def ways(self) -> int:
        """Candidates of the example that has most."""
        return max(map(len, self.of.names), default=0)

    @cached_property
    def sequence_lengths(self) -> NDArray[np.int64]:
        """Tokens of each pair, specials included. ``[pairs]``."""
        special = len(self.before) + len(self.between) + len(self.after)
        lengths = self.texts.lengths
        return lengths[self.of.left] + lengths[self.of.right] + special

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of all pairs of each example. ``[examples]``."""
        total = np.concatenate([[0], np.cumsum(self.sequence_lengths)])
        return np.diff(total[self.of.bounds])

    @property
    def beginnings(self) -> None:
        """Pairs begin with texts of their own."""
        return

    @property
    def slot_rows(self) -> NDArray[np.int64]:
        """Knowledge-base row of each slot of the texts. ``[slots]``."""
        return self.texts.slot_rows

    @property
    def shortened(self) -> int:
        """Texts that lost a part."""
        return self.texts.shortened

    @property
    def unslotted(self) -> int:
        """Context mentions that lost their slot because their text was full."""
        return self.texts.unslotted

    @property
    def words(self) -> Mapping[str, int]:
        """How many tokens of the texts of all pairs stand for words, and for unknown ones."""
        read = np.concatenate([self.of.left, self.of.right])
        return self.texts.words_of(np.bincount(read, minlength=len(self.texts)))

    @property
    def candidates(self) -> Sequence[tuple[str, ...]]:
        """Labels that each example chooses between."""
        return self.of.names

    def choices(self, chosen: NDArray[np.int64]) -> Choices:
        """Returns what the pairs of chosen examples decide between."""
        return self._chosen(chosen)[1]

    def _chosen(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], Choices]:
        """The pairs of chosen examples, and what they decide between."""
        pairs, owner = ragged(self.of.bounds, chosen)
        cells = torch.from_numpy(owner * self.ways + self.of.candidates[pairs])
        return pairs, Choices(cells, len(chosen), self.ways)

    def collate(
        self, chosen: NDArray[np.int64], targets: NDArray[np.generic] | None = None
    ) -> Batch:
        """Gathers all pairs of examples into a batch, and what those decide.

        Args:
            chosen: some of the examples. ``[batch]``.
            targets: of all examples, if the batch is to have those of the chosen ones.
        """
        pairs, choices = self._chosen(chosen)
        wanted = None if targets is None else torch.from_numpy(targets[chosen])
        return replace(self.collate_sequences(pairs), choices=choices, targets=wanted)

    def collate_sequences(self, chosen: NDArray[np.int64]) -> Batch:
        """Gathers pairs into a batch padded to its own longest; the second text is segment 1."""
        texts, left, right = self.texts, self.of.left[chosen], self.of.right[chosen]
        rows, lengths = np.arange(len(chosen)), self.sequence_lengths[chosen]
        width = int(lengths.max())
        first = np.full(len(chosen), len(self.before))
        middle = first + texts.lengths[left]
        second = middle + len(self.between)
        steps = np.arange(width)
        mask = steps < lengths[:, None]
        ids = np.full((len(chosen), width), texts.pad)
        special = (
            (self.before, np.zeros_like(first)),
            (self.between, middle),
            (self.after, second + texts.lengths[right]),
        )
        for tokens, start in special:
            ids[rows[:, None], start[:, None] + np.arange(len(tokens))] = tokens
        slots, spans = [], []
        for numbers, start in ((left, first), (right, second)):
            at, owner = ragged(texts.bounds, numbers)
            within = at - texts.bounds[numbers][owner]
            ids[owner, start[owner] + within] = texts.ids[at]
            slots.append(_moved(texts.slot_bounds, numbers, rows * width + start))
            spans.append(_moved(texts.span_bounds, numbers, rows * width + start))
        slot, slot_shift, _ = map(np.concatenate, zip(*slots, strict=True))
        span, span_shift, holder = map(np.concatenate, zip(*spans, strict=True))
        full = texts.spans[span, 1] > 0
        order = np.argsort(holder[full], kind="stable")
        span, span_shift, holder = span[full][order], span_shift[full][order], holder[full][order]
        return Batch(
            ids=torch.from_numpy(ids),
            mask=torch.from_numpy(mask.astype(np.int64)),
            slot_index=torch.from_numpy(slot_shift + texts.slots[slot]),
            slot_rows=torch.from_numpy(texts.slot_rows[slot]),
            mentions=torch.from_numpy(span_shift[:, None] + texts.spans[span]),
            mention_rows=torch.from_numpy(texts.span_rows[span]),
            mention_owners=torch.from_numpy(holder),
            blank_index=torch.empty(0, dtype=torch.int64),
            examples=torch.from_numpy(chosen),
            segments=torch.from_numpy(((steps >= second[:, None]) & mask).astype(np.int64)),
            slots_each=texts.slots_each,
        )


def _bare(inputs: Inputs, before: int, after: int, after_passages: int) -> Inputs:
    """Takes the specials around each text away; what stands between text and passages stays."""
    told = (
        np.diff(np.concatenate([[0], np.cumsum(inputs.kinds == TokenKind.PASSAGE)])[inputs.bounds])
        > 0
    )
    last = np.where(told, after_passages, after)
    keep = np.ones(len(inputs.ids), dtype=bool)
    for at in range(before):
        keep[inputs.bounds[:-1] + at] = False
    for at in range(1, max(after, after_passages) + 1):
        keep[(inputs.bounds[1:] - at)[last >= at]] = False
    lengths = inputs.lengths - before - last
    return replace(
        inputs,
        ids=inputs.ids[keep],
        kinds=inputs.kinds[keep],
        bounds=np.concatenate([[0], np.cumsum(lengths)]),
        slots=inputs.slots - before,
        spans=np.maximum(inputs.spans - before, 0),  # an empty span is 0, 0 and stays so
        segments=None,
    )


def _moved(
    bounds: NDArray[np.int64], numbers: NDArray[np.int64], start: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The items of texts, where each one's text begins in the flattened batch, and its pair."""
    items, owner = ragged(bounds, numbers)
    return items, start[owner], owner
