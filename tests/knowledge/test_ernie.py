from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kbench.errors import DataError
from kbench_tasks.knowledge.ernie import ErnieImporter

IDS = "4\nQ30\t2\nQ1\t0\nQ200\t3\nQ2 1\n"
MATRIX = np.array([[0.5, -1, 2e-3], [1, 2, 3], [4, 5, 6], [7, 8, 9.25]], dtype=np.float32)
ROWS = ["0.500000\t-1\t2e-3\t", "1\t2\t3", "4\t5\t6", "7\t8\t9.25\t"]


def write(folder: Path, rows: list[str | bytes], name: str = "entity2vec.vec") -> None:
    lines = [row if isinstance(row, bytes) else row.encode() for row in rows]
    (folder / name).write_bytes(b"\n".join(lines) + b"\n")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "kg_embed"
    folder.mkdir()
    (folder / "entity2id.txt").write_text(IDS)
    write(folder, [*ROWS])
    return folder


def test_release(release: Path, tmp_path: Path) -> None:
    (release / "entity_map.txt").write_text(
        "Ada Lovelace\tQ1\nLondon\tQ2\nADA LOVELACE\tQ1\nAda King\tQ1\nNobody\tQ99\nbad\n"
    )
    path = tmp_path / "wiki.jsonl"
    mentions = [{"start": 0, "end": 8, "entity": "Q1"}, {"start": 9, "end": 12, "entity": "Q30"}]
    path.write_text(json.dumps({"text": "countess ada", "mentions": mentions}))
    bundle, report = ErnieImporter().run(release, tmp_path / "kb", [("sentences", str(path))])
    rows = bundle.rows(["Q1", "Q2", "Q30", "Q200", "Q99"])
    assert rows[-1] == -1
    np.testing.assert_array_equal(bundle.vectors(rows[:-1]), MATRIX)
    q1 = bundle.entity(int(rows[0]))
    assert (q1.label, q1.aliases) == ("Ada Lovelace", ("Ada King", "countess"))
    assert bundle.entity(int(rows[2])).label == "ada"
    assert len(bundle.sentences) == 1
    assert report.dropped["titles"] == {"entity without a vector": 1, "malformed": 1}
    assert (bundle.name, bundle.card["vectors"]["file"]) == ("ernie", "entity2vec.vec")
    assert bundle.card["import"]["files"] == ["entity2vec.vec", "wiki.jsonl"]
    assert bundle.card["import"]["rows"]["titles"]["kept"] == 4
    assert report.kept["vectors"] == report.read["vectors"] == 4
    bundle.verify()
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"kb", "kg_embed"}


def test_rows_by_blanks_and_names_of_files(release: Path, tmp_path: Path) -> None:
    write(release, [row.strip().replace("\t", " ") for row in ROWS], "other.txt")
    given = [("vectors", "other.txt"), ("name", "kp"), ("licence", "MIT")]
    bundle, _ = ErnieImporter().run(release, tmp_path / "kb", given)
    np.testing.assert_array_equal(bundle.vectors(bundle.rows(["Q1", "Q2"])), MATRIX[:2])
    assert (bundle.name, bundle.card["licence"]) == ("kp", "MIT")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("1\t2", "has 2 numbers where 3 belong"),
        ("1\t2\t3\t4", "has 4 numbers where 3 belong"),
        ("1\t\t3", "has b'' where a number belongs"),
        ("1\ttwo\t3", "has b'two' where a number belongs"),
        ("1 2 3", "has 1 numbers where 3 belong"),
        (b"1\t\xff\t3", r"has b'\xff' where a number belongs"),
        (b"1\t2\0\t3", r"has b'2\x00' where a number belongs"),
        (b"1\t2\t3\r1\t2\t3", "has 5 numbers where 3 belong"),
        ('1\t"2"\t3', "has b'\"2\"' where a number belongs"),
    ],
)
def test_a_malformed_row_keeps_its_place(
    release: Path, tmp_path: Path, bad: str | bytes, problem: str
) -> None:
    write(release, [ROWS[0], bad, *ROWS[2:]])
    bundle, report = ErnieImporter().run(release, tmp_path / "kb")
    rows = bundle.rows(["Q1", "Q30", "Q200", "Q2"])
    assert bundle.has_vector(rows).tolist() == [True, True, True, False]
    np.testing.assert_array_equal(bundle.vectors(rows[:3]), MATRIX[[0, 2, 3]])
    assert report.as_json()["rows"]["vectors"] == {
        "read": 4, "kept": 3, "dropped": {"malformed": 1},
    }  # fmt: skip
    [shown] = report.examples
    assert shown.startswith(f"{release / 'entity2vec.vec'}, line 2: {problem}")


def test_no_number_is_no_vector(release: Path, tmp_path: Path) -> None:
    write(release, [ROWS[0], "1\tNaN\t3", "1\t-inf\t3", "1\t1e999\t3"])
    bundle, report = ErnieImporter().run(release, tmp_path / "kb")
    rows = bundle.rows(["Q1", "Q2", "Q30", "Q200"])
    assert bundle.has_vector(rows).tolist() == [True, False, False, False]
    assert report.dropped["vectors"] == {"NaN or infinite": 3}


def test_ids_that_collide(release: Path, tmp_path: Path) -> None:
    (release / "entity2id.txt").write_text("4\nQ1\t0\nQ1\t1\nQ2\t0\nQ3\t3\n")
    bundle, report = ErnieImporter().run(release, tmp_path / "kb")
    assert len(bundle) == 2
    assert report.dropped["entities"] == {"id seen before": 1, "row of another id": 1}
    assert report.dropped["vectors"] == {"no id": 2}
    assert report.kept["vectors"] == 2


def test_every_bad_row_among_many_is_found(release: Path, tmp_path: Path) -> None:
    """More rows than are parsed at a time, bad ones at the ends of blocks among them."""
    values = np.random.default_rng(0).normal(size=(9000, 3)).astype(np.float32)
    rows: list[str | bytes] = ["\t".join(map(str, row)) for row in values.tolist()]
    bad = {0: "1\tx\t2", 17: "", 4095: "1\t2", 4096: "1", 8191: "nan\t1\t1", 8999: b"\xfe"}
    for at, row in bad.items():
        rows[at] = row or "\t\t\t1"
    write(release, rows)
    ids = "".join(f"Q{number}\t{number}\n" for number in range(9000))
    (release / "entity2id.txt").write_text(f"9000\n{ids}")
    seen: list[tuple[str, int]] = []
    bundle, report = ErnieImporter().run(
        release, tmp_path / "kb", watch=lambda kind, count: seen.append((kind, count))
    )
    row = bundle.rows([f"Q{number}" for number in range(9000)])
    has = bundle.has_vector(row)
    assert np.flatnonzero(~has).tolist() == sorted(bad)
    np.testing.assert_array_equal(bundle.vectors(row[has]), values[has])
    assert report.dropped["vectors"] == {"malformed": 5, "NaN or infinite": 1}
    assert [line.split(": ")[0].rpartition(" ")[2] for line in report.examples] == [
        str(at + 1) for at in sorted(bad) if at != 8191
    ]
    assert seen == []  # so few rows are not worth a word


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (ROWS[:3], "holds 3 rows for the 4 ids that entity2id.txt states"),
        ([*ROWS, *ROWS], "holds 8 rows for the 4 ids"),
        ([ROWS[0], "", ROWS[1], ROWS[2]], "holds 3 rows"),
        (["a b c"] * 4, r"line 1: has b'a' where a number belongs \(4 of 4 rows\)"),
        ([b"\x80\x02\0"] * 4, "line 1: has b'"),
        ([], "holds 0 rows"),
    ],
)
def test_vectors_of_another_format(
    release: Path, tmp_path: Path, rows: list[str | bytes], problem: str
) -> None:
    write(release, rows)
    with pytest.raises(DataError, match=problem):
        ErnieImporter().run(release, tmp_path / "kb")
    assert not (tmp_path / "kb").exists()


@pytest.mark.parametrize("name", ["entity2id.txt", "entity2vec.vec"])
def test_missing_files(release: Path, tmp_path: Path, name: str) -> None:
    (release / name).unlink()
    with pytest.raises(DataError, match=f"{name}: is missing"):
        ErnieImporter().run(release, tmp_path / "kb")


def test_a_header_that_states_another_count(release: Path, tmp_path: Path) -> None:
    (release / "entity2id.txt").write_text(IDS.replace("4", "5", 1))
    write(release, [*ROWS, ROWS[0]])
    with pytest.raises(DataError, match="line 1: holds 4 rows and states 5"):
        ErnieImporter().run(release, tmp_path / "kb")
