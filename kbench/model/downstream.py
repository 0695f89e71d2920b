"""The downstream model: a network and a head, tuned, and frozen from then on."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kbench.encoding import Batch
from kbench.encoding.batch import TOKENS, picked, sorted_batches
from kbench.encoding.computing import asynchronous
from kbench.model.beginnings import read

if TYPE_CHECKING:
    from kbench.model.heads import Head
    from kbench.model.language_model import LanguageModel

__all__ = ["DownstreamModel"]


class DownstreamModel(nn.Module):
    """A network and a head: what a tuning makes for a task, frozen afterwards."""

    def __init__(self, lm: LanguageModel, head: Head) -> None:
        super().__init__()
        self.add_module("encoder", lm)  # the name under which weights are stored
        self.head = head

    @property
    def lm(self) -> LanguageModel:
        """The language model."""
        lm: LanguageModel = self.get_submodule("encoder")  # type: ignore[assignment]
        return lm

    def forward(self, batch: Batch) -> Tensor:
        """Returns the head's logits, ``[examples, classes]``."""
        if batch.choices is None:
            return self._read(batch)
        # Lengths are read on the host; a GPU would be waited for, and is no faster in pieces.
        whole = asynchronous(batch.ids.device) or batch.states is not None
        scores = self._read(batch) if whole else self._in_pieces(batch)
        return self.head.decide(scores, batch.choices)

    def answer(self, batch: Batch) -> Tensor:
        """Returns what predictions are made of: logits, or what the model says by itself."""
        answer: Tensor = self.head.answer(self.lm, batch) if self.head.speaks else self(batch)
        return answer

    def _in_pieces(self, batch: Batch) -> Tensor:
        """What the head says of each input, those of like length read together. ``[batch, …]``."""
        lengths = batch.mask.sum(1).numpy()
        order = [torch.from_numpy(rows) for rows in sorted_batches(lengths, len(lengths), TOKENS)]
        pieces = [self._read(picked(batch, rows, int(lengths[rows[0]]))) for rows in order]
        return torch.cat(pieces)[torch.argsort(torch.cat(order))]

    def _read(self, batch: Batch) -> Tensor:
        said = []
        for part in batch.parts:
            hidden = read(self.lm, part, self.head.reads(self.lm, part))
            said.append(self.head(self.lm, hidden, part))
        # Of candidates that another part has, a part says that they are impossible.
        logits: Tensor = reduce(torch.maximum, said)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Returns the task loss of a batch with targets, a scalar."""
        assert batch.targets is not None
        return self.head.loss(self(batch).float(), batch.targets)  # logits may be narrow
