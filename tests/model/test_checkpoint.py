"""Weights fill the network that the configuration describes, or are refused with their keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from kbench.errors import KbenchError
from kbench.model import digest
from kbench.model.huggingface import load_folder
from tests.architectures import configure, rewrite, write, write_network

Weights = dict[str, Tensor]


def lacking(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {k: v for k, v in weights.items() if not any(p in k for p in parts)}


def holding(**others: Tensor) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, **{k.replace("__", "."): v for k, v in others.items()}}


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {f"{prefix}{key}": value for key, value in weights.items()}


def spoilt(key: str, value: float) -> Callable[[Weights], Weights]:
    def change(weights: Weights) -> Weights:
        weights[key].flatten()[3] = value
        return weights

    return change


def half(dtype: torch.dtype) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value.to(dtype) for key, value in weights.items()}


def refused(folder: Path) -> str:
    """What is said of a folder: the same, however often it is asked."""
    said = []
    for _ in range(2):
        with pytest.raises(KbenchError) as caught:
            load_folder(folder)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "\n" not in said[0]
    assert said[0].startswith(str(folder))
    return said[0]


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "distilbert", "modernbert"])
@pytest.mark.parametrize("prefix", ["module.", "model.bert."])
def test_weights_under_other_names_are_refused_with_what_to_do(
    tmp_path: Path, name: str, prefix: str
) -> None:
    said = refused(rewrite(write(tmp_path, name), prefixed(prefix)))
    assert "the weights lack" in said
    assert f"({prefix}" in said
    assert f"without the leading '{prefix.partition('.')[0]}.'" in said


@pytest.mark.parametrize("kind", ["ForMaskedLM", "Model", "ForPreTraining"])
def test_a_layer_that_is_lost_is_refused(tmp_path: Path, kind: str) -> None:
    said = refused(rewrite(write(tmp_path, "bert", kind=kind), lacking("layer.1.")))
    assert "lack encoder.layer.1.attention.output.LayerNorm.bias, " in said
    assert "and 13 more of BertModel" in said


def test_one_weight_that_is_lost_is_refused(tmp_path: Path) -> None:
    folder = rewrite(write(tmp_path, "roberta"), lacking("layer.0.output.dense.bias"))
    assert "lack encoder.layer.0.output.dense.bias of RobertaModel" in refused(folder)


def test_a_weight_that_the_index_of_shards_does_not_name_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "bert")
    network = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="3KB")
    whole = digest(load_folder(folder))
    assert whole == digest(load_folder(write(tmp_path / "whole", "bert")))
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shards = {key: file for key, file in index["weight_map"].items() if "layer.1" in key}
    alone = set(shards.values()) - {
        file for key, file in index["weight_map"].items() if key not in shards
    }
    assert alone
    index["weight_map"] = {k: f for k, f in index["weight_map"].items() if f not in alone}
    path.write_text(json.dumps(index))
    assert "the weights lack encoder.layer.1." in refused(folder)


@pytest.mark.parametrize(("layers", "said"), [(3, "the weights lack"), (1, "no place in")])
def test_a_configuration_with_other_layers_than_the_weights_is_refused(
    tmp_path: Path, layers: int, said: str
) -> None:
    folder = configure(write(tmp_path, "bert"), num_hidden_layers=layers)
    assert said in refused(folder)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"max_position_embeddings": 128}, "embeddings.position_embeddings.weight is [70, 16]"),
        ({"intermediate_size": 48}, "layer.0.intermediate.dense.bias is [24]"),
        ({"vocab_size": 500}, "embeddings.word_embeddings.weight is ["),
    ],
)
def test_shapes_that_differ_are_refused_with_both(
    tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    said = refused(configure(write(tmp_path, "bert"), **change))
    assert key in said
    assert "in the weights and [" in said


def test_the_configuration_of_another_architecture_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "bert")
    configure(folder, model_type="gpt2", n_embd=16, n_layer=2, n_head=4, n_positions=70)
    assert "the weights lack" in refused(folder)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("bert", "predictions.transform"),
        ("bert", "predictions.bias"),
        ("roberta", "lm_head.dense"),
        ("distilbert", "vocab_layer_norm"),
        ("deberta-v3", "lm_predictions.lm_head.LayerNorm"),
    ],
)
def test_a_masked_lm_head_of_which_a_part_is_lost_is_refused(
    tmp_path: Path, name: str, lost: str
) -> None:
    said = refused(rewrite(write(tmp_path, name), lacking(lost)))
    assert "of the masked-LM head of" in said
    assert lost in said


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet"])
def test_a_pooler_of_which_a_part_is_lost_is_refused(tmp_path: Path, name: str) -> None:
    folder = rewrite(write(tmp_path, name, kind="Model"), lacking("pooler.dense.bias"))
    assert "lack pooler.dense.bias of" in refused(folder)


@pytest.mark.parametrize(("name", "head"), [("bert", "cls."), ("roberta", "lm_head.")])
def test_without_the_whole_head_or_the_whole_pooler_a_network_is_an_encoder_without(
    tmp_path: Path, name: str, head: str
) -> None:
    kind = "ForPreTraining" if name == "bert" else "ForMaskedLM"
    lm = load_folder(rewrite(write(tmp_path, name, kind=kind), lacking(head, "pooler.")))
    assert not lm.has_lm_head
    assert not lm.has_pooler
    assert lm.base.pooler is None


@pytest.mark.parametrize(
    ("name", "kind", "unread"),
    [
        ("bert", "ForPreTraining", ("cls.seq_relationship",)),
        ("bert", "ForSequenceClassification", ("classifier",)),
        ("bert", "ForQuestionAnswering", ("qa_outputs",)),
        ("roberta", "ForTokenClassification", ("classifier",)),
        ("distilbert", "ForSequenceClassification", ("classifier", "pre_classifier")),
        ("electra", "ForPreTraining", ("discriminator_predictions",)),
        ("albert", "ForPreTraining", ("sop_classifier",)),
        ("deberta-v2", "ForSequenceClassification", ("classifier", "pooler")),
        # Its head has some names of the masked-LM head, and is none.
        ("modernbert", "ForSequenceClassification", ("classifier", "head")),
        ("bert", "ForMaskedLM", ()),
        ("bert", "Model", ()),
    ],
)
def test_heads_of_other_purposes_are_told_and_not_read(
    tmp_path: Path, name: str, kind: str, unread: tuple[str, ...]
) -> None:
    lm = load_folder(write(tmp_path, name, kind=kind))
    assert lm.unread == unread
    promised = kind == "ForMaskedLM" or (kind == "ForPreTraining" and name != "electra")
    assert lm.has_lm_head == promised


@pytest.mark.parametrize(
    "key",
    ["bert.encoder.layer.0.adapter.weight", "entity_embeddings.weight", "bert.gate"],
)
def test_weights_without_a_place_are_refused(tmp_path: Path, key: str) -> None:
    folder = rewrite(write(tmp_path, "bert"), lambda weights: {**weights, key: torch.ones(3)})
    assert f"{key} of the weights has no place in BertModel" in refused(folder)


def test_buffers_that_older_versions_saved_are_no_weights(tmp_path: Path) -> None:
    folder = rewrite(
        write(tmp_path, "bert"), holding(bert__embeddings__position_ids=torch.arange(70)[None])
    )
    assert load_folder(folder).unread == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "key", ["bert.encoder.layer.1.output.dense.weight", "cls.predictions.bias"]
)
def test_weights_that_are_not_finite_are_refused_with_the_keys(
    tmp_path: Path, value: float, key: str
) -> None:
    said = refused(rewrite(write(tmp_path, "bert"), spoilt(key, value)))
    assert f"{key} of the weights has numbers that are not finite" in said


def test_large_weights_whose_sum_overflows_are_no_fault(tmp_path: Path) -> None:
    key = "encoder.layer.0.attention.self.key.bias"  # moves all scores of a text alike

    def change(weights: Weights) -> Weights:
        weights[key] = torch.full_like(weights[key], 3e38)
        weights[key.replace("key.bias", "query.weight")].zero_()
        weights[key.replace("key.bias", "query.bias")].zero_()
        return weights

    assert load_folder(rewrite(write(tmp_path, "bert", kind="Model"), change)).has_pooler


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_weights_are_widened_and_nothing_else(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = rewrite(write(tmp_path, "bert"), half(dtype))
    lm = load_folder(configure(folder, dtype=str(dtype).removeprefix("torch.")))
    stored = load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(lm.word_embeddings.weight, stored.float())
    assert {p.dtype for p in lm.parameters()} == {torch.float32}


def test_an_output_matrix_of_its_own_is_kept_whatever_the_configuration_says(
    tmp_path: Path,
) -> None:
    folder = configure(write(tmp_path, "untied"), tie_word_embeddings=True)
    stored = load_file(folder / "model.safetensors")
    lm = load_folder(folder)
    output = lm.network.get_output_embeddings().weight
    assert torch.equal(output, stored["cls.predictions.decoder.weight"])
    assert not torch.equal(output, lm.word_embeddings.weight)


@pytest.mark.parametrize("legacy", [False, None])
def test_the_weights_tell_which_of_two_forms_a_head_has(
    tmp_path: Path, legacy: bool | None
) -> None:
    whole = digest(load_folder(write(tmp_path / "said", "deberta-v3")))
    folder = configure(write(tmp_path / "left out", "deberta-v3"), legacy=legacy)
    lm = load_folder(folder)
    assert lm.has_lm_head
    assert digest(lm) == whole


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "bert")
    (folder / "adapter_config.json").write_text("{}")
    assert "holds an adapter" in refused(folder)


@pytest.mark.parametrize("kind", ["T5EncoderModel", "T5ForConditionalGeneration"])
def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path, kind: str) -> None:
    folder = write_network(
        tmp_path, kind, "T5Config", d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4
    )
    assert "T5Model reads with an encoder and writes with a decoder" in refused(folder)
