"""Scores of candidates by hand: a stub whose logits are a table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.data import SCORERS, Example, Mention, Prompt, Role
from kbench.encoding import Batch, inner_tokens
from kbench.encoding.batch import TreeBatch
from kbench.errors import InputError
from kbench.model import LanguageModel
from kbench.model.candidates import (
    CandidateHead,
    TypeCandidateHead,
    best_threshold,
)
from kbench.model.huggingface import load_folder
from kbench.model.tiny import KbenchTiny
from tests.architectures import write_decoder

LABELS = ("new", "new york", "São Paulo")


class Table:
    """Says of two states what a table says."""

    def __init__(self, logits: list[list[float]]) -> None:
        self.logits = torch.tensor(logits)
        self.word_embeddings = torch.nn.Embedding(4, 2)

    def predict_tokens(self, hidden: Tensor) -> Tensor:
        return self.logits[hidden[:, 0].long()]


def scored(scorer: str, nothing: list[float] | None = None) -> list[float]:
    """`new` = token 0, `new york` = 0 1, `São Paulo` = 2 3 0, over a vocabulary of four."""
    head = CandidateHead(LABELS, Prompt("{text}"), scorer)
    head.tokens.copy_(torch.tensor([1, 2, 3]))
    if nothing:
        head.nothing.copy_(torch.tensor(nothing))
    lm = Table([[0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [0.0] * 4])
    tree = TreeBatch(
        states=torch.arange(4),
        places=torch.tensor([0, 0, 1, 0, 2, 3]),
        targets=torch.tensor([0, 0, 1, 2, 3, 0]),
        cells=torch.tensor([0, 1, 1, 2, 2, 2]),
        examples=1,
        candidates=3,
    )
    hidden = torch.arange(4).float().view(1, 4, 1)
    batch = cast("Batch", type("Stub", (), {"tree": tree}))
    with torch.no_grad():
        said = head.forward(cast("LanguageModel", lm), hidden, batch)
    scores = head.scored(said)
    # What is stored says the same, to the last bit.
    assert np.array_equal(head.likelihoods(said.numpy()).scores, scores.numpy())
    return scores[0].tolist()


ROOT = math.log(1 + math.e + math.e**2 + math.e**3)
NEW = -ROOT
YORK = NEW - math.log(4)
PAULO = (2 - ROOT) - math.log(math.e**4 + 3) - math.log(4)


@pytest.mark.parametrize(
    ("scorer", "wanted"),
    [
        ("sum", [NEW, YORK, PAULO]),
        ("mean", [NEW, YORK / 2, PAULO / 3]),
        ("char", [NEW / 3, YORK / 8, PAULO / 9]),
        ("byte", [NEW / 3, YORK / 8, PAULO / 10]),  # ã is two bytes
        ("pmi", [NEW + 1, YORK + 9, PAULO + 2]),
    ],
)
def test_scores_are_those_of_the_formula(scorer: str, wanted: list[float]) -> None:
    nothing = [-1.0, -9.0, -2.0]
    assert scored(scorer, nothing) == pytest.approx(wanted, abs=1e-5)
    assert scorer in SCORERS


def test_pmi_prefers_what_the_text_made_likelier() -> None:
    best = {name: int(np.argmax(scored(name, [-1.0, -9.0, -2.0]))) for name in ("sum", "pmi")}
    assert best == {"sum": 0, "pmi": 1}


def test_a_model_says_of_labels_after_nothing_what_it_said_before_anything_trained(
    tmp_path: Path,
) -> None:
    lm = load_folder(write_decoder(tmp_path, "llama"))
    for scorer in SCORERS:  # so that a run can be scored again by any other
        head = CandidateHead(LABELS, Prompt("{text} it is", nothing="it is"), scorer)
        head.settle(lm)
        assert (head.nothing < 0).all()
        assert head.tokens.tolist() == [len(ids) for ids in inner_tokens(lm.tokenizer, LABELS)]


def test_a_label_that_the_tokenizer_does_not_know_is_refused() -> None:
    tokenizer = KbenchTiny().load().tokenizer
    assert Prompt("{text}").spelled("body_of-water/lake") == "body of water lake"
    with pytest.raises(InputError, match="label '😀' is put as"):
        CandidateHead(("river", "😀"), Prompt("{text}"), "sum")._tree(tokenizer)
    other = Prompt("{text}", words={"😀": "smile"})
    assert CandidateHead(("river", "😀"), other, "sum")._tree(tokenizer).candidates == 2


def test_the_threshold_is_the_best_on_dev_and_lies_between_scores() -> None:
    scores = torch.tensor([[3.0, -1.0], [1.0, 0.5], [-2.0, -3.0]])
    gold = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert best_threshold(scores, gold) == pytest.approx(-0.25)
    everything = torch.ones(3, 2)
    assert best_threshold(scores, everything) < -3.0
    # Equal scores are on one side, whatever is right among them.
    level = torch.zeros(2, 2)
    assert best_threshold(level, torch.tensor([[1.0, 0.0], [0.0, 0.0]])) == pytest.approx(-1.0)


def test_a_threshold_moves_what_is_predicted() -> None:
    head = TypeCandidateHead(("a", "b"), Prompt("{text}"), "sum")
    head.settle_on_dev(torch.tensor([[-1.0, -5.0], [-2.0, -6.0]]), torch.tensor([[1, 0], [1, 0]]))
    assert head.threshold == pytest.approx(-3.5)


QUESTION = Example(
    "1", "the capital of Peru is .", (Mention(15, 19, "Q419", Role.TARGET),), ("lima",), blank=23
)
RELATION = Example(
    "2",
    "Ann was born in Rome .",
    (Mention(0, 3, "Q1", Role.HEAD), Mention(16, 20, "Q2", Role.TAIL)),
    "birthplace",
)


def test_a_question_ends_where_its_answer_begins() -> None:
    put = Prompt("{before}").put(QUESTION)
    assert put is not None
    assert put.text == "the capital of Peru is"
    assert put.blank == len(put.text)
    assert put.mentions == QUESTION.mentions


@pytest.mark.parametrize("blank", [0, 4])
def test_a_question_with_a_word_after_its_blank_cannot_be_put(blank: int) -> None:
    example = Example("1", QUESTION.text, (), ("lima",), blank=blank)
    assert Prompt("{before}").put(example) is None


def test_a_mention_that_ends_in_a_blank_ends_with_the_text() -> None:
    example = Example("1", "born in Rome .", (Mention(8, 13, "Q2"),), ("x",), blank=13)
    put = Prompt("{before}").put(example)
    assert put is not None
    assert [put.text[m.start : m.end] for m in put.mentions] == ["Rome"]


@pytest.mark.parametrize("ask", ["{head} is", "{text} {text}", "{before} {text}"])
def test_a_prompt_holds_the_text_once(ask: str) -> None:
    with pytest.raises(ValueError, match=r"expected \{text\} or \{before\}, and once"):
        Prompt(ask)


def test_mentions_stay_where_their_names_are() -> None:
    put = Prompt("Text: {text} So {head} and {tail} are").put(RELATION)
    assert put is not None
    assert put.text == "Text: Ann was born in Rome . So Ann and Rome are"
    assert [put.text[m.start : m.end] for m in put.mentions] == ["Ann", "Rome"]
    assert [m.role for m in put.mentions] == [Role.HEAD, Role.TAIL]
