"""Scores by what the knowledge base has of an example's entity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kbench.data import Example, Mention, Role
from kbench.knowledge import Bundle, Entity, write_bundle, write_vectors
from kbench.knowledge.linking import link
from kbench.metrics import Accuracy, Within
from kbench.pipeline.buckets import Popularity, by_entity, degrees
from kbench.store import Predictions


@pytest.fixture
def base(tmp_path: Path) -> Bundle:
    """Q0 is in ten facts, Q1 to Q4 in two to five, Q5 to Q10 in one, Q11 in none."""
    facts = [
        (f"Q{n}", f"r{k}", "Q0") for n, count in ((1, 2), (2, 3), (3, 4)) for k in range(count)
    ]
    facts += [("Q4", f"r{k}", f"Q{5 + k}") for k in range(5)] + [("Q0", "r", "Q10")]
    entities = [Entity(f"Q{n}") for n in range(12)]
    card = {"name": "degrees", "version": "1", "licence": "none", "source": "test"}
    bundle = write_bundle(tmp_path / "kb", card, entities, facts)
    vectors = np.ones((len(bundle), 2), dtype=np.float32)
    vectors[bundle.rows(["Q1"])] = np.nan
    return write_vectors(bundle.folder, vectors, {})


def test_degrees_count_both_ends(base: Bundle) -> None:
    rows = base.rows([f"Q{n}" for n in range(12)])
    assert base.degrees[rows].tolist() == [10, 2, 3, 4, 5, 1, 1, 1, 1, 1, 1, 0]
    # Of the eleven in any fact the sixth from below is in one, the tenth in five.
    popularity = Popularity.of(base)
    assert popularity == Popularity(torso=2, head=5)
    assert [popularity.name(degree) for degree in (0, 1, 2, 4, 5, 10)] == [
        "tail", "tail", "torso", "torso", "head", "head"
    ]  # fmt: skip


def test_a_knowledge_base_without_facts(tmp_path: Path) -> None:
    card = {"name": "none", "version": "1", "licence": "none", "source": "test"}
    assert Popularity.of(write_bundle(tmp_path / "kb", card, [Entity("Q0")])).name(0) == "tail"


def test_the_entity_of_an_example(base: Bundle) -> None:
    def example(*mentions: tuple[str | None, Role]) -> Example:
        found = tuple(Mention(n, n + 1, entity, role) for n, (entity, role) in enumerate(mentions))
        return Example("x", "abcdef", found, "label")

    examples = [
        example(("Q3", Role.CONTEXT), ("Q2", Role.HEAD), ("Q4", Role.TAIL)),  # the marked first
        example(("Q3", Role.CONTEXT), ("Q1", Role.HEAD), ("Q4", Role.TAIL)),  # Q1 has no vector
        example(("Q3", Role.CONTEXT), (None, Role.TARGET)),
        example((None, Role.TARGET)),
        example(),
        example(("Q11", Role.TARGET)),
    ]
    links = link(examples, base)
    assert degrees(examples, links, base) == [3, 5, 4, -1, -1, 0]
    assert degrees(examples, links, None) == [-1] * 6


def test_each_bucket_has_its_own_score_and_size() -> None:
    given = Predictions(
        ids=list("abcdef"),
        labels=["x"] * 6,
        predictions=["x", "y", "x", "x", "y", "y"],
        scores=[1.0] * 6,
        linked=[True] * 4 + [False] * 2,
        degrees=[1, 2, 9, 9, -1, -1],
        strata=["s", "s", "s", "t", "s", "t"],
    )
    found = by_entity(Accuracy(), given, Popularity(torso=2, head=5))
    values = {
        (kind, name): (score.value, score.n)
        for kind, several in found.items()
        for name, score in several.items()
    }
    assert values == {
        ("coverage", "known"): (0.75, 4),
        ("coverage", "unknown"): (0.0, 2),
        ("popularity", "head"): (1.0, 2),
        ("popularity", "torso"): (0.0, 1),
        ("popularity", "tail"): (1.0, 1),
    }
    head = found["popularity"]["head"]
    assert (head.low, head.high, head.variant) == (1.0, 1.0, "accuracy")
    # A metric of one stratum counts its own alone; a bucket without any of them is left out.
    within = by_entity(Within("t", Accuracy()), given, Popularity(torso=2, head=5))
    assert {name: score.n for name, score in within["popularity"].items()} == {"head": 1}
