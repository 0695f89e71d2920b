"""What holds for every task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import cached_property
from itertools import product
from typing import cast

from kbench.data import NONE_OF_THE_ABOVE, Example, Label, Role, Split, digest_examples, is_right
from kbench.errors import KbenchError
from kbench.knowledge import LINKERS
from kbench.model import Head
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.source_text import summary
from kbench.spec import check_options, check_values
from kbench.task import ProbeTask, QuestionTask, Task, subject_of
from kbench.testing.contracts import Finding, Unchecked, Verdict, contract
from kbench.training import Recipe

__all__ = ["CONTRACTS", "subject"]

_WIDTH = 32
_SPELLED = 100
"""Answers whose spelling is tried."""


class Loaded:
    """A task, and its splits if its data are at hand.

    Args:
        name: of the task.
        data: where its files lie; None where they come with it, or nobody has them.
    """

    def __init__(self, name: str, data: str | None = None) -> None:
        self.entry = registry.find(Kind.TASKS, name)
        self.kind = cast("type[Task]", registry.load(self.entry))
        self.data = data

    @cached_property
    def task(self) -> Task:
        """The task with its default options."""
        return self.kind(self.data)

    @property
    def at_hand(self) -> bool:
        """Whether its data come with it, or are given."""
        return not self.kind.card.obtain or self.data is not None

    def read(self) -> dict[Split, list[Example]]:
        """Returns the examples of each split."""
        return {split: list(self.task.examples(split)) for split in Split}

    @cached_property
    def splits(self) -> dict[Split, list[Example]]:
        """The examples of each split.

        Raises:
            Unchecked: its data must be given, or do not load, which the contract of the data says.
        """
        if not self.at_hand:
            raise Unchecked("its data must be given (--data)")
        try:
            return self.read()
        except KbenchError:
            raise Unchecked("its data do not load") from None


subject = Loaded


@contract
def card(loaded: Loaded) -> Verdict:
    """The card is complete, the task says what it measures, and its recipes have known fields."""
    for recipe in loaded.kind.recipes.values():
        check_options(recipe, Recipe.types, "a recipe")
        check_values(recipe, {}, Recipe.types, "a recipe")
    given = asdict(loaded.kind.card)
    optional = ("obtain", "sizes", "name")
    missing = [name for name, value in given.items() if not value and name not in optional]
    missing += [] if summary(loaded.entry) else ["the first line of the docstring"]
    missing += [] if loaded.kind.metrics else ["metrics"]
    missing += [] if loaded.kind.linking in LINKERS else ["a linker that there is"]
    variants = ", ".join(metric.variant for metric in loaded.kind.metrics)
    figure = f"{given['title']}, {loaded.kind.family}, {variants}"
    return not missing, f"missing: {', '.join(missing)}" if missing else figure


@contract
def data(loaded: Loaded) -> Verdict:
    """It loads, or says in one line which data to give; the training split of a probe is empty."""
    if loaded.at_hand:
        sizes = {split: len(examples) for split, examples in loaded.read().items()}
        figure = ", ".join(f"{size} {split}" for split, size in sizes.items())
        probe = issubclass(loaded.kind, ProbeTask)
        empty = {split for split, size in sizes.items() if not size}
        return empty == ({Split.TRAIN} if probe else set()), figure
    try:
        loaded.task.examples(Split.TRAIN)
    except KbenchError as error:
        told = str(error)
        return "\n" not in told and "--data" in told, f"without data: {told}"
    return False, "loads without data although the card says how to obtain them"


@contract
def splits(loaded: Loaded) -> Verdict:
    """Ids are unique, within a split and between splits; a probe shares no subject between them."""
    ids = Counter(e.id for examples in loaded.splits.values() for e in examples)
    twice = [name for name, count in ids.items() if count > 1]
    first = f", as {twice[0]}" if twice else ""
    if isinstance(loaded.task, ProbeTask):
        dev, test = ({*map(subject_of, loaded.splits[s])} for s in (Split.DEV, Split.TEST))
        if dev & test:
            return False, f"{len(dev & test)} subjects are in dev and test, as {min(dev & test)}"
    return not twice, f"{len(twice)} of {len(ids)} ids occur twice{first}"


@contract
def labels(loaded: Loaded) -> Verdict:
    """Every label of dev and test occurs in train, or among the candidates; questions have one."""
    known = {label for e in loaded.splits[Split.TRAIN] for label in e.labels}
    rest = [e for split in (Split.DEV, Split.TEST) for e in loaded.splits[split]]
    if isinstance(loaded.task, QuestionTask):
        mute = [e.id for e in rest if not any(e.labels)]
        return not mute, f"{len(mute)} of {len(rest)} questions without an answer"
    unknown = {label for e in rest for label in e.labels if label not in _offered(e)} - known
    first = f", as {min(unknown)}" if unknown else ""
    return not unknown, f"{len(known)} labels, {len(unknown)} unknown{first}"


def _offered(example: Example) -> set[str]:
    """The labels that an example with candidates may have."""
    offered = {candidate.label for candidate in example.candidates}
    return offered | {NONE_OF_THE_ABOVE} if offered else offered


@contract
def mentions(loaded: Loaded) -> Verdict:
    """Mentions lie inside the text and are not blank; a role other than context has its marker.

    A probe has no marker, since nothing is tuned to read it.
    """
    everyone = [e for examples in loaded.splits.values() for e in examples]
    outside = [e.id for e in everyone for m in e.mentions if not e.text[m.start : m.end].strip()]
    roles = {m.role for e in everyone for m in e.mentions} - {Role.CONTEXT}
    probe, marked = isinstance(loaded.task, ProbeTask), set(loaded.kind.markers)
    unmarked = marked if probe else roles - marked
    count = sum(len(e.mentions) for e in everyone)
    figure = f"{count} mentions, {len(outside)} blank or outside, roles {', '.join(sorted(roles))}"
    return bool(count) and not outside and not unmarked, figure


@contract
def whole(loaded: Loaded) -> Verdict:
    """Every example is one of the task's family as a whole: roles, label and blank."""
    everyone = [e for examples in loaded.splits.values() for e in examples]
    told = [(e.id, misfit) for e in everyone if (misfit := loaded.task.misfit(e))]
    first = f", as {told[0][0]}: {told[0][1]}" if told else ""
    return not told, f"{len(told)} of {len(everyone)} are not{first}"


@contract
def same_data(loaded: Loaded) -> Verdict:
    """Loaded twice, the data have the same digest."""
    one = digest_examples(e for examples in loaded.splits.values() for e in examples)
    two = loaded.kind(loaded.data).digest
    return one == two, f"{one[:8]} and {two[:8]}"


@contract
def perfect(loaded: Loaded) -> Verdict:
    """The gold labels themselves score 1 by every metric, of questions the first answer."""
    # Whoever has none of the types is no example of what is right: some metrics give it 0.
    told = [e for e in loaded.splits[Split.TEST] if e.labels]
    gold = [e.label for e in told]
    said = gold
    if isinstance(loaded.task, QuestionTask):
        said = [e.labels[0] for e in told]
    scores = {m.name: m.score(gold, said) for m in loaded.task.metrics}
    figure = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    return all(abs(score - 1) < 1e-9 for score in scores.values()), figure


@contract
def several_answers(loaded: Loaded) -> Verdict:
    """Of a question with several answers any is right by some metric, as the data spell it."""
    # By some: the main one may keep the convention of a release, as LAMA's, which has the first.
    if not isinstance(loaded.task, QuestionTask):
        raise Unchecked("it asks no questions")
    told: list[Label] = [("Rome", "rome", "Roma"), ("Rome", "rome", "Roma")]
    said: list[Label] = ["Roma", "Rome"]
    scores = {m.name: m.score(told, said) for m in loaded.kind.metrics}
    wrong = max(m.score(told, ["ROMA", "Ro"]) for m in loaded.kind.metrics)
    figure = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    return max(scores.values()) == 1 and not wrong, f"{figure}; of wrong ones {wrong:.3f}"


@contract
def spelled(loaded: Loaded) -> Verdict:
    """An answer of one token is kept and right, whatever tokenizer spells it, cased or not."""
    from kbench.testing.spelling import byte_level_of, metaspace_of, wordpiece

    if not isinstance(loaded.task, QuestionTask):
        raise Unchecked("it asks no questions")
    by_answer = {a: e for e in loaded.splits[Split.TEST] for a in e.labels}
    answers = {answer: by_answer[answer] for answer in _spellable(by_answer)}
    told = [replace(e, label=(answer,)) for answer, e in sorted(answers.items())]
    made = loaded.task.head(_WIDTH)
    if not made.needs_lm_head or not told:
        raise Unchecked("no answer of one word is given at the blank")
    figures, held = [], True
    for make, folds in product((wordpiece, byte_level_of, metaspace_of), (False, True)):
        tokenizer = make([*answers], lowercase=folds)
        gold = made.gold(told, tokenizer)
        words = [str(tokenizer.decode([token])).strip() for token in gold.targets.tolist()]
        wanted = [answer.lower() if folds else answer for answer in sorted(answers)]
        alike = sum(map(is_right, gold.labels, gold.named(words)))
        right = alike if words == wanted else 0
        held &= right == len(told)
        figures.append(f"{make.__name__}{' folding case' * folds} {right} of {len(told)}")
    return held, ", ".join(figures)


def _spellable(answers: Iterable[str]) -> list[str]:
    """Words that the tokenizers made for them hold whole: ASCII letters, few, and apart.

    They join a word from its beginning, so no beginning of one may stand inside another.
    """
    chosen: list[str] = []
    for word in sorted(a for a in answers if a.isascii() and a.isalpha()):
        pairs = [(word, other) for other in (word, *chosen)]
        pairs += [(other, word) for other in chosen]
        if len(chosen) < _SPELLED and not any(a[:2].lower() in b[1:].lower() for a, b in pairs):
            chosen.append(word)
    return chosen


@contract
def head(loaded: Loaded) -> Verdict:
    """It has a head over hidden states."""
    count = len(loaded.splits[Split.TEST])
    made = loaded.task.head(_WIDTH)
    figure = f"{type(made).__name__} over {_WIDTH} numbers for {count} test examples"
    return isinstance(made, Head), figure


CONTRACTS: tuple[Callable[[Loaded], Finding], ...] = (
    card,
    data,
    splits,
    labels,
    mentions,
    whole,
    same_data,
    perfect,
    several_answers,
    spelled,
    head,
)
