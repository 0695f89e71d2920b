"""What a grid costs grows with what is new in it: trainings and tokenized texts are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import kbench.encoding.tokens
from kbench import method
from kbench.cli.run_grids import dry_run
from kbench.grid.grids import Grid
from kbench.grid.plan import Place
from kbench.interface.asking import Asked
from kbench.method import Plug
from kbench.pipeline import models
from kbench.store import Status
from tests.grid.toygrid import grid, run

ONCE = {"learning_rate": 1e-3, "epochs": 1, "batch_size": 64}
OPTIONS: dict[str, Any] = {
    "tuning": {"full": ONCE},
    "method": {
        name: {"start": "scratch", "task-specific": {**ONCE, "dropout": None}}
        for name in ("map-tuning", "map-tuning-mlp")
    },
}


@pytest.fixture(autouse=True)
def _tasks(toy_tasks: None) -> None:
    """All that follows runs on the toy tasks."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``model`` or ``plug`` for each training, in order."""
    calls: list[str] = []
    for module in (models, method):
        original = module.train

        def counted(what: nn.Module, *given: Any, original: Any = original, **more: Any) -> Any:
            calls.append("plug" if isinstance(what, Plug) else "model")
            return original(what, *given, **more)

        monkeypatch.setattr(module, "train", counted)
    return calls


def cells_of(folder: Path, methods: str) -> Grid:
    return grid(
        folder,
        task="toy-typing,toy-relations",
        method=methods,
        control="none,shuffled,zero",
        seed="0,1,2",
        limit=24,
        options=OPTIONS,
    )


def test_a_method_added_to_24_cells_retunes_nothing(
    toy_folder: Path,
    tmp_path: Path,
    trained: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KBENCH_CACHE", str(tmp_path / "cache"))
    place = Place.default(tmp_path / "out", "cpu")
    results = run(cells_of(toy_folder, "none,map-tuning"), place)
    assert [result.status for result in results] == [Status.OK] * 24
    assert (trained.count("model"), trained.count("plug")) == (6, 18)

    more = cells_of(toy_folder, "none,map-tuning,map-tuning-mlp")
    assert dry_run(Asked([more]), place.out, 1.0, as_json=False) == 0
    planned = capsys.readouterr().out
    assert "42 runs: 24 stored, 18 to run; to train: 0 downstream models, 18 plugs" in planned

    trained.clear()
    assert [result.status for result in run(more, place)] == [Status.OK] * 42
    assert trained == ["plug"] * 18

    trained.clear()
    run(more, place)
    assert trained == []


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every text that a tokenizer is given, in order."""
    texts: list[str] = []
    original = kbench.encoding.tokens._tokenized

    def counted(tokenizer: Any, given: Sequence[str], **options: Any) -> Any:
        texts.extend(given)
        return original(tokenizer, given, **options)

    monkeypatch.setattr(kbench.encoding.tokens, "_tokenized", counted)
    memories = (kbench.encoding.tokens._BARE, kbench.encoding.tokens._PLACED)
    for memory in memories:
        memory.clear()
    yield texts
    for memory in memories:
        memory.clear()


def test_a_text_is_tokenized_once_for_all_methods_settings_and_seeds(
    toy_folder: Path, tmp_path: Path, tokenized: list[str]
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    chosen = grid(
        toy_folder, method="none,map-tuning", control="none,shuffled", seed="0,1", options=OPTIONS
    )
    results = run(chosen, place)
    assert {result.status for result in results} == {Status.OK}, results[0].reason
    assert len(tokenized) > 100
    assert len(tokenized) == len(set(tokenized))


def test_the_memory_of_pieces_is_bounded_and_tells_tokenizers_apart(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch, tokenized: list[str]
) -> None:
    from kbench.model.huggingface import load_folder
    from tests.hostile import byte_level

    wordpiece = load_folder(toy_folder / "bert").tokenizer
    other = load_folder(toy_folder / "bert").tokenizer
    texts = [f"red {number}" for number in range(50)]
    found = kbench.encoding.bare_tokens(wordpiece, texts)
    assert kbench.encoding.bare_tokens(other, texts) == found
    assert len(tokenized) == 50  # the same tokenizer, loaded twice
    assert kbench.encoding.bare_tokens(byte_level(), texts) != found
    assert len(tokenized) == 100
    monkeypatch.setattr(kbench.encoding.tokens, "_HELD", 60)
    assert kbench.encoding.bare_tokens(wordpiece, [*texts, *reversed(texts), "blue"])[:50] == found
    assert kbench.encoding.tokens._BARE._held <= 60
