from __future__ import annotations

import os
from pathlib import Path

import pytest

from kbench.data import Mention
from kbench.knowledge import Bundle, Entity, Sentence, write_bundle

CARD = {"name": "world", "version": "1", "licence": "CC0-1.0", "source": "made for a test"}


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The real data, where there is some."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("KBENCH_TEST_DATA", beside))
    if not (folder / "codex").is_dir():
        pytest.skip(f"no real data in {folder}: set KBENCH_TEST_DATA")
    return folder


@pytest.fixture
def world(tmp_path: Path) -> Bundle:
    """Forty cities in four countries, one island without a fact, and two sentences."""
    countries = [Entity(f"C{i}", f"Country {i}", types=("country",)) for i in range(4)]
    cities = [Entity(f"T{i}", f"Town {i}", (f"Old Town {i}",), ("city",)) for i in range(40)]
    island = Entity("I0", "Island", description="nobody knows where it is")
    triples = [(city.id, "in", f"C{i % 4}") for i, city in enumerate(cities)]
    triples += [(f"C{i}", "borders", f"C{(i + 1) % 4}") for i in range(4)]
    sentences = [
        Sentence("Town 3 is in Country 3 .", (Mention(0, 6, "T3"), Mention(13, 22, "C3"))),
        Sentence("Nowhere is a town .", (Mention(0, 7, "T-unknown", score=0.25),)),
    ]
    return write_bundle(
        tmp_path / "world",
        CARD,
        [*cities, island, *countries],
        triples,
        {"in": "located in"},
        sentences,
    )
