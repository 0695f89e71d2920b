"""Planted knowledge reaches a model that reads from left to right, and controls fall to chance."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from kbench.grid.plan import Place
from kbench.knowledge import Bundle, write_bundle
from kbench.parts.catalogue import Kind
from kbench.results.rescoring import again
from kbench.spec import Control
from kbench.store import Result, Results, Status
from kbench.testing import registered
from kbench.testing.toys import CLASSES
from tests.grid.toygrid import grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")

_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
_GPT2: dict[str, Any] = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "tie_word_embeddings": False,
}
_LESSONS = 150
NETWORKS = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", _LLAMA),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT2),
}


READERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "kblam": ({"every": 1}, {"learning_rate": 4e-2, "epochs": 6, "batch_size": 32}),
    "knowla": ({}, {"learning_rate": 2e-2, "epochs": 8, "batch_size": 32}),
    "concept": ({"slots": 2}, {"learning_rate": 2e-2, "epochs": 8, "batch_size": 32}),
}
"""Methods that read facts: their options, and how they train."""
_SYLLABLES = ("ba", "ke", "li", "mo", "nu", "pra", "ste", "tri", "vo", "zu")


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def decoder(
    request: pytest.FixtureRequest, toy_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A random decoder that knows the words of the toy world."""
    folder = tmp_path_factory.mktemp("decoders") / request.param
    return write_decoder(folder, toy_folder, request.param)


def write_decoder(folder: Path, toy_folder: Path, kind: str) -> Path:
    """Writes a random decoder that knows the words of the toy world."""
    config, network, options = NETWORKS[kind]
    folder.mkdir()
    for path in (toy_folder / "bert").glob("*token*"):
        shutil.copy(path, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    torch.manual_seed(0)
    made = getattr(transformers, config)(
        vocab_size=len(tokenizer), initializer_range=0.2, **ends, **options
    )
    whole = getattr(transformers, network)(made)
    # Else all tokens are about as likely, whatever a state says.
    torch.nn.init.normal_(whole.get_output_embeddings().weight, std=1.0)
    whole.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reader(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same decoder, taught to answer with the colour that its context names.

    Of a random network the last state hardly moves with a slot: no map of vectors makes it say one
    word of all rather than another (of 96 questions it answered at most a quarter, whatever the
    deviation of its weights and however long the map was trained). A relation is said otherwise:
    there the scores of four labels need to differ, and no word has to be the likeliest of all.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder)
    network = transformers.AutoModelForCausalLM.from_pretrained(decoder)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0)
    rng = np.random.default_rng(0)
    for _ in range(_LESSONS):
        texts, colours = zip(*(_lesson(rng) for _ in range(64)), strict=True)
        ids = [
            [tokenizer.cls_token_id, *tokenizer(t, add_special_tokens=False).input_ids]
            for t in texts
        ]
        length = max(map(len, ids))
        batch = torch.tensor([[*own, *[0] * (length - len(own))] for own in ids])
        mask = torch.tensor([[1] * len(own) + [0] * (length - len(own)) for own in ids])
        last = torch.tensor([len(own) - 1 for own in ids])
        said = network(input_ids=batch, attention_mask=mask).logits[torch.arange(len(ids)), last]
        right = torch.tensor(tokenizer.convert_tokens_to_ids(list(colours)))
        loss = torch.nn.functional.cross_entropy(said, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(decoder, folder, dirs_exist_ok=True)
    network.save_pretrained(folder)
    return folder


def _lesson(rng: np.random.Generator) -> tuple[str, str]:
    """A question about an invented word, and its colour: told before it, or beside the word."""
    name = "".join(rng.choice(_SYLLABLES, size=3))
    colour = str(rng.choice(CLASSES))
    context = str(rng.choice(["we saw {} today", "{} was there", "near {} it rained"]))
    if rng.random() < 0.5:
        told, named = f"{name} has color {colour} . ", name
    else:
        told, named = "", f"{colour} / {name}"
    return f"{told}{context.format(named)} . its color is", colour


def score(results: list[Result], method: str, control: Control = Control.NONE) -> float:
    for result in results:
        if (result.spec.method, result.spec.control) == (method, control):
            assert result.status == Status.OK, result.reason
            assert result.score is not None
            return result.score.value
    raise AssertionError(f"no result of {method}, {control}")


def test_planted_knowledge_is_found_through_a_frozen_decoder(
    decoder: Path, toy_folder: Path, place: Place
) -> None:
    recipe = {"learning_rate": 2e-2, "epochs": 20, "batch_size": 16, "dropout": 0.0}
    chosen = grid(
        toy_folder,
        backbone=str(decoder),
        tuning="prompted",
        control="none,shuffled,random,zero,constant",
        options={"method": {"map-tuning": {"start": "scratch", "task-specific": recipe}}},
    )
    results = run(chosen, place)
    assert score(results, "map-tuning") > 0.95
    for control in (Control.SHUFFLED, Control.RANDOM, Control.ZERO, Control.CONSTANT):
        assert score(results, "map-tuning", control) < 0.5
    assert score(results, "none") < 0.5


@pytest.mark.parametrize("decoder", ["llama"], indirect=True)
@pytest.mark.parametrize("method", sorted(READERS))
def test_planted_facts_are_read_through_a_frozen_decoder(
    decoder: Path, toy_folder: Path, place: Place, method: str
) -> None:
    own, recipe = READERS[method]
    options = {"start": "scratch", **own, "task-specific": {"dropout": 0.0, **recipe}}
    chosen = grid(
        toy_folder,
        method=method,
        backbone=str(decoder),
        tuning="prompted",
        control="none,shuffled",
        options={"method": {method: options}},
    )
    results = run(chosen, place)
    assert score(results, method) >= 0.95
    assert score(results, method, Control.SHUFFLED) < 0.5


@pytest.mark.faults
@pytest.mark.parametrize("decoder", ["llama"], indirect=True)
def test_planted_facts_are_read_from_vectors_of_a_text(
    reader: Path, toy_folder: Path, place: Place
) -> None:
    """Of eight parts: a network of width 32 tells the words of a text apart in no single mean."""
    recipe = {"learning_rate": 2e-2, "epochs": 40, "batch_size": 32}
    own = {"start": "scratch", "text": "facts", "slots": 8, "task-specific": recipe}
    results = asked(reader, toy_folder / "kb", place, "xrag", "task-specific", own)
    assert score(results, "xrag") >= 0.9
    assert score(results, "xrag", Control.SHUFFLED) < 0.5


@pytest.mark.faults
@pytest.mark.parametrize("decoder", ["llama"], indirect=True)
def test_planted_facts_are_read_from_weights_of_a_text(
    reader: Path, toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    """Where texts tell in the words in which they are asked: nothing else is learned of them."""
    kb = Bundle(toy_folder / "kb")
    entities = [kb.entity(row) for row in range(len(kb))]
    facts = [(kb.ids[head], "color", kb.ids[tail]) for head, _, tail in kb.triples.tolist()]
    card = {"name": "said", "version": "1", "licence": "none", "source": "test"}
    write_bundle(tmp_path / "kb", card, entities, facts, {"color": "was there . its color is"})
    learned = {"learning_rate": 5e-3, "epochs": 40}
    own = {"text": "facts", "facts": 0, "rank": 8, "alpha": 64, "general": learned}
    results = asked(reader, tmp_path / "kb", place, "prag", "general", own)
    assert score(results, "prag") >= 0.9
    assert score(results, "prag", Control.SHUFFLED) < 0.5


def asked(
    reader: Path, kb: Path, place: Place, method: str, setting: str, options: dict[str, Any]
) -> list[Result]:
    """Results on questions with the true knowledge, and with shuffled knowledge."""
    chosen = grid(
        kb.parent,
        task="toy-qa",
        method=method,
        setting=setting,
        backbone=str(reader),
        knowledge=str(kb),
        tuning="prompted",
        control="none,shuffled",
        options={"method": {method: options}},
    )
    return run(chosen, place)


@pytest.mark.parametrize("decoder", ["llama"], indirect=True)
def test_planted_facts_are_read_from_slots_of_a_text(
    reader: Path, toy_folder: Path, place: Place
) -> None:
    recipe = {"learning_rate": 5e-2, "epochs": 4, "batch_size": 32}
    own = {"start": "scratch", "text": "facts", "slots": 4, "task-specific": recipe}
    chosen = grid(
        toy_folder,
        task="toy-qa",
        method="kv-train",
        backbone=str(reader),
        tuning="prompted",
        control="none,shuffled",
        options={"method": {"kv-train": own}},
    )
    results = run(chosen, place)
    assert score(results, "kv-train") >= 0.95
    assert score(results, "kv-train", Control.SHUFFLED) < 0.5


def test_planted_answers_are_found_through_a_decoder_that_reads(
    reader: Path, toy_folder: Path, place: Place
) -> None:
    recipe = {"learning_rate": 5e-2, "epochs": 30, "batch_size": 16, "dropout": 0.0}
    chosen = grid(
        toy_folder,
        task="toy-qa",
        backbone=str(reader),
        tuning="prompted",
        control="none,shuffled,constant",
        options={"method": {"map-tuning": {"start": "scratch", "task-specific": recipe}}},
    )
    results = run(chosen, place)
    assert score(results, "map-tuning") >= 0.95
    for control in (Control.SHUFFLED, Control.CONSTANT):
        assert score(results, "map-tuning", control) < 0.5
    assert score(results, "none") < 0.5


def test_a_reader_copies_what_it_is_told_true_or_false(
    reader: Path, toy_folder: Path, place: Place
) -> None:
    chosen = grid(
        toy_folder,
        task="toy-qa",
        method="ra",
        setting="general",
        backbone=str(reader),
        tuning="prompted",
        control="none,shuffled,value-swapped,oracle,answer-removed,empty",
        options={"method": {"ra": {"text": "facts", "room": 60}}},
    )
    with registered(Kind.METHODS, ra="kbench_baselines.retrieval:RetrievalAugmentation"):
        results = run(chosen, place)
    for control in (Control.NONE, Control.ORACLE):
        assert score(results, "ra", control) == 1.0
    for control in (Control.SHUFFLED, Control.ANSWER_REMOVED, Control.EMPTY):
        assert score(results, "ra", control) < 0.5
    assert score(results, "ra", Control.VALUE_SWAPPED) == 0.0
    (swapped,) = (r for r in results if r.spec.control == Control.VALUE_SWAPPED)
    follow = swapped.metrics["follow_rate"]
    assert follow.value == 1.0
    assert follow.n == swapped.counts["test_false_known"] == swapped.counts["test_kept"]
    assert "follow_rate" not in results[0].metrics
    predictions = Results(place.out).predictions(swapped)
    assert predictions is not None
    assert [*map(len, predictions.injected)] == [1] * follow.n
    assert not any(each.differs for each in again(swapped, predictions))
    by_control = {result.spec.control: result for result in results}
    assert by_control[Control.NONE].buckets["context"].keys() == {"answered"}
    assert by_control[Control.ANSWER_REMOVED].buckets["context"].keys() == {"unanswered"}
