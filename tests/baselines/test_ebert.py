"""E-BERT against its closed form: which words are anchors, which map comes out, where it goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbench.data import Example, Mention, Role
from kbench.encoding import Layout, encode
from kbench.errors import Unsupported, UsageError
from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.knowledge import Bundle, Entity, KnowledgeBase, Words, write_bundle, write_vectors
from kbench.knowledge.controls import Random, Shuffled, Zero
from kbench.model import LanguageModel
from kbench.model.huggingface import load_folder
from kbench.parts.catalogue import Kind
from kbench.spec import Control
from kbench.store import Result, Status
from kbench.testing import registered
from kbench.testing.toys import CLASSES
from kbench.training import History
from kbench_baselines.ebert import EBert, LinearMap, whole_wordpieces
from tests.baselines.trials import general_fit
from tests.grid.toygrid import OPTIONS, grid, run
from tests.hostile import byte_level, metaspace

CARD = {"name": "small", "version": "1", "licence": "none", "source": "test"}
JUNK = ("istanbul", "[MASK]", "##b", "[unused1]", "RED", "Thing", "two words", "", " ", "北")
"""No whole wordpieces, or not spelled like one."""


@pytest.fixture
def lm(toy_folder: Path) -> LanguageModel:
    return load_folder(toy_folder / "bert")


def _whole(lm: LanguageModel) -> list[str]:
    """The toy tokenizer's whole words, longer than a letter."""
    known = lm.tokenizer.get_vocab()
    return sorted(w for w in known if len(w) > 1 and not w.startswith(("##", "[")))


def _bundle(
    folder: Path, labels: list[str], vectors: Any, words: Words | None = None, name: str = "small"
) -> Bundle:
    entities = [Entity(f"{number:03}", label) for number, label in enumerate(labels)]
    write_bundle(folder, {**CARD, "name": name}, entities)
    return write_vectors(folder, np.float32(vectors), {"model": "planted"}, words=words)


def _fitted(
    lm: LanguageModel, knowledge: KnowledgeBase, **options: Any
) -> tuple[LinearMap, History]:
    method = EBert(options)
    plug = method.build(lm, knowledge)
    assert isinstance(plug, LinearMap)
    return plug, method.fit(plug, general_fit(method, lm, knowledge))


def _planted(lm: LanguageModel, dimension: int = 6) -> tuple[Words, np.ndarray]:
    """Words whose wordpiece vectors are a linear map of theirs, among others that are junk."""
    rng = np.random.default_rng(5)
    known = [*_whole(lm), *JUNK]
    vectors = rng.standard_normal((len(known), dimension)).astype(np.float32)
    matrix = rng.standard_normal((dimension, lm.slot_width)).astype(np.float32)
    ids = lm.tokenizer.convert_tokens_to_ids(_whole(lm))
    with torch.no_grad():
        lm.word_embeddings.weight[ids] = torch.from_numpy(vectors[: len(ids)] @ matrix)
    order = rng.permutation(len(known))
    return Words([known[at] for at in order], vectors[order]), matrix


def test_a_planted_map_is_recovered_from_words(lm: LanguageModel, tmp_path: Path) -> None:
    words, matrix = _planted(lm)
    entities = np.random.default_rng(1).standard_normal((5, 6))
    bundle = _bundle(tmp_path / "kb", list("abcde"), entities, words)
    plug, history = _fitted(lm, bundle)
    assert np.abs(plug.matrix.numpy() - matrix).max() < 1e-5
    assert history.counts["anchors_words"] == len(_whole(lm)) > 20
    expected = torch.from_numpy(bundle.vectors(np.array([3, 1])) @ matrix)
    torch.testing.assert_close(plug.slot_vectors(torch.tensor([3, 1])), expected, atol=1e-5, rtol=0)
    assert history.counts["norm_slots_thousandths"] == pytest.approx(
        1000 * np.linalg.norm(entities @ matrix, axis=1).mean(), abs=1
    )
    assert history.counts["norm_wordpieces_thousandths"] == pytest.approx(
        1000 * lm.word_embeddings.weight.norm(dim=1).mean().item(), abs=1
    )
    assert not list(plug.parameters())


def test_the_map_is_the_best_one_where_none_is_exact(lm: LanguageModel, tmp_path: Path) -> None:
    known = _whole(lm)
    vectors = np.random.default_rng(2).standard_normal((len(known), 6)).astype(np.float32)
    vectors[3] = np.nan  # a word without a vector
    bundle = _bundle(tmp_path / "kb", list("ab"), np.ones((2, 6)), Words(known, vectors))
    plug, history = _fitted(lm, bundle)
    kept = [at for at in range(len(known)) if at != 3]
    assert history.counts["anchors_words"] == len(kept)
    x = torch.from_numpy(vectors[kept]).double()
    ids = lm.tokenizer.convert_tokens_to_ids([known[at] for at in kept])
    y = lm.word_embeddings.weight[ids].double()
    # The normal equations, and no constant.
    solved = torch.linalg.inv(x.T @ x) @ x.T @ y
    assert (plug.matrix.double() - solved).abs().max() < 1e-5
    assert not plug.slot_vectors(torch.tensor([0])).sub(plug.matrix.sum(0)).abs().max() > 1e-5


def test_without_words_names_are_anchors_and_go_through_the_control(
    lm: LanguageModel, tmp_path: Path
) -> None:
    words, matrix = _planted(lm)
    labels = [*words.words, "Blue", "x y"]
    vectors = np.concatenate([words.vectors, words.vectors[:2]])
    at = labels.index("blue")
    vectors[-2] = vectors[at]
    vectors[labels.index("RED")] = vectors[labels.index("red")]
    vectors[labels.index("Thing")] = np.nan  # known, but without a vector
    bundle = _bundle(tmp_path / "kb", labels, vectors)
    plug, history = _fitted(lm, bundle)
    assert np.abs(plug.matrix.numpy() - matrix).max() < 1e-5
    # Names need not be spelled like the wordpiece: the tokenizer reads them in lower case.
    assert history.counts["anchors_names"] == len(_whole(lm)) + len(("RED", "Blue"))
    for broken in (Shuffled(bundle, 0), Random(bundle, 0)):
        other, counted = _fitted(lm, broken)
        assert np.abs(other.matrix.numpy() - matrix).max() > 0.1
        assert counted.counts["anchors_names"] == history.counts["anchors_names"]
    nothing, _ = _fitted(lm, Zero(bundle))
    assert not nothing.matrix.any()


def test_words_are_not_broken_by_controls_but_entities_are(
    lm: LanguageModel, tmp_path: Path
) -> None:
    words, _ = _planted(lm)
    bundle = _bundle(tmp_path / "kb", list("abcdefgh"), np.eye(8)[:, :6] + 1, words)
    true, _ = _fitted(lm, bundle)
    rows = torch.arange(8)
    for broken in (Shuffled(bundle, 0), Random(bundle, 0), Zero(bundle)):
        plug, _ = _fitted(lm, broken)
        assert torch.equal(plug.matrix, true.matrix)
        apart = (plug.slot_vectors(rows) - true.slot_vectors(rows)).norm(dim=1)
        assert apart.min() > 0.1


def test_a_whole_wordpiece_stands_after_a_blank() -> None:
    asked = ["today", "of", "oday", "saw istanbul", "</s>", "", "color"]
    for tokenizer, mark in ((byte_level(), "Ġ"), (metaspace(), "▁")):
        found = whole_wordpieces(tokenizer, asked)
        vocabulary = tokenizer.get_vocab()
        assert found.tolist() == [
            vocabulary.get(f"{mark}{text}", -1) if text in ("today", "of", "color") else -1
            for text in asked
        ]
        assert (found >= 0).sum() == 3
        assert whole_wordpieces(tokenizer, asked, spelled_alike=True).tolist() == found.tolist()


def test_words_and_names_can_be_asked_for(lm: LanguageModel, tmp_path: Path) -> None:
    words, _ = _planted(lm)
    bundle = _bundle(tmp_path / "kb", ["red", "x y"], np.ones((2, 6)), words)
    assert "anchors_words" in _fitted(lm, bundle, anchors="words")[1].counts
    with pytest.raises(Unsupported, match=r"1 anchors \(names .* for 6 dimensions of small"):
        _fitted(lm, bundle, anchors="names")


def test_too_few_anchors_or_none_are_unsupported(
    lm: LanguageModel, tmp_path: Path, toy_knowledge: Bundle
) -> None:
    few = _whole(lm)[:5]
    words = Words(few, np.ones((5, 6), dtype=np.float32))
    bundle = _bundle(tmp_path / "few", ["a"], np.ones((1, 6)), words)
    with pytest.raises(Unsupported, match=r"5 anchors \(words .* for 6 dimensions"):
        _fitted(lm, bundle)
    with pytest.raises(Unsupported, match=r"4 anchors \(names .* for 8 dimensions of toy"):
        _fitted(lm, toy_knowledge)
    with pytest.raises(Unsupported, match="has no words"):
        _fitted(lm, toy_knowledge, anchors="words")
    bare = write_bundle(tmp_path / "bare", CARD, [Entity("a", "red")])
    with pytest.raises(Unsupported, match="has no vectors"):
        _fitted(lm, bare)


@pytest.mark.parametrize("form", ["concat", "replace"])
def test_the_vector_goes_before_the_mention_or_into_its_place(
    form: str, lm: LanguageModel, tmp_path: Path
) -> None:
    words, _ = _planted(lm)
    vectors = np.random.default_rng(3).standard_normal((3, 6))
    bundle = _bundle(tmp_path / "kb", ["balike", "keste", "moli"], vectors, words)
    plug, _ = _fitted(lm, bundle, form=form)
    text = "we saw keste near moli today"
    spans = [(7, 12), (18, 22)]
    example = Example("x", text, tuple(Mention(a, b, None, Role.CONTEXT) for a, b in spans), "")
    layout = Layout({}, EBert({"form": form}).template())
    batch = encode(lm.tokenizer, [example], [(1, -1)], layout).collate(np.array([0]))
    with torch.no_grad(), plug.attach(lm):
        states = lm(batch)[0]

    tokenizer: Any = lm.tokenizer
    table = lm.word_embeddings.weight.detach()
    inputs = [table[tokenizer.cls_token_id]]
    for word in text.split():
        pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
        if word == "keste":
            mapped = np.zeros(lm.slot_width)
            for coordinate in range(6):
                mapped += np.float64(vectors[1, coordinate]) * plug.matrix[coordinate].numpy()
            inputs.append(torch.tensor(mapped, dtype=torch.float32))
            slash = tokenizer.convert_tokens_to_ids("/")
            pieces = [slash, *pieces] if form == "concat" else []
        inputs += [table[piece] for piece in pieces]
    inputs.append(table[tokenizer.sep_token_id])
    with torch.no_grad():
        expected = lm.network.bert(inputs_embeds=torch.stack(inputs)[None]).last_hidden_state
    torch.testing.assert_close(states, expected[0], atol=1e-5, rtol=0)


@pytest.fixture
def offered(toy_tasks: None) -> Iterator[None]:
    with registered(Kind.METHODS, e_bert="kbench_baselines.ebert:EBert"):
        yield


@pytest.mark.usefixtures("offered")
def test_an_option_that_means_nothing_is_refused_before_anything_runs(
    toy_folder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    for option in ({"form": "beside"}, {"anchors": "cats"}):
        options = {"method": {"e-bert": option}}
        bad = grid(toy_folder, method="e-bert", setting="general", options=options)
        with pytest.raises(UsageError, match=r"expected concat or replace|expected auto or"):
            runner.plan(runner.resolve(bad), place)


@pytest.fixture(scope="module")
def aligned(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The toy world in a space whose words are a rotation of the wordpieces.

    An entity lies where the word for its class lies.
    """
    lm, toy = load_folder(toy_folder / "bert"), Bundle(toy_folder / "kb")
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 32)))[0]
    known = [w for w in lm.tokenizer.get_vocab() if not w.startswith(("##", "["))]
    ids = lm.tokenizer.convert_tokens_to_ids(known)
    space = np.float32(lm.word_embeddings.weight.detach().numpy()[ids] @ rotation)
    entities = [toy.entity(row) for row in range(len(toy))]
    colours = [(*entity.types, entity.label)[0] for entity in entities]
    folder = tmp_path_factory.mktemp("aligned")
    write_bundle(folder, CARD, entities)
    vectors = space[[known.index(colour) for colour in colours]]
    assert set(colours) == set(CLASSES)
    return write_vectors(folder, vectors, {"model": "planted"}, words=Words(known, space))


def _scores(results: list[Result]) -> dict[Control, float]:
    found = {}
    for result in results:
        assert result.status == Status.OK, result.reason
        assert result.score is not None
        assert result.cost["trainable_parameters"] == 0
        found[result.spec.control] = result.score.value
    return found


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("form", ["concat", "replace"])
def test_a_frozen_model_reads_entities_as_the_words_they_lie_at(
    form: str, toy_folder: Path, tmp_path: Path, made: Path, aligned: Bundle
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    chosen = grid(
        toy_folder,
        method="e-bert",
        setting="general",
        control="none,shuffled,random,zero",
        knowledge=str(aligned.folder),
        options={**OPTIONS, "method": {"e-bert": {"form": form}}},
    )
    results = run(chosen, place)
    scores = _scores(results)
    assert scores.pop(Control.NONE) > 0.6, scores
    assert max(scores.values()) < 0.45, scores
    # All but capital letters: the tokenizer spells those in lower case.
    words = aligned.words
    assert words is not None
    spelled_alike = sum(word == word.lower() for word in words.words)
    assert results[0].counts["anchors_words"] == spelled_alike > 80
    slots, pieces = (
        results[0].counts[f"norm_{name}_thousandths"] for name in ("slots", "wordpieces")
    )
    assert slots == pytest.approx(pieces, rel=0.3)


@pytest.mark.usefixtures("offered")
def test_a_model_can_be_tuned_with_the_map_in_place(
    toy_folder: Path, tmp_path: Path, made: Path, aligned: Bundle
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    chosen = grid(
        toy_folder,
        method="e-bert",
        setting="fine-tuning",
        control="none,shuffled",
        knowledge=str(aligned.folder),
        options={"tuning": {"full": {"learning_rate": 3e-3, "epochs": 8, "batch_size": 16}}},
    )
    scores = _scores(run(chosen, place))
    assert scores[Control.NONE] > 0.8, scores
    assert scores[Control.SHUFFLED] < 0.45, scores
