from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from kbench.data import Split
from kbench.errors import DataError
from kbench.knowledge import Bundle
from kbench.knowledge.leakage import leakage
from kbench_tasks.knowledge.metaqa import MetaQAImporter
from kbench_tasks.metaqa import MetaQA

RELEASE = """\
The Red Kite|directed_by|Ada Roe
The Red Kite|written_by|Ben Oak
The Red Kite|starred_actors|Ada Roe
The Red Kite|release_year|1984
The Red Kite|release_year|1999
War|has_genre|Drama
War|in_language|Danish
The Red Kite|has_genre|War
The Red Kite|has_tags|war
1984|has_imdb_votes|famous
1984|has_imdb_rating|good
"""
RELATIONS = (
    "directed by", "written by", "starred actors", "release year", "in language", "has tags",
    "has genre", "has imdb votes", "has imdb rating",
)  # fmt: skip


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "1-hop").mkdir(parents=True)
    (folder / "kb.txt").write_text(RELEASE)
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """The same graph by numbers, in three files."""
    folder = tmp_path / "flat"
    folder.mkdir()
    triples = [line.split("|") for line in RELEASE.splitlines()]
    names = list(dict.fromkeys(name for head, _, tail in triples for name in (head, tail)))
    # The line counts: the third has the number of the first.
    stated = [0 if n == 2 else n for n in range(len(names))]
    write(folder / "entity2text.txt", zip(stated, names, strict=True))
    write(folder / "relation2text.txt", enumerate(RELATIONS))
    rows = [
        (names.index(head), RELATIONS.index(relation.replace("_", " ")), names.index(tail))
        for head, relation, tail in triples
    ]
    for name, part in {"train": rows[:8], "dev": rows[7:10], "test_old": rows[9:]}.items():
        write(folder / f"{name}.tsv", part)
    return folder


def write(path: Path, rows: object) -> None:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))  # type: ignore[attr-defined]


def types(bundle: Bundle, name: str) -> set[str]:
    return {*bundle.entity(int(bundle.rows([name])[0])).types}


def test_the_release(release: Path, tmp_path: Path) -> None:
    bundle, report = MetaQAImporter().run(release, tmp_path / "kb")
    assert bundle.card["name"] == "metaqa"
    assert (len(bundle), len(bundle.triples)) == (11, 11)
    assert dict(bundle.relations)["starred_actors"] == "starred actors"
    assert types(bundle, "The Red Kite") == {"film"}
    assert types(bundle, "Ada Roe") == {"person", "director", "actor"}
    assert types(bundle, "Ben Oak") == {"person", "writer"}
    # What is spelled alike is one, and has the types of both; case tells apart.
    assert types(bundle, "War") == {"film", "genre"}
    assert types(bundle, "1984") == {"film", "year"}
    assert types(bundle, "war") == {"tag"}
    assert types(bundle, "Danish") == {"language"}
    assert types(bundle, "famous") == {"votes"}
    assert types(bundle, "good") == {"rating"}
    row = int(bundle.rows(["War"])[0])
    assert bundle.entity(row).name == "War"
    assert bundle.describe(row) == "War has genre Drama; in language Danish."
    assert report.facts == {
        "entities": 11,
        "entities with a type": 11,
        "entities without a triple": 0,
        "films of several release years": 1,
        "entities of several kinds": 2,
        "names that another has but for case": 2,
    }
    assert report.notes == ["not read: 1-hop"]


def test_the_numbered_layout_gives_the_same(flat: Path, release: Path, tmp_path: Path) -> None:
    whole, _ = MetaQAImporter().run(release, tmp_path / "whole")
    bundle, report = MetaQAImporter().run(flat, tmp_path / "kb")
    assert bundle.digest == whole.digest
    assert report.dropped == {"triples": {"seen before": 2}}
    assert report.kept == {"names": 11, "relations": 9, "triples": 11}
    assert report.facts["names with the number of another line, read by line"] == 1


def test_names_without_a_triple_and_names_twice(flat: Path, tmp_path: Path) -> None:
    with (flat / "entity2text.txt").open("a") as file:
        file.write("11\tNobody\n12\tWar\n")
    (flat / "relation2text.txt").write_text("".join(f"{n}\t{r}\n" for n, r in enumerate(RELATIONS)))
    with (flat / "relation2text.txt").open("a") as file:
        file.write("9\tfilmed in\n10\tshot by\n")
    with (flat / "dev.tsv").open("a") as file:
        file.write("12\t10\t1\n")
    bundle, report = MetaQAImporter().run(flat, tmp_path / "kb")
    assert len(bundle) == 12
    assert types(bundle, "Nobody") == set()
    # The fact of the second War is one of the first.
    assert ("shot by", "Ada Roe") in bundle.facts(int(bundle.rows(["War"])[0]))
    assert report.facts["entities without a triple"] == 1
    assert report.facts["names that another line has too, joined"] == 1
    assert report.dropped["relations"] == {"relation without a triple": 1}
    assert "relations that give no types: shot_by" in report.notes


def test_other_triples_may_be_named_and_files_packed(flat: Path, tmp_path: Path) -> None:
    names = flat / "entity2text.txt"
    names.with_name("entity2text.txt.gz").write_bytes(gzip.compress(names.read_bytes()))
    names.unlink()
    bundle, report = MetaQAImporter().run(flat, tmp_path / "kb", [("triples", "dev.tsv")])
    assert len(bundle.triples) == 3
    assert len(bundle) == 11
    assert report.notes == ["not read: test_old.tsv, train.tsv"]
    assert bundle.card["import"]["files"] == ["dev.tsv", "entity2text.txt.gz", "relation2text.txt"]


def test_malformed_rows_are_counted(flat: Path, tmp_path: Path) -> None:
    with (flat / "train.tsv").open("a") as file:
        file.write("0\t1\n0\tx\t1\n0\t1\t99\n0\t9\t1\n")
    _, report = MetaQAImporter().run(flat, tmp_path / "kb")
    assert report.dropped["triples"] == {"malformed": 4, "seen before": 2}
    told = [line.partition(": ")[2] for line in report.examples]
    assert told[1] == "has '0, x, 1' where three numbers belong; the triples row is left out"
    assert told[2].startswith("has 0, 1, 99, not all of them numbers of a name")


def test_the_graph_holds_the_very_facts_that_are_asked_for(release: Path, tmp_path: Path) -> None:
    asked = {
        "who directed [The Red Kite]\tAda Roe": "movie_to_director",
        "who wrote [The Red Kite]\tAda Roe": "movie_to_writer",  # joined, by another relation
        "what was [Ada Roe] in\tThe Red Kite": "actor_to_movie",
        "what is [war] in\tThe Red Kite": "tag_to_movie",
        "what was [Ben Oak] in\tWar": "actor_to_movie",
    }
    questions = tmp_path / "questions"
    questions.mkdir()
    for split in Split:
        (questions / f"1-hop-{split}.txt").write_text("\n".join(asked))
        (questions / f"1-hop-{split}-qtype.txt").write_text("\n".join(asked.values()))
    bundle, _ = MetaQAImporter().run(release, tmp_path / "kb")
    found = leakage(MetaQA(str(questions)).examples(Split.TEST), bundle)
    assert (found["test_pairs_known"], found["test_pairs_in_knowledge"]) == (5, 4)
    assert found["test_facts_in_knowledge"] == 3


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("kb.txt", "a\tb\tc\n", "line 1: has 1 fields where head relation tail belong"),
        ("kb.txt", "\n", "holds no triple"),
        ("kb.txt", None, "has neither kb.txt nor train.tsv; expected kb.txt"),
    ],
)
def test_a_release_that_is_none(
    release: Path, tmp_path: Path, name: str, content: str | None, problem: str
) -> None:
    (release / name).unlink()
    if content is not None:
        (release / name).write_text(content)
    with pytest.raises(DataError, match=problem):
        MetaQAImporter().run(release, tmp_path / "kb")
    assert not (tmp_path / "kb").exists()


def test_the_real_graph_and_what_is_asked_of_it(test_data: Path, tmp_path: Path) -> None:
    if not (test_data / "metaqa").is_dir():
        pytest.skip(f"no real data: {test_data / 'metaqa'} is absent (set KBENCH_TEST_DATA)")
    bundle, report = MetaQAImporter().run(test_data / "metaqa", tmp_path / "kb")
    counts = bundle.card["counts"]
    assert (counts["entities"], counts["relations"], counts["triples"]) == (43_234, 9, 128_185)
    assert report.dropped["triples"] == {"seen before": 6_556}
    assert report.facts["names with the number of another line, read by line"] == 1
    assert report.facts["entities without a triple"] == 516
    # Rows that repeat others stand where facts were lost: not every answer is there.
    test = MetaQA(str(test_data)).examples(Split.TEST)
    assert leakage(test, bundle) == {
        "test_pairs_known": 9_947,
        "test_pairs_in_knowledge": 9_756,
        "test_facts_in_knowledge": 9_683,
        "test_sentences_in_corpus": 0,
    }
