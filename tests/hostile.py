"""Strategies for texts that break careless code, and tokenizers of three families."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from kbench.data import Example, Mention, Role
from kbench.testing.spelling import finished

SNIPPETS = (
    *"abxyz.,'-()/#$ 0É",
    " ",
    "  ",
    "\t",
    "\n",
    "today",
    "color of",
    "Istanbul",
    "İstanbul",  # lower case is one code point longer
    "ẞ",
    "ﬁ",
    "👩‍👩‍👧‍👦",  # one sign to the eye, seven code points
    "🇹🇷",
    "e\u0301\u0323",  # combining marks
    "\u0301",
    "\ud83d",  # lone surrogates
    "\udc00",
    "\x00",
    "\x1b[31m",
    "\u200b",  # zero width
    "\u200d",
    "\ufeff",
    "\u202e",  # right-to-left override
    "שלום",
    "مرحبا",
    "北京",
    "日本語",
    "\u3000",
    "\xa0",
    "\U000e0001",
    "\uffff",
)

TEMPLATES = (
    "{slot} / {mention}",
    "{mention} ( {slot} )",
    "{slot} {mention}",
    "( {slot} {mention} )",
)
MARKERS = {Role.TARGET: "$", Role.HEAD: "#", Role.TAIL: "$"}

texts = st.one_of(
    st.lists(st.sampled_from(SNIPPETS), min_size=1, max_size=14).map("".join),
    st.text(st.characters(), min_size=1, max_size=12),
)


@st.composite
def examples(
    draw: st.DrawFn, roles: tuple[Role, ...] = tuple(Role), max_mentions: int = 4
) -> tuple[Example, tuple[int, ...]]:
    """An example with mentions anywhere (nested, overlapping, adjacent, equal), and its rows."""
    text = draw(texts)
    length = len(text)
    mentions, rows = [], []
    for _ in range(draw(st.integers(0, max_mentions))):
        start = draw(st.integers(0, length - 1))
        end = draw(st.integers(start + 1, length))
        mentions.append(Mention(start, end, "e", draw(st.sampled_from(roles))))
        rows.append(draw(st.integers(-1, 9)))
    blank = draw(st.none() | st.integers(0, length))
    return Example("x", text, tuple(mentions), "label", blank), tuple(rows)


_CORPUS = (
    "we saw istanbul today , they spoke of the color of tokyo again",
    "Istanbul and Tokyo are cities ; near the river it rained",
    "北京 日本語 שלום مرحبا",
)


def byte_level() -> PreTrainedTokenizerFast:
    """A byte-level BPE as RoBERTa's: blanks are parts of tokens, every character is known."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return _trained(core, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def metaspace() -> PreTrainedTokenizerFast:
    """A BPE with ``▁`` for blanks, as SentencePiece: each piece begins with one."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    return _trained(core, initial_alphabet=[*"#$/()"])


def _trained(core: Any, **options: Any) -> PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, show_progress=False, **options
    )
    core.train_from_iterator(_CORPUS, trainer)
    return finished(core, 512)
