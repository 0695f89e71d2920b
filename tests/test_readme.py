"""The README's example method, as it is printed there."""

from __future__ import annotations

import importlib
import re
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
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 40
    (tmp_path / "gated_map.py").write_text(code[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with registered(Kind.METHODS, gated_map="gated_map:GatedMapping"):
        place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
        options = {"tuning": OPTIONS["tuning"]}
        chosen = grid(toy_folder, method="gated-map", options=options)
        true, shuffled = run(chosen, place)
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
