"""Models given in memory: kept once by content, listed, verified and pruned like all others."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import transformers

from kbench.data.files import cache_home
from kbench.errors import UsageError
from kbench.model.in_memory import KeptBackbones, kept
from kbench.store.folder import DamageWarning
from tests.architectures import write
from tests.calling import call


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A model and its tokenizer, and a cache with nothing in it."""
    monkeypatch.setenv("KBENCH_CACHE", str(tmp_path / "cache"))
    folder = write(tmp_path / "bert", "bert")
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def test_it_is_listed_verified_and_pruned(
    given: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept(*given)
    assert folder.parent == cache_home() / "backbones"
    told = [json.loads(line) for line in call(capsys, "cache", "ls", "--json")[1].splitlines()]
    assert told == [
        {
            "kind": "backbones",
            "address": folder.name,
            "bytes": sum(path.stat().st_size for path in folder.iterdir()),
            "of": "BertForMaskedLM in memory",
        }
    ]
    assert "BertForMaskedLM in memory" in call(capsys, "cache", "ls")[1]
    assert call(capsys, "cache", "verify")[:2] == (0, "1 good, 0 damaged\n")
    assert call(capsys, "cache", "prune")[1] == "0.0 MB\n"
    old = time.time() - 3 * 86400
    for path in (folder, *folder.iterdir()):
        os.utime(path, (old, old))
    assert call(capsys, "cache", "prune", "--days", "4")[1] == "0.0 MB\n"
    kept(*given)  # used again, and so no longer old
    assert call(capsys, "cache", "prune", "--days", "2")[1] == "0.0 MB\n"
    assert folder.name in call(capsys, "cache", "prune", "--all", "--dry-run")[1]
    assert folder.is_dir()
    assert call(capsys, "cache", "prune", "--all")[0] == 0
    assert not (cache_home() / "backbones").exists()


def test_what_is_damaged_is_found_pruned_and_never_believed(
    given: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept(*given)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\1\2\3")
    status, out, err = call(capsys, "cache", "verify")
    assert (status, out.splitlines()[0]) == (1, "0 good, 1 damaged")
    assert str(folder) in err
    with pytest.warns(DamageWarning, match=r"made again"):
        assert kept(*given) == folder
    assert weights.read_bytes() == content
    (folder / "config.json").write_text("[")
    assert "(damaged)" in call(capsys, "cache", "ls")[1]
    assert f"removed backbones {folder.name}" in call(capsys, "cache", "prune")[1]
    assert not folder.exists()


def test_what_a_killed_writer_left_is_pruned_and_what_failed_leaves_nothing(
    given: tuple[Any, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = KeptBackbones().folder
    left = shelf / ".written.tmp-killed"
    left.mkdir(parents=True)
    assert f"removed leftover {left.name}" in call(capsys, "cache", "prune")[1]
    assert not left.exists()
    model, tokenizer = given

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(UsageError, match=r"the model cannot be written .*No space left"):
        kept(model, tokenizer)
    assert [path.name for path in shelf.iterdir() if path.is_dir()] == []
