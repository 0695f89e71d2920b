"""Types that a model writes in a list: what is asked, what is learnt, and what is read of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.data import Example, Lists, Mention, Role
from kbench.encoding import Layout, encode
from kbench.errors import InputError
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.generation import NOTHING
from kbench.model.huggingface import load_folder
from kbench.model.listing import ListHead
from kbench.model.tiny import KbenchTiny
from tests.architectures import write_decoder

LABELS = ("body_of_water", "city", "person", "science and art")
FORM = Lists("{text} Which of {labels} is {target} ?", words={"person": "human being"}).of(LABELS)
CPU = torch.device("cpu")


def typed(number: int, text: str, *labels: str) -> Example:
    return Example(str(number), text, (Mention(0, 3, None, Role.TARGET),), labels)


EXAMPLES = [typed(0, "ann lives", "person", "city"), typed(1, "bob")]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = tmp_path_factory.mktemp("llama")
    return load_folder(write_decoder(folder, "llama", max_position_embeddings=300))


def test_all_labels_stand_in_what_is_asked_and_mentions_keep_their_place() -> None:
    put = FORM.put(EXAMPLES[0])
    assert put is not None
    listed = "body of water, city, human being, science and art"
    assert put.text == f"ann lives Which of {listed} is ann ?"
    assert put.text[put.mentions[0].start : put.mentions[0].end] == "ann"
    assert put.blank == len(put.text)
    first = Lists("Of {labels} : {text}").of(("{head}", "a"))  # a label is no piece of the form
    moved = first.put(EXAMPLES[0])
    assert moved is not None
    assert moved.text == "Of a, {head} : ann lives"
    assert moved.mentions[0].start == len("Of a, {head} : ")


def test_a_demonstration_lists_all_that_holds() -> None:
    assert FORM.answer(EXAMPLES[0], "person") == FORM.answer(EXAMPLES[0], "city")
    assert FORM.answer(EXAMPLES[0], "city") == "city, human being"
    assert FORM.listed(()) == "none of these"


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        ("city, human being", ("city", "person")),
        (" City ;  a Human Being .", ("city", "person")),
        ("a city and a person", ("city", "person")),
        ("science and art, body_of_water", ("body_of_water", "science and art")),
        ("city, city, the city", ("city",)),
        ("city, a big  river", ("a big river", "city")),
        ("citys or persons", ("citys", "persons")),
        ("none of these", ()),
        ("None of these.", ()),
        ("", ()),
        (", ; .", ()),
        ("city、human being", ("city", "person")),
    ],
)
def test_what_is_written_is_read_and_what_is_no_label_stays(
    said: str, labels: tuple[str, ...]
) -> None:
    assert FORM.read(said) == labels


def test_every_list_that_is_to_be_learnt_is_read_as_it_was_meant() -> None:
    tokenizer = KbenchTiny().load().tokenizer  # which folds case, and sets blanks around signs
    for number in range(2 ** len(LABELS)):
        own = tuple(label for at, label in enumerate(LABELS) if number >> at & 1)
        said = tokenizer.decode(tokenizer(FORM.listed(own), add_special_tokens=False)["input_ids"])
        assert FORM.read(said) == own


def test_a_label_called_as_nothing_is_called_is_a_label() -> None:
    form = Lists("{text} {labels}", words={"none-of-these": "none of these"})
    assert form.of(("none-of-these",)).read("none of these") == ("none-of-these",)


def test_a_label_without_a_letter_is_read_and_signs_alone_are_none() -> None:
    form = Lists("{text} {labels}").of(("C", "C++", "😀"))
    assert form.read("😀, c ; .,") == ("C", "😀")
    assert form.read("c++") == ("C++",)
    assert form.read("the c") == ("C",)


def test_a_list_is_learnt_up_to_the_end_of_its_text_and_predicted_as_labels(
    lm: LanguageModel,
) -> None:
    head = ListHead(FORM, 24)
    gold = head.gold(EXAMPLES, lm.tokenizer)
    assert gold.labels == [("city", "person"), ()]
    assert gold.kept.tolist() == [0, 1]
    put = [asked for example in EXAMPLES if (asked := head.put(example)) is not None]
    inputs = encode(lm.tokenizer, put, [(-1,)] * 2, Layout({}, left_to_right=True))
    batch = head.grown(inputs, lm.tokenizer, EXAMPLES).collate(np.arange(2), gold.targets)
    wanted = []
    for written in ("city, human being", "none of these"):
        tokens = lm.tokenizer(f" {written}", add_special_tokens=False)["input_ids"]
        wanted += [*tokens, lm.tokenizer.eos_token_id]
    assert batch.tree is not None
    assert batch.tree.targets.tolist() == wanted
    model = DownstreamModel(lm, head).eval()
    loss = model.loss(batch)
    assert loss.isfinite()
    rows = [
        [-0.5, *lm.tokenizer(f" {written}", add_special_tokens=False)["input_ids"]]
        for written in ("human being, city", "river")
    ]
    width = max(map(len, rows))
    said = torch.tensor([[*row, *[NOTHING] * (width - len(row))] for row in rows])
    labels, scores = head.predict(said, lm.tokenizer)
    assert labels[0] == ("city", "person")
    assert scores == pytest.approx([np.exp(-0.5)] * 2)


def test_a_label_that_no_token_spells_is_told() -> None:
    tokenizer = KbenchTiny().load().tokenizer
    head = ListHead(Lists("{text} {labels}").of(("😀",)), 8)
    with pytest.raises(InputError, match="does not know; expected words that it knows"):
        head.gold([typed(0, "ann", "😀")], tokenizer)
