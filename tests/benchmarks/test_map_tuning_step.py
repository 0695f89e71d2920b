"""One map-tuning step: kbench's against the plain form of the published equations, as a ratio.

Batch 64 through a 6-layer, hidden-384 BERT, sentences of about 25 words with two mentions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from kbench.corpus import MaskedMentions, masked_mentions, mention_loss
from kbench.data import Mention
from kbench.knowledge import Bundle, Entity, Sentence, write_bundle, write_vectors
from kbench.model import LanguageModel
from kbench.model.freezing import frozen
from kbench.model.huggingface import load_folder
from kbench_baselines.map_tuning import AffineMap
from tests import reference

from .conftest import WIDTH, Demands
from .world import CARD, DIMENSION, WORDS

PADDED, BATCH = 64, 64
"""The plain form's fixed length, and instances a step."""


class Step:
    """A batch in both forms."""

    def __init__(self, folder: Path, backbone: Path, size: int = BATCH) -> None:
        self.lm: LanguageModel = load_folder(backbone)
        self.bundle = _bundle(folder / "kb")
        self.plug = AffineMap(self.bundle, self.lm.slot_width)
        self.optimizer = torch.optim.Adam(self.plug.parameters(), lr=0.0, foreach=True)
        self.data: MaskedMentions = masked_mentions(
            self.lm, self.bundle, "{slot} / {mention}", PADDED - 2
        )
        self.chosen = np.arange(size)
        self.batch = self.data.batch(self.chosen)
        self.plain = torch.nn.Linear(DIMENSION, WIDTH)
        self.plain.load_state_dict(self.plug.linear.state_dict())
        self.plain_optimizer = torch.optim.Adam(self.plain.parameters(), lr=0.0)
        self.instances = [
            instance
            for sentence in self.bundle.sentences
            for instance in reference.instances(
                self.lm.tokenizer, sentence.text, [self._mention(m) for m in sentence.mentions]
            )
        ][:size]

    def _mention(self, mention: Mention) -> reference.Mention:
        row = self.bundle.rows([mention.entity])
        return mention.start, mention.end, torch.from_numpy(self.bundle.vectors(row)[0])

    # -- kbench ------------------------------------------------------------------------------------

    def ours(self) -> float:
        with frozen(self.lm), self.plug.attach(self.lm):
            loss = mention_loss(self.lm, self.data.batch(self.chosen))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def assembled(self) -> Tensor:
        with torch.no_grad(), self.plug.attach(self.lm):
            return self.lm.embed(self.batch)

    # -- the plain form ----------------------------------------------------------------------------

    def theirs(self) -> float:
        # As published: the "frozen" backbone still computes its weights' gradients.
        self.lm.requires_grad_(True)
        loss = reference.loss(self.lm.network, self.plain, self.instances, PADDED)
        loss.backward()
        self.plain_optimizer.step()
        self.plain.zero_grad()
        self.lm.zero_grad()
        return loss.item()

    def plainly_assembled(self) -> Tensor:
        with torch.no_grad():
            return reference.embed(self.lm.network, self.plain, self.instances, PADDED)


def _bundle(folder: Path) -> Bundle:
    rng = np.random.default_rng(0)
    sentences = []
    for number in range(BATCH // 3 + 1):
        filler = [str(word) for word in rng.choice(WORDS, size=23)]
        filler[4], filler[15] = f"kevo{number}", f"balimo{number}"
        text = " ".join(filler)
        spans = reference.bounds(text, filler[4] + " ", filler[15] + " ")
        mentions = tuple(
            Mention(start, end - 1, f"Q{entity}")
            for (start, end), entity in zip(spans, (2 * number, 2 * number + 1), strict=True)
        )
        sentences.append(Sentence(text, mentions))
    write_bundle(folder, CARD, [Entity(f"Q{number}") for number in range(64)], sentences=sentences)
    vectors = rng.standard_normal((64, DIMENSION)).astype(np.float32)
    return write_vectors(folder, vectors, {"model": "random"})


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Step:
    return Step(tmp_path_factory.mktemp("step"), backbone)


def test_both_forms_have_the_same_loss_and_inputs(tmp_path: Path, backbone: Path) -> None:
    step = Step(tmp_path, backbone, size=12)
    assert step.ours() == pytest.approx(step.theirs(), abs=1e-5)
    assert torch.allclose(step.assembled()[0, :9], step.plainly_assembled()[0, :9], atol=1e-6)


def test_step(demands: Demands, step: Step) -> None:
    demands.ratio("map-tuning step, batch 64", step.ours, step.theirs, least=8)


def test_assembly(demands: Demands, step: Step) -> None:
    demands.ratio(
        "its input vectors alone", step.assembled, step.plainly_assembled, least=25, rounds=15
    )


def test_profile(demands: Demands, step: Step) -> None:
    """Where the time of a step goes; the parts must add up to the step."""
    shares: dict[str, list[float]] = {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        shares.setdefault(what, []).append(time.perf_counter() - start)

    for _ in range(7):
        _in_parts(step, timed)
    medians = {what: statistics.median(seconds) for what, seconds in shares.items()}
    whole = _median(step.ours)
    total = sum(medians.values())
    for what, seconds in medians.items():
        share = f"{100 * seconds / total:.1f} %"
        demands.note(f"of a step: {what}", share, "–", f"{1e3 * seconds:.3g} ms", True)
    figure = total / whole
    demands.note("sum of the parts", f"{figure:.2f}", "within 0.2 of 1", "", abs(figure - 1) < 0.2)
    demands.once(step.ours)


def _in_parts(step: Step, timed: Callable[[str], object]) -> None:
    lm = step.lm
    with frozen(lm), step.plug.attach(lm):
        with timed("gathering the batch"):  # type: ignore[attr-defined]
            batch = step.data.batch(step.chosen)
        with timed("input vectors"):  # type: ignore[attr-defined]
            vectors = lm.embed(batch)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lm, "embed", lambda _: vectors)
            with timed("forward through the layers"):  # type: ignore[attr-defined]
                hidden = lm(batch, batch.blank_index)
        with timed("masked-LM head and loss"):  # type: ignore[attr-defined]
            states = hidden.flatten(0, 1)[batch.blank_index]
            assert batch.targets is not None
            loss = F.cross_entropy(lm.predict_tokens(states), batch.targets)
        with timed("backward"):  # type: ignore[attr-defined]
            loss.backward()
        with timed("Adam"):  # type: ignore[attr-defined]
            step.optimizer.step()
            step.optimizer.zero_grad(set_to_none=True)


def _median(call: Callable[[], object], rounds: int = 7) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
