"""Mention-masked language modelling: the general objective of map-tuning.

From each sentence with linked mentions come several instances. With head and tail mentions they
are three: both masked, the head only, the tail only. With more mentions they are all masked and
each one alone; with one, that one. Masking replaces every wordpiece of a mention by ``[MASK]``
(no 80/10/10 split); a mention without a vector is masked too, it just has no slot. A sentence
in which no mention has a vector, or which is too long, is dropped, never truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.data import Example
from kbench.encoding import Batch, Inputs, Layout, TokenKind, encode, ragged
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, link
from kbench.model import Encoder

__all__ = [
    "Corpus",
    "MaskedMentions",
    "check_masked_lm",
    "linked_corpus",
    "masked_mentions",
    "mention_loss",
]


@dataclass(frozen=True)
class Corpus:
    """The sentences of a knowledge base that link an entity with a vector, encoded.

    Attributes:
        inputs: those sentences, each once.
        usable: numbers of those that are short enough, rising. ``[usable]``.
        mask_id: the tokenizer's ``[MASK]``.
        dropped: all sentences, those without a vector, and those too long.
    """

    inputs: Inputs
    usable: NDArray[np.int64]
    mask_id: int
    dropped: dict[str, int]


def check_masked_lm(encoder: Encoder) -> None:
    """Refuses a backbone that is no masked language model.

    Raises:
        Unsupported: it has no masked-LM head, or no ``[MASK]``.
    """
    if not encoder.has_lm_head or encoder.tokenizer.mask_token_id is None:
        raise Unsupported("masked language modelling needs a backbone with a masked-LM head")


def linked_corpus(
    encoder: Encoder, knowledge: KnowledgeBase, slot: str | None, max_length: int
) -> Corpus:
    """Links and encodes the sentences of a knowledge base for a masked-LM objective.

    Args:
        encoder: its tokenizer is used; it must have a masked-LM head.
        knowledge: gives sentences and says which entities have vectors.
        slot: the method's slot template, or None.
        max_length: longest usable input in tokens, specials, slots and slashes included.

    Raises:
        Unsupported: the backbone has no masked-LM head, or no sentence is usable.
    """
    tokenizer = encoder.tokenizer
    check_masked_lm(encoder)
    corpus = [
        Example(str(number), sentence.text, sentence.mentions, "")
        for number, sentence in enumerate(knowledge.sentences)
    ]
    links = link(corpus, knowledge)
    linked = [at for at, rows in enumerate(links.rows) if max(rows, default=-1) >= 0]
    layout = Layout(markers={}, slot=slot, max_length=max_length, truncate=False)
    inputs = encode(
        tokenizer, [corpus[at] for at in linked], [links.rows[at] for at in linked], layout
    )
    fits = inputs.lengths <= max_length
    if not fits.any():
        raise Unsupported(
            f"knowledge base {knowledge.name} has no usable sentence: of {len(corpus)} sentences "
            f"{len(linked)} link an entity with a vector"
        )
    dropped = {
        "corpus_sentences": len(corpus),
        "corpus_sentences_unlinked": len(corpus) - len(linked),
        "corpus_sentences_too_long": int((~fits).sum()),
    }
    return Corpus(inputs, np.flatnonzero(fits), int(tokenizer.mask_token_id), dropped)


@dataclass(frozen=True)
class MaskedMentions:
    """Instances of mention-masked language modelling, as training data.

    Attributes:
        inputs: the kept sentences, each once.
        sentence: of each instance. ``[instances]``.
        masked: positions masked within the sentence, instance by instance. ``[masked]``.
        masked_bounds: ``[instances + 1]``, into ``masked``.
        mask_id: the tokenizer's ``[MASK]``.
        dropped: sentences without a vector, and sentences too long.
    """

    inputs: Inputs
    sentence: NDArray[np.int64]
    masked: NDArray[np.int64]
    masked_bounds: NDArray[np.int64]
    mask_id: int
    dropped: dict[str, int]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each instance. ``[instances]``."""
        return self.inputs.lengths[self.sentence]

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch whose blanks are the masked positions, and targets the hidden tokens."""
        batch = self.inputs.collate(self.sentence[chosen])
        items, owner = ragged(self.masked_bounds, chosen)
        places = torch.from_numpy(owner * batch.ids.shape[1] + self.masked[items])
        ids = batch.ids.flatten()
        targets = ids[places]
        ids[places] = self.mask_id
        return replace(batch, ids=ids.view_as(batch.ids), blank_index=places, targets=targets)


def mention_loss(encoder: Encoder, batch: Batch) -> Tensor:
    """Returns the mean cross-entropy of the frozen masked-LM head at masked positions, a scalar."""
    assert batch.targets is not None
    hidden = encoder(batch, batch.blank_index).flatten(0, 1)[batch.blank_index]
    return F.cross_entropy(encoder.predict_tokens(hidden).float(), batch.targets)


def masked_mentions(
    encoder: Encoder, knowledge: KnowledgeBase, slot: str | None, max_length: int
) -> MaskedMentions:
    """Makes the instances of a knowledge base's corpus.

    Args:
        encoder: its tokenizer and masked-LM head are used.
        knowledge: gives sentences and says which entities have vectors.
        slot: the method's slot template.
        max_length: longest kept input in tokens, specials, slots and slashes included.

    Raises:
        Unsupported: the backbone has no masked-LM head, or no sentence is usable.
    """
    corpus = linked_corpus(encoder, knowledge, slot, max_length)
    instances = [
        (sentence, positions)
        for sentence in corpus.usable.tolist()
        for positions in _instances(corpus.inputs, sentence)
    ]
    if not instances:
        raise Unsupported(f"knowledge base {knowledge.name} has no sentence with a mention to mask")
    return MaskedMentions(
        inputs=corpus.inputs,
        sentence=np.array([sentence for sentence, _ in instances], dtype=np.int64),
        masked=np.concatenate([positions for _, positions in instances]),
        masked_bounds=np.cumsum([0, *(len(positions) for _, positions in instances)]),
        mask_id=corpus.mask_id,
        dropped={**corpus.dropped, "corpus_instances": len(instances)},
    )


def _instances(inputs: Inputs, sentence: int) -> list[NDArray[np.int64]]:
    """Positions to mask in each instance of a sentence."""
    kinds = inputs.kinds[inputs.bounds[sentence] : inputs.bounds[sentence + 1]]
    spans = inputs.spans[inputs.span_bounds[sentence] : inputs.span_bounds[sentence + 1]]
    # A span may hold the slot of a nested mention: only the mention's own text is masked.
    each = [start + np.flatnonzero(kinds[start:end] == TokenKind.TEXT) for start, end in spans]
    return unique_masks([positions for positions in each if len(positions)])


def unique_masks(mentions: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Returns the position sets of the instances: all mentions together, then each alone."""
    if not mentions:
        return []
    together = np.unique(np.concatenate(mentions))
    return [together] if len(mentions) == 1 else [together, *mentions]
