from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from kbench.errors import DataError
from kbench_tasks.knowledge.pykeen import PyKEENImporter

ENTITIES = 'id\tlabel\n0\tQ9\n1\tQ1\n2\t"say ""hi""\tAda"\n'
RELATIONS = "id\tlabel\n0\tr0\n1\tunused\n2\tr2\n"
TRIPLES = "head\trelation\ttail\n0\t0\t1\n1\t2\t2\n0\t0\t1\n"
MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)
ODD = 'say "hi"\tAda'


def pack(folder: Path, name: str, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "training_triples" / name).write_bytes(gzip.compress(content))


@pytest.fixture
def result(tmp_path: Path) -> Path:
    folder = tmp_path / "transe"
    (folder / "training_triples").mkdir(parents=True)
    pack(folder, "entity_to_id.tsv.gz", ENTITIES)
    pack(folder, "relation_to_id.tsv.gz", RELATIONS)
    pack(folder, "numeric_triples.tsv.gz", TRIPLES)
    (folder / "results.json").write_text("{}")
    return folder


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_triples_and_npy(result: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (result / "trained_model.pkl").write_bytes(pickle.dumps(Bomb(trace)))
    (result / "training_triples" / "base.pth").write_bytes(pickle.dumps(Bomb(trace)))
    np.save(result / "entity_embeddings.npy", MATRIX)
    labels = tmp_path / "labels.tsv"
    labels.write_text('"id"\t"label"\n"Q1"\t"Ada"\n')
    sentences = tmp_path / "wiki.jsonl"
    mentions = [{"start": 0, "end": 3, "entity": "Q9"}]
    sentences.write_text(json.dumps({"text": "Bob spoke", "mentions": mentions}))
    bundle, report = PyKEENImporter().run(
        result, tmp_path / "kb", [("labels", str(labels)), ("sentences", str(sentences))]
    )
    assert not trace.exists()
    rows = bundle.rows(["Q9", "Q1", ODD])
    np.testing.assert_array_equal(bundle.vectors(rows), MATRIX)
    assert [bundle.entity(row).label for row in rows.tolist()] == ["Bob", "Ada", ""]
    assert dict(bundle.relations) == {"r0": "r0", "r2": "r2"}
    assert bundle.triples.tolist() == sorted([[rows[0], 0, rows[1]], [rows[1], 1, rows[2]]])
    assert report.dropped["triples"] == {"seen before": 1}
    assert report.dropped["relations"] == {"relation without a triple": 1}
    assert (report.read["relations"], report.kept["relations"]) == (3, 2)
    assert "not read: base.pth" in report.notes
    assert bundle.name == "transe"
    assert bundle.card["vectors"]["file"] == "entity_embeddings.npy"
    assert bundle.card["import"]["files"] == [
        "training_triples", "entity_embeddings.npy", "labels.tsv", "wiki.jsonl",
    ]  # fmt: skip
    bundle.verify()


def test_complex_numbers_become_two(result: Path, tmp_path: Path) -> None:
    np.save(result / "entity_embeddings.npy", MATRIX.view(np.complex64))
    bundle, _ = PyKEENImporter().run(result, tmp_path / "kb")
    np.testing.assert_array_equal(bundle.vectors(bundle.rows(["Q9", "Q1", ODD])), MATRIX)


def test_safetensors(result: Path, tmp_path: Path) -> None:
    save_file({"any name": MATRIX}, result / "entity_embeddings.safetensors")
    bundle, _ = PyKEENImporter().run(result, tmp_path / "kb")
    np.testing.assert_array_equal(bundle.vectors(bundle.rows(["Q9", "Q1", ODD])), MATRIX)


def test_state_of_a_model(result: Path, tmp_path: Path) -> None:
    state = {f"entity_representations.{i}._embeddings.weight": torch.from_numpy(MATRIX + i)
             for i in range(2)}  # fmt: skip
    torch.save({**state, "relation_representations.0._embeddings.weight": torch.zeros(3, 4)},
               result / "model_state.pt")  # fmt: skip
    bundle, _ = PyKEENImporter().run(result, tmp_path / "kb")
    expected = np.concatenate([MATRIX, MATRIX + 1], axis=1)
    np.testing.assert_array_equal(bundle.vectors(bundle.rows(["Q9", "Q1", ODD])), expected)


def test_vectors_in_a_pickle_alone_are_refused(result: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (result / "trained_model.pkl").write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(DataError, match=r"trained_model\.pkl: is a pickle.*numpy\.save") as caught:
        PyKEENImporter().run(result, tmp_path / "kb")
    assert "\n" not in str(caught.value)
    for name in ("trained_model.pkl", "renamed.pt"):
        torch.save(Bomb(trace), result / name)
        with pytest.raises(DataError, match="can be read safely") as caught:
            PyKEENImporter().run(result, tmp_path / "kb", [("vectors", name)])
        assert "\n" not in str(caught.value)
    assert not trace.exists()
    assert not (tmp_path / "kb").exists()


def test_no_vectors_at_all(result: Path, tmp_path: Path) -> None:
    bundle, _ = PyKEENImporter().run(result, tmp_path / "kb")
    assert (bundle.dimension, len(bundle)) == (0, 3)


def test_what_pykeen_itself_writes(tmp_path: Path) -> None:
    from pykeen.models import RotatE
    from pykeen.triples import TriplesFactory

    labelled = np.array([["a", "r", "b"], ["b", "s", 'c "d"']])
    triples = TriplesFactory.from_labeled_triples(labelled)
    triples.to_path_binary(tmp_path / "result" / "training_triples")
    model = RotatE(triples_factory=triples, embedding_dim=2, random_seed=0)
    state = tmp_path / "result" / "model_state.pt"
    model.save_state(state)  # by a protocol that torch reads by running code alone
    with pytest.raises(DataError, match="can be read safely"):
        PyKEENImporter().run(tmp_path / "result", tmp_path / "kb")
    torch.save(model.state_dict(), state)
    bundle, _ = PyKEENImporter().run(tmp_path / "result", tmp_path / "kb")
    ids = [bundle.entity(row).id for row in range(len(bundle))]
    assert ids == ["a", "b", 'c "d"']
    expected = model.entity_representations[0](None).detach().numpy()
    found = bundle.vectors(bundle.rows(["a", "b", 'c "d"'])).view(np.complex64)
    np.testing.assert_array_equal(found[[triples.entity_to_id[i] for i in ids]], expected)
    np.save(tmp_path / "result" / "entity_embeddings.npy", expected)
    again, _ = PyKEENImporter().run(tmp_path / "result", tmp_path / "again")
    assert again.digest == bundle.digest


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("numeric_triples", TRIPLES + "0\t0\n", "has 2 fields where head relation tail belong"),
        ("numeric_triples", TRIPLES + "0\t0\t3\n", r"has a number without a name (0, 0, 3)"),
        ("numeric_triples", TRIPLES + "0\tx\t1\n", "has 'x' where a number belongs"),
        ("entity_to_id", ENTITIES + "3\n", "has 1 fields where id label belong"),
        ("entity_to_id", ENTITIES + "3\ta\tb\n", "has 3 fields where id label belong"),
        ("entity_to_id", ENTITIES + "-1\ta\n", "has '-1' where a number belongs"),
        (
            "entity_to_id",
            ENTITIES + '3\t"half\n',
            "has quotes that do not fit (unexpected end of data)",
        ),
        ("relation_to_id", RELATIONS.encode() + b"3\t\xff\n", "is not UTF-8"),
    ],
)
def test_malformed_rows_are_counted(
    result: Path, tmp_path: Path, name: str, text: str | bytes, problem: str
) -> None:
    pack(result, f"{name}.tsv.gz", text)
    _, report = PyKEENImporter().run(result, tmp_path / "kb")
    line = len(text.splitlines())
    path = result / "training_triples" / f"{name}.tsv.gz"
    [shown] = report.examples
    assert shown.startswith(f"{path}, line {line}: {problem}; the ")


def test_duplicate_names_and_numbers(result: Path, tmp_path: Path) -> None:
    pack(result, "entity_to_id.tsv.gz", ENTITIES + "3\tQ1\n0\tQ77\n")
    bundle, report = PyKEENImporter().run(result, tmp_path / "kb")
    assert report.dropped["entities"] == {"seen before": 2}
    assert len(bundle) == 3


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        (MATRIX[:2], "holds 2 rows for entities numbered to 2"),
        (MATRIX.astype(np.int64), "holds int64"),
        (MATRIX[0], r"has the shape \[4\]"),
    ],
)
def test_matrices_that_do_not_fit(
    result: Path, tmp_path: Path, matrix: np.ndarray, problem: str
) -> None:
    np.save(result / "entity_embeddings.npy", matrix)
    with pytest.raises(DataError, match=problem):
        PyKEENImporter().run(result, tmp_path / "kb")


def test_other_files_that_do_not_fit(result: Path, tmp_path: Path) -> None:
    def fails(name: str, problem: str) -> None:
        with pytest.raises(DataError, match=problem) as caught:
            PyKEENImporter().run(result, tmp_path / "kb", [("vectors", name)])
        assert "\n" not in str(caught.value)

    save_file({"a": MATRIX, "b": MATRIX}, result / "two.safetensors")
    fails("two.safetensors", "holds 2 tensors")
    save_file({"a": MATRIX.astype(np.int32)}, result / "whole.safetensors")
    fails("whole.safetensors", "holds int32")
    torch.save({"weight": torch.zeros(3, 4)}, result / "other.pt")
    fails("other.pt", "has no embeddings of entities alone")
    torch.save(torch.zeros(3, 4), result / "tensor.pt")
    fails("tensor.pt", "has no embeddings of entities alone")
    for name in ("bad.npy", "bad.safetensors", "bad.pt"):
        (result / name).write_bytes(b"neither of them")
        fails(name, r"bad\.\w+: (cannot be read|is no state)")
        fails(f"no-{name}", "is missing")


@pytest.mark.parametrize("name", ["entity_to_id", "relation_to_id", "numeric_triples"])
def test_missing_files(result: Path, tmp_path: Path, name: str) -> None:
    (result / "training_triples" / f"{name}.tsv.gz").unlink()
    with pytest.raises(DataError, match=rf"{name}\.tsv\.gz: is missing"):
        PyKEENImporter().run(result, tmp_path / "kb")
