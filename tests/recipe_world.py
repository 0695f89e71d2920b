"""Small data in the published layouts of every task of the recipes, and a knowledge base for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kbench.data import Mention
from kbench.knowledge import Entity, Sentence, write_bundle, write_vectors

CITIES = ("paris", "london", "rome", "berlin", "madrid", "athens")
LANDS = ("france", "england", "italy", "germany", "spain", "egypt")
NAMES = (*CITIES, *LANDS)
_WORDS = ("near", "of", "north", "a town in", "with", "for", "from", "to", "at", "by")
_SPLITS = ("train", "dev", "test")


def write_data(folder: Path) -> None:
    """Writes PopQA, FewRel (both), Wiki80, Wiki-ET, EntityQuestions, OpenEntity, FIGER, TACRED."""
    for name, prefix in (("train_wiki", "Q"), ("val_wiki", "Q"), ("val_pubmed", "C")):
        relations = {f"{name}/P{n}": _few_rel(n, prefix) for n in range(len(_WORDS))}
        _write(folder / "fewrel" / f"{name}.json", relations)
    rows = [_wiki80(relation, number) for relation in range(3) for number in range(10)]
    for part in ("train", "val"):
        _lines(folder / "wiki80" / f"wiki80_{part}.txt", rows)
    ids = [f"Q{number}\t{number}" for number in range(len(NAMES))]
    _write(folder / "wikiet" / "entity2id.txt", "\n".join([str(len(NAMES)), *ids]) + "\n")
    _write_lama(folder / "lama")
    _write_popqa(folder / "popqa")
    for split in _SPLITS:
        _lines(folder / "wikiet" / f"{split}.json", [_typed(n, False) for n in range(12)])
        for task in ("openentity", "figer"):
            _write(folder / task / f"{split}.json", [_typed(n, True) for n in range(12)])
        sentences = [_few_rel_80(n) for n in range(12)]
        _write(folder / "fewrel80way" / f"{split}.json", sentences)
        _write(folder / "tacred" / f"{split}.json", [_tacred(split, n) for n in range(12)])
        questions = [
            {"question": f"Which country is {city} located in?", "answers": [land.title()]}
            for city, land in zip(CITIES, LANDS, strict=True)
        ]
        _write(folder / "entityquestions" / split / f"P17.{split}.json", questions)


def _write_popqa(folder: Path) -> None:
    rows = [("question", "subj", "s_uri", "s_pop", "possible_answers")]
    for number, (city, land) in [*enumerate(zip(CITIES, LANDS, strict=True))][1:]:  # no Q0
        uri = f"http://www.wikidata.org/entity/Q{number}"
        rows.append((f"In what country is {city}?", city, uri, "100", f'"[""{land}""]"'))
    _write(folder / "popQA.tsv", "".join("\t".join(row) + "\n" for row in rows))


def _write_lama(folder: Path) -> None:
    relation = {"relation": "P17", "template": "[X] is located in [Y] ."}
    _lines(folder / "relations.jsonl", [relation])
    facts = [
        {
            "uuid": str(number),
            "obj_uri": f"Q{number + len(CITIES)}",
            "obj_label": land,
            "sub_uri": f"Q{number}",
            "sub_label": city,
            "predicate_id": "P17",
            "evidences": [],
        }
        for number, (city, land) in enumerate(zip(CITIES, LANDS, strict=True))
    ]
    _lines(folder / "TREx" / "P17.jsonl", facts)


def write_knowledge(folder: Path) -> None:
    """Writes what every method of the recipes reads: vectors, facts, sentences, descriptions."""
    entities = [
        Entity(
            f"{prefix}{number}", label + name, types=("place",), description=f"{name} is a place ."
        )
        # A name of two entities would be linked to neither.
        for prefix, label in (("C", "concept of "), ("Q", ""))
        for number, name in enumerate(NAMES)
    ]
    facts = [(f"Q{n}", ("P17", "P131")[n % 2], f"Q{n + len(CITIES)}") for n in range(len(CITIES))]
    sentences = [
        Sentence(
            f"{city} {word} {land}",
            (
                Mention(0, len(city), f"Q{n}"),
                Mention(len(f"{city} {word} "), len(f"{city} {word} {land}"), f"Q{n + 6}"),
            ),
        )
        for n, (city, land) in enumerate(zip(CITIES, LANDS, strict=True))
        for word in _WORDS[:3]
    ]
    card = {"name": "places", "version": "1", "licence": "none", "source": "test"}
    write_bundle(folder, card, entities, facts, {"P17": "country", "P131": "lies in"}, sentences)
    vectors = np.random.default_rng(0).standard_normal((len(entities), 6)).astype(np.float32)
    write_vectors(folder, vectors, {"model": "random"})


def _pair(number: int) -> tuple[int, int]:
    return number % 6, 6 + number * 5 % 6


def _few_rel(relation: int, prefix: str) -> list[dict[str, Any]]:
    rows = []
    for number in range(8):
        head, tail = _pair(number + relation)
        middle = _WORDS[relation].split()
        place = 1 + len(middle)
        rows.append(
            {
                "tokens": [NAMES[head], *middle, NAMES[tail], str(number)],
                "h": [NAMES[head], f"{prefix}{head}", [[0]]],
                "t": [NAMES[tail], f"{prefix}{tail}", [[place]]],
            }
        )
    return rows


def _wiki80(relation: int, number: int) -> dict[str, Any]:
    head, tail = _pair(number)
    return {
        "token": [NAMES[head], _WORDS[relation], NAMES[tail]],
        "h": {"name": NAMES[head], "id": f"Q{head}", "pos": [0, 1]},
        "t": {"name": NAMES[tail], "id": f"Q{tail}", "pos": [2, 3]},
        "relation": f"relation {relation}",
    }


def _typed(number: int, links: bool) -> dict[str, Any]:
    entity = number % len(NAMES)
    name = NAMES[entity]
    row: dict[str, Any] = {"sent": f"near {name}", "start": 5, "end": 5 + len(name)}
    row["labels"] = ["city" if name in CITIES else "country"]
    if links:
        return {**row, "ents": [[f"Q{entity}", 5, 5 + len(name), 0.9]]}
    return {**row, "id": str(entity)}


def _few_rel_80(number: int) -> dict[str, Any]:
    head, tail = _pair(number)
    text = f"{NAMES[head]} near {NAMES[tail]}"
    start = len(NAMES[head]) + len(" near ")
    ents = [[f"Q{head}", 0, len(NAMES[head]), 1.0], [f"Q{tail}", start, len(text), 1.0]]
    return {"text": text, "label": f"P{number % 2}", "ents": ents}


def _tacred(split: str, number: int) -> dict[str, Any]:
    head, tail = _pair(number)
    return {
        "id": f"{split}-{number}",
        "token": [NAMES[head], "is", "in", NAMES[tail]],
        "relation": "no_relation" if number % 2 else "loc:country",
        "subj_start": 0,
        "subj_end": 0,
        "obj_start": 3,
        "obj_end": 3,
    }


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    _write(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
