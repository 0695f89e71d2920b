"""What is measured where a text is looked for among so many: the likeliest of them, or its own."""

from __future__ import annotations

import numpy as np
import pytest

from kbench.data import Split
from kbench_tasks.atlas import AtlasQuestions
from scripts import measure_scaling


def test_a_question_is_linked_to_the_likeliest_of_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    knowledge = measure_scaling.base()
    examples = AtlasQuestions().load(Split.DEV)[:3]
    own = knowledge.rows([example.mentions[0].entity for example in examples]).tolist()
    scores = np.zeros((3, len(knowledge)), dtype=np.float32)
    half = len(knowledge) // 2  # the second of two that are looked at, beside the question's own
    scores[0, [half, own[0]]] = 2, 1  # another is likelier
    scores[1, [half, own[1]]] = 1, 2
    scores[2, [half + 1, own[2]]] = 3, 1  # what is likelier is not among them
    monkeypatch.setattr(measure_scaling, "likeliness", lambda texts: scores)
    linked = [*measure_scaling.retrieved(examples, 2)]
    found = knowledge.rows([example.mentions[0].entity for example in linked]).tolist()
    assert found == [half, own[1], own[2]]
    assert [e.text for e in linked] == [e.text for e in examples]
    every = [*measure_scaling.retrieved(examples, 10**6)]
    assert knowledge.rows([every[2].mentions[0].entity]).tolist() == [half + 1]
