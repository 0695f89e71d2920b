"""Where the grids of these tests write."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbench.grid.plan import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "artifacts", "cpu")


@pytest.fixture
def shared(tmp_path: Path, made: Path) -> Place:
    """For what is about results, whoever trained for them."""
    return Place(tmp_path / "out", made, "cpu")
