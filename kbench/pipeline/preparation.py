"""A split as a model reads it: limited, with gold targets, linked, with texts, encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from kbench.data import Answers, Example, Label, Split
from kbench.encoding import (
    Demonstrations,
    Encoded,
    Inputs,
    Layout,
    Pairs,
    Passage,
    TokenKind,
    Trees,
    bare_tokens,
    encode,
    known_markers,
)
from kbench.encoding.pairs import Comparisons, compared, room_of_text, supports
from kbench.errors import InputError
from kbench.knowledge import Links
from kbench.knowledge.documents import DOCUMENTS, plain
from kbench.knowledge.linked import linked
from kbench.knowledge.linking import joined
from kbench.knowledge.names import find_word
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.heads import Gold
from kbench.parts.run_parts import Parts
from kbench.pipeline.documents import documents
from kbench.spec import Limit, limit_of
from kbench.task import QuestionTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Prepared", "demonstrated", "expressed", "inputs_of", "limited", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A split as a model reads it.

    Attributes:
        split: which.
        examples: those the head can express.
        gold: their labels and targets.
        inputs: their tokens and slots; pairs where examples have candidates.
        links: their mentions' entities, those of an example's supports among them.
        total: examples before any was left out.
        answered: whether the passages of each example, as far as they are read, spell out a gold
            label; None without passages.
        undemonstrated: demonstrations that had no room before an example, over all examples; None
            where none are shown.
    """

    split: Split
    examples: Sequence[Example]
    gold: Gold
    inputs: Encoded
    links: Links
    total: int
    answered: Sequence[bool] | None = None
    undemonstrated: int | None = None

    @property
    def strata(self) -> list[str]:
        """The stratum of each example."""
        return [example.stratum for example in self.examples]

    @property
    def relations(self) -> list[str]:
        """The relation of each example, as far as it is known."""
        return [example.relation for example in self.examples]

    @property
    def counts(self) -> dict[str, int]:
        """What was kept, what had no room, and how much is read."""
        counts = {
            "total": self.total,
            "kept": len(self.examples),
            "shortened": self.inputs.shortened,
            "mentions_without_room": self.inputs.unslotted,
            "tokens": int(self.inputs.lengths.sum()),
            **self.inputs.words,
        }
        if self.answered is not None:
            counts["answer_in_context"] = sum(self.answered)
        if self.undemonstrated is not None:
            counts["demonstrations_without_room"] = self.undemonstrated
        return {f"{self.split}_{name}": n for name, n in counts.items()} | dict(self.gold.counts)

    def answers(self, predictions: Sequence[Label]) -> Answers:
        """Returns the examples with what a model predicts of them."""
        named = self.gold.named(predictions)
        return Answers(
            labels=self.gold.labels,
            predictions=named,
            strata=self.strata,
            relations=self.relations,
        )


def prepare(
    parts: Parts,
    split: Split,
    model: DownstreamModel,
    *,
    injected: bool,
    given: Sequence[Example] | None = None,
) -> Prepared:
    """Reads, limits, links and encodes a split; without the method's additions if not injected.

    Args:
        parts: of the run.
        split: which.
        model: its head says what can be put and expressed.
        injected: whether inputs carry what the run's method adds.
        given: examples in the place of those of the split.

    Raises:
        InputError: no example is left.
    """
    task, lm, method = parts.task, model.lm, parts.method
    examples = given or limited(task.examples(split), parts.spec.limit)
    kept, gold = expressed(model, _asked(parts, examples))
    if not kept:
        why = ""
        if isinstance(task, QuestionTask) and task.way == "token":
            why = ": no answer is one token of the backbone as its place asks for it"
            if lm.left_to_right:
                why += f"; take --set task.{parts.spec.task}.answers=ranked, or open"
        raise InputError(
            f"task {parts.spec.task}: none of {len(examples)} {split} examples is usable{why}"
        )
    base = parts.base_knowledge if injected else None
    several = compared(kept) if any(example.candidates for example in kept) else None
    covers = partial(method.covers, base) if base is not None else None
    texts, links = linked(several.texts if several else kept, base, parts.linker, covers)
    if several and parts.prompting is not None:
        grown, links, dropped = _in_episodes(
            parts, model, kept, (several, texts, links), injected=injected
        )
        return Prepared(split, kept, gold, grown, links, len(examples), undemonstrated=dropped)
    # Two texts share the room of one.
    room = partial(room_of_text, lm.tokenizer) if several else int
    put = [model.head.put(text) or text for text in texts]
    inputs = inputs_of(parts, lm, put, links, injected=injected, room=room)
    if several:
        links = joined(links, [several.texts_of(number) for number in range(len(kept))])
        pairs = Pairs.encoded(lm.tokenizer, inputs, several)
        return Prepared(split, kept, gold, pairs, links, len(examples))
    answered = _answered(lm.tokenizer, kept, inputs) if injected and method.text else None
    grown = model.head.grown(inputs, lm.tokenizer, kept)
    shown = demonstrated(parts, lm, injected=injected)
    if shown is None:
        return Prepared(split, kept, gold, grown, links, len(examples), answered)
    behind = _behind(grown, shown, lm.max_length - parts.task.answer_room)
    return Prepared(split, kept, gold, behind, links, len(examples), answered, shown.dropped)


def _asked(parts: Parts, examples: Sequence[Example]) -> Sequence[Example]:
    """Returns examples without those that are shown before them: none is shown to itself."""
    shown = {example.id for example, _ in parts.demonstrations}
    return [example for example in examples if example.id not in shown] if shown else examples


def demonstrated(parts: Parts, lm: LanguageModel, *, injected: bool) -> Demonstrations | None:
    """Returns what stands before every text of a run, encoded as the texts are.

    Args:
        parts: of the run.
        lm: its tokenizer is used.
        injected: whether it carries what the run's method adds.
    """
    prompt = parts.task.asked
    if not parts.demonstrations or prompt is None:
        return None
    base = parts.base_knowledge if injected else None
    covers = partial(parts.method.covers, base) if base is not None else None
    examples, answers = zip(*parts.demonstrations, strict=True)
    texts, links = linked(examples, base, parts.linker, covers)
    shown = [prompt.shown(*each) or each[0] for each in zip(texts, answers, strict=True)]
    return Demonstrations(lm.tokenizer, inputs_of(parts, lm, shown, links, injected=injected))


def _in_episodes(
    parts: Parts,
    model: DownstreamModel,
    examples: Sequence[Example],
    episodes: tuple[Comparisons, Sequence[Example], Links],
    *,
    injected: bool,
) -> tuple[Encoded, Links, int]:
    """Encodes examples behind the supports of their candidates, each of which is encoded once.

    Args:
        parts: of the run.
        model: it puts the examples.
        examples: with candidates.
        episodes: who is compared with whom, the linked texts, and their links.
        injected: whether they carry what the run's method adds.

    Returns:
        the inputs, the links of the examples, and how many supports had no room.
    """
    prompt, lm, (several, texts, links) = parts.task.asked, model.lm, episodes
    assert prompt is not None
    shown, of = supports(several)
    queries = several.left[several.bounds[:-1]].tolist()

    def encoded(put: Sequence[Example], numbers: Sequence[int]) -> Inputs:
        own = replace(links, rows=tuple(links.rows[number] for number in numbers))
        return inputs_of(parts, lm, put, own, injected=injected)

    put = [
        prompt.shown(texts[at], prompt.answer(texts[at], name)) or texts[at] for at, name in shown
    ]
    before = Demonstrations(lm.tokenizer, encoded(put, [at for at, _ in shown]))
    asked = [model.head.put(texts[at]) or texts[at] for at in queries]
    grown = model.head.grown(encoded(asked, queries), lm.tokenizer, examples)
    behind = _behind(grown, before, lm.max_length, of)
    links = joined(links, [several.texts_of(number) for number in range(len(examples))])
    return behind, links, before.dropped


def _behind(
    grown: Encoded, shown: Demonstrations, room: int, of: Sequence[Sequence[int]] | None = None
) -> Encoded:
    """Texts with what is shown before them."""
    if isinstance(grown, Trees):
        return grown.behind(shown, room, of)
    assert isinstance(grown, Inputs)
    return shown.before(grown, room, of)


def expressed(model: DownstreamModel, examples: Sequence[Example]) -> tuple[list[Example], Gold]:
    """Returns the examples that a model's head can put and express, and what is right of them."""
    usable = [example for example in examples if model.head.put(example) is not None]
    gold = model.head.gold(usable, model.lm.tokenizer)
    return [usable[index] for index in gold.kept], gold


def inputs_of(
    parts: Parts,
    lm: LanguageModel,
    texts: Sequence[Example],
    links: Links,
    *,
    injected: bool,
    room: Callable[[int], int] = int,
) -> Inputs:
    """Encodes linked texts as a run does, with what its method adds if that is injected.

    Args:
        parts: of the run.
        lm: its tokenizer is used.
        texts: with the mentions that are linked.
        links: of their mentions, to entities that the method covers.
        injected: whether slots are put in, and the entities' texts.
        room: what of a length in tokens one text may take.
    """
    method, task, tokenizer = parts.method, parts.task, lm.tokenizer
    window = lm.max_length - task.answer_room
    longest = min(task.max_length, window) if not task.answer_room else window
    own = task.markers if task.states_markers else known_markers(tokenizer, task.markers)
    if parts.prompting is not None:
        own = {}  # a prompt asks about mentions by their names
    layout = Layout(
        markers=own,
        max_length=room(longest),
        truncate=not task.answer_room,
        left_to_right=lm.left_to_right,
        chat=parts.prompting is not None and parts.spec.chat,
    )
    passages: list[list[Passage]] = []
    if injected:
        layout = replace(layout, slot=method.template(), slots=method.slot_count())
    if injected and method.text:
        longest = min(int(method.options["room"]), window)
        layout = replace(layout, room=room(longest))
        passages = _passages(parts, texts, links)
    inputs = encode(tokenizer, texts, links.rows, layout, passages)
    if task.answer_room:
        _check_whole(inputs, texts, window, task.answer_room)
    return inputs


def _check_whole(inputs: Inputs, texts: Sequence[Example], window: int, answer: int) -> None:
    """Refuses prompts that would have to be cut; texts of entities were cut before.

    Raises:
        InputError: there is one.
    """
    long = np.flatnonzero(inputs.lengths > window)
    if len(long):
        raise InputError(
            f"example {texts[int(long[0])].id}: its prompt takes {inputs.lengths[long[0]]} tokens, "
            f"and the window has room for {window} beside an answer of {answer} ({len(long)} such "
            "prompts); use a backbone with a longer window, or leave them out"
        )


def _passages(parts: Parts, examples: Sequence[Example], links: Links) -> list[list[Passage]]:
    """Texts of each example, in the order of the mentions: one an entity, or one a mention."""
    method, knowledge = parts.method, parts.knowledge
    assert knowledge is not None
    rows = {row for several in links.rows for row in several if row >= 0}
    texts = {row: [t for t in method.passages(knowledge, row) if t] for row in rows}
    if method.text == "hung":
        return [
            [Passage(t, mention) for mention, row in enumerate(rows) for t in texts.get(row, ())]
            for rows in links.rows
        ]
    brought = [
        [text for row in dict.fromkeys(rows) for text in texts.get(row, ())] for rows in links.rows
    ]
    if parts.spec.control in DOCUMENTS:
        brought = documents(parts, examples, links.rows, brought)
    return [[Passage(text) for text in several] for several in brought]


def _answered(
    tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example], inputs: Inputs
) -> list[bool]:
    """Returns whether the passages of each example spell out one of its labels, as whole words.

    What a passage lost for want of room does not count, so the tokens are read back. Labels go
    through the tokenizer too: it may drop case and accents.
    """
    brought = inputs.kinds == TokenKind.PASSAGE
    parts = [slice(*bounds) for bounds in pairwise(inputs.bounds.tolist())]
    texts = _read_back(tokenizer, [inputs.ids[part][brought[part]].tolist() for part in parts])
    labels = [example.labels for example in examples]
    known = list(dict.fromkeys(label for several in labels for label in several))
    ids = bare_tokens(tokenizer, known)
    # Of a label with an unknown part only that part is lost: the rest is another label.
    ids = [[] if tokenizer.unk_token_id in pieces else pieces for pieces in ids]
    spelled = dict(zip(known, _read_back(tokenizer, ids), strict=True))
    return [
        any(find_word(spelled[label], text) >= 0 for label in several)
        for text, several in zip(texts, labels, strict=True)
    ]


def _read_back(tokenizer: PreTrainedTokenizerFast, ids: list[list[int]]) -> list[str]:
    return [plain(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def limited(examples: Sequence[Example], limit: Limit | None) -> Sequence[Example]:
    """Returns what a limit takes of the examples, drawn by a fixed seed, in their order."""
    size = limit_of(limit, len(examples))
    if size == len(examples):
        return examples
    chosen = np.random.default_rng(0).choice(len(examples), size=size, replace=False)
    return [examples[index] for index in sorted(chosen.tolist())]
