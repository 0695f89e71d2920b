"""What a large knowledge base costs grows with the rows that are asked for, not with the table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from kbench.errors import DataError
from kbench.knowledge import Bundle, bundle, matrix, write_vectors
from kbench.knowledge.controls import Shuffled
from kbench.knowledge.matrix import Matrix
from tests.scale_world import DIMENSION, Spent, lay, spent

ENTITIES, TOUCHED = 200_000, 2000
MATRIX_BYTES = ENTITIES * DIMENSION * 4
ROWS_BYTES = TOUCHED * DIMENSION * 4
MIB = 1 << 20


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Spent]:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the memory of a process is read from /proc, which is not there")
    folder = tmp_path_factory.mktemp("scale")
    assert matrix._LARGE < MATRIX_BYTES
    lay(folder / "small", 1000)
    lay(folder / "large", ENTITIES)
    spent(folder / "small", folder / "large", TOUCHED, folder / "cache")  # a first opening
    return spent(folder / "small", folder / "large", TOUCHED, folder / "cache")


def test_opening_and_reading_rows_costs_what_the_rows_are(found: dict[str, Spent]) -> None:
    opened, read = found["open"], found["vectors"]
    assert opened.resident < MIB
    assert opened.read < MIB
    # Twice: whether there is a vector, and the vector.
    assert 2 * ROWS_BYTES <= read.read < 2 * ROWS_BYTES + MIB
    assert read.peak < 4 * ROWS_BYTES + MIB
    assert opened.seconds + read.seconds < 1


def test_linking_and_describing_reads_no_vector_but_those_of_the_mentions(
    found: dict[str, Spent],
) -> None:
    assert found["linked"].read < ROWS_BYTES + MIB
    assert found["linked"].peak < MATRIX_BYTES / 12
    assert found["described"].read < MIB
    assert found["described"].peak < MATRIX_BYTES / 6  # names and texts, not vectors


def test_controls_hold_no_copy_of_the_matrix(found: dict[str, Spent]) -> None:
    for control in ("zero", "random"):
        assert found[control].read < 2 * ROWS_BYTES + MIB, control
        assert found[control].resident < 4 * ROWS_BYTES, control
    # A permutation, and what it is made of: some ten bytes an entity, where a vector has 512; and
    # the labels of a small file, which say who has a name, and are remembered of a large one.
    assert found["shuffled"].peak < MATRIX_BYTES / 6
    assert found["shuffled"].read < 2 * ROWS_BYTES + MIB  # who has a vector is remembered


@pytest.fixture
def by_row(monkeypatch: pytest.MonkeyPatch, world: Bundle) -> tuple[Bundle, Bundle]:
    """A bundle as its small file is read, and as if it were large."""
    vectors = np.random.default_rng(3).normal(size=(len(world), 8)).astype(np.float32)
    vectors[world.rows(["I0", "T7", "T8"])] = np.nan
    plain = write_vectors(world.folder, vectors, {})
    plain.vectors(np.arange(2))
    monkeypatch.setattr(matrix, "_LARGE", 0)
    monkeypatch.setattr(matrix, "_BLOCK", 100)
    large = Bundle(plain.folder)
    large.vectors(np.arange(2))
    monkeypatch.undo()
    return plain, large


def test_rows_of_a_file_are_those_of_its_map(by_row: tuple[Bundle, Bundle]) -> None:
    plain, large = by_row
    assert large._vectors._file is not None
    assert plain._vectors._file is None
    rng = np.random.default_rng(0)
    asked = [[], [0], [-1], [len(plain) - 1, 0, 0, 1, 2, 2], range(len(plain)), [5, 4, 3]]
    for rows in [*asked, rng.integers(0, len(plain), 200)]:
        some = np.array(rows, dtype=np.int64)
        np.testing.assert_array_equal(large.vectors(some), plain.vectors(some))
        np.testing.assert_array_equal(large.has_vector(some), plain.has_vector(some))
    for base in by_row:
        with pytest.raises(IndexError):
            base.vectors(np.array([0, len(base)]))


def test_who_has_a_vector_is_the_same_of_few_rows_and_of_many(
    by_row: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = by_row
    rows = np.arange(-1, len(plain))
    few = plain.has_vector(rows)
    shuffled = [Shuffled(base, 0).other for base in by_row]
    monkeypatch.setattr(bundle, "_FEW", 10)
    for base in (*by_row, Bundle(plain.folder)):
        np.testing.assert_array_equal(base.has_vector(rows), few)
        shuffled.append(Shuffled(base, 0).other)
    assert few.sum() == len(plain) - 3
    for other in shuffled:
        np.testing.assert_array_equal(other, shuffled[0])


def test_a_file_that_becomes_shorter_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "matrix.npy"
    np.save(path, np.ones((64, 64), dtype=np.float32))
    monkeypatch.setattr(matrix, "_LARGE", 0)
    opened = Matrix(np.load(path, mmap_mode="r"))
    assert opened.take(np.array([63])).sum() == 64
    os.truncate(path, path.stat().st_size - 100)
    assert opened.take(np.array([62])).sum() == 64
    with pytest.raises(DataError, match="has become shorter"):
        opened.take(np.array([3, 62, 63]))
