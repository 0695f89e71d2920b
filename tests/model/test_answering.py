"""Ranked candidates and spoken answers, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kbench.data import Example, Prompt
from kbench.encoding import Layout, encode
from kbench.errors import InputError
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.answering import RankedHead, SpokenHead
from kbench.model.candidates import log_likelihoods
from kbench.model.huggingface import load_folder
from kbench.model.tiny import KbenchTiny
from tests.architectures import write_decoder

PROMPT = Prompt("Q: {before} A:", nothing="A:")
BORN = (("Rome", "Roma"), ("St. Louis",), ("Oslo",))
COLOUR = (("red",), ("dark red", "crimson"))
RELATIONS = {"born": BORN, "colour": COLOUR}


def question(number: int, text: str, answers: tuple[str, ...], relation: str = "") -> Example:
    return Example(str(number), f"{text} ", (), answers, blank=len(text) + 1, relation=relation)


EXAMPLES = [
    question(0, "Where was Ann born?", ("Rome",), "born"),
    question(1, "What colour is it?", ("crimson", "dark red"), "colour"),
    question(2, "Where was the other one born?", ("Lima",), "born"),
]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = write_decoder(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=200)
    return load_folder(folder)


def prepared(lm: LanguageModel, head: RankedHead | SpokenHead, examples: list[Example]):  # type: ignore[no-untyped-def]
    put = [head.put(example) for example in examples]
    assert all(put)
    inputs = encode(lm.tokenizer, put, [()] * len(put), Layout({}, left_to_right=True))  # type: ignore[arg-type]
    return head.grown(inputs, lm.tokenizer, examples)


def alone(lm: LanguageModel, text: str, name: str) -> float:
    own = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    start = encode(
        lm.tokenizer,
        [Example("0", text, (), "", blank=len(text))],
        [()],
        Layout({}, left_to_right=True),
    ).ids.tolist()
    assert start[-len(own) :] == own
    tokens = lm.tokenizer(f" {name}", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        said = lm.network(input_ids=torch.tensor([start + tokens])).logits[0].log_softmax(-1)
    steps = said[len(start) - 1 : -1]
    return float(steps[torch.arange(len(tokens)), torch.tensor(tokens)].sum())


@pytest.mark.parametrize("scorer", ["sum", "mean", "char", "byte", "pmi"])
def test_a_candidate_is_worth_what_its_names_are_together(lm: LanguageModel, scorer: str) -> None:
    head = RankedHead(PROMPT, 32, RELATIONS, scorer)
    head.settle(lm)
    batch = prepared(lm, head, EXAMPLES).collate(np.arange(3))
    with torch.inference_mode():
        said = DownstreamModel(lm, head).eval()(batch)
        logits = head.masses(said, torch.tensor([0, 1, 0]))
    assert said.shape == (3, 4)
    assert torch.isinf(said[1, 3])  # colour has three names
    assert logits.shape == (3, 3)
    assert torch.isinf(logits[1, 2])  # and two candidates

    def score(text: str, name: str) -> float:
        value = alone(lm, text, name)
        by = len(lm.tokenizer(f" {name}", add_special_tokens=False)["input_ids"])
        sizes = {"mean": by, "char": len(name), "byte": len(name.encode())}
        return value - alone(lm, "A:", name) if scorer == "pmi" else value / sizes.get(scorer, 1)

    for row, example in enumerate(EXAMPLES):
        text = f"Q: {example.text.strip()} A:"
        for column, names in enumerate(RELATIONS[example.relation]):
            wanted = np.logaddexp.reduce([score(text, name) for name in names])
            assert float(logits[row, column]) == pytest.approx(wanted, abs=1e-3)
    told = head.likelihoods(said.numpy(), [("born",), ("colour",), ("born",)])
    rankings, sure = told.ranked()
    for row, example in enumerate(EXAMPLES):
        own = RELATIONS[example.relation]
        wanted = logits[row].argsort(descending=True).tolist()[: len(own)]
        assert rankings[row] == tuple(own[at][0] for at in wanted)
        assert sure[row] == pytest.approx(logits[row].softmax(0).max().item(), abs=1e-5)


def test_a_ranking_ends_with_the_first_right_answer(lm: LanguageModel) -> None:
    head = RankedHead(PROMPT, 32, RELATIONS, "sum")
    gold = head.gold(EXAMPLES, lm.tokenizer)
    assert gold.targets.tolist() == [[0, 0], [1, 1], [-1, 0]]
    assert gold.counts == {"answers_among_candidates": 2}
    grown = prepared(lm, head, EXAMPLES)
    none = -torch.inf  # names: Rome, Roma, St. Louis, Oslo; red, dark red, crimson
    logits = torch.tensor([[1.0, none, 2.0, 0], [2.0, 1.0, none, none], [0, none, 1.0, 2.0]])
    said, scores = head.predict(logits, lm.tokenizer, grown.candidates)
    assert said[0] == ("St. Louis", "Rome", "Oslo")
    assert scores[1] == pytest.approx(torch.tensor([2.0, 1.0]).softmax(0)[0].item())
    both, _ = head.predict(torch.tensor([[1.5, 1.5, 2.0, 0.0]]), lm.tokenizer, [("born",)])
    assert both == [("Rome", "St. Louis", "Oslo")]  # both names together
    assert gold.named(said) == [
        ("St. Louis", "Rome"),
        ("red", "dark red"),
        ("Oslo", "St. Louis", "Rome"),
    ]
    assert head.put(question(3, "Who?", ("Ann",), "author")) is None


def test_the_loss_has_gradients_where_candidates_are_lacking(lm: LanguageModel) -> None:
    head = RankedHead(PROMPT, 32, RELATIONS, "sum")
    batch = prepared(lm, head, EXAMPLES).collate(
        np.arange(3), head.gold(EXAMPLES, lm.tokenizer).targets
    )
    model = DownstreamModel(lm, head).eval()
    loss = model.loss(batch)
    (moved,) = torch.autograd.grad(loss, [lm.word_embeddings.weight])
    assert torch.isfinite(moved).all()
    assert moved.abs().max() > 0


def test_names_that_no_token_spells_are_no_candidates() -> None:
    tokenizer = KbenchTiny().load().tokenizer
    relations = {"": (("😀", "lake"), ("😀",), ("river",))}
    head = RankedHead(PROMPT, 32, relations, "sum")
    own = head._spell(tokenizer)
    assert own.names == ("😀", "river")
    told = head.likelihoods(np.array([[-2.0, -1.0]], np.float32), [("",)])
    assert told.answers == (0, 2)
    assert told.predicted() == [("river", "😀")]
    with pytest.raises(InputError, match="knows none of the 1 candidates of colour"):
        RankedHead(PROMPT, 32, {"colour": (("😀",),)}, "sum")._spell(tokenizer)
    with pytest.raises(InputError, match="no answer in train"):
        RankedHead(PROMPT, 32, {}, "sum")


def test_an_answer_to_learn_ends_its_text(lm: LanguageModel) -> None:
    head = SpokenHead(PROMPT, 15)
    grown = prepared(lm, head, EXAMPLES)
    batch = grown.collate(np.arange(3))
    end = lm.tokenizer.eos_token_id
    assert end is not None
    wanted = []
    for example in EXAMPLES:
        tokens = lm.tokenizer(f" {example.label[0]}", add_special_tokens=False)["input_ids"]
        wanted += [*tokens, end]
    assert batch.tree is not None
    assert batch.tree.targets.tolist() == wanted
    with torch.inference_mode():
        said = log_likelihoods(lm, lm(batch), batch)
    assert float(head.loss(said, torch.zeros(3))) == pytest.approx(-float(said.mean()))
    assert grown.collate_sequences(np.arange(3)).tree is None


def test_an_answer_is_called_as_the_data_call_it() -> None:
    tokenizer = KbenchTiny().load().tokenizer
    head = SpokenHead(PROMPT, 15)
    gold = head.gold([question(0, "Where?", ("St. Lake", "LAKE"))], tokenizer)
    assert gold.named(["lake"]) == ["LAKE"]
    assert gold.named(["the lake"]) == ["the lake"]
    assert gold.named([""]) == [""]


@pytest.mark.parametrize("answers", [(), ("", " ")])
def test_a_question_without_an_answer_is_told(lm: LanguageModel, answers: tuple[str, ...]) -> None:
    for head in (SpokenHead(PROMPT, 15), RankedHead(PROMPT, 32, RELATIONS, "sum")):
        with pytest.raises(InputError, match="has no acceptable answer") as caught:
            head.gold([question(0, "Where?", answers, "born")], lm.tokenizer)
        assert "\n" not in str(caught.value)


GOING_ON = Prompt("{before}", nothing="near")
"""What is asked ends where the answer begins, in a blank or without one."""
JOINED = [
    Example("0", "the capital of 法国 是", (), ("Rome",), blank=19, relation="born"),
    Example("1", "Ann ( born in ", (), ("Roma", "Rome"), blank=14, relation="born"),
    Example("2", "the colour (", (), ("crimson", "dark red"), blank=12, relation="colour"),
]


def behind(lm: LanguageModel, text: str, name: str) -> float:
    """How likely a name is right behind a text, from the network itself."""
    start = encode(
        lm.tokenizer,
        [Example("0", text.rstrip(), (), "", blank=len(text.rstrip()))],
        [()],
        Layout({}, left_to_right=True),
    ).ids.tolist()
    blank = " " if text[-1:].isspace() or not text else ""
    first, both = lm.tokenizer(["\n", f"\n{name}"], add_special_tokens=False)["input_ids"]
    tokens = lm.tokenizer(f" {name}", add_special_tokens=False)["input_ids"] if blank else None
    tokens = tokens or both[len(first) :]
    with torch.inference_mode():
        said = lm.network(input_ids=torch.tensor([start + tokens])).logits[0].log_softmax(-1)
    steps = said[len(start) - 1 : -1]
    return float(steps[torch.arange(len(tokens)), torch.tensor(tokens)].sum())


@pytest.mark.parametrize("scorer", ["sum", "pmi"])
def test_a_candidate_has_no_blank_before_it_where_the_text_has_none(
    lm: LanguageModel, scorer: str
) -> None:
    head = RankedHead(GOING_ON, 32, RELATIONS, scorer, joined=True)
    head.settle(lm)
    gold = head.gold(JOINED, lm.tokenizer)
    assert gold.targets.tolist() == [[0, 2], [0, 0], [1, 3]]
    grown = prepared(lm, head, JOINED)
    batch = grown.collate(np.arange(3), gold.targets)
    with torch.inference_mode():
        said = DownstreamModel(lm, head).eval()(batch)
        logits = head.masses(said, torch.from_numpy(gold.targets[:, 1]))
    for row, example in enumerate(JOINED):
        for column, names in enumerate(RELATIONS[example.relation]):
            nothing = "near" if row != 1 else "near "
            less = [behind(lm, nothing, name) if scorer == "pmi" else 0.0 for name in names]
            own = [behind(lm, example.text, name) for name in names]
            wanted = np.logaddexp.reduce(np.array(own) - less)
            assert float(logits[row, column]) == pytest.approx(wanted, abs=1e-3)
    assert torch.isfinite(head.loss(said, torch.from_numpy(gold.targets)))
    told = head.likelihoods(said.numpy(), grown.candidates)
    rankings, _ = told.ranked()
    for row, example in enumerate(JOINED):
        own_names = RELATIONS[example.relation]
        best = logits[row].argsort(descending=True).tolist()[: len(own_names)]
        assert rankings[row] == tuple(own_names[at][0] for at in best)


def test_an_answer_to_learn_and_one_that_is_shown_join_their_text(lm: LanguageModel) -> None:
    grown = prepared(lm, SpokenHead(GOING_ON, 15), JOINED)
    batch = grown.collate(np.arange(3))
    assert batch.tree is not None
    end, wanted = lm.tokenizer.eos_token_id, []
    for example in JOINED:
        first, both = lm.tokenizer(["\n", f"\n{example.label[0]}"], add_special_tokens=False)[
            "input_ids"
        ]
        spaced = lm.tokenizer(f" {example.label[0]}", add_special_tokens=False)["input_ids"]
        wanted += [*(spaced if example.id == "1" else both[len(first) :]), end]
    assert batch.tree.targets.tolist() == wanted
    shown = [GOING_ON.shown(example, "Rome") for example in JOINED]
    texts = [example.text for example in shown if example]
    assert texts == ["the capital of 法国 是Rome", "Ann ( born in Rome", "the colour (Rome"]
    asked = Prompt("Q: {before} A:").shown(JOINED[0], "Rome")
    assert asked is not None
    assert asked.text.endswith("是 A: Rome")
