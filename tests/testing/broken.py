"""Injection methods that each break one contract, and the sound one that they are made from."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kbench.encoding import Batch
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Rows
from kbench.method import Fit, InjectionMethod, MethodCard, Plug
from kbench.model import LanguageModel, Reading, rewritten
from kbench.spec import Setting
from kbench.task import Family
from kbench.training import History, Recipe


class Map(Plug):
    """An affine map of entity vectors."""

    def __init__(self, knowledge: KnowledgeBase, width: int) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.linear = nn.Linear(knowledge.dimension, width)

    def slot_vectors(self, rows: Tensor) -> Tensor:
        mapped: Tensor = self.linear(torch.from_numpy(self.knowledge.vectors(rows.numpy())))
        return mapped


class Sound(InjectionMethod):
    """A method that keeps every contract; its general plug is a random map, seeded."""

    card = MethodCard(title="sound", paper="none", year=2026, needs="entity vectors")
    revision = "1"
    settings = frozenset(Setting)
    slot = "{slot} / {mention}"
    plug: ClassVar[type[Map]] = Map

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        return Recipe(1e-2, 16, 1)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        return self.plug(knowledge, lm.slot_width)

    def fit(self, plug: Plug, fit: Fit) -> History:
        if fit.setting == Setting.TASK_SPECIFIC:
            return super().fit(plug, fit)
        drawn = torch.Generator().manual_seed(fit.seed)
        with torch.no_grad():
            for parameter in plug.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=drawn))
        return History()


class Nameless(Sound):
    """Breaks card: it does not say what it needs."""

    card = MethodCard(title="nameless", paper="none", year=2026, needs="")


class Computed(Sound):
    """Breaks card: what the listing cannot read."""

    card = MethodCard(title="computed", paper="none", year=2000 + 26, needs="entity vectors")


class CoversNobody(Sound):
    """Breaks covers: it takes unlinked mentions for linked."""

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        return np.ones(len(rows), dtype=bool)


class CoversTheUntold(Sound):
    """Breaks controls: it covers entities of which it has no text."""

    text = "appended"
    defaults: ClassVar[Mapping[str, Any]] = {"room": 64}

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        return super().covers(knowledge, rows)

    def passages(self, knowledge: KnowledgeBase, row: int) -> Sequence[str]:
        return [knowledge.describe(row)]


class TellsUndeclared(CoversTheUntold):
    """Breaks reads_facts: it tells facts, and does not declare that it reads any."""


class ReadsNothing(Sound):
    """Breaks reads text: it is said to read texts, and none is asked for."""

    reads_text = True


class CoversByWhatIsBroken(Sound):
    """Breaks controls: whom it covers hangs on what a control draws anew."""

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        return super().covers(knowledge, rows) & np.isin(rows, knowledge.triples[:, 2])


class CoversVectorless(Sound):
    """Breaks injects: it covers entities of which it has no vector."""

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        return rows >= 0


class _DeafMap(Map):
    def slot_vectors(self, rows: Tensor) -> Tensor:
        return 0 * super().slot_vectors(rows)

    def attach(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return nullcontext()


class CoversForNothing(Sound):
    """Breaks injects: of those it covers nothing reaches the model."""

    slot = None
    plug = _DeafMap


class Crashes(Sound):
    """Breaks runs: an error that is no refusal."""

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        if family == Family.RELATION:
            raise KeyError(family)
        return super().recipe(setting, family, task)


class Rambles(Sound):
    """Breaks refuses: a reason of two lines."""

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        if not knowledge.dimension:
            raise Unsupported("no vectors\nat all")
        return super().build(lm, knowledge)


class Divides(Sound):
    """Breaks refuses: without vectors it fails by an error of its own."""

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        assert 1 // knowledge.dimension >= 0
        return super().build(lm, knowledge)


class TouchesInFit(Sound):
    """Breaks frozen weights: the fit moves a weight of the model."""

    def fit(self, plug: Plug, fit: Fit) -> History:
        with torch.no_grad():
            next(fit.lm.layers[0].parameters()).add_(1e-3)
        return super().fit(plug, fit)


class _TouchingMap(Map):
    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        with lm.slots(self.slot_vectors), torch.no_grad():
            next(lm.layers[0].parameters()).add_(1e-3)
            yield


class TouchesInUse(Sound):
    """Breaks frozen weights: the plug moves a weight when it is attached."""

    settings = frozenset({Setting.GENERAL})
    plug = _TouchingMap


class _CountingMap(Map):
    calls: Tensor

    def __init__(self, knowledge: KnowledgeBase, width: int) -> None:
        super().__init__(knowledge, width)
        self.register_buffer("calls", torch.zeros(()))

    def slot_vectors(self, rows: Tensor) -> Tensor:
        self.calls += 1
        return super().slot_vectors(rows)


class Drifts(Sound):
    """Breaks fixed plug: it changes while the model is tuned with it in place."""

    plug = _CountingMap


class _LaggingMap(Map):
    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        self.usual = lm.word_embeddings.weight.detach().mean(0)  # of the network as it was
        with lm.slots(lambda rows: self.slot_vectors(rows) + self.usual):
            yield


class Lags(Sound):
    """Breaks follows: slots of word embeddings that are tuned meanwhile."""

    plug = _LaggingMap


class _RigidMap(Map):
    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        maps = {name: part for name, part in lm.named_modules() if type(part) is nn.Linear}
        _ = next(part for name, part in maps.items() if name.endswith("query"))
        with lm.slots(self.slot_vectors):
            yield


class Rigid(Sound):
    """Breaks beside lora: it looks for a map by the name that it has in the backbone."""

    plug = _RigidMap


class _StayingMap(Map):
    def attach(self, lm: LanguageModel) -> AbstractContextManager[None]:
        # For injected inputs only, so that plain ones show nothing.
        def change(_: nn.Module, __: Any, output: Any) -> Any:
            return output + 0.1 if len(lm.batch.slot_index) else output

        lm.embeddings.register_forward_hook(change)
        return lm.slots(self.slot_vectors)


class Stays(Sound):
    """Breaks leaves nothing: a hook is left behind."""

    plug = _StayingMap


class _HookedMap(Map):
    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        handle = lm.embeddings.register_forward_hook(lambda *_: None)
        with lm.slots(self.slot_vectors):
            yield
        handle.remove()  # not after an error


class StaysAfterErrors(Sound):
    """Breaks leaves nothing: an error inside the block leaves a hook behind."""

    plug = _HookedMap


class _LeakyMap(Map):
    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        # The bias goes to the last token of every example, which no head of the suite reads.
        def change(hidden: Tensor) -> Tensor:
            ends = lm.batch.mask.sum(1) - 1
            added = torch.zeros_like(hidden)
            added[torch.arange(len(hidden)), ends] = self.linear.bias
            return hidden + added

        with lm.slots(self.slot_vectors), rewritten(lm.layers[-1], change):
            yield


class Leaks(Sound):
    """Breaks unlinked: something happens on every example."""

    plug = _LeakyMap


class LeaksByDesign(Leaks):
    """Says that it has no switch, and is the model itself neither as built nor by a choice."""

    switched = False


class _SwitchedMap(_LeakyMap):
    scale = 1.0

    def choose(self, value: float) -> None:
        self.scale = value

    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        def change(hidden: Tensor) -> Tensor:
            return hidden + self.scale * self.linear.bias

        with rewritten(lm.layers[-1], change):
            yield


class Switched(Sound):
    """Sound: no switch an example, but a choice that is no plug."""

    switched = False
    reads_knowledge = False
    slot = None
    settings = frozenset({Setting.GENERAL})
    plug = _SwitchedMap

    def choices(self) -> tuple[float, ...]:
        return (1.0, 0.0)

    def fit(self, plug: Plug, fit: Fit) -> History:
        assert isinstance(plug, Map)
        plug.linear.weight.requires_grad_(False)
        with torch.no_grad():
            plug.linear.bias.add_(1.0)
        return History()


class Peeks(Sound):
    """Breaks reached: it looks behind the control."""

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        return super().build(lm, knowledge.unbroken)


class PretendsNotToRead(Sound):
    """Breaks reached: it reads knowledge and says that it does not."""

    reads_knowledge = False


class _DrawnMap(Map):
    def __init__(self, knowledge: KnowledgeBase, width: int) -> None:
        super().__init__(knowledge, width)
        self.register_buffer("luck", torch.tensor(random.random()))


class Gambles(Sound):
    """Breaks same seed: a random state that no seed sets."""

    plug = _DrawnMap


class Remembers(Sound):
    """Breaks general: what it saw of a task goes into the general plug."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(options)
        self._asked = 0

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        self._asked += len(rows)
        return super().covers(knowledge, rows)

    def fit(self, plug: Plug, fit: Fit) -> History:
        history = super().fit(plug, fit)
        if fit.setting == Setting.GENERAL:
            with torch.no_grad():
                next(plug.parameters()).mul_(self._asked)
        return history


class _ForgetfulMap(Map):
    scale = 1.0

    def slot_vectors(self, rows: Tensor) -> Tensor:
        return self.scale * super().slot_vectors(rows)


class Forgets(Sound):
    """Breaks round trip: something learned lies outside the state."""

    plug = _ForgetfulMap

    def fit(self, plug: Plug, fit: Fit) -> History:
        assert isinstance(plug, _ForgetfulMap)
        plug.scale = 2.0
        return super().fit(plug, fit)


class Keeps(Sound):
    """Breaks owns: the plug holds the model."""

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        plug = super().build(lm, knowledge)
        plug.words = lm.word_embeddings
        return plug


class _IdleMap(Map):
    def __init__(self, knowledge: KnowledgeBase, width: int) -> None:
        super().__init__(knowledge, width)
        self.idle = nn.Parameter(torch.ones(3))


class Idles(Sound):
    """Breaks trained: a parameter that counts and never moves."""

    plug = _IdleMap
    settings = frozenset({Setting.TASK_SPECIFIC})


class _CutMap(Map):
    def slot_vectors(self, rows: Tensor) -> Tensor:
        return super().slot_vectors(rows).detach()


class Cut(Sound):
    """Breaks gradients: the task's loss does not reach the plug."""

    plug = _CutMap


class _OpeningMap(Map):
    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        with lm.slots(self.slot_vectors):
            lm.layers[0].requires_grad_(True)
            yield


class Opens(Sound):
    """Breaks gradients: they reach weights of the model."""

    settings = frozenset({Setting.GENERAL})
    plug = _OpeningMap


class _MeanMap(Map):
    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        def change(hidden: Tensor) -> Tensor:
            linked = torch.zeros(len(hidden), 1, 1)
            rows = lm.batch.slot_index // hidden.shape[1]
            linked[rows] = 1.0
            return hidden + linked * hidden.mean(1, keepdim=True)

        with lm.slots(self.slot_vectors), rewritten(lm.layers[0], change):
            yield


class Averages(Sound):
    """Breaks padding: a mean over padding too."""

    plug = _MeanMap


class _WideMap(Map):
    @contextmanager
    def attach(self, lm: LanguageModel) -> Iterator[None]:
        def change(hidden: Tensor) -> Tensor:
            places = lm.batch.slot_index
            vectors = self.slot_vectors(lm.batch.slot_rows).float()
            return hidden.flatten(0, 1).index_add(0, places, vectors).view_as(hidden)

        dense, _ = lm.feed_forward(lm.layers[0])
        assert isinstance(dense, nn.Linear)
        with lm.slots(self.slot_vectors), rewritten(_output(lm), change):
            yield


def _output(lm: LanguageModel) -> nn.Module:
    """A linear map, whose output is of the narrow type under autocast."""
    found = lm.layers[0].get_submodule("output.dense")
    assert isinstance(found, nn.Linear)
    return found


class Widens(Sound):
    """Breaks bfloat16: types that do not go together under autocast."""

    plug = _WideMap


class _MisreadMap(Map):
    def reading(self, lm: LanguageModel) -> Reading:
        # The plug fills slots, so that what is read without it is another.
        def read(batch: Batch, positions: Tensor) -> list[Tensor]:
            with lm.slots(lambda rows: torch.zeros(len(rows), lm.slot_width)):
                return [lm(batch).flatten(0, 1)[positions]]

        return Reading({"title": "wrong"}, (lm.width,), read)


class Misreads(Sound):
    """Breaks read once: it says that the model is read alike with its slots empty."""

    plug = _MisreadMap
