"""Episodes with map-tuning: all pairs in one order by length against a call a query and class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.data import Candidate, Example
from kbench.encoding import Examples, Layout, encode
from kbench.encoding.pairs import Pairs, compared
from kbench.knowledge.linking import link
from kbench.model import DownstreamModel
from kbench.model.freezing import frozen
from kbench.model.heads import PairHead
from kbench.model.huggingface import load_folder
from kbench.pipeline.prediction import predict
from kbench_baselines.map_tuning import AffineMap
from tests import reference

from .conftest import Demands
from .world import knowledge, texts

WAYS, QUERIES = 5, 5
CPU = torch.device("cpu")


class Episode:
    """A 5-way 1-shot episode in both forms, with so many queries of each class."""

    def __init__(self, folder: Path, backbone: Path, queries_each: int = QUERIES) -> None:
        torch.manual_seed(0)
        lm = load_folder(backbone)
        self.bundle = knowledge(folder / "kb")
        self.model = DownstreamModel(lm, PairHead(lm.width)).eval()
        self.plug = AffineMap(self.bundle, lm.slot_width)
        supports, queries = np.split(
            np.array(texts(WAYS * (1 + queries_each)), dtype=object), [WAYS]
        )
        candidates = tuple(Candidate(f"c{n}", (text,)) for n, text in enumerate(supports))
        self.examples = [
            replace(query, label=f"c{number % WAYS}", candidates=candidates)
            for number, query in enumerate(queries)
        ]
        self.pairs = self.encoded()
        targets = self.model.head.gold(self.examples, lm.tokenizer).targets
        self.data = Examples(self.pairs, targets)

    def encoded(self) -> Pairs:
        of = compared(self.examples)
        tokenizer = self.model.lm.tokenizer
        rows = link(of.texts, self.bundle).rows
        inputs = encode(tokenizer, of.texts, rows, Layout({}, "{slot} / {mention}", 64))
        return Pairs.encoded(tokenizer, inputs, of)

    # -- kbench ------------------------------------------------------------------------------------

    def predicted(self) -> list[float]:
        with self.plug.attach(self.model.lm):
            return predict(self.model, self.encoded(), CPU).scores

    def logits(self) -> Tensor:
        with self.plug.attach(self.model.lm), torch.no_grad():
            found: Tensor = self.model(self.data.batch(np.arange(len(self.examples))))
        return found

    def step(self) -> None:
        self.plug.zero_grad()
        with frozen(self.model), self.plug.attach(self.model.lm):
            self.model.loss(self.data.batch(np.arange(len(self.examples)))).backward()

    # -- the plain form ----------------------------------------------------------------------------

    def plain_logits(self, query: Example) -> Tensor:
        head = self.model.head
        assert isinstance(head, PairHead)
        lm = self.model.lm
        own = self._plain(query)
        scores = []
        for candidate in query.candidates:
            pairs = [
                reference.pair(lm.tokenizer, own, self._plain(support))
                for support in candidate.support
            ]
            scores.append(reference.class_logit(lm.network, self.plug.linear, head.linear, pairs))
        return torch.stack(scores)

    def _plain(self, example: Example) -> tuple[str, list[reference.Mention]]:
        mentions = sorted(example.mentions, key=lambda mention: mention.start)
        rows = self.bundle.rows([mention.entity for mention in mentions])
        vectors = torch.from_numpy(self.bundle.vectors(rows))
        return example.text, [
            (mention.start, mention.end, vector)
            for mention, vector in zip(mentions, vectors, strict=True)
        ]

    def plain_predicted(self) -> Tensor:
        with torch.no_grad():
            return torch.stack([self.plain_logits(query) for query in self.examples])

    def plain_step(self) -> None:
        # As published: a backward pass a query, and gradients of the "frozen" weights too.
        self.plug.zero_grad()
        self.model.requires_grad_(True)
        for query, target in zip(self.examples, self.data.targets, strict=True):
            logits = self.plain_logits(query)[None]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor([int(target)]))
            (loss / len(self.examples)).backward()
        self.model.zero_grad()


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Episode:
    return Episode(tmp_path_factory.mktemp("episode"), backbone)


def test_both_forms_have_the_same_logits_and_gradients(tmp_path: Path, backbone: Path) -> None:
    episode = Episode(tmp_path, backbone, queries_each=1)  # a query of each class shows it
    assert (episode.logits() - episode.plain_predicted()).abs().max() < 1e-5
    found = []
    for step in (episode.step, episode.plain_step):
        step()
        found.append([p.grad.clone() for p in episode.plug.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) == 2
    for ours, plain in zip(*found, strict=True):
        assert (ours - plain).abs().max() < 1e-4 * plain.abs().max()


def test_training_on_an_episode(demands: Demands, episode: Episode) -> None:
    demands.ratio(
        "few-shot episode, training step", episode.step, episode.plain_step, least=3, rounds=3
    )


def test_evaluating_an_episode(demands: Demands, episode: Episode) -> None:
    # Not 3: on a CPU a call for each pair spends half its time on products that any form needs.
    demands.ratio(
        "few-shot episode, evaluation", episode.predicted, episode.plain_predicted, least=1.2
    )
