"""Candidates that have no room in one row stand in several, and are worth the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.data import Example, Mention, Options, Prompt, Role, Verdicts
from kbench.encoding import Encoded, Layout, Tree, Trees, encode, trees
from kbench.encoding.batch import picked
from kbench.encoding.micro_batches import split
from kbench.model import DownstreamModel, Head, LanguageModel, StatementHead
from kbench.model.answering import RankedHead
from kbench.model.candidates import CandidateHead
from kbench.model.choices import LetterHead, VerdictHead
from kbench.model.frozen_reading import FrozenReader, last_states
from kbench.model.huggingface import load_folder
from kbench.pipeline.prediction import predict
from tests.architectures import write_decoder

CPU = torch.device("cpu")
PLACES = ["the river", "the town of istanbul", "the town of rome", "a sea", "the river below"]
STATED = {name: f"{{head}} is near {name}" for name in PLACES}
RANKED = {"": [[name, f"{name} itself"] for name in PLACES[:4]], "sea": [["a sea"], ["it"]]}

HEADS: dict[str, Callable[[], Head]] = {
    "labels": lambda: CandidateHead(PLACES, Prompt("{text} near", nothing="near"), "pmi"),
    "statements": lambda: StatementHead(PLACES, Prompt("{text} .", statements=STATED), "pmi"),
    "letters": lambda: LetterHead(PLACES, Options("{text} near", nothing="near"), "pmi"),
    "verdicts": lambda: VerdictHead(PLACES, Verdicts("{text} near", nothing="near"), "pmi"),
    "ranked": lambda: RankedHead(Prompt("{text} near", nothing="near"), 40, RANKED, "pmi"),
}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return load_folder(write_decoder(folder, request.param, max_position_embeddings=200))


@pytest.fixture(params=sorted(HEADS))
def model(lm: LanguageModel, request: pytest.FixtureRequest) -> DownstreamModel:
    head = HEADS[request.param]()
    head.settle(lm)
    return DownstreamModel(lm, head).eval()


def prepared(model: DownstreamModel) -> tuple[Encoded, NDArray[np.int64]]:
    examples = []
    for number in range(4):
        text = f"{'so ' * number}ann lives"
        at = text.index("ann")
        mentions = (Mention(at, at + 3, "Q1", Role.HEAD), Mention(at, at + 3, "Q1", Role.TAIL))
        several = isinstance(model.head, RankedHead | VerdictHead)
        label = (PLACES[number],) if several else PLACES[number]
        relation = "sea" if number == 3 else ""
        examples.append(Example(str(number), text, mentions, label, relation=relation))
    put = [model.head.put(example) for example in examples]
    layout = Layout({}, left_to_right=True)
    tokenizer = model.lm.tokenizer
    inputs = encode(tokenizer, [e for e in put if e], [(-1, -1)] * len(put), layout)
    gold = model.head.gold(examples, tokenizer)
    return model.head.grown(inputs, tokenizer, examples), gold.targets


def close(one: Tensor, other: Tensor) -> None:
    assert torch.allclose(one, other, rtol=1e-5, atol=1e-5), float((one - other).abs().max())


def test_they_are_worth_the_same(model: DownstreamModel, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets = prepared(model)
    assert isinstance(inputs, Trees)
    assert inputs.in_rows
    weight = model.lm.word_embeddings.weight
    found = []
    for room in (2048, 12):
        monkeypatch.setattr(trees, "ROW", room)
        model.head.settle(model.lm)
        batch = inputs.collate(np.arange(4), targets)
        loss = model.loss(batch)
        (moved,) = torch.autograd.grad(loss, [weight])
        predicted = predict(model, inputs, CPU)
        assert predicted.likelihoods is not None
        with torch.inference_mode():
            said = model(batch)
            close(model(picked(batch, torch.tensor([1, 3]), batch.ids.shape[1])), said[[1, 3]])
            close(torch.cat([model(part) for part in split(batch, 3)]), said)
        assert torch.isfinite(moved).all()
        found.append((said, loss.detach(), moved, predicted))
        assert bool(batch.more) == (room == 12)
    assert not inputs.in_rows
    assert int(inputs.sequence_lengths.max()) < int(inputs.lengths.max())
    (said, loss, moved, predicted), (other, *more, again) = found
    close(said, other)
    close(loss, more[0])
    assert torch.allclose(moved, more[1], rtol=1e-4, atol=1e-5)
    assert predicted.labels == again.labels
    assert predicted.likelihoods is not None
    assert again.likelihoods is not None
    for scorer in predicted.likelihoods.scorers:
        scores = [each.likelihoods.by(scorer).scores for each in (predicted, again)]  # type: ignore[union-attr]
        assert np.allclose(*scores, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        reader = FrozenReader(model.lm, CPU)
        assert reader.read(inputs, last_states(model.lm, {})) is None


def test_each_candidate_is_in_one_part() -> None:
    rng = np.random.default_rng(0)
    spelled = [rng.integers(0, 3, size=rng.integers(1, 6)).tolist() for _ in range(40)]
    tree = Tree.of(spelled)
    parts = tree.parted(9)
    assert len(parts) > 3
    assert tree.parted(len(tree)) == [tree]
    owners = np.concatenate([part.owners for part in parts])
    assert owners.tolist() == sorted(owners.tolist())
    assert len(owners) == len(tree.owners)
    for part in parts:
        assert len(part) <= 9
        assert part.candidates == 40
        for owner in {*part.owners.tolist()}:
            own = part.owners == owner
            tokens = part.targets[own].tolist()
            assert tokens == spelled[owner]
            for at, place in enumerate(part.places[own].tolist()):
                path = np.flatnonzero(part.sees[place - 1]).tolist() if place else []
                assert part.tokens[path].tolist() == tokens[:at]
    assert max(map(len, Tree.of([[1] * 20, [2]]).parted(4))) == 19  # one has no room, and stays


def test_of_a_candidate_what_is_asked_is_read_and_not_said() -> None:
    spelled = [[7, 8, 1], [7, 8, 2], [7, 9, 3, 4]]
    tree = Tree.of(spelled, [2, 2, 2])
    whole = Tree.of(spelled)
    assert tree.tokens.tolist() == whole.tokens.tolist()
    assert tree.targets.tolist() == [1, 2, 3, 4]
    assert tree.owners.tolist() == [0, 1, 2, 2]
    first, second = tree.parted(2)  # with what a token follows, that is asked
    assert [first.tokens.tolist(), second.tokens.tolist()] == [[7, 8], [7, 9, 3]]
    assert second.places.tolist() == [2, 3]
    with pytest.raises(ValueError, match="candidate 1 has no token"):
        Tree.of(spelled, [2, 3, 2])
