"""What the tests of data loaders share: the real data, a private hub cache, JSON on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], str]:
    """Returns the folder of a real data set, or skips the test, saying so, where it is absent."""

    def find(name: str) -> str:
        root = Path(os.environ.get("KBENCH_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
        if not (root / name).is_dir():
            pytest.skip(f"no real data: {root / name} is absent (set KBENCH_TEST_DATA)")
        return str(root / name)

    return find


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loads hub data sets quietly, offline and into a cache of the test's own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub-cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Writes JSON, text or bytes below the test's folder and returns the path."""

    def put(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
        return path

    return put
