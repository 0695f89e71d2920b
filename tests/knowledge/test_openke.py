from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kbench.errors import DataError
from kbench.knowledge import Bundle
from kbench_tasks.knowledge.openke import OpenKEImporter

IDS = "4\nQ30 2\nQ1\t0\nQ200 3\nQ2 1\n"
MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "wikipedia"
    folder.mkdir()
    np.save(folder / "transe.npy", MATRIX)
    (folder / "entity2id.txt").write_text(IDS)
    return folder


def test_release(release: Path, tmp_path: Path) -> None:
    (release / "entity_map.txt").write_text(
        "Ada Lovelace\tQ1\nLondon\tQ2\nADA LOVELACE\tQ1\nAda King\tQ1\nNobody\tQ99\nbad\n"
    )
    bundle, report = OpenKEImporter().run(release, tmp_path / "kb")
    rows = bundle.rows(["Q1", "Q2", "Q30", "Q200", "Q99"])
    assert rows[-1] == -1
    np.testing.assert_array_equal(bundle.vectors(rows[:-1]), MATRIX)
    q1 = bundle.entity(int(rows[0]))
    assert (q1.label, q1.aliases) == ("Ada Lovelace", ("Ada King",))
    assert report.dropped["titles"] == {"entity without a vector": 1, "malformed": 1}
    assert bundle.name == "transe"
    assert bundle.card["vectors"]["file"] == "transe.npy"
    assert report.kept["vectors"] == 4
    bundle.verify()


def test_file_names_and_other_floats(release: Path, tmp_path: Path) -> None:
    np.save(release / "transr.npy", MATRIX.astype(np.float64)[:, ::-1] * 2)
    (release / "ids.txt").write_text(IDS)
    (release / "entity2id.txt").unlink()
    with pytest.raises(DataError, match=r"holds 2 \.npy files \(transe\.npy, transr\.npy\)"):
        OpenKEImporter().run(release, tmp_path / "kb", [("entities", "ids.txt")])
    given = [("vectors", "transr.npy"), ("entities", "ids.txt"), ("name", "kp"),
             ("licence", "MIT")]  # fmt: skip
    bundle, _ = OpenKEImporter().run(release, tmp_path / "kb", given)
    rows = bundle.rows(["Q1", "Q2"])
    np.testing.assert_array_equal(bundle.vectors(rows), 2 * MATRIX[:2, ::-1])
    assert (bundle.name, bundle.card["licence"]) == ("kp", "MIT")


def test_sentences(release: Path, tmp_path: Path) -> None:
    path = tmp_path / "wiki.jsonl"
    row = {"text": "ada wrote", "mentions": [{"start": 0, "end": 3, "entity": "Q1"}]}
    path.write_text(json.dumps(row))
    bundle, _ = OpenKEImporter().run(release, tmp_path / "kb", [("sentences", str(path))])
    assert len(bundle.sentences) == 1
    assert bundle.entity(int(bundle.rows(["Q1"])[0])).label == "ada"


def test_rows_without_a_finite_vector(release: Path, tmp_path: Path) -> None:
    broken = MATRIX.copy()
    broken[1, 2], broken[3, 0] = np.nan, -np.inf
    np.save(release / "transe.npy", broken)
    bundle, report = OpenKEImporter().run(release, tmp_path / "kb")
    rows = bundle.rows(["Q1", "Q2", "Q30", "Q200"])
    assert bundle.has_vector(rows).tolist() == [True, False, True, False]
    assert report.dropped["vectors"] == {"NaN or infinite": 2}


def test_bad_ids_are_counted(release: Path, tmp_path: Path) -> None:
    (release / "entity2id.txt").write_text(
        "8\nQ1 0\nQ2 1\nQ30 2\nQ200 3\nQ4 4\nQ5 -1\nQ1 3\nQ6 0\n"
    )
    bundle, report = OpenKEImporter().run(release, tmp_path / "kb")
    assert len(bundle) == 4
    assert report.dropped["entities"] == {
        "row outside the matrix": 1, "malformed": 1, "id seen before": 1, "row of another id": 1,
    }  # fmt: skip
    np.testing.assert_array_equal(bundle.vectors(bundle.rows(["Q1"])), MATRIX[:1])


def test_titles_of_which_none_fits_are_said(release: Path, tmp_path: Path) -> None:
    (release / "entity_map.txt").write_text("Q1\tAda Lovelace\nQ2\tLondon\n")
    _, report = OpenKEImporter().run(release, tmp_path / "kb")
    assert report.notes == ["none of the 2 titles rows was kept"]


def test_titles_with_a_header_and_quotation_marks(release: Path, tmp_path: Path) -> None:
    titles = release / "entity_map.txt"
    titles.write_text('title\tid\n"""Heroes"" (album)"\tQ1\nLow\tQ2\n')
    bundle, report = OpenKEImporter().run(release, tmp_path / "csv")
    assert bundle.entity(int(bundle.rows(["Q1"])[0])).label == '"Heroes" (album)'
    assert (report.read["titles"], report.dropped) == (2, {})
    titles.write_text('"Heroes" (album)\tQ1\n"Heroes"\tQ2\n')
    bundle, report = OpenKEImporter().run(release, tmp_path / "plain")
    labels = [bundle.entity(int(row)).label for row in bundle.rows(["Q1", "Q2"])]
    assert labels == ['"Heroes" (album)', '"Heroes"']


def with_triples(release: Path, train: str = "3\n0 1 0\n1 2 1\n2\t3\t0\n") -> None:
    (release / "train2id.txt").write_text(train)
    (release / "valid2id.txt").write_text("1\n3 0 1\n")
    (release / "relation2id.txt").write_text("2\nlives in\t0\nknows\t1\n")


def facts(bundle: Bundle) -> set[tuple[str, str, str]]:
    names = list(bundle.relations)
    return {
        (bundle.entity(head).id, names[relation], bundle.entity(tail).id)
        for head, relation, tail in bundle.triples.tolist()
    }


def test_triples_beside_the_matrix(release: Path, tmp_path: Path) -> None:
    with_triples(release)
    (release / "type_constrain.txt").write_text("0\n")
    bundle, report = OpenKEImporter().run(release, tmp_path / "kb")
    train = {("Q1", "lives in", "Q2"), ("Q2", "knows", "Q30"), ("Q30", "lives in", "Q200")}
    assert facts(bundle) == {*train, ("Q200", "knows", "Q1")}
    np.testing.assert_array_equal(bundle.vectors(bundle.rows(["Q1", "Q200"])), MATRIX[[0, 3]])
    assert report.notes == ["not read: type_constrain.txt"]
    assert bundle.card["import"]["files"] == [
        "transe.npy", "train2id.txt", "valid2id.txt", "relation2id.txt"]  # fmt: skip
    alone, report = OpenKEImporter().run(release, tmp_path / "alone", [("triples", "train2id.txt")])
    assert facts(alone) == train
    assert report.notes == ["not read: type_constrain.txt, valid2id.txt"]


def test_relations_without_a_triple_are_counted(release: Path, tmp_path: Path) -> None:
    with_triples(release)
    (release / "relation2id.txt").write_text("3\nlives in\t0\nknows\t1\nowns\t2\n")
    bundle, report = OpenKEImporter().run(release, tmp_path / "kb")
    assert list(bundle.relations) == ["knows", "lives in"]
    assert (report.read["relations"], report.kept["relations"]) == (3, 2)
    assert report.dropped["relations"] == {"relation without a triple": 1}


def test_triples_without_names_or_entities(release: Path, tmp_path: Path) -> None:
    with_triples(release, "4\n0 1 0\n1 2 1\n0 9 0\n1 x 1\n")
    (release / "relation2id.txt").unlink()
    bundle, report = OpenKEImporter().run(release, tmp_path / "kb")
    assert ("Q1", "0", "Q2") in facts(bundle)
    assert report.dropped["triples"] == {"entity without a row of the matrix": 1, "malformed": 1}
    assert report.notes == ["there is no relation2id.txt: relations go by their numbers"]


def test_triples_that_are_not_of_the_form(release: Path, tmp_path: Path) -> None:
    for text, problem in (
        ("4\n0 1 0\n", r"train2id\.txt, line 1: holds 1 rows and states 4"),
        ("0 1 0\n", r"train2id\.txt, line 1: begins with"),
        ("3\n0 0 3\n1 1 2\n0 1 3\n", "has the relation 3, which has no name"),
    ):
        with_triples(release, text)
        with pytest.raises(DataError, match=problem):
            OpenKEImporter().run(release, tmp_path / "kb")
    bundle, _ = OpenKEImporter().run(
        release, tmp_path / "kb", [("triples", "train2id.txt"), ("order", "hrt")]
    )
    assert facts(bundle) == {
        ("Q1", "lives in", "Q200"), ("Q2", "knows", "Q30"), ("Q1", "knows", "Q200")}  # fmt: skip


def test_numbers_in_another_order_are_refused_until_someone_says(tmp_path: Path) -> None:
    """Where no names of relations show that numbers are too large for relations."""
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "e.npy", np.ones((60, 3), dtype=np.float32))
    (source / "entity2id.txt").write_text("60\n" + "".join(f"Q{n}\t{n}\n" for n in range(60)))
    rows = "".join(f"{n} {n % 3} {(n * 7) % 60}\n" for n in range(60))
    (source / "train2id.txt").write_text(f"60\n{rows}")
    with pytest.raises(DataError, match=r"to have 60 relations and 3 tails; .*-o order=hrt"):
        OpenKEImporter().run(source, tmp_path / "kb")
    bundle, _ = OpenKEImporter().run(source, tmp_path / "kb", [("order", "hrt")])
    assert ("Q1", "1", "Q7") in facts(bundle)
    other, _ = OpenKEImporter().run(source, tmp_path / "other", [("order", "htr")])
    assert ("Q1", "7", "Q1") in facts(other)


def test_ids_of_several_words(release: Path, tmp_path: Path) -> None:
    (release / "entity2id.txt").write_text(
        "4\nNew York\t0\nNew York City\t1\t\nLos Angeles 2\nRome  3\n"
    )
    bundle, report = OpenKEImporter().run(release, tmp_path / "kb")
    names = ["New York", "New York City", "Los Angeles", "Rome"]
    np.testing.assert_array_equal(bundle.vectors(bundle.rows(names)), MATRIX)
    assert report.dropped == {}


def test_an_id_with_blanks_around_it_never_goes_before_the_exact_one(
    release: Path, tmp_path: Path
) -> None:
    (release / "entity2id.txt").write_text("4\n Q1\t3\nQ1\t0\nQ2\t1\nQ30 \t2\n")
    (release / "entity_map.txt").write_text("Other\t Q1\nAda\tQ1\n")
    bundle, report = OpenKEImporter().run(release, tmp_path / "kb")
    np.testing.assert_array_equal(bundle.vectors(bundle.rows(["Q1", "Q30"])), MATRIX[[0, 2]])
    assert bundle.entity(int(bundle.rows(["Q1"])[0])).label == "Ada"
    assert report.facts["entities with blanks around the id"] == 2
    assert report.dropped["entities"] == {"id seen before": 1}


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ("5\nQ1 0\nQ2 1\n", "line 1: holds 2 rows and states 5"),
        ("Q1 0\nQ2 1\n", "line 1: begins with b'Q1 0'"),
        ("", "begins with b''"),
        ("4\nQ1 9\nQ2 8\nQ3 7\nQ4 0\n", "fits 1 of 4 ids to a matrix of 4 rows"),
        ("3\nQ1,0\nQ2,1\nQ30,2\n", "has 1 fields"),
    ],
)
def test_ids_of_another_format(release: Path, tmp_path: Path, ids: str, problem: str) -> None:
    (release / "entity2id.txt").write_text(ids)
    with pytest.raises(DataError, match=problem):
        OpenKEImporter().run(release, tmp_path / "kb")


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        (np.zeros(4, dtype=np.float32), r"shape \[4\]"),
        (np.zeros((4, 0), dtype=np.float32), r"shape \[4, 0\]"),
        (np.zeros((4, 3), dtype=np.int64), "holds int64"),
        (np.zeros((4, 3), dtype=np.complex64), "holds complex64"),
        (np.array([[None, {}]] * 4), "cannot be read"),
    ],
)
def test_matrices_that_are_none(
    release: Path, tmp_path: Path, matrix: np.ndarray, problem: str
) -> None:
    np.save(release / "transe.npy", matrix, allow_pickle=True)
    with pytest.raises(DataError, match=problem):
        OpenKEImporter().run(release, tmp_path / "kb")


def test_damaged_and_missing_files(release: Path, tmp_path: Path) -> None:
    path = release / "transe.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"transe\.npy: cannot be read"):
        OpenKEImporter().run(release, tmp_path / "kb")
    path.unlink()
    with pytest.raises(DataError, match=r"holds 0 \.npy files"):
        OpenKEImporter().run(release, tmp_path / "kb")
    with pytest.raises(DataError, match="is missing"):
        OpenKEImporter().run(release, tmp_path / "kb", [("vectors", "none.npy")])
    np.save(path, MATRIX)
    with pytest.raises(DataError, match=r"titles\.txt: is missing"):
        OpenKEImporter().run(release, tmp_path / "kb", [("titles", "titles.txt")])
    (release / "entity2id.txt").unlink()
    with pytest.raises(DataError, match=r"entity2id\.txt: is missing"):
        OpenKEImporter().run(release, tmp_path / "kb")
    assert not (tmp_path / "kb").exists()
