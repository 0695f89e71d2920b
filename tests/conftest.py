"""What tests share: the toy world, made once a session; a cache of its own; data and files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from kbench.knowledge import Bundle
from kbench.parts.catalogue import Kind
from kbench.testing import registered

if TYPE_CHECKING:
    from kbench.model import LanguageModel

CHECKOUT = Path(__file__).resolve().parents[1]
_TOYS = "kbench.testing.toys:"

# A distribution of its own, whose tests run where it is installed: see test_plugin.py.
collect_ignore = ["plugin"]

LONG = (
    "testing/test_contracts.py", "faults/test_plugins.py", "grid/test_runner.py",
    "grid/test_computing.py", "grid/test_planted.py", "baselines/test_recipes.py",
    "baselines/test_waiting.py", "cli/test_commands.py", "faults/test_store.py",
    "baselines/test_k_adapter.py", "baselines/test_k_adapter_decoders.py", "test_plugin.py",
    "atlas/test_atlas_tiny_lm.py", "training/test_tunings.py", "leaderboard/test_verify.py",
    "leaderboard/test_reference.py",
    "baselines/test_compiling.py", "baselines/test_kar.py", "baselines/test_ernie.py",
    "faults/test_kill.py", "browser/test_site.py",
)  # fmt: skip
"""Files of more than twenty seconds, the longest first."""

# Other work on a machine is no fault of what is tested.
hypothesis.settings.register_profile("kbench", deadline=None)
hypothesis.settings.load_profile("kbench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long files before the others, so that at the end no process is alone with one."""
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


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
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts that all tests of a session share, those of other workers too.

    They lie at the digest of what they are made of, so whoever asks first makes them for all. Not
    for a test of what is made, stored, counted, damaged or timed, nor for one that changes how a
    method or a tuning trains: their folders are their own.
    """
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    return shared / "made"


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


@pytest.fixture
def lm(toy_folder: Path) -> LanguageModel:
    """A fresh copy of the toy BERT."""
    from kbench.model.huggingface import load_folder

    return load_folder(toy_folder / "bert")


@pytest.fixture(scope="session")
def toy_tokenizer(toy_folder: Path) -> Any:
    """Its tokenizer, which no test may change."""
    from kbench.model.huggingface import load_folder

    return load_folder(toy_folder / "bert").tokenizer


@pytest.fixture(scope="session", params=["wordpiece", "byte-level", "metaspace"])
def tokenizer(request: pytest.FixtureRequest, toy_tokenizer: Any) -> Any:
    """Tokenizers of the three families of encoders."""
    from tests.hostile import byte_level, metaspace

    makers = {"byte-level": byte_level, "metaspace": metaspace}
    return makers[request.param]() if request.param in makers else toy_tokenizer


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
