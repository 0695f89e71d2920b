"""xRAG's document vector: a text as one vector in a slot of a frozen model.

Cheng et al., "xRAG: Extreme Context Compression for Retrieval-augmented Generation with One Token".
A text ``d`` of an entity has ``n`` slots, each of a vector of the text and of one map for all::

    E(d)_p = norm( mean of h_t over part p of d )        h_t: last states of d's tokens, [H]
    slot_p = W_2 GELU( W_1 E(d)_p + b_1 ) + b_2          W_1: [W, H], W_2: [W, W]

``W`` is the width of word embeddings. ``E`` is the frozen model itself, which reads each text
alone and once; ``norm`` brings to mean 0 and variance 1; the ``n`` parts are as long as each other.
A tuned model reads texts as it does now, for a map that the untuned one has learned; one that
is tuned around the map reads them anew at each step, and so is tested on what it was tuned with.
``W_1``, ``b_1``, ``W_2``, ``b_2`` are all that trains, so that a text that nothing was trained on
has its slots too.

Without a task it trains twice, as published. First on paraphrases: ``name means : d``, with the
slot at the name, for the likelihood of ``d``. Then on facts, ``head relation tail``
(:func:`~kbench_baselines.facts.fact_texts`), at each token of the tail, the first among them::

    loss = -log p_S(tail) + 2 KL( p_T || p_S )

``p_S`` is what the model says with the slot at the head, ``p_T`` what it says with the head's text
before it (behind it, in a model that reads both ways): the 20 likeliest tokens, read once. In a
model that reads both ways the tokens of ``d``, and of tails, are masked, all at once.

Published are a trained retriever for ``E`` (SFR-Embedding-Mistral, its last token), one slot
(``n = 1``) of at most 180 tokens of text, 13 prompts around it and questions written for the
purpose. Taken from the model itself, slots beside mentions, prompts of our own and facts for
questions are kbench's. In the release (no licence; not copied) what is distilled is off by one
token: the first token of an answer, which says a fact, never is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from kbench.corpus import MaskedMentions, NextMentions, mention_loss
from kbench.data import Example, Mention, Role
from kbench.encoding import Batch, Layout, Passage, encode, inner_tokens, ragged, sent
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Rows
from kbench.method import Fit, MethodCard, Plug
from kbench.model import LanguageModel, dropout
from kbench.spec import OptionType
from kbench.task import Family
from kbench.training import History, Recipe
from kbench_baselines.entity_texts import EntityTexts
from kbench_baselines.facts import asked_tails, drawn_facts, fact_texts, tail_tokens
from kbench_baselines.read_facts import FactReader
from kbench_baselines.retrieval import RetrievalAugmentation, Told
from kbench_baselines.row_table import RowTable

__all__ = ["DocumentVectors", "Taught", "Xrag", "XragPlug", "distilled", "paraphrases", "taught"]

_PROMPTS = ("means :", "that is ,", "in other words ,", "which is to say ,")
_LIKELIEST = 20
"""Tokens that are kept of what the teacher says."""
_WEIGHT = 2.0
"""Of the distillation beside the likelihood."""
_TOGETHER = 32
"""Texts that the teacher reads at once."""

# Of the release, its second stage: what comes before it is said by options.
_PUBLISHED = Recipe(learning_rate=2e-5, batch_size=64, epochs=1, warmup=0.03, decay="linear")

Asked = MaskedMentions | NextMentions


class DocumentVectors:
    """``E`` of the texts of entities, read by one network when they are first asked for.

    They are read again where the network's weights have changed since.

    Args:
        lm: the network. What plugs do to it is left out while it reads.
        told: says what is told of an entity.
        knowledge: whose they are.
        room: tokens of a text at most.
        parts: ``n``.
    """

    def __init__(
        self, lm: LanguageModel, told: Told, knowledge: KnowledgeBase, room: int, parts: int
    ) -> None:
        self._lm, self._parts = lm, parts
        self._texts = EntityTexts(lm, told, knowledge, room)
        self._known = RowTable(len(knowledge), self._read, lm)

    def of(self, rows: Rows) -> Tensor:
        """Returns the vectors of entities. ``[entities] -> [entities, n, H]``."""
        return self._known.of(rows)

    def _read(self, rows: Rows) -> Tensor:
        vectors = self._lm.word_embeddings.weight.new_zeros(
            len(rows), self._parts, self._lm.width, dtype=torch.float32
        )
        with self._lm.bare(), dropout(self._lm, None):
            for at, states, first, end in self._texts.read(rows.tolist(), self._lm):
                if end > first:
                    vectors[at] = self._means(states[first:end].float())
        return vectors

    def _means(self, states: Tensor) -> Tensor:
        """``[tokens, H] -> [n, H]``; a text of fewer tokens has some of them in two parts."""
        tokens, parts = len(states), self._parts
        bounds = [(p * tokens // parts, -(-(p + 1) * tokens // parts)) for p in range(parts)]
        means = torch.stack([states[first:end].mean(0) for first, end in bounds])
        return F.layer_norm(means, means.shape[1:])


@final
class XragPlug(Plug):
    """The map of document vectors into the input space: ``W (H + 1) + W (W + 1)`` parameters.

    Args:
        method: says what is told of an entity, and in how many slots.
        knowledge: whose texts they are.
        lm: the network.
    """

    def __init__(self, method: Xrag, knowledge: KnowledgeBase, lm: LanguageModel) -> None:
        super().__init__()
        self.method, self.knowledge = method, knowledge
        width = lm.slot_width
        self.map = nn.Sequential(nn.Linear(lm.width, width), nn.GELU(), nn.Linear(width, width))
        self._vectors: DocumentVectors | None = None

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        method = self.method
        room, parts = int(method.options["room"]), method.slot_count()
        self._vectors = DocumentVectors(lm, method.told, self.knowledge, room, parts)
        try:
            with lm.slots(self.slot_vectors):
                yield
        finally:
            self._vectors = None

    def slot_vectors(self, rows: Tensor) -> Tensor:
        """Maps the vectors of entities' texts. ``[entities] -> [entities, n, W]``.

        Raises:
            RuntimeError: the plug is not attached: no network has read the texts.
        """
        if self._vectors is None:
            raise RuntimeError("the slots of xrag are those of a network; attach the plug first")
        slots: Tensor = self.map(self._vectors.of(rows.numpy()))
        return slots if slots.shape[1] > 1 else slots[:, 0]


def paraphrases(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    told: Told,
    slot: str | None,
    max_length: int,
    *,
    room: int,
    most: int,
    seed: int,
    slots: int = 1,
) -> Asked:
    """Makes texts ``name means : d`` whose names are linked, and whose texts ``d`` are asked for.

    Args:
        lm: its tokenizer is used.
        knowledge: gives the texts.
        told: says what is told of an entity.
        slot: the method's slot template, or None.
        max_length: longest kept input in tokens.
        room: tokens of a text, about; what is longer is cut to as many.
        most: texts; of more so many are drawn.
        seed: of what is drawn.
        slots: input vectors of an entity.

    Raises:
        Unsupported: no entity with a name has a text that is short enough.
    """
    every = np.arange(len(knowledge), dtype=np.int64)
    rows = every[told.covers(knowledge, every) & knowledge.has_name(every)]
    rng = np.random.default_rng(seed)
    if len(rows) > most:
        rows = np.sort(rng.choice(rows, size=most, replace=False))
    texts = [" ".join(told.passages(knowledge, row)) for row in rows.tolist()]
    prompts = rng.integers(len(_PROMPTS), size=len(rows)).tolist()
    examples = [
        _paraphrase(str(at), knowledge.name_of(int(row)), _PROMPTS[prompt], text)
        for at, (row, prompt, text) in enumerate(
            zip(rows, prompts, _shortened(lm, texts, room), strict=True)
        )
    ]
    linked = [(row, -1) for row in rows.tolist()]
    asked = asked_tails(lm, examples, linked, slot, max_length, slots=slots)
    if asked is None:
        raise Unsupported(
            f"knowledge base {knowledge.name} has no usable text: of {len(rows)} texts of entities "
            f"with names none fits into {max_length} tokens beside {slots} slots (options "
            "max_length and slots, and the window of the backbone)"
        )
    kept = len(asked.sentence)
    counts = {"corpus_texts": kept, "corpus_texts_too_long": len(rows) - kept}
    return replace(asked, dropped=counts)


def _paraphrase(number: str, name: str, prompt: str, text: str) -> Example:
    whole = f"{name} {prompt} {text}"
    mentions = (
        Mention(0, len(name), None, Role.HEAD),
        Mention(len(whole) - len(text), len(whole), None, Role.TAIL),
    )
    return Example(number, whole, mentions, "")


def _shortened(lm: LanguageModel, texts: list[str], room: int) -> list[str]:
    """Texts cut to the room, by words: one is taken to have as many tokens as another."""
    lengths = map(len, inner_tokens(lm.tokenizer, texts))
    shares = (min(1.0, room / max(1, length)) for length in lengths)
    cut = (
        text if share == 1 else " ".join(words[: max(1, int(share * len(words)))])
        for text, share, words in zip(texts, shares, map(str.split, texts), strict=True)
    )
    return [text.strip() for text in cut]


@dataclass(frozen=True)
class Taught:
    """Facts of which a teacher says what comes next, as training data for who has slots.

    Attributes:
        asked: the facts, their heads with slots and their tails asked for.
        tokens: the likeliest at each asked token, by the teacher. ``[asked, kept]``.
        likely: the logarithms of their probabilities, not normalised. ``[asked, kept]``.
    """

    asked: Asked
    tokens: NDArray[np.int64]
    likely: NDArray[np.float32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each fact. ``[facts]``."""
        return self.asked.lengths

    def batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Returns a batch whose blanks are where tokens of tails are said."""
        return self.asked.batch(chosen)

    def of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns what the teacher says at the blanks of a batch. ``[blanks, kept]`` each."""
        chosen = np.searchsorted(self.asked.sentence, batch.examples.numpy())
        items, _ = ragged(self.asked.bounds, chosen)
        device = batch.ids.device
        tokens, likely = torch.from_numpy(self.tokens[items]), torch.from_numpy(self.likely[items])
        return sent(tokens, device), sent(likely, device)


def taught(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    told: Told,
    slot: str | None,
    max_length: int,
    *,
    room: int,
    most: int,
    seed: int,
    slots: int = 1,
) -> Taught | None:
    """Makes texts of facts, and has the model say their tails with the texts of their heads.

    Arguments are those of :func:`paraphrases`; there are ``most`` facts.

    Returns:
        None where no fact can be told in so many tokens.
    """
    facts = drawn_facts(lm, knowledge, most, seed)
    examples, rows = fact_texts(knowledge, facts)
    asked = asked_tails(lm, examples, rows, slot, max_length, slots=slots) if examples else None
    if asked is None:
        return None
    counts = {"corpus_facts": len(knowledge.triples), "corpus_instances": len(asked.sentence)}
    asked = replace(asked, dropped=counts)
    examples = [examples[at] for at in asked.sentence.tolist()]
    heads = facts[asked.sentence, 0].tolist()
    longest = min(max_length + room, lm.max_length)
    layout = Layout({}, truncate=False, left_to_right=lm.left_to_right, room=longest)
    brought = [[Passage(text) for text in told.passages(knowledge, row)] for row in heads]
    inputs = encode(lm.tokenizer, examples, [(-1, -1)] * len(examples), layout, brought)
    places = [tail_tokens(inputs, number) for number in range(len(examples))]
    assert [*map(len, places)] == np.diff(asked.bounds).tolist()
    read = replace(
        asked, inputs=inputs, sentence=np.arange(len(examples)), asked=np.concatenate(places)
    )
    return Taught(asked, *_likeliest(lm, read))


def _likeliest(lm: LanguageModel, asked: Asked) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """What the model finds likeliest at each asked token. ``[asked, kept]`` each."""
    kept = min(_LIKELIEST, lm.word_embeddings.num_embeddings)
    tokens = np.zeros((len(asked.asked), kept), dtype=np.int64)
    likely = np.zeros(tokens.shape, dtype=np.float32)
    order = np.argsort(asked.lengths, kind="stable")
    device = lm.word_embeddings.weight.device
    with torch.inference_mode(), dropout(lm, None):
        for start in range(0, len(order), _TOGETHER):
            some = order[start : start + _TOGETHER]
            most, which = _said(lm, asked.batch(some).to(device)).topk(kept)
            items, _ = ragged(asked.bounds, some)
            tokens[items], likely[items] = which.cpu().numpy(), most.cpu().numpy()
    return tokens, likely


def _said(lm: LanguageModel, batch: Batch) -> Tensor:
    """The logarithms of what is said at the blanks. ``[blanks, V]``."""
    hidden = lm(batch, batch.blank_index).flatten(0, 1)[batch.blank_index]
    return lm.predict_tokens(hidden).float().log_softmax(-1)


def distilled(lm: LanguageModel, lessons: Taught, batch: Batch) -> Tensor:
    """Returns the loss of a batch of lessons, a scalar; the plug is attached."""
    assert batch.targets is not None
    said = _said(lm, batch)
    tokens, likely = lessons.of(batch)
    apart = (likely.exp() * (likely - said.gather(1, tokens))).sum(1).mean()
    return F.nll_loss(said, batch.targets) + _WEIGHT * apart


@final
class Xrag(FactReader):
    """xRAG: the text of an entity as one vector, or ``slots`` of them, in the input.

    Options: ``slots``; ``text`` and ``room``, as of ``ra`` but for one text; of the first of the
    two trainings ``paraphrase_epochs`` (0 leaves it out), ``paraphrase_rate`` and
    ``paraphrase_batch``, where all else is as the recipe says; and those of
    :class:`~kbench_baselines.read_facts.FactReader`. Where no fact can be told there is only the
    first training.
    """

    card = MethodCard(
        title="xRAG",
        paper="xRAG: Extreme Context Compression for Retrieval-augmented Generation with One Token "
        "(NeurIPS 2024)",
        year=2024,
        needs="descriptions or facts",
        citation="arXiv:2405.13792",
        authors="Xin Cheng, Xun Wang, Xingxing Zhang, Tao Ge, Si-Qing Chen, Furu Wei, Huishuai "
        "Zhang and Dongyan Zhao",
        trains="W (H + 1) + W (W + 1), W the width of word embeddings",
    )
    revision = "2"
    reads_text = True
    slot = "{slot} / {mention}"
    defaults: ClassVar[Mapping[str, Any]] = {
        **FactReader.defaults,
        "max_length": 256,
        "slots": 1,
        "room": 180,
        "text": "description",
        "paraphrase_epochs": 1,
        "paraphrase_rate": 6e-3,
        "paraphrase_batch": 384,
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **FactReader.option_types,
        **Told.option_types,
        "slots": OptionType("whole number", least=1),
        "paraphrase_epochs": OptionType("whole number", least=0),
        "paraphrase_rate": OptionType("number", above=0),
        "paraphrase_batch": OptionType("whole number", least=1),
    }
    general = _PUBLISHED
    fixed = _PUBLISHED
    families = dict.fromkeys(Family, _PUBLISHED)

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self.told = RetrievalAugmentation({name: self.options[name] for name in ("room", "text")})

    def slot_count(self) -> int:
        return int(self.options["slots"])

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        return self.told.covers(knowledge, rows)

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        """Asks for nothing: whether there is anything to tell is seen when a plug is built."""

    def starts_general(self, lm: LanguageModel, knowledge: KnowledgeBase) -> bool:
        return self.may_start_general() and lm.has_lm_head

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an untrained plug.

        Raises:
            Unsupported: there is nothing to tell of any entity.
        """
        self.told.build(lm, knowledge)
        return XragPlug(self, knowledge, lm)

    def pretrain(self, plug: Plug, fit: Fit, max_length: int) -> History:
        lm, options = fit.lm, fit.options
        given: dict[str, Any] = {
            "room": int(options["room"]),
            "most": int(options["lessons"]),
            "seed": fit.seed,
            "slots": self.slot_count(),
        }
        place = lm, fit.knowledge, self.told, self.slot, max_length
        history = History()
        if epochs := int(options["paraphrase_epochs"]):
            rate, size = float(options["paraphrase_rate"]), int(options["paraphrase_batch"])
            first = {"learning_rate": rate, "batch_size": size, "epochs": epochs}
            texts = paraphrases(*place, **given)
            ahead = replace(fit, recipe=fit.recipe.updated(first))
            history.add(ahead.train(plug, partial(mention_loss, lm), texts))
            history.counts |= texts.dropped
        lessons = taught(*place, **given)
        if lessons is not None:
            history.add(fit.train(plug, partial(distilled, lm, lessons), lessons))
            history.counts |= lessons.asked.dropped
        if not history.steps:
            raise Unsupported(f"knowledge base {fit.knowledge.name} has no fact that can be told")
        return history
