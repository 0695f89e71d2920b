"""What `scripts/measure_gpu.py` measures: steps of kbench and of bare loops on one network.

A network has the shape of a published one and random weights, of which neither time nor memory
hangs. Texts are those of the embedded task atlas-relations, with others before them until they are
as long as a paragraph; the knowledge base is atlas, with some of its sentences. A step of kbench is
one of its own training loop: it is stopped after a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
import transformers
from torch import Tensor

from kbench.data import Example, Split
from kbench.encoding import Data, Examples
from kbench.encoding.batch import sorted_batches
from kbench.encoding.computing import autocast, peak_bytes, reset_peak
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Sentence
from kbench.knowledge.views import View
from kbench.method import Fit, InjectionMethod, Plug
from kbench.model import Backbone, Decoder, DownstreamModel, Encoder, LanguageModel
from kbench.model.compiling import compiled
from kbench.model.freezing import frozen
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.find import find_backbone, find_knowledge, find_task
from kbench.parts.run_parts import PartLoader, Parts, headed
from kbench.pipeline.models import untrained
from kbench.pipeline.prediction import predict
from kbench.pipeline.preparation import demonstrated
from kbench.pipeline.session import Session
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Artifacts
from kbench.task import Task
from kbench.training import History, Recipe, train

__all__ = ["SHAPES", "Bench", "Figures", "Item", "Shape"]

_TASK, _KNOWLEDGE = "atlas-relations", "atlas"
_PLAIN = 64
"""Tokens that the plain form pads every text to."""
_SENTENCES = 1024
"""Of the knowledge base; what a general plug is trained on is made of all of them."""
_RECIPE = Recipe(learning_rate=1e-4, batch_size=32, epochs=1_000_000, select=False)


@dataclass(frozen=True)
class Shape:
    """The sizes of a published network.

    Attributes:
        kind: what ``transformers`` calls it: ``bert``, ``roberta`` or ``llama``.
        sizes: of its configuration.
        tokens: of a text, about.
    """

    kind: str
    sizes: Mapping[str, int | bool]
    tokens: int = 64

    @property
    def left_to_right(self) -> bool:
        """Whether it reads so."""
        return self.kind == "llama"


def _sizes(width: int, layers: int, heads: int, inner: int, words: int, **more: Any) -> Any:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": words,
        **more,
    }


SHAPES = {
    "bert-base": Shape("bert", _sizes(768, 12, 12, 3072, 30522)),
    "roberta-large": Shape(
        "roberta", _sizes(1024, 24, 16, 4096, 50265, max_position_embeddings=514)
    ),
    "llama-135m": Shape(
        "llama",
        _sizes(576, 30, 9, 1536, 49152, num_key_value_heads=3, tie_word_embeddings=True),
    ),
    "llama-1b": Shape(
        "llama",
        _sizes(2048, 16, 32, 8192, 128256, num_key_value_heads=8, tie_word_embeddings=True),
    ),
    "llama-8b": Shape("llama", _sizes(4096, 32, 32, 14336, 128256, num_key_value_heads=8)),
    "tiny-bert": Shape("bert", _sizes(32, 2, 4, 64, 7300), tokens=24),
    "tiny-llama": Shape("llama", _sizes(32, 2, 4, 64, 7300, num_key_value_heads=2), tokens=24),
}
"""bert-base, roberta-large, SmolLM2-135M, Llama-3.2-1B, Llama-3.1-8B; and two for a trial."""


@dataclass(frozen=True)
class Item:
    """One thing to measure.

    Attributes:
        shape: a name of :data:`SHAPES`.
        dtype: ``float32`` or ``bfloat16``; in the latter the weights of a frozen decoder are held
            so too.
        what: ``read``, ``through``, ``plain``, ``tune:NAME`` or ``fit:METHOD:SETTING``.
        compiled: whether the layers run as compiled code.
    """

    shape: str
    dtype: str
    what: str
    compiled: bool = False

    @property
    def name(self) -> str:
        """The item in words, by which it is known in files."""
        return " ".join([self.shape, self.dtype, self.what, *["compiled"] * self.compiled])


@dataclass
class Figures:
    """What was measured.

    Attributes:
        seconds: of a step, or of a batch that is read.
        tokens: of a second, padding left out.
        peak: bytes held on the device at most; None where nobody counts.
        steps: that were timed.
        before: seconds before the first step: what is encoded, and read once.
        bare: seconds of the same in a bare loop, where there is one.
        reading: seconds of reading a batch with the plug in place.
        problem: why there are no figures.
    """

    seconds: float | None = None
    tokens: float | None = None
    peak: int | None = None
    steps: int = 0
    before: float = 0.0
    bare: float | None = None
    reading: float | None = None
    problem: str = ""


class _EnoughError(Exception):
    """Raised to end a training that was long enough."""


@dataclass
class _Clock:
    """Times the steps of a training after the first few, and ends it.

    Args:
        device: waited for before the clock is read.
        warm: steps that are not counted.
        steps: that are, at most.
        longest: seconds that they may take.
    """

    device: torch.device
    warm: int
    steps: int
    longest: float
    started: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    begun: float = 0.0
    counted: int = 0
    seconds: float = 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def tick(self, done: int, _: int = 0) -> None:
        """Is told of each step; ends the training when enough were timed."""
        if done == 1:
            self.first = time.perf_counter() - self.started
        if done == self.warm:
            self.begun = self.now()
        if done > self.warm:
            self.counted = done - self.warm
            if self.counted >= self.steps or time.perf_counter() - self.begun > self.longest:
                self.seconds = self.now() - self.begun
                raise _EnoughError

    def over(self, work: Callable[[], object]) -> Figures:
        """Times a piece of work that is done again and again, a step each."""
        done = 0
        try:
            while True:
                work()
                done += 1
                self.tick(done)
        except _EnoughError:
            return self.figures()

    def figures(self, tokens: float = 0.0) -> Figures:
        """Returns what was timed; ``tokens`` are those of a step."""
        each = self.seconds / max(1, self.counted)
        return Figures(each, tokens / each if each else None, None, self.counted, self.first)


@dataclass(frozen=True)
class _StoppedFit(Fit):
    """A fit that remembers how many tokens a step has."""

    tokens: list[float] = field(default_factory=list)

    def train(self, plug: Plug, loss: Any, data: Data, *rest: Any, **more: Any) -> History:
        size = min(self.recipe.batch_size, len(data.lengths))
        self.tokens.append(float(np.mean(data.lengths)) * size)
        return super().train(plug, loss, data, *rest, **more)


@final
class _Some(View):
    """A knowledge base with some of its sentences."""

    def __init__(self, base: KnowledgeBase) -> None:
        super().__init__(base, f"{base.digest[:24]} in part")

    @property
    def sentences(self) -> Sequence[Sentence]:
        return self.base.sentences[:_SENTENCES]


def _longer(task: Task, tokens: int) -> Task:
    """Makes the texts of a task longer, by others before them. A token is four letters, about."""
    short = task.load

    def load(split: Split) -> Sequence[Example]:
        examples = short(split)
        made = []
        for at, example in enumerate(examples):
            before, other = "", at
            while len(before) + len(example.text) < 4 * tokens:
                other = (other + 1) % len(examples)
                before += f"{examples[other].text} "
            moved = [
                replace(m, start=m.start + len(before), end=m.end + len(before))
                for m in example.mentions
            ]
            made.append(replace(example, text=before + example.text, mentions=tuple(moved)))
        return made

    task.load = load  # type: ignore[method-assign]
    return task


@final
class _Random(Backbone):
    """A network of a shape with random weights, and the words of an embedded backbone."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self._shape, self._device = SHAPES[name], device
        self.left_to_right = self._shape.left_to_right

    @property
    def digest(self) -> str:
        return f"random {self.name}"

    @cached_property
    def _tokenizer(self) -> Any:
        own = "kbench-tiny-lm" if self.left_to_right else "kbench-tiny"
        return find_backbone(own).load().tokenizer

    def config(self) -> dict[str, Any]:
        return {
            "model_type": self._shape.kind,
            **self._shape.sizes,
            "pad_token_id": self._tokenizer.pad_token_id,
        }

    def load(self) -> LanguageModel:
        config = transformers.AutoConfig.for_model(**self.config())
        kind = "ForCausalLM" if self.left_to_right else "ForMaskedLM"
        prefix = {"bert": "Bert", "roberta": "Roberta", "llama": "Llama"}[self._shape.kind]
        torch.manual_seed(0)
        with self._device:  # made where it will be: to copy eight billion weights takes a while
            network = getattr(transformers, prefix + kind)(config)
        if self.left_to_right:
            return Decoder(network, self._tokenizer).eval()
        return Encoder(network, self._tokenizer, pooler=False, segments=1).eval()


class Bench:
    """Measures items, one network in memory at a time.

    Args:
        device: where to compute.
        folder: for what is kept meanwhile.
        steps: that are timed of each thing, at most.
        longest: seconds that these may take.
        batch: examples of a step.
    """

    def __init__(
        self, device: torch.device, folder: Path, *, steps: int, longest: float, batch: int = 32
    ) -> None:
        self.device = device
        self._steps, self._longest = steps, longest
        self._recipe = _RECIPE.updated({"batch_size": batch})
        self._session = Session(Artifacts(folder / "artifacts"), device)
        self._loader = PartLoader(download=False)
        self._batch = batch
        self._held: tuple[str, str] | None = None
        self._loader.once("knowledge", _KNOWLEDGE, lambda: _Some(find_knowledge(_KNOWLEDGE)))

    def measure(self, item: Item) -> Figures:
        """Returns the figures of an item, or why there are none."""
        try:
            found = self._measured(item)
        except torch.OutOfMemoryError:
            found = Figures(problem="does not fit into the memory of the device")
        except Unsupported as reason:
            return Figures(problem=str(reason))
        except Exception:
            self._forget()
            raise
        if found.problem:
            self._forget()
        return found

    def _measured(self, item: Item) -> Figures:
        kind, _, name = item.what.partition(":")
        weights = "float32"
        if item.dtype == "bfloat16" and SHAPES[item.shape].left_to_right and kind != "tune":
            weights = "bfloat16"
        if self._held != (item.shape, weights):
            self._forget()
            self._held = (item.shape, weights)
        reset_peak(self.device)
        if kind == "tune":
            self._forget()  # what is tuned is no longer as it was
            found = self._tuning(item, name)
            self._forget()
        elif kind == "fit":
            found = self._method(item, weights, *name.split(":"))
        else:
            found = {"read": self._read, "through": self._through, "plain": self._plain}[kind](
                item, weights
            )
        found.peak = found.peak or peak_bytes(self.device)
        return found

    def _forget(self) -> None:
        """Drops the network; what was encoded for it stays."""
        for kind in ("encoder", "downstream"):
            self._session.forget(kind)
        self._held = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _clock(self, warm: int = 2) -> _Clock:
        return _Clock(self.device, warm, self._steps, self._longest)

    def _parts(
        self,
        item: Item,
        weights: str = "float32",
        *,
        tuning: str = "full",
        method: str = "none",
        setting: Setting = Setting.GENERAL,
    ) -> Parts:
        shape = SHAPES[item.shape]
        self._loader.once("backbone", item.shape, lambda: _Random(item.shape, self.device))
        # Under a key of its own: texts of one length for each shape.
        data = f"{shape.tokens} tokens"
        key = repr((_TASK, data, {}))
        self._loader.once("task", key, lambda: _longer(find_task(_TASK, None), shape.tokens))
        options: dict[str, Any] = {}
        kind: type[InjectionMethod] = registry.get(Kind.METHODS, method)
        if "lessons" in kind.defaults:
            options = {"method": {method: {"lessons": _SENTENCES}}}
        spec = RunSpec(
            task=_TASK,
            backbone=item.shape,
            tuning=tuning,
            method=method,
            setting=setting,
            knowledge=_KNOWLEDGE if kind.settings else None,
            control=Control.NONE,
            seed=0,
            limit=24 * self._batch,
            data=data,
            dtype=item.dtype,  # type: ignore[arg-type]
            weights=weights,  # type: ignore[arg-type]
            options=options,
        )
        return Parts(spec, self._loader)

    def _model(self, parts: Parts) -> DownstreamModel:
        """A model whose head is new, on the network that all of its kind share."""
        spec = parts.spec

        def made() -> DownstreamModel:
            lm = self._session.pretrained(parts)
            torch.manual_seed(0)
            model = DownstreamModel(lm, headed(parts, lm)).to(self.device).eval()
            model.head.settle(model.lm, demonstrated(parts, model.lm, injected=False))
            return model.requires_grad_(False)

        return self._session.remember(("downstream", spec.backbone, spec.weights), made)

    # -- what is measured --------------------------------------------------------------------------

    def _tuning(self, item: Item, name: str) -> Figures:
        """Steps of a tuning; of ``full`` those of a bare loop, too."""
        parts = self._parts(item, tuning=name)
        if (recipe := parts.tuning_recipe) is None:
            raise Unsupported(f"tuning {name} trains nothing")
        model = untrained(self._session, parts)
        model.head.settle(model.lm, demonstrated(parts, model.lm, injected=False))
        split = self._session.prepared(parts, Split.TRAIN, model, injected=False)
        data = Examples(split.inputs, split.gold.targets)
        recipe = self._recipe.updated({"clip": recipe.clip, "optimizer": recipe.optimizer})
        clock = self._clock()
        with suppress(_EnoughError):
            train(
                model,
                model.loss,
                data,
                recipe,
                seed=0,
                device=self.device,
                dtype=item.dtype,
                progress=clock.tick,
            )
        found = clock.figures(float(np.mean(data.lengths)) * self._batch)
        found.peak = peak_bytes(self.device)
        if name == "full":
            model.zero_grad(set_to_none=True)
            found.bare = self._bare_training(item, model, split.inputs, recipe)
        return found

    def _bare_training(
        self, item: Item, model: DownstreamModel, inputs: Any, recipe: Recipe
    ) -> float | None:
        """Forward, backward and AdamW of the network alone, over batches that are there already."""
        trained = [p for p in model.lm.base.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, foreach=True)
        batches = self._batches(inputs)

        def step() -> None:
            with autocast(self.device, item.dtype):
                states = model.lm.base(**next(batches)).last_hidden_state
            states.float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return self._clock().over(step).seconds

    def _read(self, item: Item, weights: str) -> Figures:
        """Predictions of kbench, a batch each, and the network alone over the same batches."""
        parts = self._parts(item, weights)
        model = self._model(parts)
        inputs = self._session.prepared(parts, Split.TEST, model, injected=False).inputs
        found = self._reading(item, model, inputs)
        batches = self._batches(inputs)

        def alone() -> None:
            with torch.inference_mode(), autocast(self.device, item.dtype):
                model.lm.base(**next(batches))

        with compiled(model.lm, item.compiled):
            found.bare = self._clock().over(alone).seconds
        return found

    def _through(self, item: Item, weights: str) -> Figures:
        """Forward and backward through the frozen network to its input vectors, and no more.

        The least that a plug which trains in the input has to wait for.
        """
        parts = self._parts(item, weights)
        model = self._model(parts)
        inputs = self._session.prepared(parts, Split.TRAIN, model, injected=False).inputs
        batches, tokens = self._batches(inputs), float(np.mean(inputs.lengths)) * self._batch

        def step() -> None:
            batch = next(batches)
            vectors = model.lm.word_embeddings(batch.pop("input_ids")).detach().requires_grad_()
            with autocast(self.device, item.dtype):
                states = model.lm.base(inputs_embeds=vectors, **batch).last_hidden_state
            states.float().square().mean().backward()

        with frozen(model), compiled(model.lm, item.compiled):
            clock = self._clock()
            clock.over(step)
        return clock.figures(tokens)

    def _plain(self, item: Item, weights: str) -> Figures:
        """A step of general map-tuning as its equations are published (tests/reference.py)."""
        from tests import reference

        if SHAPES[item.shape].left_to_right:
            raise Unsupported("the published equations are of masked language models")
        lm = self._session.pretrained(self._parts(item, weights))
        knowledge = self._loader.knowledge(_KNOWLEDGE)
        linear = torch.nn.Linear(knowledge.dimension, lm.slot_width).to(self.device)
        optimizer = torch.optim.Adam(linear.parameters(), lr=1e-4)
        made: list[reference.Instance] = []
        for sentence in knowledge.sentences[: self._batch]:
            mentions = [m for m in sentence.mentions if m.entity is not None][:2]
            rows = knowledge.rows([m.entity for m in mentions])
            if len(mentions) < 2 or not knowledge.has_vector(rows).all():
                continue
            vectors = torch.from_numpy(knowledge.vectors(rows)).to(self.device)
            spans = [(m.start, m.end, vector) for m, vector in zip(mentions, vectors, strict=True)]
            made += reference.instances(lm.tokenizer, sentence.text, spans)
        made = [one for one in made if len(one.ids) <= _PLAIN][: self._batch]
        if not made:
            raise Unsupported("no sentence has two mentions with vectors")
        tokens = float(sum(len(one.ids) for one in made))

        def step() -> None:
            with self.device, autocast(self.device, item.dtype):
                loss = reference.loss(lm.network, linear, made, _PLAIN)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            lm.zero_grad(set_to_none=True)
            linear.zero_grad(set_to_none=True)

        # As published: the frozen network computes the gradients of its weights all the same.
        lm.requires_grad_(True)
        try:
            clock = self._clock(warm=1)
            clock.over(step)
        finally:
            lm.requires_grad_(False)
        return clock.figures(tokens)

    def _method(self, item: Item, weights: str, name: str, setting: str) -> Figures:
        """Steps of a method's own training, and predictions with its plug in place."""
        where = Setting(setting)
        parts = self._parts(item, weights, method=name, setting=where)
        method, knowledge = parts.method, parts.knowledge
        assert knowledge is not None
        specific = where == Setting.TASK_SPECIFIC
        model = self._model(parts)
        lm = model.lm
        method.check(lm, knowledge)
        method.check_training(where, lm, knowledge)
        torch.manual_seed(0)
        plug = method.build(lm, knowledge).to(self.device)
        clock, examples = self._clock(), None
        if specific:
            split = self._session.prepared(parts, Split.TRAIN, model, injected=True)
            examples = Examples(split.inputs, split.gold.targets)
        own = parts.plug_recipe(where) if method.trains else self._recipe
        changes = {"batch_size": self._batch, "epochs": self._recipe.epochs, "select": False}
        asked = _StoppedFit(
            where,
            lm=lm,
            model=model if specific else None,
            knowledge=knowledge,
            examples=examples,
            validate=(lambda: 0.0) if specific else None,
            recipe=own.updated(changes),
            options=method.options,
            seed=0,
            device=self.device,
            progress=clock.tick,
            dtype=item.dtype,
            compiled=item.compiled,
        )
        with frozen(model), suppress(_EnoughError):
            method.fit(plug, asked)
            # In closed form, or nothing to train: all of it came before the first step.
            clock.first = clock.now() - clock.started
        found = clock.figures(asked.tokens[-1] if asked.tokens else 0.0)
        if not found.steps:
            found.seconds = found.tokens = None
        found.peak = peak_bytes(self.device)
        plug.requires_grad_(False).eval()
        test = self._session.prepared(parts, Split.TEST, model, injected=True)
        with plug.attach(lm):
            reading = self._reading(item, model, test.inputs)
        return replace(found, reading=reading.seconds)

    # -- what they share ---------------------------------------------------------------------------

    def _reading(self, item: Item, model: DownstreamModel, inputs: Any) -> Figures:
        """Whole predictions of a split, whose time is that of a batch of the given size."""
        batches = max(1, -(-len(inputs.lengths) // self._batch))
        with compiled(model.lm, item.compiled):
            clock = _Clock(self.device, 1, max(1, self._steps // batches), self._longest)
            clock.over(
                lambda: predict(model, inputs, self.device, item.dtype, batch_size=self._batch)
            )
        found = clock.figures(float(np.sum(inputs.lengths)))
        assert found.seconds is not None
        return replace(found, seconds=found.seconds / batches, steps=found.steps * batches)

    def _batches(self, inputs: Any) -> Iterator[dict[str, Tensor]]:
        """Yields padded batches that lie on the device, sorted by length, round and round."""
        ready = []
        for chosen in sorted_batches(inputs.sequence_lengths, self._batch):
            batch = inputs.collate_sequences(chosen).to(self.device)
            ready.append({"input_ids": batch.ids, "attention_mask": batch.mask})
        while True:
            yield from map(dict, ready)
