"""The texts of entities as a network reads them by themselves, for what is made of their states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import final

import numpy as np
import torch
from torch import Tensor

from kbench.data import Example
from kbench.encoding import Batch, Inputs, Layout, Passage, TokenKind, affixes, encode
from kbench.knowledge import KnowledgeBase
from kbench.model import LanguageModel
from kbench_baselines.retrieval import Told

__all__ = ["EntityTexts"]

_TOGETHER = 16
"""Texts that are read at once."""


@final
class EntityTexts:
    """The texts of entities, each read apart from others.

    Args:
        lm: the network; one that reads from left to right reads what begins any text before each.
        told: says what is told of an entity.
        knowledge: whose they are.
        room: tokens of a text at most; beside a decoder no more than half its window.

    Attributes:
        first: tokens that begin any text of a network that reads from left to right; else 0.
    """

    def __init__(self, lm: LanguageModel, told: Told, knowledge: KnowledgeBase, room: int) -> None:
        self._lm, self._told, self._knowledge, self._room = lm, told, knowledge, room
        self.first = len(affixes(lm.tokenizer).before) if lm.left_to_right else 0

    def read(
        self, rows: Sequence[int], states: Callable[[Batch], Tensor]
    ) -> Iterator[tuple[int, Tensor, int, int]]:
        """Reads texts, those of like length together.

        Args:
            rows: of entities.
            states: what is made of a batch of texts; of each its own. ``[texts, …]``.

        Yields:
            The place in ``rows``, what was made of the text, the first of its tokens and the one
            after the last: 0, 0 of a text without a token.
        """
        if not rows:
            return
        inputs, spans = self._encoded(rows)
        order = np.argsort(inputs.lengths, kind="stable")  # so that padding is least
        device = self._lm.word_embeddings.weight.device
        for start in range(0, len(order), _TOGETHER):
            some = order[start : start + _TOGETHER]
            with torch.inference_mode(False), torch.no_grad():
                made = states(inputs.collate(some).to(device))
            for at, own in zip(some.tolist(), made, strict=True):
                yield at, own, *spans[at]

    def _encoded(self, rows: Sequence[int]) -> tuple[Inputs, list[tuple[int, int]]]:
        """The texts, and where each one's own tokens are."""
        lm, told, knowledge = self._lm, self._told, self._knowledge
        texts = [knowledge.shown(row, told.passages(knowledge, row)) for row in rows]
        nobody: list[tuple[int, ...]] = [()] * len(rows)
        if lm.left_to_right:
            room = max(1, self.first) + min(self._room, lm.max_length // 2)
            layout = Layout({}, left_to_right=True, room=room)
            empty = [Example("", "", (), "", blank=0)] * len(rows)
            brought = [[Passage(text) for text in several] for several in texts]
            inputs = encode(lm.tokenizer, empty, nobody, layout, brought)
        else:
            special = affixes(lm.tokenizer)
            most = self._room + len(special.before) + len(special.after)
            whole = [Example("", " ".join(several), (), "") for several in texts]
            layout = Layout({}, max_length=min(most, lm.max_length))
            inputs = encode(lm.tokenizer, whole, nobody, layout)
        kind = TokenKind.PASSAGE if lm.left_to_right else TokenKind.TEXT
        spans = []
        for start, end in pairwise(inputs.bounds.tolist()):
            own = np.flatnonzero(inputs.kinds[start:end] == kind)
            spans.append((int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0))
        return inputs, spans
