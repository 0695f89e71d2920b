"""Planted knowledge reaches a model that reads from left to right, and controls fall to chance."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kbench.grid.plan import Place
from kbench.spec import Control
from kbench.store import Result, Status
from tests.grid.toygrid import grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")

_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
_GPT2: dict[str, Any] = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "tie_word_embeddings": False,
}
NETWORKS = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", _LLAMA),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT2),
}


@pytest.fixture(params=sorted(NETWORKS))
def decoder(request: pytest.FixtureRequest, toy_folder: Path, tmp_path: Path) -> Path:
    """A random decoder that knows the words of the toy world."""
    return write_decoder(tmp_path / request.param, toy_folder, request.param)


def write_decoder(folder: Path, toy_folder: Path, kind: str) -> Path:
    """Writes a random decoder that knows the words of the toy world."""
    config, network, options = NETWORKS[kind]
    folder.mkdir()
    for path in (toy_folder / "bert").glob("*token*"):
        shutil.copy(path, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    torch.manual_seed(0)
    made = getattr(transformers, config)(
        vocab_size=len(tokenizer), initializer_range=0.2, **ends, **options
    )
    whole = getattr(transformers, network)(made)
    # Else all tokens are about as likely, whatever a state says.
    torch.nn.init.normal_(whole.get_output_embeddings().weight, std=1.0)
    whole.save_pretrained(folder)
    return folder


def score(results: list[Result], method: str, control: Control = Control.NONE) -> float:
    for result in results:
        if (result.spec.method, result.spec.control) == (method, control):
            assert result.status == Status.OK, result.reason
            assert result.score is not None
            return result.score.value
    raise AssertionError(f"no result of {method}, {control}")


def test_planted_knowledge_is_found_through_a_frozen_decoder(
    decoder: Path, toy_folder: Path, place: Place
) -> None:
    recipe = {"learning_rate": 2e-2, "epochs": 20, "batch_size": 16, "dropout": 0.0}
    chosen = grid(
        toy_folder,
        backbone=str(decoder),
        tuning="prompted",
        control="none,shuffled,random,zero",
        options={"method": {"map-tuning": {"start": "scratch", "task-specific": recipe}}},
    )
    results = run(chosen, place)
    assert score(results, "map-tuning") > 0.95
    for control in (Control.SHUFFLED, Control.RANDOM, Control.ZERO):
        assert score(results, "map-tuning", control) < 0.5
    assert score(results, "none") < 0.5
