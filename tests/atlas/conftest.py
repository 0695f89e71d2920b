from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the builders under scripts/ are no part of the distribution

from kbench.knowledge import Bundle  # noqa: E402
from scripts.wordnet_text import (  # noqa: E402
    Synset,
    Text,
    build_text,
    read_synsets,
    wordnet_folder,
)

ATLAS = ROOT / "tasks" / "kbench_tasks" / "atlas"
TINY = ROOT / "kbench" / "model" / "tiny"
TASKS = ("typing", "relations", "qa")

Record = dict[str, Any]


def read_task(task: str) -> list[Record]:
    lines = (ATLAS / f"{task}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return Bundle(ATLAS / "bundle")


@pytest.fixture(scope="session")
def splits() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ATLAS / "splits.json").read_text("utf-8"))
    return content


@pytest.fixture(scope="session")
def tasks() -> dict[str, list[Record]]:
    return {task: read_task(task) for task in TASKS}


@pytest.fixture(scope="session")
def synsets() -> dict[str, Synset]:
    return read_synsets(wordnet_folder())


@pytest.fixture(scope="session")
def pretraining_text(synsets: dict[str, Synset], splits: dict[str, Any]) -> Text:
    return build_text(synsets, splits["unseen_names"])
