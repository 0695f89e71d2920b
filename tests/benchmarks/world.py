"""Texts of about 25 words with linked mentions, and a random BERT to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Examples, Inputs, Layout, encode
from kbench.encoding.batch import sorted_batches
from kbench.knowledge import Bundle, Entity, write_bundle, write_vectors
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.heads import RelationHead
from kbench.model.huggingface import load_folder

DIMENSION = 128
CARD = {"name": "bench", "version": "1", "licence": "none", "source": "test"}
WORDS = ("red", "green", "blue", "we", "saw", "today", "near", "it", "rained", "color", "of")
LABELS = tuple(f"relation {number}" for number in range(20))


def texts(count: int, *, words: int = 25, seed: int = 0) -> list[Example]:
    """Returns examples whose lengths spread around ``words``, each with a head and a tail."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        size = int(np.clip(rng.gamma(4.0, words / 4.0), 6, 2 * words))
        chosen = [str(word) for word in rng.choice(WORDS, size=size)]
        head, tail = sorted(rng.choice(size, size=2, replace=False).tolist())
        chosen[head], chosen[tail] = "kevo", "balimo"
        text = " ".join(chosen)
        mentions = [
            Mention(start, start + len(name), f"Q{int(rng.integers(1000))}", role)
            for name, role in (("kevo", Role.HEAD), ("balimo", Role.TAIL))
            if (start := text.index(name)) >= 0
        ]
        label = LABELS[int(rng.integers(len(LABELS)))]
        made.append(Example(str(number), text, tuple(mentions), label))
    return made


def knowledge(folder: Path, entities: int = 1000) -> Bundle:
    """Writes a knowledge base of random vectors."""
    write_bundle(folder, CARD, [Entity(f"Q{number}") for number in range(entities)])
    vectors = np.random.default_rng(0).standard_normal((entities, DIMENSION)).astype(np.float32)
    return write_vectors(folder, vectors, {"model": "random"})


@dataclass(frozen=True)
class World:
    """A model and a data set.

    Attributes:
        model: the network with a head of 20 relations.
        inputs: the encoded texts, without slots.
        targets: of the head. ``[examples]``.
    """

    model: DownstreamModel
    inputs: Inputs
    targets: np.ndarray

    @classmethod
    def of(cls, backbone: Path, examples: Sequence[Example]) -> World:
        """Encodes examples for a backbone."""
        torch.manual_seed(0)
        lm: LanguageModel = load_folder(backbone)
        model = DownstreamModel(lm, RelationHead(lm.width, LABELS)).eval()
        rows = [[-1] * len(example.mentions) for example in examples]
        inputs = encode(lm.tokenizer, examples, rows, Layout(markers={}, max_length=64))
        return cls(model, inputs, model.head.gold(examples, lm.tokenizer).targets)

    @property
    def data(self) -> Examples:
        """What a tuning trains on."""
        return Examples(self.inputs, self.targets)

    def tensors(self, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and targets of a padded batch, made with nothing of the engine."""
        lengths = np.diff(self.inputs.bounds)[chosen]
        ids = np.full((len(chosen), int(lengths.max())), self.inputs.pad)
        for row, (number, length) in enumerate(zip(chosen, lengths, strict=True)):
            start = self.inputs.bounds[number]
            ids[row, :length] = self.inputs.ids[start : start + length]
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        found = (ids, mask.astype(np.int64), self.targets[chosen])
        return tuple(torch.from_numpy(array) for array in found)  # type: ignore[return-value]

    def sorted_tensors(self, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The whole data set as batches, sorted by length, longest first."""
        return [self.tensors(chosen) for chosen in sorted_batches(self.inputs.lengths, size)]

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The model's logits by the library's own forward pass."""
        head = self.model.head
        assert isinstance(head, RelationHead)
        states = self.model.lm.base(input_ids=ids, attention_mask=mask).last_hidden_state
        found: Tensor = head.linear(head.dropout(self.model.lm.pool(states, mask)))
        return found
