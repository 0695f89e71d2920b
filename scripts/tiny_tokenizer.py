"""The WordPiece tokenizer of the embedded backbone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from scripts.wordnet_text import words_of

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MARKS = list("#$/()?!.,;:'\"-&%+*=[]`")


def _frame(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def whole_words(sentences: Iterable[str], wanted: Iterable[str], least: int = 3) -> list[str]:
    """The wanted words that occur at least `least` times in the text, sorted."""
    counts = Counter(word for sentence in sentences for word in words_of(sentence))
    return sorted(word for word in set(wanted) if counts[word] >= least)


def train_tokenizer(
    sentences: Sequence[str], size: int, wanted: Iterable[str]
) -> PreTrainedTokenizerFast:
    """Trains WordPiece and adds whole words that the tasks ask for.

    Args:
        sentences: The pre-training text.
        size: Number of entries, the added words among them.
        wanted: Words that shall be one token each where the text holds them.
    """
    added = whole_words(sentences, wanted)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size - len(added), special_tokens=[*SPECIAL, *MARKS], show_progress=False
    )
    trained = _frame(models.WordPiece(unk_token="[UNK]"))
    trained.train_from_iterator(sentences, trainer)
    pieces = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    entries = list(dict.fromkeys([piece for piece, _ in pieces] + added))
    vocabulary = {piece: index for index, piece in enumerate(entries)}
    tokenizer = _frame(models.WordPiece(vocabulary, unk_token="[UNK]"))
    cls, sep = vocabulary["[CLS]"], vocabulary["[SEP]"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=256,
        do_lower_case=True,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The saved tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(folder)
