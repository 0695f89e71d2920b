"""Small tokenizers of every family that there is, with markers and slashes among what they know."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CORPUS = (
    "We saw Istanbul today (it rained), and they spoke of the color of Tokyo again.",
    "Istanbul's river and Tokyo's towns; a river near it, a town near that -- 'Berlin'!",
    "we saw # Istanbul # today / $ it $ ( red ) .",
    "北京 日本語 שלום",
)
LETTERS = sorted({sign for text in CORPUS for sign in text} - {" "})


def _unigram(core: Any) -> None:
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        unk_token="<unk>",
        initial_alphabet=LETTERS,
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)


def _bpe(core: Any, alphabet: list[str] | None = None) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=alphabet or LETTERS,
        show_progress=False,
    )
    core.train_from_iterator(CORPUS * 3, trainer)


def _wordpiece(*, cased: bool) -> Any:
    core = Tokenizer(models.WordPiece(unk_token="<unk>"))
    core.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=LETTERS, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    return core


def _byte_level(*, prefix: bool, trim: bool) -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    core.decoder = decoders.ByteLevel()
    _bpe(core, pre_tokenizers.ByteLevel.alphabet())
    if trim:
        core.post_processor = processors.RobertaProcessing(
            ("</s>", core.token_to_id("</s>")),
            ("<s>", core.token_to_id("<s>")),
            add_prefix_space=prefix,
        )
    return core


def _metaspace(model: str, scheme: str, *, split: bool = True) -> Any:
    """As SentencePiece's: XLM-R, ALBERT, T5, DeBERTa-v3 (Unigram); Llama, Gemma (BPE)."""
    unigram = model == "unigram"
    core = Tokenizer(models.Unigram() if unigram else models.BPE(unk_token="<unk>"))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    (_unigram if unigram else _bpe)(core)
    return core


def _words_then_metaspace() -> Any:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    _unigram(core)
    return core


def _prepended() -> Any:
    """As Llama 2's: a normalizer writes ``▁`` for blanks, and one before the text."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    _bpe(core)
    return core


def _without_blanks() -> Any:
    """No blanks anywhere: BPE over the characters of the whole text."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    _bpe(core, [*LETTERS, " "])
    return core


def _characters() -> Any:
    vocabulary = {sign: number for number, sign in enumerate([*SPECIAL, " ", *LETTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    return core


def _whole_words() -> Any:
    names = {word for text in CORPUS for word in text.split()}
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *sorted(names)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return core


FAMILIES: dict[str, Callable[[], Any]] = {
    "wordpiece": lambda: _wordpiece(cased=False),
    "wordpiece cased": lambda: _wordpiece(cased=True),
    "byte-level": lambda: _byte_level(prefix=False, trim=False),
    "byte-level prefix": lambda: _byte_level(prefix=True, trim=False),
    "byte-level trimmed": lambda: _byte_level(prefix=False, trim=True),
    "unigram always": lambda: _metaspace("unigram", "always"),
    "unigram first": lambda: _metaspace("unigram", "first"),
    "unigram never": lambda: _metaspace("unigram", "never"),
    "unigram unsplit": lambda: _metaspace("unigram", "always", split=False),
    "bpe always": lambda: _metaspace("bpe", "always"),
    "bpe first": lambda: _metaspace("bpe", "first"),
    "bpe never": lambda: _metaspace("bpe", "never"),
    "words then metaspace": _words_then_metaspace,
    "prepended": _prepended,
    "without blanks": _without_blanks,
    "characters": _characters,
    "whole words": _whole_words,
}


@cache
def family(name: str) -> PreTrainedTokenizerFast:
    """Returns a tokenizer, made once; no test may change it."""
    core = FAMILIES[name]()
    if core.post_processor is None:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> $B </s>",
            special_tokens=[(name, core.token_to_id(name)) for name in ("<s>", "</s>")],
        )
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), SPECIAL, strict=True))
    known = {f"{kind}_token": token for kind, token in names.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, cls_token="<s>", sep_token="</s>", model_max_length=512, **known
    )
