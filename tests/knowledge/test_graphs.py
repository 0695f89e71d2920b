from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from kbench.errors import DataError
from kbench.knowledge import Bundle, Entity
from kbench.knowledge.importing import Importer, Report
from kbench_tasks.knowledge.tsv import TsvImporter
from kbench_tasks.knowledge.wikidata5m import Wikidata5MImporter

TSV = {
    "triples.tsv": "Q1\tP1\tQ2\nQ3\tP1\tQ2\nQ1\tP2\tQ3\nQ1\tP1\tQ2\n",
    "labels.tsv": "Q1\tAda  Lovelace\tCountess\tADA LOVELACE\t\tEnchantress\nQ2\tLondon\n"
    "Q9\tAlone\n",
    "descriptions.tsv": "Q1\tfirst programmer,\tit is said\nQ8\tnamed nowhere\n",
    "types.tsv": "Q1\thuman\twriter\nQ2\tcity\nQ1\thuman\tcountess\n",
    "relations.tsv": "P1\tlives in\tresides in\nP9\tunused\n",
}
W5M = {
    "wikidata5m_transductive_train.txt": "Q1\tP1\tQ2\nQ3\tP1\tQ2\n",
    "wikidata5m_transductive_valid.txt": "Q1\tP2\tQ3\n",
    "wikidata5m_transductive_test.txt": "Q4\tP2\tQ1\n",
    "wikidata5m_entity.txt": "Q1\tAda Lovelace\tCountess of Lovelace\nQ2\tlondon\tLondon\n",
    "wikidata5m_relation.txt": "P1\tresidence\tlives in\nP2\tknows\nP3\tnothing\n",
    "wikidata5m_text.txt": "Q1\tAda was a mathematician.\nQ2\tLondon is a city.\n",
}


def lay(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return lay(tmp_path / "world", TSV)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return lay(tmp_path / "wikidata5m", W5M)


def entity(bundle: Bundle, name: str) -> Entity:
    row = int(bundle.rows([name])[0])
    assert row >= 0
    return bundle.entity(row)


def facts(bundle: Bundle) -> list[tuple[str, str, str]]:
    names = list(bundle.relations)
    return [
        (bundle.entity(head).id, names[relation], bundle.entity(tail).id)
        for head, relation, tail in bundle.triples.tolist()
    ]


def test_triples_and_what_is_beside_them(plain: Path, tmp_path: Path) -> None:
    bundle, report = TsvImporter().run(plain, tmp_path / "kb")
    assert report.facts["other names of relations, not kept"] == 1
    assert entity(bundle, "Q1") == Entity(
        "Q1",
        "Ada Lovelace",
        ("Countess", "Enchantress"),
        ("human", "writer", "countess"),
        "first programmer,\tit is said",
    )
    assert entity(bundle, "Q3") == Entity("Q3")
    assert entity(bundle, "Q9") == Entity("Q9", "Alone")
    assert entity(bundle, "Q8").description == "named nowhere"
    assert facts(bundle) == [("Q1", "P1", "Q2"), ("Q1", "P2", "Q3"), ("Q3", "P1", "Q2")]
    assert dict(bundle.relations) == {"P1": "lives in", "P2": "P2"}
    assert bundle.card["import"]["rows"] == {
        "triples": {"read": 4, "kept": 3, "dropped": {"seen before": 1}},
        "relations": {"read": 2, "kept": 1, "dropped": {"relation without a triple": 1}},
        "names": {"read": 3, "kept": 3, "dropped": {}},
        "texts": {"read": 2, "kept": 2, "dropped": {}},
        "types": {"read": 3, "kept": 3, "dropped": {}},
    }
    assert report.facts["entities"] == len(bundle) == 5
    assert (bundle.name, bundle.card["version"]) == ("world", "1")
    assert bundle.card["import"]["files"] == [*TSV]
    bundle.verify()


def test_triples_alone_and_by_other_names(plain: Path, tmp_path: Path) -> None:
    for name in TSV:
        if name != "triples.tsv":
            (plain / name).unlink()
    (plain / "triples.tsv").rename(plain / "train.tsv")
    (plain / "more.tsv.gz").write_bytes(gzip.compress(b"Q7\tP7\tQ1\n"))
    given = [("triples", "train.tsv"), ("triples", "more.tsv"), ("name", "mine"),
             ("licence", "CC0-1.0")]  # fmt: skip
    bundle, _ = TsvImporter().run(plain, tmp_path / "kb", given)
    assert ("Q7", "P7", "Q1") in facts(bundle)
    assert (len(bundle), bundle.name, bundle.card["licence"]) == (4, "mine", "CC0-1.0")
    assert bundle.card["import"]["files"] == ["train.tsv", "more.tsv.gz"]


def test_sentences(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "wiki.jsonl"
    mentions = [{"start": 0, "end": 3, "entity": "Q3"}, {"start": 8, "end": 13, "entity": "Q9"}]
    path.write_text(json.dumps({"text": "byron , alone", "mentions": mentions}))
    bundle, _ = TsvImporter().run(plain, tmp_path / "kb", [("sentences", str(path))])
    assert len(bundle.sentences) == 1
    assert entity(bundle, "Q3").label == "byr"
    assert entity(bundle, "Q9").label == "Alone"


def dropped(report: Report) -> dict[str, dict[str, int]]:
    return {kind: dict(counts) for kind, counts in report.dropped.items()}


def test_duplicates_are_counted(plain: Path, tmp_path: Path) -> None:
    for name, text in {
        "labels.tsv": "Q7\tother\nQ7\tagain\nQ1\tcountess\n",
        "descriptions.tsv": "Q7\tone\nQ7\ttwo\n",
        "relations.tsv": "P1\tone\nP1\ttwo\n",
    }.items():
        (plain / name).write_text(text)
    bundle, report = TsvImporter().run(plain, tmp_path / "kb")
    assert dropped(report) == {
        "triples": {"seen before": 1},
        "names": {"id seen before": 1},
        "texts": {"id seen before": 1},
        "relations": {"id seen before": 1},
    }
    assert entity(bundle, "Q7") == Entity("Q7", "other", description="one")
    assert bundle.relations["P1"] == "one"


def test_an_id_with_blanks_around_it_never_goes_before_the_exact_one(
    plain: Path, tmp_path: Path
) -> None:
    (plain / "labels.tsv").write_text(" Q1\tOther\nQ1\tAda\nQ2 \tLondon\n")
    (plain / "descriptions.tsv").write_text("Q1 \tother\nQ1\tfirst programmer\n")
    (plain / "relations.tsv").write_text(" P1\tother\nP1\tlives in\n")
    bundle, report = TsvImporter().run(plain, tmp_path / "kb")
    assert (entity(bundle, "Q1").label, entity(bundle, "Q2").label) == ("Ada", "London")
    assert entity(bundle, "Q1").description == "first programmer"
    assert bundle.relations["P1"] == "lives in"
    assert report.facts["names with blanks around the id"] == 2
    assert report.dropped["names"] == {"id seen before": 1}


@pytest.mark.parametrize(
    ("name", "bad", "problem"),
    [
        ("triples.tsv", b"Q1\tP1", "has 2 fields where head relation tail belong"),
        ("triples.tsv", b"Q1\tP1\tQ2\tQ3", "has 4 fields where head relation tail belong"),
        ("triples.tsv", b"Q1\t\tQ2", "has an empty relation"),
        ("triples.tsv", b"Q1\tP\xff\tQ2", "is not UTF-8"),
        ("labels.tsv", b"Q5", "has 1 fields where id and a name belong"),
        ("labels.tsv", b"Q5\t \t", "has 1 fields where id and a name belong"),
        ("labels.tsv", b"\tname", "has an empty id"),
        ("labels.tsv", b"Q5\ta\0b", "has a NUL character in its name"),
        ("labels.tsv", b"Q5\t\xe9", "is not UTF-8"),
        ("descriptions.tsv", b"Q5", "has 1 fields where id text belong"),
        ("descriptions.tsv", b"Q5\t ", "has an empty text"),
        ("types.tsv", b"Q5", "has 1 fields where id and a name belong"),
        ("relations.tsv", b"P5\t", "has 1 fields where id and a name belong"),
    ],
)
def test_malformed_rows_are_counted(
    plain: Path, tmp_path: Path, name: str, bad: bytes, problem: str
) -> None:
    path = plain / name
    before = path.read_bytes()
    path.write_bytes(before + bad + b"\n")
    bundle, report = TsvImporter().run(plain, tmp_path / "kb")
    line = before.count(b"\n") + 1
    [shown] = report.examples
    assert shown.startswith(f"{path}, line {line}: {problem}; the ")
    assert sum(counts.get("malformed", 0) for counts in dropped(report).values()) == 1
    assert bundle.rows(["Q5"]).tolist() == [-1]


@pytest.mark.parametrize(
    ("importer", "text", "problem"),
    [
        (TsvImporter, None, "is missing"),
        (TsvImporter, "", "holds no triple"),
        (TsvImporter, "Q1,P1,Q2\n", "line 1: has 1 fields"),
    ],
)
def test_no_triples(plain: Path, tmp_path: Path, importer: type[Importer], text: str | None,
                    problem: str) -> None:  # fmt: skip
    path = plain / "triples.tsv"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=rf"triples\.tsv.*{problem}"):
        importer().run(plain, tmp_path / "kb")
    assert not (tmp_path / "kb").exists()


def test_wikidata5m(release: Path, tmp_path: Path) -> None:
    bundle, report = Wikidata5MImporter().run(release, tmp_path / "kb")
    assert entity(bundle, "Q1") == Entity(
        "Q1", "Ada Lovelace", ("Countess of Lovelace",), (), "Ada was a mathematician."
    )
    assert entity(bundle, "Q2").label == "London"
    assert dict(bundle.relations) == {"P1": "residence", "P2": "knows"}
    assert len(facts(bundle)) == report.kept["triples"] == 4
    assert bundle.card["import"]["files"] == [*list(W5M)[:4], "wikidata5m_text.txt",
                                              "wikidata5m_relation.txt"]  # fmt: skip
    assert bundle.name == "wikidata5m"


def test_a_split_can_be_held_out(release: Path, tmp_path: Path) -> None:
    given = [("triples", f"wikidata5m_transductive_{split}.txt") for split in ("train", "valid")]
    bundle, _ = Wikidata5MImporter().run(release, tmp_path / "kb", given)
    assert ("Q4", "P2", "Q1") not in facts(bundle)
    assert bundle.rows(["Q4"]).tolist() == [-1]
    assert len(facts(bundle)) == 3


def test_the_file_of_all_triples(release: Path, tmp_path: Path) -> None:
    (release / "wikidata5m_all_triplet.txt").write_text("Q5\tP1\tQ1\n")
    assert len(facts(Wikidata5MImporter().run(release, tmp_path / "splits")[0])) == 4
    for name in list(W5M)[:3]:
        (release / name).unlink()
    bundle, _ = Wikidata5MImporter().run(release, tmp_path / "all")
    assert facts(bundle) == [("Q5", "P1", "Q1")]
    assert entity(bundle, "Q2").label == "London"


def test_labels_of_names_without_order(release: Path, tmp_path: Path) -> None:
    names = {
        "Q1": ["annie", "the 5th mayor of acme", "Mayor of the Town of Acme", "Ann Mary Lee"],
        "Q2": ["big smoke", "london", "London", "London Town"],
        "Q3": ["US", "USA", "United States"],
        "Q4": ["iron", "fe"],
        "Q5": ["Ann", "Anna"],
        "Q7": ["jack", "Member of Parliament for Acme", "John Bull", "---"],
        "Q6": ["Zo\u00eb", "Zoe Long Name"],
    }
    (release / "wikidata5m_entity.txt").write_text(
        "".join("\t".join([name, *names[name]]) + "\n" for name in names)
    )
    (release / "wikidata5m_text.txt").write_text(
        "Q1\tAnn Mary Lee (born 1950) is a mayor.\nQ2\tLondon is a city.\n"
        "Q3\tThe united states is a country.\nQ5\tAnna is a name.\nQ6\tZoe\u0308 lived.\n"
        "Q7\tJohn M. Bull is a man.\n"
    )
    bundle, report = Wikidata5MImporter().run(release, tmp_path / "kb")
    labels = {name: entity(bundle, name).label for name in names}
    assert labels == {"Q1": "Ann Mary Lee", "Q2": "London", "Q3": "United States", "Q4": "iron",
                      "Q5": "Anna", "Q6": "Zo\u00eb", "Q7": "John Bull"}  # fmt: skip
    for name, given in names.items():
        found = entity(bundle, name)
        kept = {name.casefold() for name in (found.label, *found.aliases)}
        assert kept == {name.casefold() for name in given}
    facts = {rule: count for rule, count in report.facts.items() if rule.startswith("labels")}
    assert facts == {"labels that the text begins with": 5, "labels that are the first name": 1,
                     "labels whose first words begin the text": 1,
                     "labels that are the longest capitalised name": 0}  # fmt: skip


def test_packed_files(release: Path, tmp_path: Path) -> None:
    whole, _ = Wikidata5MImporter().run(release, tmp_path / "whole")
    for name, text in W5M.items():
        (release / name).unlink()
        (release / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    packed, _ = Wikidata5MImporter().run(release, tmp_path / "packed")
    assert packed.digest == whole.digest


def test_a_split_that_is_missing(release: Path, tmp_path: Path) -> None:
    (release / "wikidata5m_transductive_valid.txt").unlink()
    with pytest.raises(DataError, match=r"transductive_valid\.txt: is missing"):
        Wikidata5MImporter().run(release, tmp_path / "kb")
