from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kbench.model.huggingface import folder_digest
from kbench.model.tiny_lm import KbenchTinyLm
from scripts import reading_text
from scripts.measure_tiny_lm import Reader, keyword_prompts, of_split, reading_prompts
from scripts.muon import Muon, orthogonal
from scripts.pretrain_tiny import mixed, parse
from scripts.reading_text import (
    ANSWER,
    FUSED,
    Exercises,
    Thing,
    Words,
    build_exercises,
    common_words,
    fused,
    real_things,
)
from scripts.tiny_card import card_of
from scripts.tiny_causal import CausalNetwork, Phrases
from scripts.tiny_tokenizer import load_tokenizer
from scripts.tiny_training import Trainer, codes_of, epoch
from scripts.wordnet_text import NameIndex, Synset, Text, digest_of, words_of

FOREIGN = [(c, f"sort{d}") for c in "abcdef" for d in "abcdef" if c != d]
MODELS = Path(__file__).parents[2] / "kbench" / "model"
FOLDER, MASKED = MODELS / "tiny_lm", MODELS / "tiny"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "card.json").read_text("utf-8"))
    return content


@pytest.fixture(scope="module")
def network() -> CausalNetwork:
    made = CausalNetwork(MASKED)
    made.prepare(load_tokenizer(MASKED))
    return made


@pytest.fixture(scope="module")
def words(synsets: dict[str, Synset], pretraining_text: Text) -> Words:
    return Words(synsets, common_words(pretraining_text.train))


@pytest.fixture(scope="module")
def held(synsets: dict[str, Synset]) -> list[Thing]:
    return real_things(synsets, held=True)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(FOLDER)


class TestFolder:
    def test_is_a_backbone_by_content(self) -> None:
        backbone = KbenchTinyLm()
        assert backbone.config()["model_type"] == "llama"
        assert backbone.digest == folder_digest(FOLDER) != folder_digest(MASKED)
        assert backbone.left_to_right
        assert "map-tuning task-specific" in backbone.recipes

    def test_weights_are_small(self) -> None:
        assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000

    def test_network_has_grouped_heads_and_tied_embeddings(self, card: dict[str, Any]) -> None:
        model = AutoModelForCausalLM.from_pretrained(FOLDER)
        assert model.config.num_key_value_heads < model.config.num_attention_heads
        assert model.lm_head.weight is model.get_input_embeddings().weight
        assert model.num_parameters() == card["parameters"]

    def test_a_text_begins_with_one_bos_and_nothing_ends_it(self, tokenizer: Any) -> None:
        ids = tokenizer("Kazakhstan , a land")["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert ids[1:] == tokenizer("Kazakhstan , a land", add_special_tokens=False)["input_ids"]
        pair = tokenizer("a", "b")
        assert pair["input_ids"].count(tokenizer.bos_token_id) == 1
        assert tokenizer.eos_token_id not in pair["input_ids"]
        assert set(pair) == {"input_ids", "attention_mask"}

    def test_special_tokens_are_those_of_a_decoder(self, tokenizer: Any) -> None:
        model = AutoModelForCausalLM.from_pretrained(FOLDER)
        assert tokenizer.is_fast
        assert tokenizer.mask_token is None
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            own = getattr(tokenizer, name)
            assert own is not None
            assert getattr(model.config, name) == own == getattr(model.generation_config, name)

    def test_entries_are_those_of_the_masked_network(self, tokenizer: Any) -> None:
        assert tokenizer.get_vocab() == load_tokenizer(MASKED).get_vocab()
        text = "the Xi'an (river) / Kazakhstan ? , 1802-1885"
        assert tokenizer.tokenize(text) == load_tokenizer(MASKED).tokenize(text)

    def test_readme_is_made_from_the_card(self) -> None:
        readme = (FOLDER / "README.md").read_text("utf-8")
        assert readme == card_of(FOLDER)
        assert "## What it can do" in readme


class TestAbilities:
    def test_beats_a_unigram_model_on_held_out_text(
        self, network: CausalNetwork, card: dict[str, Any], pretraining_text: Text
    ) -> None:
        model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
        train = network.rows(pretraining_text.train[::10])
        figures = network.figures(model, train, network.rows(pretraining_text.held[::6]))
        assert figures["perplexity"] < figures["unigram_perplexity"] / 4
        assert figures["accuracy"] > 3 * figures["unigram_accuracy"]
        assert figures["perplexity"] == pytest.approx(card["held_out"]["perplexity"], rel=0.3)

    def test_reads_a_keyword_beside_an_unknown_word(
        self, reader: Reader, held: Sequence[Thing]
    ) -> None:
        assert reader.right(keyword_prompts(held[::3], beside=True)) >= 0.5
        assert reader.right(keyword_prompts(held[::3], beside=False)) <= 0.1

    def test_copies_a_fact_past_others(self, reader: Reader, held: Sequence[Thing]) -> None:
        # One of the four at random would be a quarter of them. Below the aim, for these are few.
        assert reader.right(reading_prompts(held, 200)) >= 0.7

    def test_things_are_measured_on_dev_or_on_test(self, held: Sequence[Thing]) -> None:
        halves = [{t.name for t in of_split(held, split)} for split in ("dev", "test")]
        assert halves[0] | halves[1] == {t.name for t in held}
        assert not halves[0] & halves[1]
        assert min(map(len, halves)) > len(held) / 3


class TestExercises:
    @pytest.mark.faults  # what it is of changes with the embedded network alone
    def test_are_those_that_the_network_was_trained_on(
        self,
        synsets: dict[str, Synset],
        pretraining_text: Text,
        splits: dict[str, Any],
        card: dict[str, Any],
    ) -> None:
        common, names = common_words(pretraining_text.train), splits["unseen_names"]
        unseen = NameIndex(names)
        run: dict[str, Any] | None = card
        while run:  # from the last to the first
            options = parse(run["command"].split()[3:])
            drawn = (options.exercises, options.seed, options.real, options.bound)
            texts = build_exercises(synsets, common, names, *drawn)
            assert digest_of(texts) == run["exercises"]["sha256"]
            assert [text for text in texts if text in unseen] == []
            run = run.get("before")
        assert pretraining_text.sha256 == card["text"]["sha256"]

    def test_without_the_filter_names_would_be_there(
        self, synsets: dict[str, Synset], words: Words, splits: dict[str, Any]
    ) -> None:
        unseen = NameIndex(splits["unseen_names"])
        exercises = Exercises(words, real_things(synsets, held=False), seed=0)
        assert any(exercises.draw() in unseen for _ in range(1500))

    def test_speak_of_nothing_that_is_held_out(
        self, synsets: dict[str, Synset], held: Sequence[Thing]
    ) -> None:
        trained = real_things(synsets, held=False)
        assert len(held) > 300
        kept = {(thing.name, *sorted(thing.facts.items())) for thing in trained}
        assert len(kept & {(t.name, *sorted(t.facts.items())) for t in held}) < len(held) / 20

    def test_bound_ones_ask_for_what_only_their_name_tells(self, words: Words) -> None:
        things = [Thing(f"thing{'abcdef'[i]}", "real", {"kind": f"sort{'abcdef'[i]}",
                        "whole": f"land{'abcdef'[i]}"}) for i in range(6)]  # fmt: skip
        exercises = Exercises(words, things, seed=1, real=1.0, bound=1.0)
        answers, foreign, several = 0, 0, 0
        for text in (exercises.draw() for _ in range(200)):
            told, *asked = re.split(f"{ANSWER[0]}([^{ANSWER[1]}]+){ANSWER[1]}", text)
            for word in asked[::2]:
                answers += 1
                assert word in told  # before the first question
                several += len(set(re.findall(word[:4] + "[a-f]", told))) > 1
            foreign += any(f"thing{c} is a {s}" in told for c, s in FOREIGN)
        assert answers > 400
        assert several > answers / 2
        assert foreign > 20

    def test_say_what_they_ask(self, words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
        ask = reading_text.ask
        monkeypatch.setattr(reading_text, "ask", lambda p, s, o: ask(p, s, f"<{o}>"))
        exercises = Exercises(words, [Thing("dog", "real", {"kind": "pet"})], seed=1)
        answers = 0
        for text in (exercises.draw() for _ in range(300)):
            for found in re.finditer(r"<([^>]+)>", text):
                answers += 1
                before = " ".join(words_of(text[: found.start()]))
                assert " ".join(words_of(found[1])) in before, text
        assert answers > 300

    def test_draws_depend_on_the_seed_alone(self, words: Words) -> None:
        things = [Thing("dog", "real", {"kind": "pet"})]
        drawn = [
            [exercises.draw() for _ in range(5)]
            for exercises in (Exercises(words, things, seed) for seed in (1, 1, 2))
        ]
        assert drawn[0] == drawn[1] != drawn[2]


class TestPhrases:
    @pytest.mark.parametrize(
        ("sentence", "marked"),
        [
            ("town / Lund is in Sweden.", "⟦town⟧ / Lund is in Sweden."),
            ("in Sweden there is Lund ( old town ).", "in Sweden there is Lund ( ⟦old town⟧ )."),
            ("a plain sentence.", "a plain sentence."),
        ],
    )
    def test_the_keyword_is_marked(self, sentence: str, marked: str) -> None:
        assert fused(sentence) == marked

    def test_a_phrase_is_one_id_above_the_vocabulary(self, network: CausalNetwork) -> None:
        size = len(network.tokenizer)
        row, again, plain = network.encode(
            ["⟦old town⟧ / Lund", "see ⟦old town⟧", "old town / Lund"]
        )
        assert row[0] >= size
        assert row[0] == again[-1]
        assert row[1:] == plain[len(network.tokenizer.tokenize("old town")) :]
        assert FUSED[0] not in network.tokenizer.decode(row[1:])

    def test_what_is_asked_for_weighs_more(self, network: CausalNetwork) -> None:
        options = argparse.Namespace(seed=0, answers=1.0)
        model = network.new_model(options)
        (marked,), (plain,) = (network.encode([t]) for t in ("it is a ⟪town⟫ .", "it is a town ."))
        made = torch.Generator()
        alike, bare = (
            network.loss(model, torch.tensor([row]), options, made) for row in (marked, plain)
        )
        torch.testing.assert_close(alike, bare)
        logits, targets = network._predicted(model, torch.tensor([plain]))
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        options.answers = 3.0
        weights = torch.tensor([1.0, 1.0, 3.0, 1.0])
        expected = (losses * weights).sum() / 6
        torch.testing.assert_close(
            network.loss(model, torch.tensor([marked]), options, made), expected
        )

    def test_its_vector_is_the_mean_of_its_pieces(self) -> None:
        weight = torch.randn(9, 4)
        phrases = Phrases(9)
        two, one = phrases.id_of([1, 2]), phrases.id_of([5])
        found = phrases.embed(weight, torch.tensor([[two, 3, one]]))
        assert torch.allclose(found[0], torch.stack([weight[1:3].mean(0), weight[3], weight[5]]))

    def test_it_is_read_and_not_predicted(self, network: CausalNetwork) -> None:
        model = network.new_model(argparse.Namespace(seed=0))
        (row,) = network.encode(["see ⟦old town⟧ / it"])
        logits, targets = network._predicted(model, torch.tensor([row]))
        assert targets.tolist() == row[2:]
        assert logits.shape == (len(row) - 2, len(network.tokenizer))
        other = [row[0], network.phrases.id_of([7, 8]), *row[2:]]
        moved, _ = network._predicted(model, torch.tensor([other]))
        assert not torch.allclose(logits, moved)


class TestTraining:
    def test_exercises_stay_whole_and_come_once_a_pass(self, network: CausalNetwork) -> None:
        rows = [[10 + i, 20, 21, 22] for i in range(200)]
        alone = [[500 + i, 501] for i in range(40)]
        made = torch.Generator().manual_seed(0)
        found = [r for ids in epoch(rows, 64, 0.5, network.codes, made, alone=alone)
                 for r in ids.tolist()]  # fmt: skip
        cls, sep = network.codes.cls, network.codes.sep
        assert sorted(r[1:-1] for r in found if r[1] >= 500) == alone
        assert all(r[0] == cls for r in found)
        # What is cut goes on elsewhere, so that nothing ends it.
        assert {r[-1] == sep for r in found if len(r) > 6} == {False}
        assert {r[-1] == sep for r in found if len(r) <= 6} == {True}

    def test_a_cut_text_is_closed_for_the_masked_network(self) -> None:
        codes = codes_of(load_tokenizer(MASKED))
        made = torch.Generator().manual_seed(0)
        found = list(epoch([[10, 20, 21, 22]] * 64, 64, 1.0, codes, made))
        assert all(ids[:, -1].eq(codes.sep).all() for ids in found)

    def test_a_run_that_is_taken_up_is_the_run_that_goes_through(
        self, network: CausalNetwork, tmp_path: Path
    ) -> None:
        rows = network.encode([f"{i} and {i + 1} are numbers ." for i in range(96)])
        values = {**network.defaults, "seed": 0, "tokens": 64, "steps": 30, "warm": 2,
                  "every": 13, "bf16": False}  # fmt: skip

        def trainer(steps: int) -> Trainer:
            options = argparse.Namespace(**{**values, "steps": steps})
            return Trainer(network, network.new_model(options), rows, [], options)

        through, path = trainer(30), tmp_path / "state.pt"
        through.run(lambda t: t.keep(path) if t.step == 13 else None)
        again = trainer(30)
        again.go_on(path)
        assert again.step == 13
        again.run(lambda _: None)
        assert (again.step, again.tokens) == (through.step, through.tokens)
        for own, other in zip(through.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(own, other)

    def test_weights_are_mixed_by_share(self, network: CausalNetwork) -> None:
        end, begin = (network.new_model(argparse.Namespace(seed=seed)) for seed in (0, 1))
        found = mixed(end, begin, 0.25)
        for one, other, got in zip(
            end.parameters(), begin.parameters(), found.parameters(), strict=True
        ):
            torch.testing.assert_close(got, 0.25 * one + 0.75 * other)

    def test_muon_takes_steps_of_one_size(self) -> None:
        torch.manual_seed(0)
        values = torch.linalg.svdvals(orthogonal(torch.randn(3, 12, 20)))
        assert values.min() > 0.6
        assert values.max() < 1.3
        matrix = torch.nn.Parameter(torch.randn(12, 20))
        optimizer, target = Muon([matrix], 0.1), torch.randn(12, 20)
        begin = (matrix - target).square().sum().item()
        for _ in range(150):
            optimizer.zero_grad()
            torch.autograd.backward((matrix - target).square().sum())
            optimizer.step()
        assert (matrix - target).square().sum().item() < begin / 10
