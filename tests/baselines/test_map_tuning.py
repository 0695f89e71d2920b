"""Map-tuning against its published equations."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbench.corpus import (
    MaskedMentions,
    asked_mentions,
    masked_mentions,
    mention_loss,
    next_mentions,
)
from kbench.data import Example, Mention, Role
from kbench.encoding import Layout, encode
from kbench.errors import Unsupported, UsageError
from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.knowledge import Bundle, Entity, Sentence, write_bundle, write_vectors
from kbench.knowledge.linking import link
from kbench.model import LanguageModel
from kbench.model.freezing import frozen
from kbench.model.huggingface import load_folder
from kbench.testing.toys import write_backbone
from kbench.training import Recipe
from kbench_baselines.map_tuning import AffineMap, MapTuning
from kbench_baselines.map_tuning_mlp import BentMap, MlpMapTuning
from tests import reference
from tests.baselines.trials import fitted
from tests.grid.toygrid import OPTIONS, grid, run

SLOT = "{slot} / {mention}"


@pytest.fixture(scope="module")
def lm(toy_folder: Path) -> LanguageModel:
    return load_folder(toy_folder / "bert")


def _bundle(folder: Path, sentences: list[Sentence], dimension: int = 6) -> Bundle:
    card = {"name": "small", "version": "1", "licence": "none", "source": "test"}
    entities = [Entity(f"Q{number}", f"name {number}") for number in range(8)]
    write_bundle(folder, card, entities, sentences=sentences)
    vectors = np.random.default_rng(0).standard_normal((8, dimension)).astype(np.float32)
    vectors[7] = np.nan  # known, but without a vector
    return write_vectors(folder, vectors, {"model": "random"})


def _pair(text: str, first: str, second: str, ids: tuple[str | None, str | None]) -> Sentence:
    spans = reference.bounds(text, first, second)
    mentions = (Mention(*span, entity=i) for span, i in zip(spans, ids, strict=True))
    return Sentence(text, tuple(mentions))


_SENTENCES = [
    _pair("we saw balike near vozuba today", "balike", "vozuba", ("Q0", "Q1")),
    _pair("Keste is a red thing", "Keste", "red", ("Q2", None)),
    _pair("the color of trivo is GREEN", "trivo", "GREEN", ("Q3", "Q7")),
    _pair("blue looks like moli", "blue", "moli", ("Q99", "Q4")),
]


def test_the_map_has_the_published_number_of_parameters() -> None:
    class Wide:
        dimension = 128

    with torch.device("meta"):
        plug = AffineMap(Wide(), 768)  # type: ignore[arg-type]
    assert sum(p.numel() for p in plug.parameters()) == 99_072


def test_one_step_has_the_loss_and_gradient_of_the_published_equations(
    lm: LanguageModel, tmp_path: Path
) -> None:
    bundle = _bundle(tmp_path / "kb", _SENTENCES)
    torch.manual_seed(3)
    plug = AffineMap(bundle, lm.slot_width)
    data = masked_mentions(lm, bundle, SLOT, 62)
    assert len(data.lengths) == 3 * len(_SENTENCES)
    with frozen(lm), plug.attach(lm):
        ours = mention_loss(lm, data.batch(np.arange(len(data.lengths))))
        ours.backward()
    gradient = plug.linear.weight.grad
    assert gradient is not None

    plain = torch.nn.Linear(6, lm.slot_width)
    plain.load_state_dict(plug.linear.state_dict())
    batch = [
        instance
        for sentence in _SENTENCES
        for instance in reference.instances(
            lm.tokenizer,
            sentence.text,
            [(m.start, m.end, _vector(bundle, m.entity)) for m in sentence.mentions],
        )
    ]
    theirs = reference.loss(lm.network, plain, batch, width=64)
    theirs.backward()
    assert plain.weight.grad is not None
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    torch.testing.assert_close(gradient, plain.weight.grad, atol=1e-5, rtol=1e-4)


def _vector(bundle: Bundle, entity: str | None) -> torch.Tensor | None:
    row = bundle.rows([entity])
    return torch.from_numpy(bundle.vectors(row)[0]) if bundle.has_vector(row)[0] else None


def _texts(data: MaskedMentions, lm: LanguageModel) -> list[str]:
    batch = data.batch(np.arange(len(data.lengths)))
    return [
        lm.tokenizer.decode(ids[mask.bool()]).replace("[UNK] /", "@ /")
        for ids, mask in zip(batch.ids, batch.mask, strict=True)
    ]


def test_two_mentions_make_three_instances_and_masks_cover_whole_mentions(
    lm: LanguageModel, tmp_path: Path
) -> None:
    bundle = _bundle(tmp_path / "kb", [_pair("red saw blue", "red", "blue", ("Q0", "Q1"))])
    texts = _texts(masked_mentions(lm, bundle, SLOT, 62), lm)
    assert texts == [
        "[CLS] @ / [MASK] saw @ / [MASK] [SEP]",
        "[CLS] @ / [MASK] saw @ / blue [SEP]",
        "[CLS] @ / red saw @ / [MASK] [SEP]",
    ]


def test_what_comes_next_are_the_tokens_of_mentions_after_a_slot(
    toy_folder: Path, tmp_path: Path
) -> None:
    lm = load_folder(write_backbone(tmp_path / "llama", left_to_right=True))
    bundle = _bundle(tmp_path / "kb", [_pair("red saw blue", "red", "blue", ("Q0", "Q1"))])
    data = next_mentions(lm, bundle, SLOT, 62)
    assert data.dropped["corpus_instances"] == 3
    batch = data.batch(np.arange(3))
    assert batch.targets is not None
    ids = batch.ids.flatten()
    assert torch.equal(ids[batch.blank_index + 1], batch.targets)
    asked: list[list[str]] = [[], [], []]
    for place, token in zip(batch.blank_index.tolist(), batch.targets.tolist(), strict=True):
        asked[place // batch.ids.shape[1]].append(lm.tokenizer.decode([token]))
    # With both slots, with that of the first, with that of the second, before which is no slot.
    assert asked == [["red", "blue"], ["red", "blue"], ["blue"]]
    assert [int((batch.slot_index // batch.ids.shape[1] == n).sum()) for n in range(3)] == [2, 1, 1]
    torch.manual_seed(0)
    plug = AffineMap(bundle, lm.slot_width)
    with frozen(lm), plug.attach(lm):
        mention_loss(lm, batch).backward()  # type: ignore[no-untyped-call]
    assert plug.linear.weight.grad is not None
    assert plug.linear.weight.grad.abs().max() > 0


def test_a_mention_without_a_vector_is_masked_but_has_no_slot(
    lm: LanguageModel, tmp_path: Path
) -> None:
    bundle = _bundle(tmp_path / "kb", [_pair("red saw blue", "red", "blue", ("Q0", "Q7"))])
    texts = _texts(masked_mentions(lm, bundle, SLOT, 62), lm)
    assert texts[0] == "[CLS] @ / [MASK] saw [MASK] [SEP]"


def test_sentences_without_a_vector_or_too_long_are_dropped_and_counted(
    lm: LanguageModel, tmp_path: Path
) -> None:
    sentences = [
        _pair("red saw blue", "red", "blue", ("Q0", "Q1")),
        _pair("red saw blue", "red", "blue", ("Q7", None)),
        _pair("red saw " + "it " * 70 + "blue", "red", "blue", ("Q0", "Q1")),
    ]
    bundle = _bundle(tmp_path / "kb", sentences)
    data = masked_mentions(lm, bundle, SLOT, 62)
    assert data.dropped == {
        "corpus_sentences": 3,
        "corpus_sentences_unlinked": 1,
        "corpus_sentences_too_long": 1,
        "corpus_instances": 3,
    }


def test_a_corpus_without_a_usable_sentence_is_unsupported(
    lm: LanguageModel, tmp_path: Path
) -> None:
    bundle = _bundle(tmp_path / "kb", [_pair("red saw blue", "red", "blue", (None, "Q7"))])
    with pytest.raises(Unsupported, match="no usable sentence"):
        masked_mentions(lm, bundle, SLOT, 62)


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("setting", ["task-specific", "general"])
def test_a_base_without_vectors_is_no_run_without_knowledge(
    toy_folder: Path, tmp_path: Path, setting: str
) -> None:
    card = {"name": "bare", "version": "1", "licence": "none", "source": "test"}
    bare = write_bundle(tmp_path / "bare", card, [Entity("Q0", "red")], sentences=_SENTENCES[:1])
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu", 1)
    chosen = grid(
        toy_folder, method="map-tuning", setting=setting, knowledge=str(bare.folder), control="none"
    )
    (cell,) = runner.plan(runner.resolve(chosen), place)
    assert "bare has no entity vectors: see `kbench knowledge train`" in cell.obstacle
    with pytest.raises(Unsupported, match="bare has no entity vectors"):
        MapTuning().build(load_folder(toy_folder / "bert"), bare)


def test_a_backbone_without_masked_lm_head_is_unsupported(tmp_path: Path) -> None:
    headless = load_folder(write_backbone(tmp_path / "bert", lm_head=False))
    bundle = _bundle(tmp_path / "kb", _SENTENCES)
    with pytest.raises(Unsupported, match="masked-LM head"):
        masked_mentions(headless, bundle, SLOT, 62)


def test_an_unlinked_example_gives_the_logits_of_the_base_model(
    lm: LanguageModel, toy_knowledge: Bundle
) -> None:
    plug = AffineMap(toy_knowledge, lm.slot_width)
    example = Example("1", "we saw kim today", (Mention(7, 10, "nobody", Role.TARGET),), "")
    markers = {Role.TARGET: "$"}
    links = link([example], toy_knowledge)
    plain = encode(lm.tokenizer, [example], [(-1,)], Layout(markers)).collate(np.array([0]))
    plugged = encode(lm.tokenizer, [example], links.rows, Layout(markers, MapTuning.slot)).collate(
        np.array([0])
    )
    with torch.no_grad():
        base = lm(plain)
        with plug.attach(lm):
            torch.testing.assert_close(lm(plugged), base, atol=1e-5, rtol=0)


def test_gradients_reach_the_map_and_nothing_else(lm: LanguageModel, tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "kb", _SENTENCES)
    plug = AffineMap(bundle, lm.slot_width)
    data = masked_mentions(lm, bundle, SLOT, 62)
    with frozen(lm), plug.attach(lm):
        mention_loss(lm, data.batch(np.arange(3))).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in plug.parameters())
        assert all(p.grad is None for p in lm.parameters())


# -- several slots an entity ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MapTuning, MlpMapTuning])
def test_several_slots_are_as_many_maps(
    lm: LanguageModel, tmp_path: Path, kind: type[MapTuning]
) -> None:
    bundle = _bundle(tmp_path / "kb", _SENTENCES)
    torch.manual_seed(0)
    plug = kind({"slots": 3}).build(lm, bundle)
    rows = torch.tensor([4, 0])
    vectors = torch.from_numpy(bundle.vectors(rows.numpy()))
    found = plug.slot_vectors(rows)
    assert found.shape == (2, 3, lm.slot_width)
    if isinstance(plug, AffineMap):
        maps = zip(plug.linear.weight.chunk(3), plug.linear.bias.chunk(3), strict=True)
        by_hand = torch.stack([vectors @ matrix.T + bias for matrix, bias in maps], 1)
    else:
        assert isinstance(plug, BentMap)
        inner = torch.nn.functional.gelu(plug.inner(vectors))
        maps = zip(plug.outer.weight.chunk(3), plug.outer.bias.chunk(3), strict=True)
        by_hand = torch.stack([inner @ matrix.T + bias for matrix, bias in maps], 1)
    torch.testing.assert_close(found, by_hand)
    size = sum(p.numel() for p in plug.parameters())
    budget = 3 * (bundle.dimension + 1) * lm.slot_width
    assert size <= budget < size + bundle.dimension + 3 * lm.slot_width + 1


@pytest.mark.parametrize("left_to_right", [False, True])
def test_several_slots_learn_from_a_corpus(
    toy_folder: Path, tmp_path: Path, left_to_right: bool
) -> None:
    folder = tmp_path / "model"
    lm = load_folder(write_backbone(folder, left_to_right=left_to_right))
    bundle = _bundle(tmp_path / "kb", _SENTENCES)
    plug, history = _general(lm, bundle, {"slots": 2})
    assert history.losses[-1] < history.losses[0]
    untrained, _ = _general(lm, bundle, {"slots": 1})
    assert sum(p.numel() for p in plug.parameters()) == 2 * sum(
        p.numel() for p in untrained.parameters()
    )
    data = asked_mentions(lm, bundle, SLOT, 62, slots=2)
    batch = data.batch(np.arange(len(data.lengths)))
    assert batch.slots_each == 2
    with torch.no_grad(), plug.attach(lm):
        whole = mention_loss(lm, batch)
        plug.linear.weight[lm.slot_width :].zero_()
        plug.linear.bias[lm.slot_width :].zero_()
        assert (mention_loss(lm, batch) - whole).abs() > 1e-5  # the second one is read


@pytest.mark.usefixtures("toy_tasks")
def test_several_slots_carry_planted_knowledge(
    toy_folder: Path, tmp_path: Path, made: Path
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    options = deepcopy(OPTIONS)
    options["method"]["map-tuning"] |= {"slots": 2}
    scores = {}
    for result in run(
        grid(toy_folder, method="map-tuning", control="none,shuffled", options=options), place
    ):
        assert result.score is not None, result.reason
        scores[str(result.spec.control)] = result.score.value
    assert scores["none"] > 0.8
    assert scores["shuffled"] < 0.45


# -- the best of several general maps --------------------------------------------------------------


CHOOSE = {"dropout": [0.0, 0.3], "epoch": [1, 3]}


def _general(lm: LanguageModel, bundle: Bundle, options: dict[str, object]) -> tuple[Any, Any]:
    recipe = Recipe(1e-2, 4, 3, optimizer="adam", decay="constant", dropout=0.3)
    plug, history = fitted(MapTuning(options), lm, bundle, recipe)
    return plug.eval(), history


def test_each_map_offered_is_the_one_of_its_rate_and_epoch(
    lm: LanguageModel, tmp_path: Path
) -> None:
    bundle = _bundle(tmp_path / "kb", _SENTENCES)
    plug, history = _general(lm, bundle, {"choose": CHOOSE})
    assert MapTuning({"choose": CHOOSE}).choices() == [
        f"dropout {rate}, epoch {epoch}" for rate in ("0", "0.3") for epoch in (1, 3)
    ]
    rows = torch.arange(7)
    # The recipe's rate and last epoch, trained by itself.
    alone, one = _general(lm, bundle, {})
    plug.choose("dropout 0.3, epoch 3")
    torch.testing.assert_close(plug.slot_vectors(rows), alone.slot_vectors(rows))
    assert history.losses[3:] == one.losses
    assert (history.steps, len(history.losses)) == (2 * one.steps, 6)
    found = []
    for name in MapTuning({"choose": CHOOSE}).choices():
        plug.choose(name)
        found.append(plug.slot_vectors(rows))
    for at, first in enumerate(found):
        assert all(not torch.equal(first, other) for other in found[at + 1 :])
    # Only the one map counts as trained, and all come back from the store.
    assert sum(p.numel() for p in plug.parameters() if p.requires_grad) == 7 * lm.slot_width
    again = MapTuning({"choose": CHOOSE}).build(lm, bundle)
    again.load_state_dict(plug.state_dict())
    again.choose("dropout 0.3, epoch 1")
    torch.testing.assert_close(again.slot_vectors(rows), found[2])


@pytest.mark.parametrize(
    "choose",
    [
        3,
        {},
        {"dropout": [0.1]},
        {"dropout": [], "epoch": [1]},
        {"dropout": [1.0], "epoch": [1]},
        {"dropout": [False], "epoch": [1]},
        {"dropout": [0.1], "epoch": [True]},
        {"dropout": [0.1], "epoch": [0]},
        {"dropout": 0.1, "epoch": [1]},
        {"dropout": [0.1], "epoch": [1], "rate": [1]},
    ],
)
def test_another_form_of_choice_is_refused(choose: object) -> None:
    with pytest.raises(UsageError, match=r"^choose is .*expected \{dropout"):
        MapTuning({"choose": choose})


def test_an_epoch_that_is_never_reached_is_refused(lm: LanguageModel, tmp_path: Path) -> None:
    bundle = _bundle(tmp_path / "kb", _SENTENCES)
    with pytest.raises(UsageError, match="choose names epoch 4, but the recipe has 3"):
        _general(lm, bundle, {"choose": {"dropout": [0.1], "epoch": [4]}})


@pytest.mark.usefixtures("toy_tasks")
def test_a_task_takes_the_map_that_is_best_on_its_dev(
    toy_folder: Path, tmp_path: Path, made: Path
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    options = deepcopy(OPTIONS)
    # A last epoch, and one at which the map has hardly moved.
    options["method"]["map-tuning"] |= {
        "start": "general",
        "choose": {"dropout": [0.0], "epoch": [1, 2]},
    }
    chosen = grid(
        toy_folder,
        task="toy-qa",
        method="map-tuning",
        setting="general,task-specific",
        control="none",
        options=options,
    )
    general, specific = run(chosen, place)
    assert [general.status, specific.status] == ["ok", "ok"], general.reason + specific.reason
    choice = general.training["choice"]
    assert choice["values"] == ["dropout 0, epoch 1", "dropout 0, epoch 2"]
    best = choice["dev"].index(max(choice["dev"]))
    assert choice["chosen"] == choice["values"][best]
    assert specific.counts["starts_tried"] == 2
    assert specific.counts["start_taken"] == best + 1
