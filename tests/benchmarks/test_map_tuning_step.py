"""One map-tuning step: ours against the plain form of the published equations, as a ratio.

Batch 64 through a 6-layer, hidden-384 BERT, sentences of about 25 words.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.backbones.huggingface import load_folder
from kbench.bundle import Bundle
from kbench.data import Mention
from kbench.freezing import frozen
from kbench.knowledge import Entity, Sentence
from kbench.model import Encoder
from kbench.testing.toys import write_backbone
from kbench.writing import write_bundle, write_vectors
from kbench_baselines.map_tuning import AffineMap
from kbench_baselines.masked_lm import MaskedMentions, masked_mentions, mention_loss
from tests import reference

WIDTH, BATCH, DIMENSION = 64, 64, 128


class World:
    """A batch in both forms."""

    def __init__(self, folder: Path) -> None:
        self.encoder: Encoder = load_folder(
            write_backbone(folder / "bert", layers=6, width=384, vocabulary=8000)
        )
        self.bundle = _bundle(folder / "kb")
        self.plug = AffineMap(self.bundle, self.encoder.slot_width)
        self.data: MaskedMentions = masked_mentions(
            self.encoder, self.bundle, "{slot} / {mention}", 62
        )
        self.chosen = np.arange(BATCH)
        self.plain = torch.nn.Linear(DIMENSION, 384)
        self.plain.load_state_dict(self.plug.linear.state_dict())
        self.instances = [
            instance
            for sentence in self.bundle.sentences
            for instance in reference.instances(
                self.encoder.tokenizer, sentence.text, [self._mention(m) for m in sentence.mentions]
            )
        ][:BATCH]

    def _mention(self, mention: Mention) -> tuple[int, int, torch.Tensor]:
        row = self.bundle.rows([mention.entity])
        return mention.start, mention.end, torch.from_numpy(self.bundle.vectors(row)[0])

    def ours(self) -> float:
        with frozen(self.encoder), self.plug.attach(self.encoder):
            loss = mention_loss(self.encoder, self.data.batch(self.chosen))
            loss.backward()
        self.plug.zero_grad()
        return loss.item()

    def theirs(self) -> float:
        # As published: the "frozen" backbone still computes its weights' gradients.
        self.encoder.requires_grad_(True)
        loss = reference.loss(self.encoder.network, self.plain, self.instances, WIDTH)
        loss.backward()
        self.plain.zero_grad()
        self.encoder.zero_grad()
        return loss.item()


def _bundle(folder: Path) -> Bundle:
    rng = np.random.default_rng(0)
    words = ["red", "green", "blue", "we", "saw", "today", "near", "it", "rained", "color", "of"]
    sentences = []
    for number in range(BATCH // 3 + 1):
        filler = [str(word) for word in rng.choice(words, size=23)]
        filler[4], filler[15] = f"kevo{number}", f"balimo{number}"
        text = " ".join(filler)
        spans = reference.bounds(text, filler[4] + " ", filler[15] + " ")
        mentions = tuple(
            Mention(start, end - 1, f"Q{entity}")
            for (start, end), entity in zip(spans, (2 * number, 2 * number + 1), strict=True)
        )
        sentences.append(Sentence(text, mentions))
    card = {"name": "bench", "version": "1", "licence": "none", "source": "test"}
    write_bundle(folder, card, [Entity(f"Q{number}") for number in range(64)], sentences=sentences)
    vectors = rng.standard_normal((64, DIMENSION)).astype(np.float32)
    return write_vectors(folder, vectors, {"model": "random"})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("bench"))


def test_both_forms_have_the_same_loss(world: World) -> None:
    assert world.ours() == pytest.approx(world.theirs(), abs=1e-5)


@pytest.mark.benchmark(group="map-tuning step")
@pytest.mark.parametrize("form", ["ours", "theirs"])
def test_step(benchmark: Callable[..., object], world: World, form: str) -> None:
    benchmark.pedantic(getattr(world, form), rounds=7, warmup_rounds=1)  # type: ignore[attr-defined]


@pytest.mark.benchmark(group="map-tuning step, ratio")
def test_ratio(benchmark: Callable[..., object], world: World) -> None:
    """Medians of alternating steps, so that a busy machine slows both."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(7):
        for form, taken in seconds.items():
            start = time.perf_counter()
            getattr(world, form)()
            taken.append(time.perf_counter() - start)
    ours, theirs = (statistics.median(seconds[form]) for form in ("ours", "theirs"))
    benchmark.extra_info["ratio"] = theirs / ours  # type: ignore[attr-defined]
    benchmark.pedantic(world.ours, rounds=1)  # type: ignore[attr-defined]
    print(
        f"\nmap-tuning step: {1e3 * ours:.0f} ms, plain form {1e3 * theirs:.0f} ms, "
        f"ratio {theirs / ours:.1f}"
    )
    assert theirs / ours > 2
