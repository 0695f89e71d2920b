"""The reference results in the repository: they verify, and the page says what they say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import kbench
from kbench.grid.asked import asked_for
from kbench.parts.catalogue import Kind
from kbench.parts.registry import find, names
from kbench.parts.source_text import settings
from kbench.spec import Control, RunSpec
from kbench.store import Results, packs, unpack
from kbench_leaderboard.cli import reference
from kbench_leaderboard.site import results_digest
from kbench_leaderboard.stale import stale
from kbench_leaderboard.submission import opened, read, read_results
from kbench_leaderboard.verify import verify
from scripts.reference_tables import (
    BEGIN,
    END,
    GRID,
    PAGE,
    README,
    RESULTS,
    digest,
    kept_rows,
    provenance,
    task_rows,
)
from scripts.site_pictures import PICTURES, results_of

MOST_BYTES = 25 << 20
"""Of all packed results: whoever clones the repository has them all."""
METHODS = ("none", "kv-text")
"""Those that are looked at here: the yardstick, and a method whose few rows say something."""


def specs() -> list[RunSpec]:
    return asked_for(GRID)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on the encoder and one task, with all seeds and controls that are there."""
    folder = tmp_path_factory.mktemp("some")

    def wanted(value: Mapping[str, Any]) -> bool:
        spec = value["spec"]
        on = (spec["backbone"], spec["tuning"])
        return spec["method"] in METHODS and on == ("kbench-tiny", "full")

    assert unpack(RESULTS / "atlas-qa.parquet", folder, wanted) > 2
    return folder


def test_the_grid_has_every_built_in_method_in_every_setting_that_it_has() -> None:
    asked: dict[str, set[str]] = {}
    for spec in specs():
        if spec.backbone == "kbench-tiny" and spec.seed == 0 and spec.control == Control.NONE:
            known = asked.setdefault(spec.method, set())
            known |= {str(spec.setting)} if spec.knowledge is not None else set()
    own = [n for n in names(Kind.METHODS) if find(Kind.METHODS, n).target.startswith("kbench_base")]
    assert asked == {name: {*settings(find(Kind.METHODS, name))} for name in own}


def test_every_run_of_the_grid_stands_beside_its_yardstick_and_control() -> None:
    cells = {
        (s.task, s.backbone, s.tuning, s.method, s.setting, s.control, s.seed) for s in specs()
    }
    for task, backbone, tuning, method, setting, control, seed in cells:
        beside = (task, backbone, tuning)
        assert any(cell[:4] == (*beside, "none") and cell[6] == seed for cell in cells)
        if control == Control.NONE and method not in ("none", "adapter-no-knowledge"):
            assert (*beside, method, setting, Control.FOREIGN, seed) in cells


def test_packed_results_are_small() -> None:
    assert sum(path.stat().st_size for path in packs(RESULTS)) < MOST_BYTES


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_of_the_results_that_are_there(name: str) -> None:
    """Else: kbench leaderboard build && python -m scripts.site_pictures site docs."""
    with opened(RESULTS) as folder:
        assert results_of(PAGE.parent / name) == results_digest([folder])


PACKED = [packed for folder in reference() for packed in packs(folder)]
"""The reference results, and what was submitted beside them."""


@pytest.mark.parametrize("packed", PACKED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_reference_results_verify(packed: Path, tmp_path: Path) -> None:
    """Those of each task; of all together what two tasks would share is looked at, see below."""
    assert unpack(packed, tmp_path, lambda _: True) > 0
    old = {one.id for one in stale(read_results(tmp_path))}
    found = verify(entry for entry in read(tmp_path) if entry.where not in old)
    assert [(problem.where, problem.text) for problem in found] == []


def test_the_tables_are_of_these_results(some: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    section = page.split(BEGIN)[1].split(END)[0]
    assert f"Results `{digest(RESULTS)}`." in section, "python -m scripts.reference_tables"
    assert provenance(RESULTS, GRID) in README.read_text(encoding="utf-8")
    block = section.split("### atlas-qa\n")[1].split("\n### ")[0]
    head, _, *rows = [line.split(" | ") for line in block.strip().splitlines()]
    column = [cell.strip(" |") for cell in head].index("kbench-tiny full")
    told = {tuple(row[:2]): row[column].strip(" |") for row in rows}
    made = [line.split(" | ") for line in task_rows(kbench.load(some).table())[2:]]
    assert {row[0].strip("| ") for row in made} == {*METHODS}
    for row in made:
        assert told[tuple(row[:2])] == row[2].strip(" |")


def test_what_is_kept_and_repaired_is_counted_from_what_was_answered(some: Path) -> None:
    frame = kbench.load(some).table()
    head, _, *rows = (line.split(" | ") for line in kept_rows(frame, "some")[2:])
    told = dict(zip((cell.strip("| ") for cell in head), rows[0], strict=True))
    assert rows[0][0].strip("| ") == "kv-text"
    right: dict[str, list[dict[str, bool]]] = {}
    store = Results(some)
    for result in kbench.load(some).results:
        if result.spec.control == Control.NONE:
            found = store.predictions(result)
            assert found is not None
            answers = zip(found.labels, found.predictions, strict=True)
            # A prediction is right that is one of the acceptable answers.
            own = {
                name: guess in label
                for name, (label, guess) in zip(found.ids, answers, strict=True)
            }
            right.setdefault(result.spec.method, []).append(own)
    (bare,), (plugged,) = right["none"], right["kv-text"]
    kept = [plugged[name] for name, was in bare.items() if was]
    mended = [plugged[name] for name, was in bare.items() if not was]
    assert float(told["retention"]) == pytest.approx(100 * sum(kept) / len(kept), abs=0.05)
    assert float(told["repair"]) == pytest.approx(100 * sum(mended) / len(mended), abs=0.05)
    assert 0 < sum(kept) < len(kept)
    assert float(told["tokens more"]) == 0


@pytest.mark.faults
def test_all_reference_results_verify() -> None:
    with opened(RESULTS) as folder:
        old = {one.id for one in stale(read_results(folder))}
        found = verify(entry for entry in read(folder) if entry.where not in old)
    assert [(problem.where, problem.text) for problem in found] == []
