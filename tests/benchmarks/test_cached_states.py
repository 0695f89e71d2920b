"""Frozen states kept: the first epoch, which reads them, beside those that follow.

A first epoch is all that passes until its last step, the reading included; a later one is the
median of those that follow. Texts of 25 words.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.data import Mention
from kbench.encoding import Examples
from kbench.knowledge import Bundle, Entity, KnowledgeBase, Sentence, write_bundle
from kbench.knowledge.controls import Shuffled
from kbench.method import Fit, InjectionMethod
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.freezing import frozen
from kbench.model.heads import RelationHead
from kbench.model.huggingface import load_folder
from kbench.parts.run_parts import Parts
from kbench.pipeline.models import tune
from kbench.pipeline.session import Session
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Artifacts
from kbench.training import Recipe
from kbench_baselines.k_adapter import KAdapter, KnowledgeAdapter
from kbench_baselines.pelt import Pelt
from kbench_baselines.spelled_facts import spelled_facts
from tests import reference
from tests.baselines.trials import general_fit

from .conftest import Demands
from .world import CARD, LABELS, WORDS

CPU = torch.device("cpu")
FACTS, BATCH, EPOCHS = 256, 64, 4


@dataclass
class Clock:
    """Notes when each epoch ends; told of every step."""

    epochs: int
    start: float = field(default_factory=time.perf_counter)
    ends: list[float] = field(default_factory=list)

    def __call__(self, done: int, total: int) -> None:
        if done % (total // self.epochs) == 0:
            self.ends.append(time.perf_counter())

    @property
    def first(self) -> float:
        return self.ends[0] - self.start

    @property
    def later(self) -> float:
        return statistics.median(np.diff(self.ends))


@pytest.fixture(scope="module")
def lm(backbone: Path) -> LanguageModel:
    return load_folder(backbone)


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Sentences that each spell out a fact of one of four relations."""
    rng = np.random.default_rng(0)
    entities, triples, sentences = [], [], []
    for number in range(FACTS):
        filler = [str(word) for word in rng.choice(WORDS, size=25)]
        filler[4], filler[15] = head, tail = f"kevo{number}", f"balimo{number}"
        spans = reference.bounds(" ".join(filler), f"{head} ", f"{tail} ")
        mentions = tuple(
            Mention(start, end - 1, f"Q{name}")
            for (start, end), name in zip(spans, (head, tail), strict=True)
        )
        sentences.append(Sentence(" ".join(filler), mentions))
        entities += [Entity(f"Q{head}", head), Entity(f"Q{tail}", tail)]
        triples.append((f"Q{head}", f"r{number % 4}", f"Q{tail}"))
    relations = {f"r{number}": "relation" for number in range(4)}
    folder = tmp_path_factory.mktemp("facts") / "kb"
    return write_bundle(folder, CARD, entities, triples, relations, sentences)


def _fit(
    lm: LanguageModel,
    knowledge: KnowledgeBase,
    clock: Clock | None,
    method: InjectionMethod | None = None,
) -> Fit:
    """In the general setting, of K-Adapter unless another is given."""
    recipe = Recipe(1e-4, BATCH, clock.epochs if clock else 1)
    return replace(general_fit(method or KAdapter(), lm, knowledge, recipe), progress=clock)


def _note(demands: Demands, what: str, first: float, later: float, least: float = 3) -> None:
    detail = f"{later:.3f} s, first {first:.2f} s"
    ratio = first / later
    demands.note(what, f"{ratio:.1f} ×", f"at least {least:g} ×", detail, ratio >= least)


@pytest.mark.usefixtures("toy_tasks")
def test_head_alone(demands: Demands, backbone: Path, tmp_path: Path) -> None:
    """Through all of the tuning stage, selection on dev included."""
    clock = Clock(EPOCHS)
    spec = RunSpec(
        task="toy-relations",
        backbone=str(backbone),
        tuning="head",
        method="none",
        setting=Setting.GENERAL,
        knowledge=None,
        control=Control.NONE,
        seed=0,
        options={"tuning": {"head": {"epochs": EPOCHS, "batch_size": BATCH}}},
    )
    session = Session(Artifacts(tmp_path), CPU, lambda _, done, total: clock(done, total))
    demands.once(lambda: tune(session, Parts(spec)))
    _note(demands, "later epoch, head alone", clock.first, clock.later)


def test_task_specific_k_adapter(demands: Demands, lm: LanguageModel, knowledge: Bundle) -> None:
    """The map ``M``: model and adapter are frozen."""
    facts = spelled_facts(lm, knowledge, max_length=64, least=1)
    model = DownstreamModel(lm, RelationHead(lm.width, LABELS))
    plug = KnowledgeAdapter(lm.width, 1.0)
    data = Examples(facts.inputs, facts.targets)
    clock = Clock(EPOCHS)
    fit = replace(
        _fit(lm, knowledge, clock), setting=Setting.TASK_SPECIFIC, model=model, examples=data
    )
    with frozen(model):
        demands.once(lambda: KAdapter().fit(plug, fit))
    _note(demands, "later epoch, K-Adapter's map", clock.first, clock.later)


def test_factual_pretraining(
    demands: Demands, lm: LanguageModel, knowledge: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter itself trains, and has more weights than this backbone has.

    Of a backbone of ``B`` weights and an adapter of ``A`` a later epoch can save the forward pass
    of the first: ``1 + B / 3 A`` by operations, 1.2 here and 3.1 beside RoBERTa-large. All that
    the backbone costs is saved: where all is known, not a text is read.
    """

    def trained(epochs: int) -> Clock:
        clock = Clock(epochs)
        plug = KAdapter().build(lm, knowledge)
        with frozen(lm):
            KAdapter().fit(plug, _fit(lm, knowledge, clock))
        return clock

    clocks: list[Clock] = []
    demands.once(lambda: clocks.append(trained(2)))
    first, later = clocks[0].first, clocks[0].later
    _note(demands, "later epoch, K-Adapter's factual adapter", first, later, least=1.05)
    monkeypatch.setattr(LanguageModel, "embed", None)  # whoever reads a text now fails
    assert trained(1).first < first


def test_pelt(demands: Demands, lm: LanguageModel, knowledge: Bundle) -> None:
    """A control's table after that of the true knowledge base."""
    taken = []

    def fitted(base: KnowledgeBase) -> None:
        start = time.perf_counter()
        method = Pelt()
        plug = method.build(lm, base)
        method.fit(plug, _fit(lm, base, None, method))
        taken.append(time.perf_counter() - start)

    demands.once(lambda: fitted(knowledge))
    for seed in range(3):
        fitted(Shuffled(knowledge, seed))
    _note(demands, "a second table of PELT", taken[0], statistics.median(taken[1:]))
