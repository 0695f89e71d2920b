from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kbench.model import Encoder
from kbench.model.huggingface import load_folder
from tests.engine.hostile import byte_level, metaspace


@pytest.fixture
def encoder(toy_folder: Path) -> Encoder:
    """A fresh copy of the toy BERT."""
    return load_folder(toy_folder / "bert")


@pytest.fixture(scope="session")
def toy_tokenizer(toy_folder: Path) -> Any:
    """Its tokenizer, which no test may change."""
    return load_folder(toy_folder / "bert").tokenizer


@pytest.fixture(scope="session", params=["wordpiece", "byte-level", "metaspace"])
def tokenizer(request: pytest.FixtureRequest, toy_tokenizer: Any) -> Any:
    """Tokenizers of the three families of encoders."""
    makers = {"byte-level": byte_level, "metaspace": metaspace}
    return makers[request.param]() if request.param in makers else toy_tokenizer
