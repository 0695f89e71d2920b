"""README and CONTRIBUTING: the example as it is printed there, and the house as it stands."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from kbench.grid.plan import Place
from kbench.parts.catalogue import Kind
from kbench.store import Status
from kbench.testing import registered
from tests.grid.toygrid import OPTIONS, grid, run

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.usefixtures("toy_tasks")
def test_the_example_method_runs_and_finds_planted_knowledge(
    toy_folder: Path, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 40
    (tmp_path / "gated_map.py").write_text(code[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with registered(Kind.METHODS, gated_map="gated_map:GatedMapping"):
        place = Place(tmp_path / "out", made, "cpu")
        options = {"tuning": OPTIONS["tuning"]}
        chosen = grid(toy_folder, method="gated-map", options=options)
        true, shuffled = run(chosen, place)
    # Else a test of `kbench new`, which asks whether the name is free, would find it taken.
    del sys.modules["gated_map"]
    assert true.status == shuffled.status == Status.OK, true.reason
    assert true.score is not None
    assert shuffled.score is not None
    assert true.score.value > 0.8
    assert shuffled.score.value < 0.45


def test_the_readme_names_only_files_that_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert links
    for link in links:
        assert (README.parent / link).is_file(), link


def test_contributing_draws_the_house_as_it_stands() -> None:
    root = README.parent
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    wings = {path.parent.name for path in (root / "kbench").glob("*/__init__.py")}
    modules = {path.stem for path in (root / "kbench").glob("*.py")} - {"__init__"}
    assert (len(wings), modules) == (17, {"errors", "spec", "task", "method", "__main__"})
    with (root / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    floors = [{*floor.split(" | ")} for floor in contracts[1]["layers"]]
    drawn = re.search(r"```\n(__main__.*?)```", text, re.DOTALL)
    assert drawn is not None
    assert [{*re.findall(r"(\w+)(?:/|\.py)", line)} for line in drawn[1].splitlines()] == floors
    assert set.union(*floors) == wings | modules
    for wing in wings:  # each says its purpose in a sentence
        about = ast.parse((root / "kbench" / wing / "__init__.py").read_text(encoding="utf-8"))
        assert (ast.get_docstring(about) or "").splitlines()[0].endswith("."), wing


def test_contributing_names_only_files_that_exist() -> None:
    text = (README.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(
        r"`((?:kbench|tasks|baselines|leaderboard|tests|scripts|docs)/[\w/.]+)`", text
    )
    assert len(paths) > 15
    for path in paths:
        assert (README.parent / path).exists(), path
