"""From a plan to the work it takes, for an estimate made before anything is run.

Counts what is at hand: examples and their words, sentences of a corpus. Of data that are not
there yet the task's card says how large they are as published. Whatever is stored, or shared
between runs, is counted once or not at all, as it is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from kbench.data import Example, Lists, Role, Split
from kbench.data.files import canonical_digest
from kbench.data.sources import is_hub
from kbench.encoding.batch import BATCH
from kbench.errors import KbenchError
from kbench.grid.estimate import Memory, Pass, Shape, Work, WorkKind, flops, shape_of
from kbench.knowledge import Sentence
from kbench.parts.run_parts import PartLoader, Parts, task_key
from kbench.pipeline.preparation import limited
from kbench.spec import Setting, limit_of
from kbench.store import hidden_bytes
from kbench.task import QuestionTask
from kbench.training import Recipe

if TYPE_CHECKING:
    from kbench.grid.plan import Cell
    from kbench.store import Artifacts

__all__ = ["memories", "works"]

_PIECES = 1.2
"""Wordpieces (bert-base-uncased) a word: 1.14 in OpenEntity, 1.17 in FewRel."""
_SPECIALS = 2
_MARKERS = 2
"""Tokens around a marked mention."""
_SENTENCE = 35
"""Tokens of a sentence of Wikipedia with its slots, of those of at most 64 (32 without)."""
_SAMPLED = 2000
_FLOAT = 4
"""Bytes of a number of a hidden state."""


class _Unknown(Exception):
    """Something that the estimate needs is not known; says what."""


@dataclass(frozen=True)
class _Reading:
    """What one pass over a split reads: examples, texts of each, tokens of a text (means).

    A decoder reads the trees of candidates behind each text, ``trees`` tokens of them.
    """

    examples: float
    texts: float
    tokens: float
    trees: float = 0.0

    @property
    def total(self) -> float:
        return self.examples * self.texts * (self.tokens + self.trees)

    @property
    def answers(self) -> float:
        """States after which the map to tokens is applied."""
        return self.examples * self.texts * (self.trees + 1)


def works(cells: Sequence[Cell], loader: PartLoader, stored: Artifacts) -> list[Work]:
    """Returns all that has to be made for the runs of a plan that are not stored.

    Args:
        cells: the plan.
        loader: of the parts of its runs.
        stored: models and plugs that are there already.
    """
    made: dict[Any, Work] = {}
    for cell in cells:
        if not cell.done and not cell.impossible:
            for key, make in _Cell(cell, Parts(cell.spec, loader)).needed(stored):
                if key not in made:
                    made[key] = make()
    return list(made.values())


class _Cell:
    """One run, and what it needs."""

    def __init__(self, cell: Cell, parts: Parts) -> None:
        self._cell, self._parts, self._spec = cell, parts, parts.spec

    def needed(self, stored: Artifacts) -> Iterator[tuple[Any, Callable[[], Work]]]:
        """Yields what is not stored by its address, or by its names where it has none."""
        cell, setting = self._cell, self._spec.setting
        name: Any
        recipe = self._parts.tuning_recipe
        if recipe is not None and not _has(stored, "model", cell.model):
            name = cell.model or ("model", self._model_name(recipe))
            yield name, partial(self._tuning, recipe)
        if self._spec.knowledge is not None:
            if setting == Setting.TASK_SPECIFIC:
                if self._parts.method.may_start_general() and not _has(stored, "plug", cell.start):
                    name = cell.start or ("plug", self._plug_name(Setting.GENERAL))
                    yield name, lambda: self._general(Setting.GENERAL)
                if not _has(stored, "plug", cell.plug):
                    model = self._model_name(recipe)
                    name = cell.plug or ("plug", self._plug_name(setting), model)
                    yield name, self._task_specific
            elif not _has(stored, "plug", cell.plug):
                name = cell.plug or ("plug", self._plug_name(setting))
                yield name, lambda: self._general(setting)
        yield ("result", cell.id), self._evaluation

    def _model_name(self, recipe: Recipe | None) -> str:
        spec, parts = self._spec, self._parts
        named: list[Any] = [spec.task, spec.data, spec.options.get("task"), spec.limit]
        named += [spec.backbone]
        named += [spec.tuning, parts.tuning_options, recipe and recipe.as_dict(), spec.seed]
        named.append(spec.dtype)
        if parts.plug_is_fixed:
            named += [self._plug_name(Setting.FINE_TUNING), spec.linker]
        return canonical_digest(named)

    def _plug_name(self, setting: Setting) -> str:
        spec, parts = self._spec, self._parts
        named: list[Any] = [spec.method, parts.method.options, str(setting), spec.backbone]
        named.append(spec.knowledge)
        named += [str(spec.control), spec.seed, parts.plug_recipe(setting).as_dict(), spec.dtype]
        return canonical_digest(named)

    # -- what each costs ---------------------------------------------------------------------------

    def _tuning(self, recipe: Recipe) -> Work:
        parts = self._parts
        injected = parts.plug_is_fixed
        if parts.tuning.reads_once:
            return _work(WorkKind.TUNING, lambda: self._once(recipe, injected))
        kind = Pass.THROUGH if parts.tuning.light else Pass.TRAIN
        return _work(WorkKind.TUNING, lambda: self._on_task(recipe, kind, injected))

    def _task_specific(self) -> Work:
        recipe = self._parts.plug_recipe(Setting.TASK_SPECIFIC)
        return _work(WorkKind.TASK, lambda: self._on_task(recipe, Pass.THROUGH, injected=True))

    def _evaluation(self) -> Work:
        injected = self._spec.knowledge is not None

        def count() -> float:
            passes = [(Pass.FORWARD, self._read(Split.TEST, injected))]
            tried = len(self._parts.method.choices())
            if injected and tried and self._spec.setting == Setting.GENERAL:
                passes += tried * [(Pass.FORWARD, self._read(Split.DEV, injected))]
            return self._cost(passes)

        return _work(WorkKind.EVALUATION, count)

    def _once(self, recipe: Recipe, injected: bool) -> float:
        """What a frozen network says is kept, and read again only where there is no room for it."""
        splits = (Split.TRAIN, Split.DEV) if recipe.select else (Split.TRAIN,)
        read = [self._read(split, injected) for split in splits]
        shape = self._shape()
        # A head reads one state of a text, the pooled one.
        fits = all(
            _FLOAT * shape.width * one.examples * one.texts <= hidden_bytes() for one in read
        )
        times = 1 if fits else recipe.epochs
        return flops(shape.parameters, (Pass.FORWARD, times * sum(one.total for one in read)))

    def _on_task(self, recipe: Recipe, kind: Pass, injected: bool) -> float:
        read = self._read(Split.TRAIN, injected)
        passes = [(kind, replace(read, examples=recipe.share * read.examples))]
        if recipe.select:
            passes.append((Pass.FORWARD, self._read(Split.DEV, injected)))
        return recipe.epochs * self._cost(passes)

    def _cost(self, passes: Sequence[tuple[Pass, _Reading]]) -> float:
        """Operations of the layers for all that is read, and of a map to tokens for answers."""
        shape = self._shape()
        layers = flops(shape.parameters, *((kind, read.total) for kind, read in passes))
        if not self._asked:
            return layers
        said = ((min(kind, Pass.THROUGH), read.answers) for kind, read in passes)
        return layers + flops(shape.map_to_tokens, *said)

    @property
    def _asked(self) -> bool:
        """Whether a decoder is asked by a prompt."""
        return bool(self._parts.tuning.prompts) and self._shape().causal

    def memory(self) -> Memory | None:
        """Returns what its backbone takes, as far as that is known."""
        try:
            read = self._read(Split.TEST, self._spec.knowledge is not None)
            shape = self._shape()
        except _Unknown:
            return None
        return Memory.of(shape, self._spec.weights, BATCH, read.tokens, read.trees)

    def _general(self, setting: Setting) -> Work:
        """A general plug reads the corpus of a knowledge base, where its method trains on one."""
        method, spec = self._parts.method, self._spec
        read = method.corpus_readings()
        if read == 0:
            return Work(WorkKind.GENERAL, 0.0)
        if read is None:
            what = f"what a general plug of {spec.method} reads"
            return Work(WorkKind.GENERAL, None, unknown=what)
        recipe = self._parts.plug_recipe(setting)
        epochs = recipe.epochs * recipe.share
        try:
            shape = self._shape()
        except _Unknown as unknown:
            return Work(WorkKind.GENERAL, None, unknown=str(unknown))
        try:
            knowledge = self._parts.base_knowledge
            sentences = knowledge.sentences if knowledge is not None else ()
        except KbenchError:
            rate = flops(shape.parameters, (Pass.THROUGH, read * epochs * _SENTENCE))
            what = f"the corpus of knowledge base {spec.knowledge}, for general plugs"
            return Work(WorkKind.GENERAL, None, rate, what)
        # What is read of data and of a base is the same for all runs of a grid.
        once = self._parts.loader.once
        tokens = once("corpus tokens", str(spec.knowledge), lambda: _corpus_tokens(sentences))
        return Work(
            WorkKind.GENERAL, flops(shape.parameters, (Pass.THROUGH, read * epochs * tokens))
        )

    # -- what is known -----------------------------------------------------------------------------

    def _shape(self) -> Shape:
        backbone = self._parts.backbone
        shape = shape_of(self._spec.backbone, backbone.config())
        if shape is None:
            raise _Unknown(f"the size of backbone {self._spec.backbone}")
        return shape

    def _read(self, split: Split, injected: bool) -> _Reading:
        reading = self._at_hand(split) or self._published(split)
        method = self._parts.method
        if injected and method.text:
            # How long the texts are is not known before they are linked: at most what has room.
            room = max(reading.tokens, float(method.options["room"]))
            reading = replace(reading, tokens=room)
        prompt = self._parts.task.prompt
        if not self._asked or prompt is None:
            return reading
        tokens = reading.tokens + _PIECES * len(prompt.nothing.split())
        if isinstance(prompt, Lists):
            tokens += _PIECES * sum(len(prompt.spelled(label).split()) for label in self._labels())
        if self._shown_with_each(split):
            given = {**self._parts.tuning.prompts, **self._spec.options_of("tuning")}
            tokens *= 1 + int(given.get("shots", 0))
        return replace(reading, tokens=tokens, trees=self._trees())

    def _shown_with_each(self, split: Split) -> bool:
        """Whether demonstrations are read with each text, not once for all."""
        narrow = self._spec.weights != "float32"
        if split == Split.TEST:
            narrow = narrow or self._spec.dtype != "float32"
        return split == Split.TRAIN or narrow

    def _trees(self) -> float:
        """Tokens of the candidates behind each text, or of its answer: those that one follows."""
        task = self._parts.task
        if task.prompt is None:
            return 0.0
        if isinstance(task, QuestionTask):
            return self._answers(task)
        if task.answer_room:
            return task.answer_room - 1.0
        labels = self._labels()
        try:
            spelled = [tuple(said.split()) for said in task.prompt.candidates(labels)]
        except KbenchError:  # which the run will say
            return 0.0
        shared = {words[:at] for words in spelled for at in range(1, len(words))}
        return len(shared) + (_PIECES - 1) * len({word for words in spelled for word in words})

    def _labels(self) -> Sequence[str]:
        try:
            return getattr(self._parts.task, "labels", ())
        except KbenchError as error:
            what = f"the labels of {self._spec.task}, which it is asked for: put its data there"
            raise _Unknown(what) from error

    def _answers(self, task: QuestionTask) -> float:
        """Tokens of an answer at most, or of the candidates of a relation, but for the last."""
        if task.way != "ranked":
            return max(0.0, task.answer_room - 1.0)
        try:
            relations = task.ranking
        except KbenchError as error:
            what = f"the answers of {self._spec.task}, which are the candidates: put its data there"
            raise _Unknown(what) from error
        names = [[name for one in own for name in one] for own in relations.values()]
        return _mean([sum(_PIECES * len(name.split()) - 1 for name in own) for own in names])

    def _at_hand(self, split: Split) -> _Reading | None:
        key = task_key(self._spec, self._spec.limit, split)
        return self._parts.loader.once("reading", key, lambda: self._counted(split))

    def _counted(self, split: Split) -> _Reading | None:
        task = self._parts.task
        if is_hub(task.data):
            return None
        try:
            examples = limited(task.examples(split), self._spec.limit)
        except KbenchError:
            return None
        if isinstance(task, QuestionTask) and task.way == "token":
            # Answered at one [MASK]: a label of several words is never one token.
            examples = [e for e in examples if any(len(a.split()) == 1 for a in e.label)]
        read = [_read(example) for example in examples[:: max(1, len(examples) // _SAMPLED)]]
        texts = [tokens for one in read for tokens in one]
        return _Reading(len(examples), len(texts) / max(1, len(read)), _mean(texts))

    def _published(self, split: Split) -> _Reading:
        size = self._parts.task.card.sizes.get(split)
        if size is None:
            raise _Unknown(f"how many {split} examples {self._spec.task} has: put its data there")
        if size.tokens is None:
            raise _Unknown(f"how long the {split} texts of {self._spec.task} are")
        return _Reading(limit_of(self._spec.limit, size.examples), size.texts, size.tokens)


def memories(cells: Sequence[Cell], loader: PartLoader) -> dict[tuple[str, str], Memory]:
    """Returns what the backbones of a plan take, by name and how weights are held: the most each.

    Args:
        cells: the plan.
        loader: of the parts of its runs.
    """
    most: dict[tuple[str, str], Memory] = {}
    for cell in cells:
        if cell.done or cell.impossible:
            continue
        key = cell.spec.backbone, cell.spec.weights
        found = _Cell(cell, Parts(cell.spec, loader)).memory()
        if found and (key not in most or found.activations > most[key].activations):
            most[key] = found
    return most


def _has(stored: Artifacts, kind: str, key: str | None) -> bool:
    return key is not None and (kind, key) in stored


def _work(stage: WorkKind, count: Callable[[], float]) -> Work:
    try:
        return Work(stage, count())
    except _Unknown as unknown:
        return Work(stage, None, unknown=str(unknown))


def _read(example: Example) -> list[float]:
    """Tokens of what is read for an example: its text, or a pair with each of its supports."""
    own = _tokens(example.text, _marked(example))
    supports = [support for one in example.candidates for support in one.support]
    pairs = [own + _tokens(other.text, _marked(other)) - 1 for other in supports]
    return pairs or [own]


def _corpus_tokens(sentences: Sequence[Sentence]) -> float:
    texts = [sentence.text for sentence in sentences[: min(_SAMPLED, len(sentences))]]
    return _mean([_tokens(text, 0) for text in texts]) * len(sentences)


def _marked(example: Example) -> int:
    return sum(mention.role != Role.CONTEXT for mention in example.mentions)


def _tokens(text: str, marked: int) -> float:
    return _SPECIALS + _MARKERS * marked + _PIECES * len(text.split())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
