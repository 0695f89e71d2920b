"""Encoders of the Hugging Face format: what loads, what it can do, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open

from kbench.data import Example
from kbench.encoding import Batch, Layout, encode
from kbench.errors import KbenchError
from kbench.model import LanguageModel, digest, dropout
from kbench.model.huggingface import HuggingFaceBackbone, folder_digest, load_folder
from kbench.testing.toys import write_backbone
from tests.architectures import ARCHITECTURES, write
from tests.model.test_encoder import rates_in_use

EXAMPLES = [
    Example("a", "we saw istanbul today", (), "label", blank=3),
    Example("b", "near the river it rained and we saw istanbul again", (), "label", blank=20),
]
every = pytest.mark.parametrize("name", ARCHITECTURES)


def batch_of(lm: LanguageModel) -> Batch:
    inputs = encode(lm.tokenizer, EXAMPLES, [(), ()], Layout({}))
    return inputs.collate(np.array([0, 1]))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name), name) for name in ARCHITECTURES}


@every
def test_every_architecture_predicts_at_the_blank_what_transformers_predicts(
    name: str, folders: dict[str, Path]
) -> None:
    lm = load_folder(folders[name])
    batch = batch_of(lm)
    whole = transformers.AutoModelForMaskedLM.from_pretrained(folders[name]).eval()
    with torch.no_grad():
        hidden = lm(batch).flatten(0, 1)[batch.blank_index]
        expected = whole(input_ids=batch.ids, attention_mask=batch.mask).logits
        got = lm.predict_tokens(hidden)
    assert lm.has_lm_head
    assert not lm.training
    expected = expected.flatten(0, 1)[batch.blank_index]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@every
def test_every_architecture_takes_slots_drops_out_and_reads_its_full_length(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = load_folder(folders[name])
    batch = batch_of(lm)
    slotted = dataclasses.replace(batch, slot_index=torch.tensor([2]), slot_rows=torch.tensor([0]))
    with torch.no_grad():
        with lm.slots(lambda rows: torch.full((len(rows), lm.slot_width), 5.0)):
            assert not torch.allclose(lm(slotted)[0], lm(batch)[0])
        ids = torch.full((1, lm.max_length), 9)
        whole = dataclasses.replace(batch, ids=ids, mask=torch.ones_like(ids))
        assert lm(whole).shape == (1, lm.max_length, lm.width)
    assert lm.max_length in (68, 70)
    with dropout(lm, 0.35):
        assert rates_in_use(lm, batch, monkeypatch) == {0.35}


@every
def test_two_loads_of_one_folder_are_the_same_network(name: str, folders: dict[str, Path]) -> None:
    assert digest(load_folder(folders[name])) == digest(load_folder(folders[name]))


@every
def test_tied_word_embeddings_stay_tied_so_that_tuning_moves_both(
    name: str, folders: dict[str, Path]
) -> None:
    lm = load_folder(folders[name])
    assert lm.network.get_output_embeddings().weight is lm.word_embeddings.weight
    assert lm.network.base_model.get_input_embeddings() is lm.word_embeddings


@pytest.mark.parametrize(
    ("name", "kind", "head", "pooler"),
    [
        ("bert", "Model", False, True),
        ("bert", "ForPreTraining", True, True),
        ("bert", "ForMaskedLM", True, False),
        ("bert", "ForSequenceClassification", False, True),
        ("roberta", "Model", False, True),
        ("albert", "Model", False, True),
        ("mpnet", "Model", False, True),
        ("distilbert", "Model", False, False),
        ("electra", "ForPreTraining", False, False),
        ("modernbert", "Model", False, False),
    ],
)
def test_a_backbone_has_what_its_weights_have(
    tmp_path: Path, name: str, kind: str, head: bool, pooler: bool
) -> None:
    lm = load_folder(write(tmp_path, name, kind=kind))
    batch = batch_of(lm)
    with torch.no_grad():
        hidden = lm(batch)
        pooled = lm.pool(hidden, batch.mask)
        own = lm.base(input_ids=batch.ids, attention_mask=batch.mask)
    assert lm.has_lm_head == head
    expected = own.pooler_output if pooler else hidden[:, 0]
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5)
    assert pooler != torch.equal(pooled, hidden[:, 0])


@pytest.mark.parametrize("kind", ["ForMaskedLM", "Model"])
def test_where_the_tokenizer_puts_no_special_token_first_the_mean_over_tokens_is_taken(
    tmp_path: Path, kind: str
) -> None:
    folder = write(tmp_path, "bert", kind=kind)  # with and without a trained pooler
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    lm = load_folder(folder)
    assert lm.tokenizer.cls_token_id is not None
    batch = batch_of(lm)
    with torch.no_grad():
        hidden = lm(batch)
        pooled = lm.pool(hidden, batch.mask)
    assert lm.pooled(batch) is None
    for row, length in enumerate(batch.mask.sum(1).tolist()):
        torch.testing.assert_close(pooled[row], hidden[row, :length].mean(0))


def test_a_masked_lm_head_that_the_weights_lack_is_not_made_up(tmp_path: Path) -> None:
    folder = write(tmp_path, "bert", kind="Model")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["BertForMaskedLM"]
    (folder / "config.json").write_text(json.dumps(config))
    assert not load_folder(folder).has_lm_head


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


def _pickled(folder: Path) -> Path:
    torch.save({}, folder / "pytorch_model.bin")
    return without(folder, "model.safetensors")


def _no_json(folder: Path) -> Path:
    (folder / "config.json").write_text("{")
    return folder


def _cut(folder: Path) -> Path:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    return folder


@pytest.mark.parametrize(
    "damage",
    [
        _pickled,
        _no_json,
        _cut,
        lambda folder: without(folder, "config.json"),
        lambda folder: without(folder, "model.safetensors"),
        lambda folder: without(folder, "tokenizer.json", "tokenizer_config.json"),
    ],
    ids=["pickled", "no json", "cut off", "no config", "no weights", "no tokenizer"],
)
def test_what_is_no_encoder_is_refused_in_one_line_that_names_the_folder(
    tmp_path: Path, damage: Any
) -> None:
    folder = damage(write_backbone(tmp_path / "model"))
    with pytest.raises(KbenchError) as caught:
        load_folder(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_weights_have_no_digest(tmp_path: Path) -> None:
    with pytest.raises(KbenchError, match="pickled weights are not loaded"):
        folder_digest(_pickled(write_backbone(tmp_path / "model")))


def test_the_digest_of_a_folder_sees_weights_configuration_and_tokenizer(tmp_path: Path) -> None:
    folder = write_backbone(tmp_path / "model")
    seen = {HuggingFaceBackbone(str(folder)).digest}
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        seen.add(HuggingFaceBackbone(str(folder)).digest)
    assert len(seen) == 5
    (folder / "README.md").write_text("not read, not hashed")
    assert HuggingFaceBackbone(str(folder)).digest in seen


def test_the_digest_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    one, other = write_backbone(tmp_path / "one"), write_backbone(tmp_path / "other")
    assert folder_digest(one) == folder_digest(other)
    assert folder_digest(one) != folder_digest(write_backbone(tmp_path / "third", layers=1))


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "{other}", "deep/model.safetensors"]
)
def test_what_is_loaded_is_what_is_hashed(tmp_path: Path, name: str) -> None:
    folder, other = tmp_path / "bert", tmp_path / "other"
    write_backbone(folder)
    write_backbone(other)
    shutil.copytree(other, folder / "deep")
    weights = folder / "model.safetensors"
    with safe_open(weights, "pt") as file:
        keys = [*file.keys()]
    named = name.format(other=other / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, named)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    weights.rename(folder / "decoy.safetensors")
    for asked in (folder_digest, load_folder):
        with pytest.raises(KbenchError, match="no file of the folder"):
            asked(folder)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", {"transformers_weights": "deep/model.safetensors"}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../other/tokenizer.4.0.json"]}),
    ],
)
def test_no_other_file_names_one_elsewhere(tmp_path: Path, file: str, said: dict[str, Any]) -> None:
    folder = tmp_path / "bert"
    write_backbone(folder)
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))
    with pytest.raises(KbenchError, match="no file of the folder"):
        folder_digest(folder)


def test_shards_beside_their_index_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    write_backbone(folder)
    lm = load_folder(folder)
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "x.bin"}}')
    network = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    network.save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len([*folder.glob("*.safetensors")]) > 1
    assert digest(load_folder(folder).network) == digest(lm.network)
