"""Objects of a knowledge base as the candidates of questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

import pytest

from kbench.data import Example, Prompt, Split, TaskCard
from kbench.errors import DataError, InputError, UsageError
from kbench.knowledge import Bundle, Entity, write_bundle
from kbench.knowledge.objects import objects_of
from kbench.task import QuestionTask
from kbench.testing.toys import ToyQuestions

CARD = {"name": "places", "version": "1", "licence": "none", "source": "none"}
ENTITIES = [
    *(Entity(f"Q{number}", f"person {number}") for number in range(1, 6)),
    Entity("Q10", "city of rome", ("Rome", "Roma")),
    Entity("Q11", "Oslo", ("Christiania",)),
    Entity("Q12", "Oslo"),  # in Minnesota
    Entity("Q13", "Lima"),
    Entity("Q14"),  # without a name
    Entity("Q15", "red"),
]
BORN, COLOUR = "P19", "P462"
TRIPLES = [
    *((f"Q{number}", BORN, "Q10") for number in (1, 2, 3)),
    *((f"Q{number}", BORN, "Q11") for number in (4, 5)),
    ("Q1", BORN, "Q12"),
    ("Q2", BORN, "Q13"),
    *((f"Q{number}", BORN, "Q14") for number in (1, 2, 3, 4)),
    ("Q1", COLOUR, "Q15"),
]


@pytest.fixture
def base(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "kb", CARD, ENTITIES, TRIPLES, {BORN: "place of birth"})


@final
class Births(QuestionTask):
    card: ClassVar[TaskCard] = ToyQuestions.card
    asks = Prompt("Q: {before} A:", nothing="A:")
    facts: ClassVar[dict[str, str]] = {"where?": BORN}

    def load(self, split: Split) -> Sequence[Example]:
        asked = [("Rome", "where?"), ("Oslo", "where?"), ("tall", "how tall?")]
        return [
            Example(f"{split}/{number}", "Q ", (), (answer,), blank=2, relation=relation)
            for number, (answer, relation) in enumerate(asked)
        ]


def test_objects_are_called_as_answers_are_and_the_most_frequent_come_first(base: Bundle) -> None:
    spelled = {"where?": ["Rome"], "what colour?": []}
    asked = {"where?": BORN, "what colour?": COLOUR, "who?": "P1"}
    found = objects_of(base, asked, spelled, 3)
    assert found == {
        "where?": [["Rome", "city of rome", "Roma"], ["Oslo", "Christiania"], ["Lima"]],
        "what colour?": [["red"]],
    }
    assert objects_of(base, {"": "Place of birth"}, {}, 1) == {
        "": [["city of rome", "Rome", "Roma"]]
    }
    with pytest.raises(InputError, match=r"places has no objects .* such as 'P1'"):
        objects_of(base, {"who?": "P1"}, {}, 3)


def test_a_task_ranks_the_objects_of_a_knowledge_base(base: Bundle) -> None:
    options = {"answers": "ranked", "objects": str(base.folder)}
    task = Births(options=options)
    assert task.ranking == {
        "how tall?": [["tall"]],  # of this the base knows nothing
        "where?": [["Rome", "city of rome", "Roma"], ["Oslo", "Christiania"], ["Lima"]],
    }
    assert task.counts["relations_without_objects"] == 1
    assert task.metrics[0].variant == "hits-at-1:128-of-objects"
    assert Births.metric_named("hits-at-1:128-of-objects") is not None
    own = Births(options={"answers": "ranked"})
    assert own.ranking["where?"] == [["Oslo"], ["Rome"]]
    assert own.form != task.form
    fewer = Births(options={**options, "candidates": 2})
    assert [names[0] for names in fewer.ranking["where?"]] == ["Rome", "Oslo"]


def test_a_knowledge_base_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected answers=ranked, or no objects"):
        Births(options={"answers": "open", "objects": "kb"})
    with pytest.raises(DataError):
        _ = Births(options={"answers": "ranked", "objects": str(tmp_path)}).ranking
