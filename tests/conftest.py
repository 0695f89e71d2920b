"""The toy world, made once a session, and a cache of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kbench.knowledge import Bundle
from kbench.parts.catalogue import Kind
from kbench.testing import registered

_TOYS = "kbench.testing.toys:"

# A distribution of its own, whose tests run where it is installed: see test_plugin.py.
collect_ignore = ["plugin"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy knowledge base ``kb`` and the toy backbone ``bert``."""
    from kbench.testing.toys import write_backbone, write_world

    folder = tmp_path_factory.mktemp("toy")
    write_world(folder / "kb")
    write_backbone(folder / "bert")
    return folder


@pytest.fixture(scope="session")
def toy_knowledge(toy_folder: Path) -> Bundle:
    return Bundle(toy_folder / "kb")


@pytest.fixture
def toy_tasks() -> Iterator[None]:
    """Registers toy-typing, toy-relations and toy-qa."""
    with registered_toys():
        yield


@contextmanager
def registered_toys() -> Iterator[None]:
    """The same, for fixtures that live longer than a test."""
    with registered(
        Kind.TASKS,
        toy_typing=f"{_TOYS}ToyTyping",
        toy_relations=f"{_TOYS}ToyRelations",
        toy_qa=f"{_TOYS}ToyQuestions",
    ):
        yield
