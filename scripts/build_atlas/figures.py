"""What a reader wants to know of the tasks before any model runs: baselines and ceilings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.build_atlas.draft import Atlas
from scripts.build_atlas.tasks import TYPES, Record, question_facts, relation_facts
from scripts.build_atlas.texts import surface


def micro_f1(pairs: Iterable[tuple[set[str], set[str]]]) -> float:
    """Micro-averaged F1 of (gold, predicted) sets."""
    hits = predicted = gold = 0
    for truth, guess in pairs:
        hits += len(truth & guess)
        predicted += len(guess)
        gold += len(truth)
    return 2 * hits / (predicted + gold) if predicted + gold else 0.0


def majority_set(train: Sequence[Record]) -> set[str]:
    """The constant label set with the best micro-F1 on train."""
    counts = Counter(label for record in train for label in record["label"])
    ranked = [label for label, _ in counts.most_common()]
    sets = [set(ranked[: n + 1]) for n in range(len(ranked))]
    return max(sets, key=lambda guess: micro_f1((set(r["label"]), guess) for r in train))


def majority(task: str, records: Sequence[Record]) -> float:
    """Score on test of the best constant answer of train: micro-F1 for typing, else accuracy."""
    train = [r for r in records if r["split"] == "train"]
    test = [r for r in records if r["split"] == "test"]
    if task == "typing":
        guess = majority_set(train)
        return micro_f1((set(r["label"]), guess) for r in test)
    label = Counter(_single(r) for r in train).most_common(1)[0][0]
    return sum(_single(r) == label for r in test) / len(test)


def _single(record: Record) -> str:
    label = record["label"]
    return label if isinstance(label, str) else str(label[0])


def _derivable(atlas: Atlas, task: str, record: Mapping[str, Any]) -> bool:
    subject = atlas.entities[record["mentions"][0]["entity"]]
    if task == "typing":
        return set(record["label"]) == set(subject.types) & set(TYPES)
    if task == "relations":
        start, end = record["mentions"][1]["start"], record["mentions"][1]["end"]
        found = {
            fact.relation
            for fact in relation_facts(atlas, subject)
            if surface(atlas, fact.target) == record["text"][start:end]
        }
        return found == {record["label"]}
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for fact in question_facts(atlas, subject):
        answers[fact.relation].add(surface(atlas, fact.target).lower())
    return any(set(record["label"]) & given for given in answers.values())


def ceiling(atlas: Atlas, task: str, records: Sequence[Record]) -> float:
    """Share of the test examples whose label follows from the facts and types of the entity."""
    test = [r for r in records if r["split"] == "test"]
    return sum(_derivable(atlas, task, r) for r in test) / len(test)


def report(atlas: Atlas, tasks: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, Any]]:
    """Counts, labels, majority baseline and oracle ceiling of every task."""
    return {
        task: {
            "examples": dict(Counter(r["split"] for r in records)),
            "labels": len(
                {
                    x
                    for r in records
                    for x in ([r["label"]] if isinstance(r["label"], str) else r["label"])
                }
            ),
            "majority": round(majority(task, records), 4),
            "oracle": round(ceiling(atlas, task, records), 4),
        }
        for task, records in tasks.items()
    }
