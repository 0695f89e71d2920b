"""Heads: labels to targets, logits to losses and to predictions with their probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kbench.data import Example, Label, is_right
from kbench.encoding import Layout, encode
from kbench.errors import KbenchError
from kbench.model import Head, LanguageModel
from kbench.model.heads import BlankHead, PairHead, RelationHead, TypingHead, VocabularyHead
from kbench.testing.spelling import byte_level_of, dummy_prefix_of, metaspace_of, wordpiece
from tests.hostile import byte_level

WIDTH = 6


def labelled(*labels: Label) -> list[Example]:
    return [Example(str(i), "it", (), label) for i, label in enumerate(labels)]


def test_a_relation_is_its_number_and_an_unknown_one_stays_as_an_error(toy_tokenizer: Any) -> None:
    gold = RelationHead(WIDTH, ["born", "died"]).gold(
        labelled("died", "born", "lived"), toy_tokenizer
    )
    assert gold.kept.tolist() == [0, 1, 2]
    assert gold.labels == ["died", "born", "lived"]
    assert gold.targets.tolist() == [1, 0, -1]


def test_a_relations_loss_is_the_cross_entropy_of_the_known() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [5.0, 5.0, 5.0]])
    loss = RelationHead(WIDTH, ["a", "b", "c"]).loss(logits, torch.tensor([0, 2, -1]))
    expected = -(logits.log_softmax(-1)[0, 0] + logits.log_softmax(-1)[1, 2]) / 2
    assert loss.item() == pytest.approx(expected.item())


def test_the_best_relation_is_predicted_with_its_probability(toy_tokenizer: Any) -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    words, scores = RelationHead(WIDTH, ["a", "b", "c"]).predict(logits, toy_tokenizer)
    assert words == ["b", "a"]
    weights = np.exp([0, 2, 1])
    assert scores == pytest.approx([weights[1] / weights.sum(), np.exp(3) / (np.exp(3) + 2)])


def test_types_are_a_vector_of_zeros_and_ones(toy_tokenizer: Any) -> None:
    head = TypingHead(WIDTH, ["city", "person", "place"])
    gold = head.gold(labelled(("place", "city"), (), ("alien", "person")), toy_tokenizer)
    assert gold.targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert gold.targets.dtype == np.float32
    # A type never seen in training stays among the gold ones, and costs recall.
    assert gold.labels == [("city", "place"), (), ("alien", "person")]


def test_a_types_loss_is_the_mean_binary_cross_entropy() -> None:
    logits, targets = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 1.0]])
    loss = TypingHead(WIDTH, ["a", "b"]).loss(logits, targets)
    expected = -(torch.sigmoid(logits[0, 0]).log() + torch.sigmoid(logits[0, 1]).log()) / 2
    assert loss.item() == pytest.approx(expected.item())


@given(row=st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3))
def test_types_above_zero_are_predicted_with_the_probability_of_the_set(
    row: list[float],
) -> None:
    words, scores = TypingHead(WIDTH, ["a", "b", "c"]).predict(torch.tensor([row]), None)  # type: ignore[arg-type]
    assert words == [tuple(name for name, logit in zip("abc", row, strict=True) if logit > 0)]
    probability = 1.0
    for logit in row:
        p = 1 / (1 + np.exp(-np.float64(logit)))
        probability *= p if logit > 0 else 1 - p
    assert scores == pytest.approx([probability], rel=1e-4)


def test_no_type_at_all_may_be_predicted() -> None:
    words, _ = TypingHead(WIDTH, ["a", "b"]).predict(torch.full((1, 2), -1.0), None)  # type: ignore[arg-type]
    assert words == [()]


@given(row=st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 2.0]), min_size=3, max_size=3))
def test_the_best_types_are_predicted_where_none_is_above_zero(row: list[float]) -> None:
    head = TypingHead(WIDTH, ["a", "b", "c"], fallback=True)
    words, scores = head.predict(torch.tensor([row]), None)  # type: ignore[arg-type]
    # ERNIE's rule on FIGER, ties included: above 0, or equal to the highest.
    chosen = [logit > 0 or logit == max(row) for logit in row]
    assert words == [tuple(name for name, on in zip("abc", chosen, strict=True) if on)]
    p = 1 / (1 + np.exp(-np.array(row)))
    assert scores == pytest.approx([np.prod(np.where(chosen, p, 1 - p))], rel=1e-4)


def test_a_question_is_kept_where_an_answer_is_one_known_token(toy_tokenizer: Any) -> None:
    examples = labelled(("red",), ("dark red",), ("Dark Blue", "BLUE", "green"), ("北",), ("",), ())
    gold = BlankHead().gold(examples, toy_tokenizer)
    assert gold.kept.tolist() == [0, 2]
    assert gold.labels == [("red",), ("Dark Blue", "BLUE", "green")]
    vocabulary = toy_tokenizer.get_vocab()
    assert gold.targets.tolist() == [vocabulary["red"], vocabulary["blue"]]


def test_no_question_at_all_is_no_gold(toy_tokenizer: Any) -> None:
    gold = BlankHead().gold([], toy_tokenizer)
    assert gold.kept.tolist() == []
    assert gold.targets.dtype == np.int64


def test_the_best_token_of_all_answers_in_the_words_of_the_gold(toy_tokenizer: Any) -> None:
    vocabulary = toy_tokenizer.get_vocab()
    logits = torch.zeros(2, len(vocabulary))
    logits[0, vocabulary["red"]] = logits[1, vocabulary["blue"]] = 4.0
    words, scores = BlankHead().predict(logits, toy_tokenizer)
    gold = BlankHead().gold(labelled(("green", "RED"), ("Blue", "blue")), toy_tokenizer)
    assert gold.named(words) == ["RED", "Blue"]
    assert gold.named(["blue", "green"]) == ["blue", "green"]
    assert all(map(is_right, gold.labels, gold.named(words)))
    expected = np.exp(4) / (np.exp(4) + len(vocabulary) - 1)
    assert scores == pytest.approx([expected] * 2, rel=1e-4)


def test_a_vocabulary_bounds_what_is_asked_and_what_is_answered(
    toy_tokenizer: Any, lm: LanguageModel
) -> None:
    head = VocabularyHead(["red", "blue", "dark red", "北", "Today"])
    vocabulary = toy_tokenizer.get_vocab()
    assert head.allowed(toy_tokenizer) == sorted(vocabulary[w] for w in ("red", "blue", "today"))
    gold = head.gold(labelled(("red",), ("green",), ("Blue",), ("dark red",)), toy_tokenizer)
    assert (gold.kept.tolist(), gold.labels) == ([0, 2], [("red",), ("Blue",)])
    assert gold.counts == {"vocabulary_tokens": 3}
    inputs = encode(lm.tokenizer, [Example("a", "it looks ", (), "x", blank=9)], [()], Layout({}))
    batch = inputs.collate(np.arange(1))
    with torch.no_grad():
        hidden = lm(batch)
        every = BlankHead()(lm, hidden, batch)
        bounded = head(lm, hidden, batch)
    inside = torch.tensor(head.allowed(lm.tokenizer))
    assert torch.equal(bounded[0, inside], every[0, inside])
    assert int(bounded.isfinite().sum()) == 3
    words, scores = head.predict(bounded, lm.tokenizer)
    best = inside[every[0, inside].argmax()]
    assert words == [lm.tokenizer.decode([int(best)])]
    assert scores == pytest.approx([every[0, inside].softmax(-1).max().item()], rel=1e-5)


def test_case_counts_where_the_tokenizer_keeps_it() -> None:
    tokenizer = byte_level()
    word = next(w for w in tokenizer.get_vocab() if w.startswith("\u0120") and w[1:].islower())[1:]
    head = VocabularyHead([word])
    assert head.gold(labelled((word,), (word.upper(),)), tokenizer).kept.tolist() == [0]


def test_a_vocabulary_without_a_token_is_an_error(toy_tokenizer: Any) -> None:
    with pytest.raises(KbenchError, match="none of the 2 words of the vocabulary is one token"):
        VocabularyHead(["dark red", "北"]).gold(labelled(("red",)), toy_tokenizer)


def test_an_answer_with_a_blank_before_it_is_found_by_a_byte_level_tokenizer() -> None:
    tokenizer = byte_level()
    gold = BlankHead().gold(labelled(("the",)), tokenizer)
    assert gold.labels == [("the",)]
    assert tokenizer.convert_ids_to_tokens(gold.targets.tolist()) == ["Ġthe"]
    logits = torch.zeros(1, len(tokenizer))
    logits[0, gold.targets[0]] = 1
    assert BlankHead().predict(logits, tokenizer)[0] == ["the"]


ANSWERS = ("Rome", "Paris", "rome", "green")
TOKENS = {
    "wordpiece, cased": (wordpiece, False, ("Rome", "Paris", "rome", "green")),
    "wordpiece, uncased": (wordpiece, True, ("rome", "paris", "rome", "green")),
    "byte level": (byte_level_of, False, ("ĠRome", "ĠParis", "Ġrome", "Ġgreen")),
    "byte level, uncased": (byte_level_of, True, ("Ġrome", "Ġparis", "Ġrome", "Ġgreen")),
    "metaspace": (metaspace_of, False, ("▁Rome", "▁Paris", "▁rome", "▁green")),
    "metaspace, uncased": (metaspace_of, True, ("▁rome", "▁paris", "▁rome", "▁green")),
    "llama": (dummy_prefix_of, False, ("▁Rome", "▁Paris", "▁rome", "▁green")),
}


@pytest.mark.parametrize("family", TOKENS)
def test_an_answer_is_the_token_that_stands_at_the_blank(family: str) -> None:
    make, folds, tokens = TOKENS[family]
    tokenizer = make(ANSWERS, lowercase=folds)
    text = "The answer is "
    asked = [Example(a, text, (), (a,), blank=len(text)) for a in ANSWERS]
    gold = BlankHead().gold(asked, tokenizer)
    assert gold.kept.tolist() == [0, 1, 2, 3]
    assert tuple(tokenizer.convert_ids_to_tokens(gold.targets.tolist())) == tokens
    # Whoever says these tokens is right, in the words of the data.
    logits = torch.eye(len(tokenizer))[torch.from_numpy(gold.targets)]
    assert gold.named(BlankHead().predict(logits, tokenizer)[0]) == [*ANSWERS]
    assert VocabularyHead(ANSWERS).gold(asked, tokenizer).targets.tolist() == gold.targets.tolist()
    # Rome is no rome where the tokenizer tells them apart.
    (other,) = BlankHead().gold(asked[:1], tokenizer).named(["rome" if not folds else "paris"]) * 1
    assert not is_right(("Rome",), other)


def test_at_the_beginning_of_a_text_there_is_no_blank_before_the_answer() -> None:
    tokenizer = byte_level_of(("Rome", "Oslo"))
    first = Example("a", "  is the capital", (), ("Rome",), blank=0)
    inside = Example("b", "the capital is  .", (), ("Rome",), blank=15)
    bracket = Example("c", "the capital () .", (), ("Rome",), blank=13)
    head = VocabularyHead(("Rome", "Oslo"), before=("", " ", "("))
    for gold in (h.gold([first, inside, bracket], tokenizer) for h in (BlankHead(), head)):
        spelled = tokenizer.convert_ids_to_tokens(gold.targets.tolist())
        assert spelled == ["Rome", "ĠRome", "Rome"]
    assert len(head.allowed(tokenizer)) == 4
    assert len(VocabularyHead(("Rome", "Oslo")).allowed(tokenizer)) == 2


def test_a_piece_of_a_word_is_no_answer_behind_a_letter(toy_tokenizer: Any) -> None:
    glued = Example("a", "it is dark", (), ("red",), blank=10)
    assert BlankHead().gold([glued], toy_tokenizer).kept.tolist() == []


def test_a_query_of_lama_is_kept_by_its_own_object(toy_tokenizer: Any) -> None:
    asked = labelled(("red", "dark red"), ("dark red", "red"))
    assert VocabularyHead(["red"], first=True).gold(asked, toy_tokenizer).kept.tolist() == [0]
    assert VocabularyHead(["red"]).gold(asked, toy_tokenizer).kept.tolist() == [0, 1]


def test_only_heads_that_read_the_vocabulary_leave_examples_out() -> None:
    assert [kind.keeps_all for kind in (RelationHead, TypingHead, PairHead)] == [True] * 3
    assert not BlankHead.keeps_all


class _Pooling:
    """A network that is nothing but a pooler."""

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden[:, 0]


@pytest.mark.parametrize("kind", [RelationHead, TypingHead])
def test_a_linear_head_reads_the_pooled_output(kind: type[Head]) -> None:
    head: Any = kind(WIDTH, ["a", "b"]).eval()  # type: ignore[call-arg]
    hidden = torch.randn(4, 3, WIDTH)
    logits = head(_Pooling(), hidden, type("Batch", (), {"mask": None}))
    expected = hidden[:, 0] @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(logits, expected)
    assert not head.needs_lm_head
    assert torch.equal(head.linear.bias, torch.zeros(2))


def test_dropout_of_relations_is_a_tenth_and_of_types_none() -> None:
    rates = [
        [m.p for m in kind(WIDTH, ["a"]).modules() if isinstance(m, nn.Dropout)]
        for kind in (RelationHead, TypingHead)
    ]
    assert rates == [[0.1], [0.0]]


def test_the_head_at_the_blank_trains_nothing_of_its_own() -> None:
    assert BlankHead.needs_lm_head
    assert not list(BlankHead().parameters())
