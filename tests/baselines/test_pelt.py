"""PELT against a loop over single occurrences, and who counts as covered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kbench.data import Example, Mention
from kbench.encoding import Layout, encode
from kbench.errors import Unsupported, UsageError
from kbench.grid.plan import Place
from kbench.knowledge import Bundle, Entity, KnowledgeBase, Sentence, write_bundle
from kbench.knowledge.controls import Random, Shuffled, Zero
from kbench.model import LanguageModel, frozen_reading
from kbench.model.huggingface import load_folder
from kbench.parts.catalogue import Kind
from kbench.spec import Control
from kbench.store import Result, Results, Status, hidden_states
from kbench.testing import registered
from kbench.testing.toys import write_backbone
from kbench.training import History
from kbench_baselines import pelt
from kbench_baselines.occurrences import Occurrences, Wanted, draw, occurrences
from kbench_baselines.pelt import EntityTable, Pelt, before_output
from tests.architectures import ARCHITECTURES, write
from tests.baselines.trials import general_fit
from tests.grid.toygrid import OPTIONS, grid, run

CARD = {"name": "small", "version": "1", "licence": "none", "source": "test"}
LONG = "we saw balike today , " + "they spoke of it again and " * 12 + "of keste"


@pytest.fixture(scope="module")
def lm(toy_folder: Path) -> LanguageModel:
    return load_folder(toy_folder / "bert")


def _sentence(text: str, *links: tuple[str, str | None]) -> Sentence:
    """A sentence whose mentions are given by their words, left to right."""
    mentions, start = [], 0
    for words, entity in links:
        start = text.index(words, start)
        mentions.append(Mention(start, start + len(words), entity))
        start += len(words)
    return Sentence(text, tuple(mentions))


SENTENCES = [
    _sentence("we saw balike near keste today and it rained", ("balike", "a"), ("keste", "b")),
    _sentence("near balike it rained and balike looks red", ("balike", "a"), ("balike", "a")),
    _sentence("we saw balike near keste today and it rained", ("balike", "a")),  # recurs
    _sentence("keste", ("keste", "b")),
    _sentence("red vozuba", ("vozuba", "c")),
    _sentence(LONG, ("balike", "a"), ("keste", "d")),
    _sentence("nobody was there and we know it is red", ("nobody", "z"), ("it", None)),
    _sentence("they spoke of Great Moli again and it rained", ("Great Moli", "e")),
]
ENTITIES = [
    Entity("a", "balike"),
    Entity("b", "keste", description="the color of keste is green , keste was there"),
    Entity("c", "vozuba", description="a red thing near vozubas and it rained again"),
    Entity("d", "keste"),
    Entity("e", "moli", description="Moli was there"),
    Entity("f", "nuke"),
    Entity("g", "trivo", description="we know that trivo is a blue thing and ever was"),
    Entity("h", "", description="it is blue"),
]
READ = {
    "a": [(0, 7), (1, 5), (1, 26)],  # the long sentence is left out
    "b": [(0, 19), ("b", 13)],  # the sentence of one word is left out
    "c": [(4, 4)],  # too short, but all there is
    "d": [(5, LONG.rindex("keste"))],  # too long, but all there is
    "e": [(7, 14)],
    "g": [("g", 13)],
}
"""Of each entity the sentences, or the description, that are read, and where it stands there."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("small")
    return write_bundle(folder, CARD, ENTITIES, sentences=SENTENCES)


def _fitted(
    lm: LanguageModel, knowledge: KnowledgeBase, *, seed: int = 0, **options: Any
) -> tuple[EntityTable, History]:
    method = Pelt(options)
    plug = method.build(lm, knowledge)
    assert isinstance(plug, EntityTable)
    return plug, method.fit(plug, general_fit(method, lm, knowledge, seed=seed))


def _slow(lm: LanguageModel) -> dict[str, torch.Tensor]:
    """``E(e) / C`` of every entity: one occurrence, one network call, one sum at a time."""
    tokenizer: Any = lm.tokenizer
    network: Any = lm.network
    found = {}
    for entity, places in READ.items():
        name = {"e": "Great Moli"}.get(entity) or ENTITIES[ord(entity) - ord("a")].label
        total = torch.zeros(lm.width)
        for source, start in places:
            text = (
                SENTENCES[source].text
                if isinstance(source, int)
                else ENTITIES[ord(source) - ord("a")].description
            )
            assert text[start : start + len(name)] == name
            masked = f"{text[:start]}[MASK]{text[start + len(name) :]}"
            ids = tokenizer(masked)["input_ids"]
            at = ids.index(tokenizer.mask_token_id)
            if len(ids) > 64:  # the toy reads 64: what lies nearest to the mask
                ids = [ids[0], *ids[at - 61 : at + 1], ids[-1]] if at > 61 else ids[:63] + ids[-1:]
                at = ids.index(tokenizer.mask_token_id)
            with torch.no_grad():
                states = network.bert(input_ids=torch.tensor([ids])).last_hidden_state
                head = network.cls.predictions.transform
                inner = torch.nn.functional.gelu(head.dense(states[0, at]))
                total += head.LayerNorm(inner)
        found[entity] = total / total.norm()
    return found


def test_vectors_are_those_of_a_loop_over_single_occurrences(
    lm: LanguageModel, small: Bundle
) -> None:
    plug, history = _fitted(lm, small)
    expected = _slow(lm)
    ids = [ENTITIES[row].id for row in plug.rows.tolist()]
    assert ids == sorted(expected)
    for vector, entity in zip(plug.vectors, ids, strict=True):
        torch.testing.assert_close(vector, expected[entity], atol=1e-5, rtol=0)
    assert history.counts == {
        "corpus_occurrences": 12,
        "corpus_occurrences_repeated": 1,
        "corpus_descriptions_without_name": 2,
        "corpus_occurrences_too_short": 2,
        "corpus_occurrences_too_long": 1,
        "corpus_occurrences_not_drawn": 0,
        "corpus_occurrences_read": 9,
        "corpus_entities": 6,
        "corpus_entities_of_other_length": 2,
    }
    assert not list(plug.parameters())


def test_every_vector_has_the_norm_that_is_chosen(lm: LanguageModel, small: Bundle) -> None:
    plug, _ = _fitted(lm, small)
    for scale in (None, 3.0, 10.0):
        if scale:
            plug.choose(scale)
        norms = plug.slot_vectors(plug.rows).norm(dim=1)
        torch.testing.assert_close(norms, torch.full((6,), scale or 7.0))
    assert Pelt().choices()[0] == 7.0
    assert sorted(Pelt().choices()) == list(range(1, 11))
    fixed, _ = _fitted(lm, small, scale=2.5)
    torch.testing.assert_close(fixed.slot_vectors(fixed.rows).norm(dim=1), torch.full((6,), 2.5))
    assert list(Pelt({"scale": 2.5}).choices()) == [2.5]


def test_neither_padding_nor_blocks_change_a_vector(
    lm: LanguageModel, small: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, counted = _fitted(lm, small)
    monkeypatch.setattr(frozen_reading, "BATCH", 1)
    monkeypatch.setattr(pelt, "_BLOCK", 2)
    alone, same = _fitted(lm, small)
    torch.testing.assert_close(together.vectors, alone.vectors, atol=1e-5, rtol=0)
    assert counted.counts == same.counts
    assert counted.tokens == same.tokens


def test_another_control_or_seed_reads_nothing_anew(lm: LanguageModel, small: Bundle) -> None:
    read = []
    handle = lm.base.register_forward_pre_hook(lambda *_: read.append(1))
    try:
        true, first = _fitted(lm, small)
        times = len(read)
        assert times > 0
        for again, knowledge, seed in ((1, small, 0), (2, Shuffled(small, 0), 0), (3, small, 7)):
            plug, history = _fitted(lm, knowledge, seed=seed)
            assert torch.equal(plug.vectors, true.vectors), again
            assert history.counts == first.counts
        assert len(read) == times
        # One occurrence of each: another set of texts, which is read.
        _fitted(lm, small, occurrences=1)
        assert len(read) > times
    finally:
        handle.remove()


def test_what_does_not_fit_is_read_for_every_plug_and_gives_the_same_bits(
    lm: LanguageModel, small: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, _ = _fitted(lm, small)
    # All occurrences together must fit, though each block would.
    monkeypatch.setattr(pelt, "_BLOCK", 2)
    monkeypatch.setenv(hidden_states.BYTES, str(4 * 9 * lm.width - 1))
    before = {folder.name for folder in hidden_states.HiddenStateStore().all()}
    alone, _ = _fitted(lm, small)
    assert {folder.name for folder in hidden_states.HiddenStateStore().all()} == before
    torch.testing.assert_close(alone.vectors, kept.vectors, atol=1e-5, rtol=0)
    monkeypatch.setattr(pelt, "_BLOCK", 1 << 13)
    monkeypatch.setenv(hidden_states.BYTES, "0")
    off, _ = _fitted(lm, small)
    assert torch.equal(off.vectors, kept.vectors)


def test_occurrences_are_drawn_by_the_seed(lm: LanguageModel, small: Bundle) -> None:
    one, counted = _fitted(lm, small, occurrences=1)
    again, _ = _fitted(lm, small, occurrences=1)
    assert torch.equal(one.vectors, again.vectors)
    assert counted.counts["corpus_occurrences_read"] == 6
    assert counted.counts["corpus_occurrences_not_drawn"] == 4 - 1
    drawn = {
        tuple(vectors[0].mul(1000).round().tolist())
        for seed in range(8)
        for vectors in [_fitted(lm, small, seed=seed, occurrences=1)[0].vectors]
    }
    assert len(drawn) == 3  # "a" has three occurrences of good length


def test_descriptions_can_be_left_out(lm: LanguageModel, small: Bundle) -> None:
    plug, history = _fitted(lm, small, descriptions=False)
    assert [ENTITIES[row].id for row in plug.rows.tolist()] == list("abcde")
    assert history.counts["corpus_occurrences"] == 9


def test_occurrences_are_found_once_for_all_methods_and_controls_that_ask_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_bundle(tmp_path / "kb", CARD, ENTITIES, sentences=SENTENCES)
    searched: list[bool] = []

    def counted(knowledge: KnowledgeBase, *, descriptions: bool) -> Occurrences:
        searched.append(descriptions)
        return occurrences(knowledge, descriptions=descriptions)

    monkeypatch.setattr(pelt, "occurrences", counted)
    rows = np.arange(len(ENTITIES), dtype=np.int64)
    for wanted in (True, False, True):
        method = Pelt({"descriptions": wanted})
        found = occurrences(base, descriptions=wanted)
        for seen in (base, Shuffled(base, 0)):
            assert method.covers(seen, rows).tolist() == np.isin(rows, found.rows).tolist()
    assert searched == [True, False]


def test_a_description_counts_where_it_holds_the_name_as_whole_words(small: Bundle) -> None:
    found = occurrences(small, descriptions=True)
    texts = [found.texts[number] for number in found.places[:, 0].tolist()]
    of: dict[str, list[str]] = {entity.id: [] for entity in ENTITIES}
    for text, row in zip(texts, found.rows.tolist(), strict=True):
        of[ENTITIES[row].id].append(text)
    assert ENTITIES[1].description in of["b"]
    assert ENTITIES[2].description not in of["c"]  # "vozubas"
    assert ENTITIES[4].description in of["e"]  # "Moli" for "moli"
    assert of["h"] == []
    assert found.unnamed == 2
    masked = found.masked(int(np.flatnonzero(found.rows == 6)[0]))
    assert masked.text == "we know that  is a blue thing and ever was"
    assert masked.blank == 13


def _slow_draw(
    rows: list[int], lengths: list[int], priority: list[int], wanted: Wanted
) -> set[int]:
    chosen = set()
    for row in set(rows):
        own = [at for at, r in enumerate(rows) if r == row]
        good = [at for at in own if wanted.shortest <= lengths[at] <= wanted.longest]
        chosen |= set(sorted(good or own, key=lambda at: priority[at])[: wanted.most])
    return chosen


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=40),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_drawing_is_that_of_a_loop(items: list[tuple[int, int]], most: int, random: Any) -> None:
    items = sorted(items)
    priority = list(range(len(items)))
    random.shuffle(priority)
    rows, lengths = [row for row, _ in items], [length for _, length in items]
    wanted = Wanted(most, 3, 6)
    drawn = draw(np.array(rows), np.array(lengths), np.array(priority), wanted)
    assert set(drawn.chosen.tolist()) == _slow_draw(rows, lengths, priority, wanted)
    counts = drawn.counts
    left = ("too_short", "too_long", "not_drawn", "read")
    assert sum(counts[f"corpus_occurrences_{name}"] for name in left) == len(rows)


def test_controls_break_the_table_and_keep_its_coverage(lm: LanguageModel, small: Bundle) -> None:
    true, _ = _fitted(lm, small)
    everyone = np.arange(-1, len(small))
    covered = Pelt().covers(small, everyone)
    assert np.array(everyone)[covered].tolist() == true.rows.tolist() == [0, 1, 2, 3, 4, 6]
    own = true.slot_vectors(true.rows)
    for seed in range(3):
        broken = Shuffled(small, seed, partial(Pelt().covers, small), "pelt")
        assert Pelt().covers(broken, everyone).tolist() == covered.tolist()
        plug, _ = _fitted(lm, broken)
        # The same table underneath, but everyone answers with another's vector.
        assert torch.equal(plug.vectors, true.vectors)
        asked = plug.slot_vectors(plug.rows)
        distance = torch.cdist(asked, own)
        assert sorted(distance.argmin(1).tolist()) == list(range(6))
        assert distance.min(1).values.max() < 1e-4
        assert distance.diagonal().min() > 0.1
    random, _ = _fitted(lm, Random(small, 0))
    made_up = random.slot_vectors(random.rows)
    torch.testing.assert_close(made_up.norm(dim=1), torch.full((6,), 7.0))
    assert torch.cdist(made_up, own).min() > 1
    zero, _ = _fitted(lm, Zero(small))
    assert not zero.slot_vectors(zero.rows).any()


def test_a_stored_table_is_loaded_into_an_empty_one(lm: LanguageModel, small: Bundle) -> None:
    plug, _ = _fitted(lm, Shuffled(small, 0))
    empty = Pelt().build(lm, Shuffled(small, 0))
    assert not empty.slot_vectors(plug.rows).any()
    empty.load_state_dict(plug.state_dict())
    with empty.attach(lm):
        assert torch.equal(empty.slot_vectors(plug.rows), plug.slot_vectors(plug.rows))


def test_the_vector_stands_in_brackets_after_the_mention(lm: LanguageModel, small: Bundle) -> None:
    plug, _ = _fitted(lm, small)
    example = Example("x", "we saw balike near nuke today", (Mention(7, 13), Mention(19, 23)), "")
    layout = Layout({}, Pelt().template())
    batch = encode(lm.tokenizer, [example], [(0, -1)], layout).collate(np.array([0]))
    with torch.no_grad(), plug.attach(lm):
        states = lm(batch)[0]
    tokenizer: Any = lm.tokenizer
    table = lm.word_embeddings.weight.detach()
    ids = tokenizer("we saw balike ( @ ) near nuke today")["input_ids"]
    inputs = table[torch.tensor(ids)].clone()
    inputs[ids.index(tokenizer.convert_tokens_to_ids("@"))] = 7.0 * _slow(lm)["a"]
    with torch.no_grad():
        expected = lm.network.bert(inputs_embeds=inputs[None]).last_hidden_state[0]
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_stands_before_the_output_embeddings_is_found_in_every_head(
    name: str, tmp_path: Path
) -> None:
    lm = load_folder(write(tmp_path, name))
    hidden = torch.randn(5, lm.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        result = before_output(lm, hidden)
        logits = lm.predict_tokens(hidden)
        output = lm.network.get_output_embeddings()
        products = result @ output.weight.T
    assert result.shape == (5, lm.slot_width)
    # The logits are products with the output embeddings, and a bias.
    spread = (logits - products).std(0)
    torch.testing.assert_close(spread, torch.zeros_like(spread), atol=1e-5, rtol=0)
    if name == "roberta":
        head = lm.network.lm_head
        inner = torch.nn.functional.gelu(head.dense(hidden))
        torch.testing.assert_close(result, head.layer_norm(inner), atol=1e-6, rtol=0)
    assert not output._forward_pre_hooks


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scale": 0}, "scale is 0; expected null or a number above 0"),
        ({"scale": -1.0}, "scale is -1.0; expected null or a number above 0"),
        ({"min_length": 63}, "min_length is 63 and max_length 62; expected a least length up to"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        Pelt(options)


def test_without_head_or_occurrences_it_is_unsupported(
    lm: LanguageModel, small: Bundle, tmp_path: Path
) -> None:
    headless = load_folder(write_backbone(tmp_path / "bert", lm_head=False))
    with pytest.raises(Unsupported, match="masked-LM head"):
        Pelt().build(headless, small)
    bare = write_bundle(tmp_path / "bare", CARD, [Entity("a", "red", description="blue")])
    with pytest.raises(Unsupported, match="mentions none of its entities"):
        Pelt().build(lm, bare)


@pytest.fixture
def offered(toy_tasks: None) -> Iterator[None]:
    with registered(Kind.METHODS, pelt="kbench_baselines.pelt:Pelt"):
        yield


@pytest.fixture(scope="module")
def told(toy_knowledge: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The toy world without vectors; seven in eight entities are described, with their class."""
    folder = tmp_path_factory.mktemp("told")
    entities = []
    for number, entity in enumerate(map(toy_knowledge.entity, range(len(toy_knowledge)))):
        told = 4 * f"{entity.types[0]} " if entity.types and number % 8 else ""
        entities.append(replace(entity, description=f"{told}{entity.label} {told}" if told else ""))
    return write_bundle(folder, CARD, entities)


def _ok(results: list[Result]) -> dict[Control, float]:
    for result in results:
        assert result.status == Status.OK, result.reason
    return {r.spec.control: r.score.value for r in results if r.score and r.spec.knowledge}


@pytest.mark.usefixtures("offered")
def test_the_scale_is_chosen_on_dev_and_entities_without_occurrence_stay_as_they_were(
    toy_folder: Path, tmp_path: Path, made: Path, told: Bundle
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    chosen = grid(
        toy_folder,
        method="none,pelt",
        setting="general",
        control="none,shuffled",
        knowledge=str(told.folder),
        options={**OPTIONS, "tuning": {"full": {"epochs": 1}}},
    )
    results = run(chosen, place)
    _ok(results)
    base, true, shuffled = results
    assert true.coverage == shuffled.coverage
    assert true.coverage is not None
    assert 0.8 < true.coverage.examples < 0.95
    for result in (true, shuffled):
        assert result.cost["trainable_parameters"] == 0
        choice = result.training["choice"]
        assert choice["values"][0] == 7.0
        assert len(choice["dev"]) == 10
        assert choice["chosen"] == choice["values"][choice["dev"].index(max(choice["dev"]))]
    store = Results(place.out)
    plain, plugged = store.predictions(base), store.predictions(true)
    assert plain is not None
    assert plugged is not None
    apart = np.abs(np.subtract(plain.scores, plugged.scores))
    linked = np.array(plugged.linked, dtype=bool)
    assert (~linked).sum() >= 5
    assert apart[~linked].max() <= 1e-5 < apart[linked].max()


@pytest.mark.usefixtures("offered")
def test_a_model_tuned_with_the_table_reads_what_the_corpus_says(
    toy_folder: Path, tmp_path: Path, made: Path, told: Bundle
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    chosen = grid(
        toy_folder,
        method="pelt",
        setting="fine-tuning",
        control="none,shuffled",
        knowledge=str(told.folder),
    )
    scores = _ok(run(chosen, place))
    assert scores[Control.NONE] > 0.6, scores
    assert scores[Control.SHUFFLED] < 0.45, scores


def test_a_head_whose_output_embedding_is_none_of_tokens_is_refused(tmp_path: Path) -> None:
    lm = load_folder(write(tmp_path, "deberta-v3"))
    assert lm.has_lm_head
    with pytest.raises(Unsupported, match="has no output embeddings"):
        pelt.before_output(lm, torch.zeros(2, lm.width))
