from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kbench.errors import DataError
from kbench_tasks.knowledge.codex import CodexImporter

TRIPLES = {
    "train": "Q1\tP1\tQ2\nQ3\tP1\tQ2\n",
    "valid": "Q1\tP2\tQ3\n",
    "test": "Q4\tP2\tQ1\n",
}
SENTENCES: list[Any] = [
    {"text": "ada lovelace met babbage .", "mentions": [
        {"start": 0, "end": 12, "entity": "Q1"}, {"start": 17, "end": 24, "entity": "Q99"}]},
    {"text": "countess  ada , ada lovelace , Ada Lovelace", "mentions": [
        {"start": 0, "end": 13, "entity": "Q1"}, {"start": 16, "end": 28, "entity": "Q1"},
        {"start": 31, "end": 43, "entity": "Q1"}, {"start": 16, "end": 28, "entity": "Q3"}]},
    {"text": "nothing known", "mentions": [{"start": 0, "end": 7, "entity": "Q99"}]},
    {"text": "no mentions", "mentions": []},
]  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    root = tmp_path / "codex"
    for split, text in TRIPLES.items():
        path = root / "triples" / "codex-s" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    types = {"Q1": ["Q5", "Q6", "Q5"], "Q2": [], "Q77": ["Q5"], "Q3": ["Q7", "Q8"]}
    write_json(root / "types" / "entity2types.json", types)
    names = {i: {"label": n, "description": "", "wiki": ""}
             for i, n in {"Q5": "human", "Q6": "writer", "Q7": ""}.items()}  # fmt: skip
    write_json(root / "types" / "en" / "types.json", names)
    relations = {"P1": {"label": "lives in", "description": ""}, "P9": {"label": "unused"}}
    write_json(root / "relations" / "en" / "relations.json", relations)
    return root


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def test_what_is_not_of_the_graph_is_counted(release: Path, tmp_path: Path) -> None:
    names = {"Q1": {"label": "Ada"}, "Q77": {"label": "Bob"}}
    write_json(release / "entities" / "en" / "entities.json", names)
    (release / "extracts").mkdir()
    _, report = CodexImporter().run(release, tmp_path / "kb", [("size", "s")])
    counts = {kind: (report.read[kind], report.kept[kind]) for kind in report.read}
    assert counts == {"triples": (4, 4), "names": (2, 1), "types": (4, 3), "relations": (2, 1)}
    assert report.dropped == {
        "names": {"entity without a triple": 1},
        "types": {"entity without a triple": 1},
        "relations": {"relation without a triple": 1},
    }
    assert report.notes == ["not read: extracts"]


def test_release(release: Path, tmp_path: Path) -> None:
    bundle, report = CodexImporter().run(release, tmp_path / "kb", [("size", "s")])
    assert bundle.card["name"] == "codex-s"
    assert "train, valid and test" in bundle.card["splits"]
    assert bundle.card["counts"] == {
        "entities": 4, "relations": 2, "triples": 4, "sentences": 0, "types": 4,
        "train_triples": 2, "valid_triples": 1, "test_triples": 1,
    }  # fmt: skip
    assert {figure["mrr"] for figure in bundle.card["published"]} == {0.354, 0.465}
    assert dict(bundle.relations) == {"P1": "lives in", "P2": "P2"}
    q1, q2, q3 = (bundle.entity(int(row)) for row in bundle.rows(["Q1", "Q2", "Q3"]))
    assert q1.types == ("human", "writer")
    assert q2.types == ()
    assert q3.types == ("Q7", "Q8")  # a type without a name goes by its id
    assert q1.label == ""
    assert report.kept["triples"] == report.read["triples"] == 4
    assert str(release) not in json.dumps(bundle.card)


def test_sentences_give_names_and_corpus(release: Path, tmp_path: Path) -> None:
    given = [("size", "s"), ("sentences", lines(tmp_path / "wiki.jsonl", SENTENCES))]
    bundle, report = CodexImporter().run(release, tmp_path / "kb", given)
    q1 = bundle.entity(int(bundle.rows(["Q1"])[0]))
    assert (q1.label, q1.aliases) == ("ada lovelace", ("countess ada",))
    assert [s.text for s in bundle.sentences] == [s["text"] for s in SENTENCES[:2]]
    assert [m.entity for m in bundle.sentences[0].mentions] == ["Q1", "Q99"]
    assert report.dropped["sentences"] == {"no entity of the bundle": 2}
    assert report.facts["mentions of entities of the bundle"] == 5
    assert report.facts["entities with a label"] == 2


def test_a_word_that_is_seldom_linked_where_it_stands_is_no_name(
    release: Path, tmp_path: Path
) -> None:
    ada = {"start": 4, "end": 7, "entity": "Q1"}
    slip = {"text": "The ada ; the and the", "mentions": [ada, {**ada, "start": 0, "end": 3}]}
    plain = {"text": "the ada of the sea", "mentions": [ada]}
    given = [("size", "s"), ("sentences", lines(tmp_path / "wiki.jsonl", [slip] + [plain] * 4))]
    bundle, report = CodexImporter().run(release, tmp_path / "kb", given)
    ada_lovelace = bundle.entity(int(bundle.rows(["Q1"])[0]))
    assert ada_lovelace.names == ("ada",)  # "the" is linked once in eleven places
    assert report.notes[0] == "words seldom linked where they stand, which are no names: the"
    assert len(bundle.sentences[0].mentions) == 2  # what was linked stays in the corpus


def test_a_word_within_a_longer_mention_is_not_counted(release: Path, tmp_path: Path) -> None:
    inner = {"start": 0, "end": 3, "entity": "Q1"}
    outer = {"start": 0, "end": 7, "entity": "Q2"}
    rows = [{"text": "Ada", "mentions": [inner]}]
    rows += [{"text": "Ada sea", "mentions": [outer]}] * 20
    given = [("size", "s"), ("sentences", lines(tmp_path / "wiki.jsonl", rows))]
    bundle, _ = CodexImporter().run(release, tmp_path / "kb", given)
    assert bundle.entity(int(bundle.rows(["Q1"])[0])).label == "Ada"


def test_names_of_the_release_and_given_labels_come_first(release: Path, tmp_path: Path) -> None:
    about = {"Q1": {"label": "Ada  King", "description": "first programmer", "wiki": ""},
             "Q3": {"label": "half \ud83d pair", "description": None}}  # fmt: skip
    write_json(release / "entities" / "en" / "entities.json", about)
    labels = lines(tmp_path / "labels.tsv", ["Q2\tLondon", "Q99\tnobody", "Q2\tParis", "no tab"])
    sentences = lines(tmp_path / "wiki.jsonl", SENTENCES)
    given = [("size", "s"), ("sentences", sentences), ("labels", labels)]
    bundle, report = CodexImporter().run(release, tmp_path / "kb", given)
    q1, q2, q3 = (bundle.entity(int(row)) for row in bundle.rows(["Q1", "Q2", "Q3"]))
    assert q1.label == "Ada King"
    assert q1.aliases == ("ada lovelace", "countess ada")
    assert q1.description == "first programmer"
    assert q2.label == "London"
    assert q3.label == "half pair"
    assert report.dropped["labels"] == {
        "entity not in the bundle": 1, "id seen before": 1, "malformed": 1,
    }  # fmt: skip


BAD_SENTENCES = [
    "not json",
    "[1, 2]",
    "[" * 100_000,
    {"text": 5, "mentions": []},
    {"text": "no mentions"},
    {"text": "ada", "mentions": [{"start": 0, "end": 4, "entity": "Q1"}]},
    {"text": "ada", "mentions": [{"start": 2, "end": 2, "entity": "Q1"}]},
    {"text": "ada", "mentions": [{"start": True, "end": 2, "entity": "Q1"}]},
    {"text": "ada", "mentions": [{"start": 0, "end": 3, "entity": 1}]},
    {"text": "ada", "mentions": [{"start": 0, "end": 3, "entity": ""}]},
    {"text": "ada", "mentions": [{"start": 0, "end": 3, "entity": "Q1", "score": 1.5}]},
    '{"text": "ada", "mentions": [{"start": 0, "end": 3, "entity": "Q1", "score": NaN}]}',
    '{"text": "a\\ud800a", "mentions": [{"start": 0, "end": 3, "entity": "Q1"}]}',
    {"text": "ada", "mentions": ["Q1"]},
    '{"text": "a", "text": "ada", "mentions": []}',
]


@pytest.mark.parametrize("bad", BAD_SENTENCES, ids=range(len(BAD_SENTENCES)))
def test_malformed_sentences_are_counted(release: Path, tmp_path: Path, bad: Any) -> None:
    path = lines(tmp_path / "wiki.jsonl", [SENTENCES[0], bad])
    bundle, report = CodexImporter().run(
        release, tmp_path / "kb", [("size", "s"), ("sentences", path)]
    )
    assert len(bundle.sentences) == 1
    assert report.dropped["sentences"] == {"malformed": 1}
    assert report.examples[0].startswith(f"{path}, line 2: ")
    assert "\n" not in report.examples[0]


def test_malformed_triples_are_counted(release: Path, tmp_path: Path) -> None:
    path = release / "triples" / "codex-s" / "train.txt"
    path.write_text(TRIPLES["train"] + "Q1\tP1\nQ1\t\tQ2\nQ1\tP1\tQ2\n")
    bundle, report = CodexImporter().run(release, tmp_path / "kb", [("size", "s")])
    assert report.dropped["triples"] == {"malformed": 2, "seen before": 1}
    assert report.read["triples"] == report.kept["triples"] + 3
    assert bundle.card["counts"]["triples"] == 4
    assert bundle.card["import"]["rows"]["triples"]["dropped"]["malformed"] == 2


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("triples/codex-s/test.txt", None, "is missing"),
        ("triples/codex-s/train.txt", "Q1,P1,Q2\nQ3,P1,Q2\n", "line 1: has 1 fields"),
        ("types/entity2types.json", "{", "cannot be read"),
        ("types/entity2types.json", "[]", "is a JSON list"),
        ("types/entity2types.json", '{"Q1": "Q5"}', "list of type ids"),
        ("types/entity2types.json", '{"Q1": ["Q5"], "Q1": []}', "'Q1' occurs twice"),
        ("relations/en/relations.json", None, "is missing"),
        ("types/en/types.json", b"\xff", "cannot be read"),
    ],
)
def test_a_release_that_is_none(
    release: Path, tmp_path: Path, name: str, content: str | bytes | None, problem: str
) -> None:
    path = release / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=problem):
        CodexImporter().run(release, tmp_path / "kb", [("size", "s")])
    assert not (tmp_path / "kb").exists()


def test_no_triples_at_all(release: Path, tmp_path: Path) -> None:
    for split in TRIPLES:
        (release / "triples" / "codex-s" / f"{split}.txt").write_text("")
    with pytest.raises(DataError, match="no triple"):
        CodexImporter().run(release, tmp_path / "kb", [("size", "s")])


@pytest.mark.parametrize(
    ("size", "entities", "relations", "triples"),
    [("s", 2034, 42, 36543), ("m", 17050, 51, 206205)],
)
def test_real_release(
    test_data: Path, tmp_path: Path, size: str, entities: int, relations: int, triples: int
) -> None:
    given = [("size", size), ("sentences", str(test_data / "wiki-anchors" / "sentences.jsonl"))]
    bundle, report = CodexImporter().run(test_data / "codex", tmp_path / "kb", given)
    counts = bundle.card["counts"]
    assert (counts["entities"], counts["relations"], counts["triples"]) == (
        entities, relations, triples,
    )  # fmt: skip
    assert report.facts["entities with a type"] == entities
    assert report.read["sentences"] == 7605
    assert "malformed" not in report.dropped["sentences"]
    if size == "m":
        assert report.facts["entities with a label"] == 897
    bundle.verify()


def test_files_of_the_release_may_be_packed(release: Path, tmp_path: Path) -> None:
    plain, _ = CodexImporter().run(release, tmp_path / "plain", [("size", "s")])
    for path in [*release.rglob("*.json"), *release.rglob("*.txt")]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed, _ = CodexImporter().run(release, tmp_path / "packed", [("size", "s")])
    assert packed.digest == plain.digest


def test_what_is_not_read_and_what_is_not_there_is_noted(release: Path, tmp_path: Path) -> None:
    (release / "triples" / "codex-s" / "valid_negatives.txt").write_text("Q1\tP1\tQ3\n")
    _, report = CodexImporter().run(release, tmp_path / "kb", [("size", "s")])
    assert "not read: valid_negatives.txt" in report.notes
    assert any("names no entity" in note for note in report.notes)
    write_json(release / "entities" / "en" / "entities.json", {"Q1": {"label": "Ada"}})
    _, report = CodexImporter().run(release, tmp_path / "named", [("size", "s")])
    assert not any("names no entity" in note for note in report.notes)
