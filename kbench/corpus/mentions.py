"""Language modelling of mentions, for methods that put an entity into the input.

**Masked**, for models that look both ways.

From each sentence with linked mentions come several instances. With head and tail mentions they
are three: both masked, the head only, the tail only. With more mentions they are all masked and
each one alone; with one, that one. Masking replaces every wordpiece of a mention by ``[MASK]``
(no 80/10/10 split); a mention without a vector is masked too, it just has no slot. A sentence
in which no mention has a vector, or which is too long, is dropped, never truncated.

**The next token**, for models that read from left to right: such a model never sees what it
predicts, so nothing is masked. What changes between the instances of a sentence is which mentions
have their slot: all of them, and each alone. The loss is on the tokens of all mentions, a vector
among them or not, that come after a slot: a mention with its own slot teaches to read the name
from the vector, one without to tell it from the vectors of the others, which is what questions
ask for. An instance in which no slot comes before a mention's token is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from kbench.model import LanguageModel

__all__ = [
    "Corpus",
    "MaskedMentions",
    "NextMentions",
    "asked_mentions",
    "check_masked_lm",
    "linked_corpus",
    "masked_mentions",
    "mention_loss",
    "next_mentions",
]


@dataclass(frozen=True)
class Corpus:
    """The sentences of a knowledge base that link an entity with a vector, encoded.

    Attributes:
        inputs: those sentences, each once.
        usable: numbers of those that are short enough, rising. ``[usable]``.
        mask_id: the tokenizer's ``[MASK]``; -1 of a backbone that reads from left to right.
        dropped: all sentences, those without a vector, and those too long.
    """

    inputs: Inputs
    usable: NDArray[np.int64]
    mask_id: int
    dropped: dict[str, int]


def check_masked_lm(lm: LanguageModel) -> None:
    """Refuses a backbone that is no masked language model.

    Raises:
        Unsupported: it has no masked-LM head, or no ``[MASK]``.
    """
    if lm.left_to_right or not lm.has_lm_head or lm.tokenizer.mask_token_id is None:
        raise Unsupported("masked language modelling needs a backbone with a masked-LM head")


def linked_corpus(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    slot: str | None,
    max_length: int,
    slots: int = 1,
) -> Corpus:
    """Links and encodes the sentences of a knowledge base for an objective of language modelling.

    Args:
        lm: its tokenizer is used; one that reads both ways must have a masked-LM head.
        knowledge: gives sentences and says which entities have vectors.
        slot: the method's slot template, or None.
        max_length: longest usable input in tokens, specials, slots and slashes included.
        slots: input vectors of an entity.

    Raises:
        Unsupported: the backbone has no masked-LM head, or no sentence is usable.
    """
    if not lm.left_to_right:
        check_masked_lm(lm)
    examples, rows, counts = _linked(knowledge)
    left = lm.left_to_right
    layout = Layout({}, slot, max_length, truncate=False, left_to_right=left, slots=slots)
    inputs = encode(lm.tokenizer, examples, rows, layout)
    fits = inputs.lengths <= max_length
    if not fits.any():
        raise _no_sentence(knowledge, counts)
    dropped = {**counts, "corpus_sentences_too_long": int((~fits).sum())}
    mask_id = -1 if lm.left_to_right else int(lm.tokenizer.mask_token_id)
    return Corpus(inputs, np.flatnonzero(fits), mask_id, dropped)


def _linked(
    knowledge: KnowledgeBase,
) -> tuple[list[Example], list[list[int]], dict[str, int]]:
    """Returns the sentences that link an entity with a vector, their rows, and counts of both."""
    corpus = [
        Example(str(number), sentence.text, sentence.mentions, "")
        for number, sentence in enumerate(knowledge.sentences)
    ]
    links = link(corpus, knowledge)
    linked = [at for at, rows in enumerate(links.rows) if max(rows, default=-1) >= 0]
    counts = {
        "corpus_sentences": len(corpus),
        "corpus_sentences_unlinked": len(corpus) - len(linked),
    }
    return [corpus[at] for at in linked], [[*links.rows[at]] for at in linked], counts


def _no_sentence(knowledge: KnowledgeBase, counts: Mapping[str, int]) -> Unsupported:
    total = counts["corpus_sentences"]
    return Unsupported(
        f"knowledge base {knowledge.name} has no usable sentence: of {total} sentences "
        f"{total - counts['corpus_sentences_unlinked']} link an entity with a vector"
    )


@dataclass(frozen=True)
class _Mentions:
    """Instances of sentences in which tokens of mentions are asked for, as training data.

    Attributes:
        inputs: encoded sentences.
        sentence: of each instance, its number among them. ``[instances]``.
        asked: positions that are asked for within the sentence, instance by instance.
            ``[asked]``.
        bounds: ``[instances + 1]``, into ``asked``.
        dropped: sentences without a vector, sentences too long, instances.
    """

    inputs: Inputs
    sentence: NDArray[np.int64]
    asked: NDArray[np.int64]
    bounds: NDArray[np.int64]
    dropped: dict[str, int]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each instance. ``[instances]``."""
        return self.inputs.lengths[self.sentence]

    def _collated(self, chosen: NDArray[np.int64]) -> tuple[Batch, Tensor]:
        """Returns a batch, and the flattened places of what is asked for in it."""
        batch = self.inputs.collate(self.sentence[chosen])
        items, owner = ragged(self.bounds, chosen)
        return batch, torch.from_numpy(owner * batch.ids.shape[1] + self.asked[items])


@dataclass(frozen=True)
class MaskedMentions(_Mentions):
    """Instances of mention-masked language modelling.

    Attributes:
        mask_id: the tokenizer's ``[MASK]``.
    """

    mask_id: int

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch whose blanks are the masked positions, and targets the hidden tokens."""
        batch, places = self._collated(chosen)
        ids = batch.ids.flatten()
        targets = ids[places]
        ids[places] = self.mask_id
        return replace(batch, ids=ids.view_as(batch.ids), blank_index=places, targets=targets)


@dataclass(frozen=True)
class NextMentions(_Mentions):
    """Instances in which the tokens of mentions are what comes next; some mentions have a slot."""

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch whose blanks are the tokens before those that are its targets."""
        batch, places = self._collated(chosen)
        return replace(batch, blank_index=places - 1, targets=batch.ids.flatten()[places])


def mention_loss(lm: LanguageModel, batch: Batch) -> Tensor:
    """Returns the loss of a batch of any of these objectives, a scalar.

    It is the mean cross-entropy of the frozen head at the blanks, masks or the tokens before.
    """
    assert batch.targets is not None
    hidden = lm(batch, batch.blank_index).flatten(0, 1)[batch.blank_index]
    return F.cross_entropy(lm.predict_tokens(hidden).float(), batch.targets)


def asked_mentions(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    slot: str | None,
    max_length: int,
    slots: int = 1,
) -> MaskedMentions | NextMentions:
    """Makes the instances of a corpus as the model reads: masked, or as what comes next.

    Arguments and what is raised are those of :func:`masked_mentions` and :func:`next_mentions`.
    """
    instances = next_mentions if lm.left_to_right else masked_mentions
    return instances(lm, knowledge, slot, max_length, slots)


def masked_mentions(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    slot: str | None,
    max_length: int,
    slots: int = 1,
) -> MaskedMentions:
    """Makes the instances of a knowledge base's corpus.

    Args:
        lm: its tokenizer and masked-LM head are used.
        knowledge: gives sentences and says which entities have vectors.
        slot: the method's slot template.
        max_length: longest kept input in tokens, specials, slots and slashes included.
        slots: input vectors of an entity.

    Raises:
        Unsupported: the backbone has no masked-LM head, or no sentence is usable.
    """
    check_masked_lm(lm)
    corpus = linked_corpus(lm, knowledge, slot, max_length, slots)
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
        asked=np.concatenate([positions for _, positions in instances]),
        bounds=np.cumsum([0, *(len(positions) for _, positions in instances)]),
        mask_id=corpus.mask_id,
        dropped={**corpus.dropped, "corpus_instances": len(instances)},
    )


def next_mentions(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    slot: str | None,
    max_length: int,
    slots: int = 1,
) -> NextMentions:
    """Makes the instances of a knowledge base's corpus for a model that reads from left to right.

    Args:
        lm: its tokenizer is used.
        knowledge: gives sentences and says which entities have vectors.
        slot: the method's slot template.
        max_length: longest kept input in tokens, specials, slots and slashes included.
        slots: input vectors of an entity.

    Raises:
        Unsupported: no sentence is usable.
    """
    examples, rows, counts = _linked(knowledge)
    chosen = [(at, own) for at, several in enumerate(rows) for own in _slotted(several)]
    layout = Layout({}, slot, max_length, truncate=False, left_to_right=True, slots=slots)
    inputs = encode(
        lm.tokenizer, [examples[at] for at, _ in chosen], [r for _, r in chosen], layout
    )
    asked = [_after_a_slot(inputs, number) for number in range(len(inputs))]
    fits = inputs.lengths <= max_length
    kept = [n for n, places in enumerate(asked) if fits[n] and len(places)]
    if not kept:
        raise _no_sentence(knowledge, counts)
    long = {at for (at, _), short in zip(chosen, fits, strict=True) if not short}
    return NextMentions(
        inputs=inputs,
        sentence=np.array(kept, dtype=np.int64),
        asked=np.concatenate([asked[n] for n in kept]),
        bounds=np.cumsum([0, *(len(asked[n]) for n in kept)]),
        dropped={**counts, "corpus_sentences_too_long": len(long), "corpus_instances": len(kept)},
    )


def _slotted(rows: Sequence[int]) -> list[list[int]]:
    """The rows of a sentence's mentions in each instance, -1 for those without a slot."""
    linked = [at for at, row in enumerate(rows) if row >= 0]
    alone = [[row if at == one else -1 for at, row in enumerate(rows)] for one in linked]
    return [[*rows]] if len(linked) == 1 else [[*rows], *alone]


def _after_a_slot(inputs: Inputs, number: int) -> NDArray[np.int64]:
    """The positions of mentions' own tokens that come after a slot, rising."""
    start, end = inputs.bounds[number : number + 2]
    kinds = inputs.kinds[start:end]
    slots = inputs.slots[inputs.slot_bounds[number] : inputs.slot_bounds[number + 1]]
    spans = inputs.spans[inputs.span_bounds[number] : inputs.span_bounds[number + 1]]
    each = [a + np.flatnonzero(kinds[a:b] == TokenKind.TEXT) for a, b in spans]
    places = np.unique(np.concatenate(each)) if each else np.empty(0, dtype=np.int64)
    first = slots.min() if len(slots) else end - start
    after: NDArray[np.int64] = places[places > first]
    return after


def _instances(inputs: Inputs, sentence: int) -> list[NDArray[np.int64]]:
    """Positions to mask in each instance of a sentence."""
    kinds = inputs.kinds[inputs.bounds[sentence] : inputs.bounds[sentence + 1]]
    spans = inputs.spans[inputs.span_bounds[sentence] : inputs.span_bounds[sentence + 1]]
    # A span may hold the slot of a nested mention: only the mention's own text is masked.
    each = [start + np.flatnonzero(kinds[start:end] == TokenKind.TEXT) for start, end in spans]
    return _unique_masks([positions for positions in each if len(positions)])


def _unique_masks(mentions: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Returns the position sets of the instances: all mentions together, then each alone."""
    if not mentions:
        return []
    together = np.unique(np.concatenate(mentions))
    return [together] if len(mentions) == 1 else [together, *mentions]
