"""A toy world: a tiny random BERT, and facts that only an entity's vector can tell.

Every entity is an invented word, its class is drawn at random and written into its vector alone.
Names, and so the texts of test, say nothing about it. A method that reads entity vectors can
solve the tasks on entities it never saw; without knowledge, or with another entity's, nothing
beats guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from kbench.data import Example, Mention, Role, Split, TaskCard
from kbench.knowledge import Bundle, Entity, Sentence, Words, write_bundle, write_vectors
from kbench.task import QuestionTask, RelationTask, TypingTask

__all__ = [
    "CLASSES",
    "ToyQuestions",
    "ToyRelations",
    "ToyTyping",
    "write_backbone",
    "write_uneven",
    "write_world",
]

CLASSES = ("red", "green", "blue", "white")
DIMENSION = 8
_ENTITIES = 480
_CARD = TaskCard(
    title="toy", revision="1", licence="Apache-2.0", citation="kbench", source="generated"
)
_CONTEXTS = ("we saw {} today", "{} was there", "they spoke of {} again", "near {} it rained")
_FACTS = ("{} is a {} thing", "the color of {} is {}", "we know that {} is {}", "{} looks {}")
_TEXT = " ".join((*_CONTEXTS, *_FACTS, *CLASSES, "as ever with it its color is"))
_CARDS = {"name": "toy", "version": "1", "licence": "Apache-2.0", "source": "generated"}
_PLACE = "we know that {} is a {} thing near {} today"
_VECTORLESS = 16
"""In the full world every so manyth entity has no vector."""
_NAMELESS = 11
"""In the uneven world every so manyth entity has no name."""


@cache
def _names() -> tuple[str, ...]:
    syllables = ("ba", "ke", "li", "mo", "nu", "pra", "ste", "tri", "vo", "zu")
    words = ["".join(parts) for parts in product(syllables, repeat=3)]
    return tuple(np.random.default_rng(7).permutation(words)[:_ENTITIES].tolist())


@cache
def _classes() -> tuple[str, ...]:
    drawn = np.random.default_rng(11).integers(len(CLASSES), size=_ENTITIES)
    return tuple(CLASSES[number] for number in drawn)


def _split(number: int) -> Split:
    return (Split.TRAIN, Split.TRAIN, Split.TRAIN, Split.DEV, Split.TEST)[number % 5]


def write_world(folder: Path, *, entities: int = _ENTITIES, full: bool = False) -> Bundle:
    """Writes the toy knowledge base: vectors that tell the class, sentences on train entities.

    Args:
        folder: where to.
        entities: how many there are, the first of all; the tasks know of 480.
        full: give it all that a knowledge base can have: descriptions, aliases that several
            share, relations to the class and to a neighbour, sentences on every entity that
            spell these facts out, words in the space of the vectors; and some entities without
            a vector.
    """
    names, classes = _names()[:entities], _classes()[:entities]
    rng = np.random.default_rng(13)
    centres = rng.standard_normal((len(CLASSES), DIMENSION))
    if full:
        _write_full(folder, names, classes)
    else:
        _write_plain(folder, names, classes)
    bundle = Bundle(folder)
    vectors = rng.standard_normal((len(bundle), DIMENSION)) * 0.1
    number = dict(zip(names, classes, strict=True))
    for row, label in enumerate(bundle.labels):
        vectors[row] += centres[CLASSES.index(number.get(label, label))]
    words = None
    if full:
        vectors[bundle.rows([f"toy:{name}" for name in names[::_VECTORLESS]])] = np.nan
        words = _words(rng, centres)
    return write_vectors(folder, vectors.astype(np.float32), {"model": "planted"}, words=words)


def _write_plain(folder: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    sentences = [
        _sentence(_FACTS[number % len(_FACTS)], name, colour)
        for number, (name, colour) in enumerate(zip(names, classes, strict=True))
        if _split(number) == Split.TRAIN
    ]
    write_bundle(
        folder,
        _CARDS,
        [Entity(f"toy:{name}", name, types=(c,)) for name, c in zip(names, classes, strict=True)]
        + [Entity(f"class:{name}", name) for name in CLASSES],
        [(f"toy:{n}", "color", f"class:{c}") for n, c in zip(names, classes, strict=True)],
        {"color": "has color"},
        sentences,
    )


def _write_full(folder: Path, names: Sequence[str], classes: Sequence[str]) -> None:
    things, facts, sentences = [Entity(f"class:{name}", name) for name in CLASSES], [], []
    beside = [*names[1:], names[0]]
    for name, colour, other in zip(names, classes, beside, strict=True):
        text = f"{name} is a {colour} thing . it was there with {other}"
        things.append(Entity(f"toy:{name}", name, (name[:4],), (colour,), text))
        facts += [(f"toy:{name}", "color", f"class:{colour}")]
        facts += [(f"toy:{name}", "near", f"toy:{other}")]
        ids = (f"toy:{name}", f"class:{colour}", f"toy:{other}")
        sentences.append(_linked(_PLACE, (name, colour, other), ids))
    relations = {"color": "has color", "near": "is near"}
    write_bundle(folder, _CARDS, things, facts, relations, sentences)


def write_uneven(folder: Path, *, entities: int = 64) -> Bundle:
    """Writes a toy knowledge base in which no two things go together: what one has, another lacks.

    Of each four entities two have a vector, two a description, two some facts and two a sentence,
    in every combination: some have but one of these, some all, some none. A description may hold
    the name of its entity or not. Some entities have no name, and are tails of facts. All names
    and relations have as many words, so that words can be counted.

    Args:
        folder: where to.
        entities: how many there are, the first of all that the tasks know.
    """
    names, classes = _names()[:entities], _classes()[:entities]
    things, facts, sentences = [Entity(f"class:{name}", name) for name in CLASSES], [], []
    for number, (name, colour) in enumerate(zip(names, classes, strict=True)):
        described, heads, told = (bool(number >> bit & 1) for bit in (1, 2, 3))
        other = names[(number + 16) % len(names)]  # in a sentence of its own too
        subject = name if number % 3 else "it"
        text = f"{subject} is a {colour} thing" + " again , as ever" * (number % 4)
        things.append(
            Entity(
                f"toy:{name}",
                "" if number % _NAMELESS == _NAMELESS - 1 else name,
                types=(colour,) * (number % 2),
                description=text if described else "",
            )
        )
        ends = [names[(number + step) % len(names)] for step in range(5, 5 + number % 5)]
        if heads:
            facts += [(f"toy:{name}", "color", f"class:{colour}")]
            facts += [(f"toy:{name}", "near", f"toy:{end}") for end in ends]
        if told:
            ids = (f"toy:{name}", f"class:{colour}", f"toy:{other}")
            sentences.append(_linked(_PLACE, (name, colour, other), ids))
    relations = {"color": "has color", "near": "is near"}
    write_bundle(folder, _CARDS | {"name": "uneven"}, things, facts, relations, sentences)
    bundle, rng = Bundle(folder), np.random.default_rng(17)
    centres = rng.standard_normal((len(CLASSES), DIMENSION))
    vectors = np.full((len(bundle), DIMENSION), np.nan, dtype=np.float32)
    known = bundle.rows([f"toy:{name}" for name in names[1::2]])
    vectors[known] = rng.standard_normal((len(known), DIMENSION))
    return write_vectors(folder, vectors, {"model": "planted"}, words=_words(rng, centres))


def _linked(pattern: str, names: Sequence[str], ids: Sequence[str]) -> Sentence:
    text, mentions = "", []
    for piece, name, entity in zip(pattern.split("{}"), (*names, ""), (*ids, ""), strict=True):
        text += piece
        if name:
            mentions.append(Mention(len(text), len(text) + len(name), entity))
        text += name
    return Sentence(text, tuple(mentions))


def _words(rng: np.random.Generator, centres: NDArray[np.float64]) -> Words:
    """The backbone's words in the space of the entities; the name of a class lies at its centre."""
    known = list(dict.fromkeys([*CLASSES, *_TEXT.replace("{}", "").split()]))
    vectors = rng.standard_normal((len(known), DIMENSION))
    vectors[: len(CLASSES)] = centres
    return Words(known, vectors.astype(np.float32))


def _sentence(pattern: str, name: str, colour: str) -> Sentence:
    text = pattern.format(name, colour)
    start, end = text.index(name), text.rindex(colour)
    return Sentence(
        text,
        (
            Mention(start, start + len(name), f"toy:{name}"),
            Mention(end, end + len(colour), None),
        ),
    )


def _mention(text: str, name: str, role: Role) -> Mention:
    start = text.index(name)
    return Mention(start, start + len(name), f"toy:{name}", role)


class _ToyTask:
    def _items(self, split: Split) -> list[tuple[int, str, str, str]]:
        """Number, name, class and text of a split's entities.

        Two in three texts of train and dev give the class away, so that a model can learn the
        task from words; no text of test does.
        """
        items = []
        for number, (name, colour) in enumerate(zip(_names(), _classes(), strict=True)):
            if _split(number) == split:
                text = _CONTEXTS[number % len(_CONTEXTS)].format(name)
                told = split != Split.TEST and number % 3 != 0
                items.append((number, name, colour, f"{text} , {colour} as ever" if told else text))
        return items


@final
class ToyTyping(_ToyTask, TypingTask):
    """The class of a toy entity, as a set of one or two types."""

    card: ClassVar[TaskCard] = _CARD
    max_length = 32

    def load(self, split: Split) -> Sequence[Example]:
        examples = []
        for number, name, colour, text in self._items(split):
            label = (colour, "warm") if colour == "red" else (colour,)
            mention = _mention(text, name, Role.TARGET)
            examples.append(Example(f"typing/{number}", text, (mention,), label))
        return examples


@final
class ToyRelations(_ToyTask, RelationTask):
    """The class of the head, as a relation to a tail that says nothing."""

    card: ClassVar[TaskCard] = _CARD
    max_length = 32

    def load(self, split: Split) -> Sequence[Example]:
        examples = []
        for number, name, colour, context in self._items(split):
            text = f"{context} with it"
            tail = Mention(len(text) - 2, len(text), None, Role.TAIL)
            mentions = (_mention(text, name, Role.HEAD), tail)
            examples.append(Example(f"relations/{number}", text, mentions, f"is-{colour}"))
        return examples


@final
class ToyQuestions(_ToyTask, QuestionTask):
    """The class of a toy entity, asked at [MASK]."""

    card: ClassVar[TaskCard] = _CARD
    max_length = 32

    def load(self, split: Split) -> Sequence[Example]:
        examples = []
        for number, name, colour, context in self._items(split):
            text = f"{context} . its color is "
            mention = _mention(text, name, Role.TARGET)
            examples.append(Example(f"qa/{number}", text, (mention,), (colour,), blank=len(text)))
        return examples


def _write_tokenizer(folder: Path, vocabulary: int, positions: int) -> int:
    """Writes the tokenizer; returns how many tokens it knows."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"##{letter}" for letter in letters), *_TEXT.replace("{}", "").split()]
    unused = [f"[unused{number}]" for number in range(vocabulary)]
    known = dict.fromkeys([*special, *words, *unused])
    numbers = {word: number for number, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, numbers[name]) for name in ("[CLS]", "[SEP]")],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=positions,
    ).save_pretrained(folder)
    return len(numbers)


def write_backbone(
    folder: Path,
    *,
    lm_head: bool = True,
    layers: int = 2,
    width: int = 32,
    vocabulary: int = 0,
    positions: int = 64,
    left_to_right: bool = False,
) -> Path:
    """Writes a random BERT, or Llama, with a wordpiece tokenizer that knows the toy world's words.

    Args:
        folder: where to.
        lm_head: save it with a masked-LM head.
        layers: of the network.
        width: hidden size, divisible by 4.
        vocabulary: tokens at least; made up of unused ones.
        positions: tokens of the longest input.
        left_to_right: make it a Llama with grouped heads.
    """
    import torch
    import transformers
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertModel,
        LlamaConfig,
        LlamaForCausalLM,
    )

    known = _write_tokenizer(folder, vocabulary, positions)
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = {
        "vocab_size": known,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
        "max_position_embeddings": positions,
        "initializer_range": 0.1,
    }
    if left_to_right:
        config = LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True)
        LlamaForCausalLM(config).save_pretrained(folder)
        return folder
    kind = BertForMaskedLM if lm_head else BertModel
    kind(BertConfig(**sizes)).save_pretrained(folder)
    return folder
