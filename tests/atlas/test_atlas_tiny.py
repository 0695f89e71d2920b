from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from scripts.tiny_card import card_of
from scripts.tiny_masked import evaluate
from scripts.tiny_training import codes_of, encode, rate_at, unigram
from scripts.wordnet_text import Text

FOLDER = Path(__file__).parents[2] / "kbench" / "model" / "tiny"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "card.json").read_text("utf-8"))
    return content


def test_weights_are_small() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000


def test_tokenizer_is_fast_and_uncased(tokenizer: Any) -> None:
    assert tokenizer.is_fast
    assert tokenizer.tokenize("Kazakhstan") == ["kazakhstan"]
    encoded = tokenizer("a b", "c")
    assert encoded["input_ids"][0] == tokenizer.cls_token_id
    assert encoded["input_ids"][-1] == tokenizer.sep_token_id
    assert encoded["token_type_ids"][-1] == 1


def test_marks_are_in_the_vocabulary(tokenizer: Any) -> None:
    assert tokenizer.tokenize("# $ / ( ) ?") == ["#", "$", "/", "(", ")", "?"]


def test_answers_are_single_tokens(tokenizer: Any, tasks: dict[str, list[dict[str, Any]]]) -> None:
    answers = {answer for record in tasks["qa"] for answer in record["label"]}
    assert {a for a in answers if tokenizer.tokenize(a) != [a]} == set()


def test_beats_a_unigram_model_on_held_out_text(
    tokenizer: Any, card: dict[str, Any], pretraining_text: Text
) -> None:
    torch.set_num_threads(1)
    model = AutoModelForMaskedLM.from_pretrained(FOLDER)
    held = pretraining_text.held[::6]
    rows = encode(tokenizer, pretraining_text.train[::10])
    perplexity, accuracy, targets = evaluate(model, encode(tokenizer, held), codes_of(tokenizer), 0)
    base_perplexity, base_accuracy = unigram(rows, len(tokenizer), targets)
    assert len(targets) > 400
    assert perplexity < base_perplexity / 3
    assert accuracy > 3 * base_accuracy
    assert perplexity == pytest.approx(card["held_out"]["perplexity"], rel=0.5)


def test_card_states_figures_of_both_models(card: dict[str, Any]) -> None:
    figures = card["held_out"]
    assert figures["perplexity"] < figures["unigram_perplexity"] / 3
    assert figures["accuracy"] > 3 * figures["unigram_accuracy"]
    assert str(card["seed"]) in card["command"]


def test_readme_is_made_from_the_card() -> None:
    assert (FOLDER / "README.md").read_text("utf-8") == card_of(FOLDER)


def test_learning_rate_warms_up_and_decays() -> None:
    rates = [rate_at(step, 100, 10, 1.0) for step in range(100)]
    assert rates.index(max(rates)) in (9, 10)
    assert rates[0] == pytest.approx(0.1)
    assert 0 < rates[-1] < 0.02
