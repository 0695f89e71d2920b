"""Planted worlds: does the knowledge gain split into what a kind tells, and what one alone does?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.knowledge import Bundle, Entity, write_bundle, write_vectors
from kbench.results.tables import Row, rows
from kbench.store import Results
from kbench.testing.toys import CLASSES, _classes, _names
from tests.grid.toygrid import OPTIONS, grid

pytestmark = pytest.mark.usefixtures("toy_tasks")

CARD = {"name": "kinds", "version": "1", "licence": "none", "source": "test"}


def world(folder: Path, types: list[str], *, by_colour: bool) -> Bundle:
    """The toy entities; by colour what there is to read is like that of no other colour's."""
    names, colours = _names(), _classes()
    told = {name: by_colour and bool(at & 1) for at, name in enumerate(CLASSES)}
    facts = {name: by_colour and at > 1 for at, name in enumerate(CLASSES)}
    things = [Entity("class:it", "it")] + [
        Entity(f"toy:{n}", n, types=(kind,), description=f"{n} was there" * told[colour])
        for n, colour, kind in zip(names, colours, types, strict=True)
    ]
    triples = [
        (f"toy:{n}", "near", "class:it") for n, colour in zip(names, colours, strict=True)
        if facts[colour]
    ]  # fmt: skip
    bundle, rng = write_bundle(folder, CARD, things, triples), np.random.default_rng(13)
    centres = rng.standard_normal((len(CLASSES), 8))
    vectors = rng.standard_normal((len(bundle), 8)) * 0.1
    colour_of = dict(zip(names, colours, strict=True))
    for row, label in enumerate(bundle.labels):
        vectors[row] += centres[CLASSES.index(colour_of.get(label, CLASSES[0]))]
    return write_vectors(folder, vectors.astype(np.float32), {})


def row_of(toy_folder: Path, folder: Path, made: Path) -> tuple[Row, dict[str, float]]:
    place = Place(folder / "results", made, "cpu")
    controls = "none,foreign,same-type,shuffled"
    about = {"knowledge": str(folder / "kb"), "control": controls, "options": OPTIONS}
    chosen = grid(toy_folder, method="none,map-tuning", setting="task-specific", **about)
    results = runner.run(runner.plan(runner.resolve(chosen), place), place)
    made = {row.first.spec.control: row for row in rows(results, Results(place.out))
            if row.first.spec.knowledge}  # fmt: skip
    scores = {str(control): row.score.value for control, row in made.items() if row.score}
    assert len(scores) == 4, [result.reason for result in results]
    return made["none"], scores


def check_sum(row: Row) -> None:
    assert row.gain
    assert row.kind
    assert row.individual
    assert row.kind.value + row.individual.value == pytest.approx(row.gain.value)


def test_where_labels_follow_types_the_gain_is_that_of_the_kind(
    toy_folder: Path, tmp_path: Path, made: Path
) -> None:
    world(tmp_path / "kb", [*_classes()], by_colour=True)
    row, scores = row_of(toy_folder, tmp_path, made)
    # Everyone is swapped within the colour, for nobody else has as much to read: no gain is seen.
    assert scores["none"] - scores["shuffled"] < 0.05
    check_sum(row)
    assert row.gain
    assert row.kind
    assert row.individual
    assert row.gain.low is not None
    assert row.gain.low > 0.35
    assert row.kind.value > 0.5
    assert abs(row.individual.value) < 0.12
    assert row.net
    assert row.net.value > 0.4


def test_where_labels_do_not_follow_types_it_is_individual(
    toy_folder: Path, tmp_path: Path, made: Path
) -> None:
    drawn = np.random.default_rng(3).integers(2, size=len(_names()))
    world(tmp_path / "kb", [f"kind {number}" for number in drawn], by_colour=False)
    row, _ = row_of(toy_folder, tmp_path, made)
    check_sum(row)
    assert row.kind
    assert row.individual
    assert row.individual.low is not None
    assert row.individual.low > 0.35
    assert abs(row.kind.value) < 0.2
