"""Training without a task: objectives on linked sentences, and methods that train so."""

from kbench.corpus.mentions import (
    Corpus,
    MaskedMentions,
    NextMentions,
    asked_mentions,
    check_masked_lm,
    linked_corpus,
    masked_mentions,
    mention_loss,
    next_mentions,
)
from kbench.corpus.tokens import MaskedTokens, NextTokens, masked_tokens, next_tokens
from kbench.corpus.trained import CorpusTrained

__all__ = [
    "Corpus",
    "CorpusTrained",
    "MaskedMentions",
    "MaskedTokens",
    "NextMentions",
    "NextTokens",
    "asked_mentions",
    "check_masked_lm",
    "linked_corpus",
    "masked_mentions",
    "masked_tokens",
    "mention_loss",
    "next_mentions",
    "next_tokens",
]
