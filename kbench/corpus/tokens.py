"""Language modelling on linked sentences, for methods without an input slot.

**Masked**: BERT's 15% of the tokens, drawn anew each time. Of a sentence's ``n`` text tokens
``max(1, round(0.15 n))`` are to be predicted. Of those 80% become ``[MASK]``, 10% a random token
and 10% stay as they are (Devlin et al., "BERT", section 3.1). Specials are never chosen. A sentence
in which no mention has a vector, or which is too long, is dropped, never truncated.

**The next token**, for models that read from left to right: each text token is asked for after
those before it; one that nothing stands before is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kbench.corpus.mentions import Corpus, check_masked_lm, linked_corpus
from kbench.encoding import Batch, TokenKind
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase
from kbench.model import LanguageModel

__all__ = ["MaskedTokens", "NextTokens", "masked_tokens", "next_tokens"]

_SHARE = 0.15
_MASKED, _RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class MaskedTokens:
    """Linked sentences as training data, each once an epoch.

    Attributes:
        corpus: the sentences.
        vocabulary: ids that a random token may have. ``[tokens]``.
        rng: what is masked; batches must be asked for in the same order to be the same.
    """

    corpus: Corpus
    vocabulary: NDArray[np.int64]
    rng: np.random.Generator

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sentence. ``[sentences]``."""
        return self.corpus.inputs.lengths[self.corpus.usable]

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch whose blanks are the chosen positions, and targets the hidden tokens."""
        batch = self.corpus.inputs.collate(self.corpus.usable[chosen])
        places = np.flatnonzero(self._hidden(batch))
        fate = self.rng.random(len(places))
        random = self.vocabulary[self.rng.integers(len(self.vocabulary), size=len(places))]
        ids = batch.ids.flatten()
        targets = ids[torch.from_numpy(places)]
        ids[torch.from_numpy(places[fate < _MASKED])] = self.corpus.mask_id
        other = (fate >= _MASKED) & (fate < _MASKED + _RANDOM)
        ids[torch.from_numpy(places[other])] = torch.from_numpy(random[other])
        return replace(
            batch,
            ids=ids.view_as(batch.ids),
            blank_index=torch.from_numpy(places),
            targets=targets,
        )

    def _hidden(self, batch: Batch) -> NDArray[np.bool_]:
        """Draws the tokens of a batch that are to be predicted. ``[batch, tokens]``."""
        text = _text(self.corpus, batch)
        count = text.sum(1, keepdims=True)
        wanted = np.minimum(count, np.maximum(1, np.rint(_SHARE * count)))
        # Text tokens in random order come first in each row; the first so many are taken.
        order = np.where(text, self.rng.random(text.shape), 2.0).argsort(1).argsort(1)
        hidden: NDArray[np.bool_] = order < wanted
        return hidden


@dataclass(frozen=True)
class NextTokens:
    """Linked sentences as training data, each once an epoch, for what comes next.

    Attributes:
        corpus: the sentences.
    """

    corpus: Corpus

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sentence. ``[sentences]``."""
        return self.corpus.inputs.lengths[self.corpus.usable]

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch whose blanks are the tokens before those that are its targets."""
        batch = self.corpus.inputs.collate(self.corpus.usable[chosen])
        text = _text(self.corpus, batch)
        text[:, 0] = False
        places = torch.from_numpy(np.flatnonzero(text))
        return replace(batch, blank_index=places - 1, targets=batch.ids.flatten()[places])


def _text(corpus: Corpus, batch: Batch) -> NDArray[np.bool_]:
    """Which tokens of a batch are of its texts. ``[batch, tokens]``."""
    inputs = corpus.inputs
    steps = np.arange(batch.ids.shape[1])
    at = inputs.bounds[batch.examples.numpy()][:, None] + steps
    text: NDArray[np.bool_] = inputs.kinds[np.minimum(at, len(inputs.kinds) - 1)] == TokenKind.TEXT
    text &= batch.mask.numpy().astype(bool)
    return text


def masked_tokens(
    lm: LanguageModel, knowledge: KnowledgeBase, max_length: int, seed: int
) -> MaskedTokens:
    """Makes the training data of a knowledge base's corpus, for methods without an input slot.

    Args:
        lm: its tokenizer and masked-LM head are used.
        knowledge: gives sentences and says which entities have vectors.
        max_length: longest kept input in tokens, specials included.
        seed: of the masks.

    Raises:
        Unsupported: the backbone has no masked-LM head, or no sentence is usable.
    """
    check_masked_lm(lm)
    corpus = linked_corpus(lm, knowledge, None, max_length)
    known = np.arange(min(len(lm.tokenizer), lm.word_embeddings.num_embeddings))
    vocabulary = np.setdiff1d(known, lm.tokenizer.all_special_ids)
    return MaskedTokens(corpus, vocabulary, np.random.default_rng(seed))


def next_tokens(lm: LanguageModel, knowledge: KnowledgeBase, max_length: int) -> NextTokens:
    """Makes the training data of a corpus for a model that reads from left to right.

    Its loss is :func:`~kbench.corpus.mention_loss`.

    Args:
        lm: its tokenizer is used.
        knowledge: gives sentences and says which entities have vectors.
        max_length: longest kept input in tokens, specials included.

    Raises:
        Unsupported: the backbone reads both ways, or no sentence is usable.
    """
    if not lm.left_to_right:
        raise Unsupported("the next token is asked for of a backbone that reads from left to right")
    return NextTokens(linked_corpus(lm, knowledge, None, max_length))
