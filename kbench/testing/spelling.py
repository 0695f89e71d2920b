"""Tokenizers of every family that know a few words whole, as they stand behind a blank or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

__all__ = ["byte_level_of", "dummy_prefix_of", "finished", "metaspace_of", "wordpiece"]

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def wordpiece(words: Sequence[str], *, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """BERT's: no blank is part of a token."""
    letters = [chr(code) for code in range(33, 127)]
    known = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *_cased(words, lowercase)]
    numbers = {word: number for number, word in enumerate(dict.fromkeys(known))}
    core = Tokenizer(models.WordPiece(numbers, unk_token="<unk>"))
    core.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    return finished(core)


def byte_level_of(words: Sequence[str], *, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """RoBERTa's: a blank is part of the token after it, so a word is two tokens."""
    # Behind a blank first: the pair that is told first is joined first.
    forms = [f"{blank}{word}" for blank in ("\u0120", "") for word in _cased(words, lowercase)]
    core = Tokenizer(_merged(forms, sorted(pre_tokenizers.ByteLevel.alphabet())))
    core.normalizer = normalizers.Lowercase() if lowercase else None
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return finished(core)


def metaspace_of(words: Sequence[str], *, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """SentencePiece's: a text begins as if a blank stood before it."""
    core = Tokenizer(_merged([f"\u2581{w}" for w in _cased(words, lowercase)], _signs()))
    core.normalizer = normalizers.Lowercase() if lowercase else None
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    return finished(core)


def dummy_prefix_of(words: Sequence[str], *, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """The form of Llama: the normalizer adds a blank, even where one is there."""
    core = Tokenizer(_merged([f"\u2581{w}" for w in _cased(words, lowercase)], _signs()))
    before = [normalizers.Lowercase()] if lowercase else []
    marks = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    core.normalizer = normalizers.Sequence([*before, *marks])
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return finished(core)


def _cased(words: Sequence[str], lowercase: bool) -> list[str]:
    return [word.lower() if lowercase else word for word in words]


def _signs() -> list[str]:
    return ["\u2581", *(chr(code) for code in range(33, 127))]


def _merged(words: Sequence[str], alphabet: Sequence[str]) -> models.BPE:
    """A BPE that joins each of the words from left to right."""
    pieces = dict.fromkeys([*SPECIAL, *alphabet])
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        for at in range(1, len(word)):
            pieces[word[: at + 1]] = None
            merges[word[:at], word[at]] = None
    numbers = {piece: number for number, piece in enumerate(pieces)}
    return models.BPE(numbers, [*merges], unk_token="<unk>")


def finished(core: Any, longest: int = 64) -> PreTrainedTokenizerFast:
    """Gives a core the special tokens of RoBERTa's around a text and between two.

    Args:
        core: knows these tokens.
        longest: text in tokens that it says it takes.
    """
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(name, core.token_to_id(name)) for name in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=longest,
    )
