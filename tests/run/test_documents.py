"""Which document an example gets: one with the answer, one without it, one that says nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from kbench.data import Example, Mention
from kbench.knowledge import Bundle, Entity, write_bundle
from kbench.knowledge.documents import NOTHING, Documents, answers_by_entity
from kbench.model import digest
from kbench.parts.run_parts import Parts, impossible
from kbench.pipeline.addresses import plug_inputs
from kbench.pipeline.documents import documents
from kbench.spec import Control, Setting
from kbench.testing.bench import Bench
from kbench.testing.tiny import offered
from kbench_baselines.retrieval import RetrievalAugmentation

CARD = {"name": "documents", "version": "1", "licence": "none", "source": "test"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    things = [
        Entity(
            "f", "France", description="France is in Europe . Its capital is Paris . It has seas ."
        ),
        Entity("p", "Paris", ("City of Light",)),
        Entity("s", "Spain", description="Spain is a country ."),
        Entity("m", "Málaga"),
        Entity("x", "Xanadu", description="Xanadu is nowhere ."),
    ]
    facts = [("f", "capital", "p"), ("f", "near", "s"), ("s", "near", "f"), ("m", "in", "s")]
    relations = {"capital": "has the capital", "near": "is near", "in": "lies in"}
    return write_bundle(tmp_path_factory.mktemp("documents"), CARD, things, facts, relations)


def chosen(
    base: Bundle, control: Control, example: Example, text: str = "description"
) -> list[str]:
    """The texts of one example, of which its first mention is linked."""
    method = RetrievalAugmentation({"text": text})
    parts = SimpleNamespace(spec=SimpleNamespace(control=control), knowledge=base, method=method)
    rows = base.rows([example.mentions[0].entity]).tolist()
    brought = [text for row in rows for text in method.passages(base, row)]
    (found,) = documents(cast("Parts", parts), [example], [rows], [brought])
    return found


def question(thing: str, *answers: str) -> Example:
    return Example("q", "x is ", (Mention(0, 1, thing),), answers, blank=5)


FRANCE = question("f", "Paris")


def test_the_oracle_puts_what_holds_the_answer_first(base: Bundle) -> None:
    assert chosen(base, Control.ORACLE, FRANCE) == [
        "Its capital is Paris .",
        "France is in Europe . It has seas .",
    ]
    assert chosen(base, Control.ORACLE, FRANCE, "facts") == [
        "France has the capital Paris .",
        "France is near Spain .",
    ]


def test_the_oracle_looks_for_a_fact_either_way_and_for_who_is_called_so(base: Bundle) -> None:
    assert chosen(base, Control.ORACLE, question("s", "malaga")) == ["Spain is a country ."]
    assert chosen(base, Control.ORACLE, question("s", "Málaga")) == [
        "Málaga lies in Spain .",
        "Spain is a country .",
    ]
    assert chosen(base, Control.ORACLE, question("s", "Xanadu")) == [
        "Xanadu is nowhere .",
        "Spain is a country .",
    ]
    assert chosen(base, Control.ORACLE, question("s", "nobody")) == ["Spain is a country ."]


def test_no_name_of_the_answer_is_left(base: Bundle) -> None:
    without = ["France is in Europe . It has seas ."]
    for answer in ("Paris", "PARIS", "City of Light"):
        assert chosen(base, Control.ANSWER_REMOVED, question("f", answer)) == without
    facts = chosen(base, Control.ANSWER_REMOVED, FRANCE, "facts")
    assert facts == ["France is near Spain ."]
    spain = question("s", "country", "Spain")
    assert chosen(base, Control.ANSWER_REMOVED, spain) == [NOTHING]


def test_labels_of_other_tasks_are_answers_too(base: Bundle) -> None:
    mention = (Mention(0, 1, "f"),)
    typed = Example("t", "x", mention, ("capital", "nothing_else"))
    assert chosen(base, Control.ANSWER_REMOVED, typed) == ["France is in Europe . It has seas ."]
    related = Example("r", "x", mention, "is_near")
    assert chosen(base, Control.ANSWER_REMOVED, related, "facts") == [
        "France has the capital Paris ."
    ]


def test_an_empty_document_stands_where_there_was_one(base: Bundle) -> None:
    assert chosen(base, Control.EMPTY, FRANCE) == [NOTHING]
    assert chosen(base, Control.EMPTY, question("p", "France")) == []
    assert chosen(base, Control.ORACLE, question("p", "France")) == []


def test_both_texts_are_the_description_and_then_the_facts(base: Bundle) -> None:
    method = RetrievalAugmentation({"text": "both"})
    row = int(base.rows(["f"])[0])
    assert list(method.passages(base, row)) == [
        "France is in Europe . Its capital is Paris . It has seas .",
        "France is near Spain .\nFrance has the capital Paris .",
    ]
    assert list(method.passages(base, int(base.rows(["m"])[0]))) == ["Málaga lies in Spain ."]


def test_an_option_at_its_default_moves_no_address() -> None:
    assert "text" not in RetrievalAugmentation().addressed_options
    assert RetrievalAugmentation({"text": "both"}).addressed_options["text"] == "both"


def test_what_is_read_apart_from_inputs_loses_what_answers_any_question_about_its_entity(
    base: Bundle,
) -> None:
    asked = [FRANCE, question("f", "Europe"), question("s", "City of Light")]
    answers = answers_by_entity(asked, base, "gold")
    view = Documents(base, Control.ANSWER_REMOVED, lambda: answers)
    france, spain, xanadu = (int(base.rows([key])[0]) for key in "fsx")
    text = base.entity(france).description
    assert view.shown(france, [text]) == ["It has seas ."]
    assert view.shown(france, ["Its capital is PARIS."]) == [NOTHING]
    assert view.shown(spain, ["It is near Paris . It is a country ."]) == ["It is a country ."]
    assert view.shown(xanadu, ["It is near Paris ."]) == ["It is near Paris ."]  # nobody asks
    assert view.shown(france, []) == []
    empty = Documents(base, Control.EMPTY)
    assert empty.shown(france, [text, "more"]) == [NOTHING]
    vectors = np.zeros((1, 2), dtype=np.float32)
    assert empty.over(np.array([0]), vectors).shown(0, ["x"]) == [NOTHING]


@pytest.mark.parametrize("name", ["kv-text", "kv-train", "xrag", "prag"])
def test_a_method_that_reads_texts_by_itself_is_shown_others_after_the_same_training(
    name: str,
) -> None:
    with offered():
        bench = Bench(name)
        true, empty, removed = (
            bench.tried(Setting.GENERAL, control)
            for control in (Control.NONE, Control.EMPTY, Control.ANSWER_REMOVED)
        )
        oracle = bench.parts(Setting.GENERAL, control=Control.ORACLE)
        assert "which one holds an answer hangs on the example" in impossible(oracle)
        said = true.plugged().logits
        assert (empty.plugged().logits - said).abs().max() > 0
        for tried in (empty, removed):
            assert plug_inputs(tried.parts, Setting.GENERAL) == plug_inputs(
                true.parts, Setting.GENERAL
            )
            assert digest(tried.plug) == digest(true.plug)
            assert impossible(tried.parts) == ""
            assert tried.parts.knowledge is not None
            assert true.parts.knowledge is not None
            assert tried.parts.knowledge.digest != true.parts.knowledge.digest
