from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.knowledge import Bundle
from scripts.build_atlas import wordings
from scripts.build_atlas.figures import majority
from scripts.build_atlas.tasks import TYPES

Tasks = dict[str, list[dict[str, Any]]]
FIGURES = Path(__file__).parents[2] / "tasks" / "kbench_tasks" / "atlas" / "figures.json"
TASK_NAMES = ["typing", "relations", "qa"]


@pytest.fixture(scope="module")
def facts(bundle: Bundle) -> dict[str, dict[str, set[str]]]:
    """Entity id -> relation -> labels of the objects, from the triples of the bundle alone."""
    labels, relations = list(bundle.labels), list(bundle.relations)
    ids = [bundle.entity(row).id for row in range(len(bundle))]
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for head, relation, tail in bundle.triples.tolist():
        found[ids[head]][relations[relation]].add(labels[tail])
    for known in list(found.values()):
        # Two hops: the main language of the only country.
        for country in known["country"] if len(known["country"]) == 1 else ():
            row = labels.index(country)
            known["language"] |= found[ids[row]]["language"]
    return found


class TestBundle:
    def test_is_as_large_as_promised(self, bundle: Bundle) -> None:
        counts = bundle.card["counts"]
        assert counts["entities"] >= 5000
        assert counts["relations"] >= 10
        assert counts["types"] >= 15
        assert counts["triples"] >= 25000
        assert counts["sentences"] >= 10000

    def test_every_relation_and_entity_is_used(self, bundle: Bundle) -> None:
        assert set(bundle.triples[:, 1].tolist()) == set(range(len(bundle.relations)))
        assert len(set(bundle.triples[:, [0, 2]].ravel().tolist())) > 0.99 * len(bundle)

    def test_vectors_cover_it(self, bundle: Bundle) -> None:
        covered = bundle.has_vector(np.arange(len(bundle)))
        assert covered.mean() > 0.99

    def test_sentences_hold_their_mentions(self, bundle: Bundle) -> None:
        for sentence in bundle.sentences:
            ends = [0, *(m.end for m in sentence.mentions)]
            assert all(m.start >= end for m, end in zip(sentence.mentions, ends, strict=False))
            assert ends[-1] <= len(sentence.text)
            linked = [m for m in sentence.mentions if m.entity]
            assert linked
            assert (bundle.rows([m.entity for m in linked]) >= 0).all()

    def test_sentences_are_varied(self, bundle: Bundle) -> None:
        sentences = list(bundle.sentences)
        shapes = Counter()  # type: Counter[str]
        for sentence in sentences:
            text = sentence.text
            for m in reversed(sentence.mentions):
                text = text[: m.start] + "_" + text[m.end :]
            shapes[text] += 1
        assert len(shapes) >= 80
        assert max(shapes.values()) < 0.05 * len(sentences)
        two = sum(len(s.mentions) >= 2 for s in sentences)
        assert two > 0.9 * len(sentences)
        both = sum(all(m.entity for m in s.mentions) for s in sentences)
        assert 0.3 * len(sentences) < both < 0.8 * len(sentences)

    def test_files_are_small(self, bundle: Bundle) -> None:
        size = sum(path.stat().st_size for path in bundle.folder.iterdir())
        assert size < 12_000_000


@pytest.mark.parametrize("task", TASK_NAMES)
class TestEveryTask:
    def test_has_thousands_of_examples(self, task: str, tasks: Tasks) -> None:
        counts = Counter(record["split"] for record in tasks[task])
        assert counts["train"] >= 2500
        assert counts["dev"] >= 380
        assert counts["test"] >= 900
        assert len({record["id"] for record in tasks[task]}) == len(tasks[task])

    def test_spans_hold_names(self, task: str, tasks: Tasks, bundle: Bundle) -> None:
        for record in tasks[task]:
            for mention in record["mentions"]:
                span = record["text"][mention["start"] : mention["end"]]
                assert span == span.strip() != ""
                if mention["entity"]:
                    row = int(bundle.rows([mention["entity"]])[0])
                    assert bundle.labels[row] == span

    def test_texts_are_varied(self, task: str, tasks: Tasks) -> None:
        shapes = set()
        for record in tasks[task]:
            text = record["text"]
            for m in sorted(record["mentions"], key=lambda m: -m["start"]):
                text = text[: m["start"]] + "_" + text[m["end"] :]
            shapes.add(text)
        assert len(shapes) >= 30

    def test_majority_baseline_is_as_stated_and_low(self, task: str, tasks: Tasks) -> None:
        stated = json.loads(FIGURES.read_text("utf-8"))[task]["majority"]
        assert majority(task, tasks[task]) == pytest.approx(stated, abs=1e-4)
        assert stated < 0.4

    def test_pairs_of_entity_and_fact_are_unique(self, task: str, tasks: Tasks) -> None:
        seen = Counter(
            (
                r["mentions"][0]["entity"],
                str(r["label"]),
                task == "qa" or r["mentions"][-1]["entity"],
            )
            for r in tasks[task]
        )
        assert max(seen.values()) <= 2


class TestOracle:
    def test_types_are_in_the_knowledge_base(self, tasks: Tasks, bundle: Bundle) -> None:
        for record in tasks["typing"]:
            row = int(bundle.rows([record["mentions"][0]["entity"]])[0])
            assert set(record["label"]) == set(bundle.entity(row).types) & set(TYPES)

    def test_relations_follow_from_the_triples(
        self, tasks: Tasks, facts: dict[str, dict[str, set[str]]]
    ) -> None:
        for record in tasks["relations"]:
            head, tail = record["mentions"]
            relation = record["label"].split("-")[-1]
            objects = facts[head["entity"]][relation]
            span = record["text"][tail["start"] : tail["end"]]
            assert {span, f"{span} mythology"} & objects

    def test_relations_are_unambiguous(self, tasks: Tasks) -> None:
        labels = defaultdict(set)
        for record in tasks["relations"]:
            head, tail = record["mentions"]
            key = (head["entity"], record["text"][tail["start"] : tail["end"]])
            labels[key].add(record["label"])
        assert all(len(found) == 1 for found in labels.values())

    def test_answers_follow_from_the_triples(
        self, tasks: Tasks, facts: dict[str, dict[str, set[str]]]
    ) -> None:
        for record in tasks["qa"]:
            known = facts[record["mentions"][0]["entity"]]
            words = {label.split()[0].lower() for labels in known.values() for label in labels}
            assert set(record["label"]) <= words

    def test_ceiling_is_stated(self) -> None:
        figures = json.loads(FIGURES.read_text("utf-8"))
        assert all(figures[task]["oracle"] >= 0.99 for task in TASK_NAMES)


class TestLabels:
    def test_every_type_has_train_examples(self, tasks: Tasks) -> None:
        counts = Counter(
            label for r in tasks["typing"] if r["split"] == "train" for label in r["label"]
        )
        assert set(counts) == set(TYPES)
        assert min(counts.values()) >= 50

    def test_relations_have_train_and_test_examples(self, tasks: Tasks) -> None:
        for part, least in (("train", 60), ("test", 20)):
            counts = Counter(r["label"] for r in tasks["relations"] if r["split"] == part)
            assert 8 <= len(counts) <= 14
            assert min(counts.values()) >= least

    def test_tails_are_not_linked(self, tasks: Tasks) -> None:
        assert all(r["mentions"][1]["entity"] is None for r in tasks["relations"])


def test_patterns_of_corpus_and_tasks_are_disjoint() -> None:
    corpus = {pattern for patterns in wordings.CORPUS.values() for pattern in patterns}
    questions = {pattern for patterns in wordings.QUESTIONS.values() for pattern in patterns}
    sets = [corpus, questions, set(wordings.TYPING), set(wordings.RELATIONS)]
    assert sum(map(len, sets)) == len(set().union(*sets))
