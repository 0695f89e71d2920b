from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kbench.errors import DataError
from kbench.knowledge.importing import Report
from kbench_tasks.knowledge.wikipedia2vec import Wikipedia2VecImporter

ROWS = [
    "the 0.5 -1.0 2.0",
    "ENTITY/Ada_Lovelace 1.0 2.0 3.0",
    "ada 4.0 5.0 6.0",
    "ENTITY/London 7.0 8.0 9.0",
    "日本 -1.0 -2.0 -3.0",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    write(folder, ROWS)
    return folder


def write(folder: Path, rows: list[str | bytes], header: str | None = None) -> None:
    lines = [row if isinstance(row, bytes) else row.encode() for row in rows]
    first = f"{len(rows)} 3" if header is None else header
    (folder / "enwiki.txt").write_bytes(b"\n".join([first.encode(), *lines]) + b"\n")


def dropped(report: Report) -> dict[str, int]:
    return dict(report.dropped.get("vectors", {}))


def test_words_and_entities(source: Path, tmp_path: Path) -> None:
    bundle, report = Wikipedia2VecImporter().run(source, tmp_path / "kb")
    rows = bundle.rows(["Ada Lovelace", "London", "the"])
    assert rows[-1] == -1
    np.testing.assert_array_equal(bundle.vectors(rows[:-1]), [[1, 2, 3], [7, 8, 9]])
    assert bundle.entity(int(rows[0])).label == "Ada Lovelace"
    assert bundle.words is not None
    assert list(bundle.words.words) == ["the", "ada", "日本"]
    np.testing.assert_array_equal(bundle.words.vectors, [[0.5, -1, 2], [4, 5, 6], [-1, -2, -3]])
    assert bundle.card["vectors"] == {
        "format": "wikipedia2vec", "file": "enwiki.txt", "dimension": 3, "entities": 2, "words": 3,
    }  # fmt: skip
    assert bundle.name == "enwiki"
    assert report.facts == {"entities": 2, "words": 3}
    assert report.kept["vectors"] == report.read["vectors"] == 5
    bundle.verify()


def test_packed_by_tabs_and_with_ids_and_sentences(source: Path, tmp_path: Path) -> None:
    text = "\n".join(["5 3", *(row.replace(" ", "\t") for row in ROWS)])
    (source / "enwiki.txt").unlink()
    (source / "enwiki.txt.gz").write_bytes(gzip.compress(text.encode()))
    ids = tmp_path / "ids.tsv"
    ids.write_text("Ada Lovelace\tQ7259\nAda_Lovelace\tQ1\nNobody\tQ2\nLondon\tQ7259\nbad\n")
    sentences = tmp_path / "wiki.jsonl"
    mentions = [{"start": 0, "end": 3, "entity": "Q7259"}]
    sentences.write_text(json.dumps({"text": "Ada wrote", "mentions": mentions}))
    bundle, report = Wikipedia2VecImporter().run(
        source, tmp_path / "kb", [("ids", str(ids)), ("sentences", str(sentences))]
    )
    assert bundle.name == "enwiki"
    rows = bundle.rows(["Q7259", "London", "Ada Lovelace"])
    assert rows[-1] == -1
    ada = bundle.entity(int(rows[0]))
    assert (ada.label, ada.aliases) == ("Ada Lovelace", ("Ada",))
    np.testing.assert_array_equal(bundle.vectors(rows[:1]), [[1, 2, 3]])
    assert report.as_json()["rows"]["ids"] == {
        "read": 5, "kept": 1, "dropped": {
            "title without a vector or seen before": 2, "id seen before": 1, "malformed": 1},
    }  # fmt: skip


def test_underscores_at_the_ends_belong_to_the_title(source: Path, tmp_path: Path) -> None:
    rows = ["ENTITY/_India 9 9 9", "ENTITY/May_ 8 8 8", "ENTITY/India 1 2 3", "ENTITY/May 3 4 5",
            "ENTITY/__init__ 7 7 7", "ENTITY/_ 6 6 6"]  # fmt: skip
    write(source, rows)
    bundle, report = Wikipedia2VecImporter().run(source, tmp_path / "kb")
    names = ["India", "_India", "May", "May_", "__init__", "_"]
    vectors = [[1, 2, 3], [9, 9, 9], [3, 4, 5], [8, 8, 8], [7, 7, 7], [6, 6, 6]]
    np.testing.assert_array_equal(bundle.vectors(bundle.rows(names)), vectors)
    assert [bundle.entity(int(row)).label for row in bundle.rows(names)] == names
    assert (dropped(report), report.notes) == ({}, [])


@pytest.mark.parametrize("first", ["New_York", "New York"])
def test_of_two_rows_with_one_title_that_with_blanks_counts(
    source: Path, tmp_path: Path, first: str
) -> None:
    vector = {"New_York": "9\t9\t9", "New York": "1\t2\t3"}
    second = next(title for title in vector if title != first)
    rows = [f"ENTITY/{title}\t{vector[title]}" for title in (first, second)]
    write(source, [*rows, "ENTITY/London\t4\t5\t6"])
    bundle, report = Wikipedia2VecImporter().run(source, tmp_path / "kb")
    assert len(bundle) == report.kept["vectors"] == 2
    np.testing.assert_array_equal(
        bundle.vectors(bundle.rows(["New York", "London"])), [[1, 2, 3], [4, 5, 6]]
    )
    assert dropped(report) == {"title that another row spells with blanks": 1}
    assert report.notes == ["several rows spell the title 'New York'; the one with blanks counts"]


def test_ids_of_titles_with_blanks_at_the_ends(source: Path, tmp_path: Path) -> None:
    write(source, ["ENTITY/_India 9 9 9", "ENTITY/India 1 2 3"])
    ids = tmp_path / "ids.tsv"
    ids.write_text(" India\tQ1\nIndia\tQ668\n")
    bundle, _ = Wikipedia2VecImporter().run(source, tmp_path / "kb", [("ids", str(ids))])
    np.testing.assert_array_equal(
        bundle.vectors(bundle.rows(["Q1", "Q668"])), [[9, 9, 9], [1, 2, 3]]
    )


def test_a_title_that_is_the_id_of_another(source: Path, tmp_path: Path) -> None:
    write(source, [*ROWS, "ENTITY/Q84 1 1 1"])
    (tmp_path / "ids.tsv").write_text("London\tQ84\n")
    bundle, report = Wikipedia2VecImporter().run(
        source, tmp_path / "kb", [("ids", str(tmp_path / "ids.tsv"))]
    )
    assert len(bundle) == 2
    assert bundle.entity(int(bundle.rows(["Q84"])[0])).label == "London"
    assert report.dropped["entities"] == {"title is the id of another": 1}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("rust 1 2", "has 2 numbers where 3 belong"),
        ("rust 1 2 3 4", "has 4 numbers where 3 belong"),
        ("rust", "has 0 numbers where 3 belong"),
        ("ENTITY/Rust 1 x 3", "has b'x' where a number belongs"),
        ("ENTITY/ 1 2 3", "has an empty title"),
        (" 1 2 3", "has an empty token"),
        ("two words 1 2 3", "has 4 numbers where 3 belong"),
        ("a\0 1 2 3", "has a NUL character in its token"),
        (b"caf\xe9 1 2 3", "is not UTF-8"),
    ],
)
def test_malformed_rows_are_counted(
    source: Path, tmp_path: Path, bad: str | bytes, problem: str
) -> None:
    write(source, [*ROWS[:2], bad, *ROWS[2:]])
    bundle, report = Wikipedia2VecImporter().run(source, tmp_path / "kb")
    assert (len(bundle), report.facts["words"]) == (2, 3)
    assert dropped(report) == {"malformed": 1}
    [shown] = report.examples
    assert shown == f"{source / 'enwiki.txt'}, line 4: {problem}; the vectors row is left out"


def test_what_is_not_finite_and_what_comes_twice(source: Path, tmp_path: Path) -> None:
    more = ["ENTITY/Rust nan 1 2", "rust 1 inf 2", "the 9 9 9", "ENTITY/Ada_Lovelace 9 9 9",
            "ENTITY/Ada_Lovelace nan 9 9"]  # fmt: skip
    write(source, [*ROWS, *more])
    bundle, report = Wikipedia2VecImporter().run(source, tmp_path / "kb")
    rows = bundle.rows(["Ada Lovelace", "London", "Rust"])
    assert bundle.has_vector(rows).tolist() == [True, True, False]
    np.testing.assert_array_equal(bundle.vectors(rows[:1]), [[1, 2, 3]])
    assert dropped(report) == {"NaN or infinite": 3, "seen before": 2}
    assert report.facts["words"] == 3
    assert report.read["vectors"] == report.kept["vectors"] + 5


def test_entities_alone(source: Path, tmp_path: Path) -> None:
    write(source, [row for row in ROWS if row.startswith("ENTITY/")])
    bundle, _ = Wikipedia2VecImporter().run(source, tmp_path / "kb")
    assert bundle.words is None
    assert len(bundle) == 2


def test_words_alone_are_no_knowledge_base(source: Path, tmp_path: Path) -> None:
    write(source, ["the 1 2 3", "ada 4 5 6"])
    with pytest.raises(DataError, match=r"holds words alone.*ENTITY/Title"):
        Wikipedia2VecImporter().run(source, tmp_path / "kb")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("6 3", "line 1: holds 5 rows and states 6"),
        ("4 3", "line 1: holds 5 rows and states 4"),
        ("5 4", r"line 2: has 3 numbers where 4 belong \(5 of 5 rows\)"),
        ("5 0", "line 1: states the dimension 0"),
        ("5", "line 1: begins with b'5'"),
        ("the 0.5 -1.0 2.0", "line 1: begins with b'the 0.5"),
        ("", "line 1: begins with b''"),
    ],
)
def test_headers_that_are_wrong(source: Path, tmp_path: Path, header: str, problem: str) -> None:
    write(source, ROWS, header)
    with pytest.raises(DataError, match=problem):
        Wikipedia2VecImporter().run(source, tmp_path / "kb")
    assert not (tmp_path / "kb").exists()


def test_which_file(source: Path, tmp_path: Path) -> None:
    (source / "other.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"holds 2 text files \(there: enwiki\.txt, other\.txt\)"):
        Wikipedia2VecImporter().run(source, tmp_path / "kb")
    given = [("vectors", "enwiki.txt")]
    assert len(Wikipedia2VecImporter().run(source, tmp_path / "kb", given)[0]) == 2
    with pytest.raises(DataError, match=r"none\.txt: is missing"):
        Wikipedia2VecImporter().run(source, tmp_path / "kb2", [("vectors", "none.txt")])
    for name in ("enwiki.txt", "other.txt"):
        (source / name).rename(source / f"{name}.zst")
    told = r"holds 0 text files \(there: enwiki\.txt\.zst, .*packed \(\.gz, \.bz2, \.xz\)"
    with pytest.raises(DataError, match=told):
        Wikipedia2VecImporter().run(source, tmp_path / "kb2")


def test_a_damaged_archive(source: Path, tmp_path: Path) -> None:
    packed = gzip.compress(("5 3\n" + "\n".join(ROWS)).encode())
    (source / "enwiki.txt").unlink()
    for content in (packed[:-12], b"no archive", packed[:20] + b"?" + packed[21:]):
        (source / "enwiki.txt.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"enwiki\.txt\.gz: cannot be read"):
            Wikipedia2VecImporter().run(source, tmp_path / "kb")


@pytest.mark.parametrize(("ending", "pack"), [("bz2", bz2.compress), ("xz", lzma.compress)])
def test_as_it_is_published(
    source: Path, tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]
) -> None:
    whole, _ = Wikipedia2VecImporter().run(source, tmp_path / "whole")
    text = source / "enwiki.txt"
    (source / f"enwiki.txt.{ending}").write_bytes(pack(text.read_bytes()))
    text.unlink()
    bundle, _ = Wikipedia2VecImporter().run(source, tmp_path / "kb")
    assert (bundle.digest, bundle.name) == (whole.digest, "enwiki")
