"""The notebook runs from the first cell to the last, and shows what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "first-table.ipynb"


def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) == 6
    names: dict[str, Any] = {}
    for number, source in enumerate(sources):
        exec(compile(source, f"cell {number}", "exec"), names)
    said, _ = capsys.readouterr()
    assert (
        said.splitlines()[0] == "3 runs: 0 stored, 3 to run; to train: 1 downstream models, 2 plugs"
    )
    assert names["table"]["status"].tolist() == ["ok"] * 3
    assert names["table"].query("control == 'none' and method != 'none'")["gain"].notna().all()
    assert (tmp_path / "seeds.pdf").is_file()
    assert (tmp_path / "seeds.csv").read_text(encoding="utf-8").count("\n") == 4
