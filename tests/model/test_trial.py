"""What every encoder is taken to do is tried when it is loaded; what does it, says what it said."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from kbench.data import Example
from kbench.encoding import Layout, encode
from kbench.errors import KbenchError
from kbench.model import LanguageModel, digest
from kbench.model import huggingface as loading
from kbench.model.huggingface import load_folder
from kbench.model.trial import Trial, try_out
from tests.architectures import ARCHITECTURES, OTHERS, configure, rewrite, write, write_network

_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 70,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_FUNNEL = {
    "d_model": 16,
    "n_head": 2,
    "d_head": 8,
    "d_inner": 24,
    "block_sizes": [1, 1],
    "num_decoder_layers": 1,
}
_XLNET = {"d_model": 16, "n_layer": 2, "n_head": 4, "d_inner": 24, "pad_token_id": 1}
_LONG = {"segment_means_seq_len": 16, "num_landmarks": 4}
TEXTS = ("we saw istanbul today", "near the river it rained and we saw istanbul again", "it")


def states(lm: LanguageModel, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    examples = [Example(str(at), text, (), "", blank=0) for at, text in enumerate(TEXTS)]
    inputs = encode(lm.tokenizer, examples, [(), (), ()], Layout({}))
    batch = inputs.collate(np.array(chosen))
    with torch.inference_mode():
        return lm(batch), batch.blank_index


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    most = float(other.abs().max())  # some architectures do not normalise what they say
    torch.testing.assert_close(one, other, rtol=0, atol=3e-6 * max(1.0, most))


@pytest.mark.parametrize("name", OTHERS)
def test_architectures_load_and_say_what_transformers_says(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, name)
    lm = load_folder(folder)
    assert lm.has_lm_head
    whole = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    together, _ = states(lm, [0, 1, 2])
    for row in range(3):
        alone, blank = states(lm, [row])
        same(together[row, : alone.shape[1]], alone[0])
        ids = lm.tokenizer(TEXTS[row], return_tensors="pt")["input_ids"]
        ids = torch.cat([ids[:, :1], torch.tensor([[lm.tokenizer.mask_token_id]]), ids[:, 1:]], 1)
        with torch.inference_mode():
            own = whole(input_ids=ids).logits[0, blank]
            said = lm.predict_tokens(alone.flatten(0, 1)[blank])
        same(said, own)
    assert digest(lm) == digest(load_folder(folder))


@pytest.mark.parametrize(
    ("network", "config", "options", "said"),
    [
        ("FNetForMaskedLM", "FNetConfig", _SMALL, "reads the padding of a batch"),
        ("FunnelForMaskedLM", "FunnelConfig", _FUNNEL, "reads the padding of a batch"),
        ("ConvBertForMaskedLM", "ConvBertConfig", _SMALL, "reads the padding of a batch"),
        ("EsmForMaskedLM", "EsmConfig", {**_SMALL, "token_dropout": True, "mask_token_id": 4},
         "does more with a token than look up its vector"),
        ("NystromformerForMaskedLM", "NystromformerConfig", {**_SMALL, **_LONG},
         r"NystromformerModel cannot read word vectors, .*shape"),
        ("BertLMHeadModel", "BertConfig", {**_SMALL, "is_decoder": True},
         "BertModel is loaded as an encoder, and reads left to right"),
        ("CanineModel", "CanineConfig", _SMALL, "cannot be loaded as a language model"),
        ("IBertForMaskedLM", "IBertConfig", _SMALL, "has no table of word vectors"),
        ("BrosModel", "BrosConfig", _SMALL, "BrosModel cannot read word vectors, .*bbox"),
    ],
    ids=lambda value: value if isinstance(value, str) and "For" in value else "",
)  # fmt: skip
def test_what_is_no_encoder_as_kbench_needs_one_is_refused_in_one_line(
    tmp_path: Path, network: str, config: str, options: dict[str, Any], said: str
) -> None:
    folder = write_network(tmp_path, network, config, **options)
    with pytest.raises(KbenchError, match=said) as caught:
        load_folder(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_xlnet_has_no_longest_text_and_no_first_token_of_its_own(tmp_path: Path) -> None:
    folder = write_network(tmp_path, "XLNetLMHeadModel", "XLNetConfig", **_XLNET)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    steps = tokenizer["post_processor"]["single"]
    tokenizer["post_processor"]["single"] = steps[1:] + steps[:1]  # [CLS] last
    path.write_text(json.dumps(tokenizer))
    lm = load_folder(folder)
    assert lm.max_length == 512
    assert lm.unread == ("lm_loss",)
    hidden, _ = states(lm, [0])
    pooled = lm.pool(hidden, torch.ones(hidden.shape[:2]))
    torch.testing.assert_close(pooled[0], hidden[0].mean(0))


def test_bigbird_reads_all_of_a_text_whatever_it_read_before(tmp_path: Path) -> None:
    folder = write(tmp_path, "bigbird")
    lm = load_folder(folder)
    assert lm.max_length == (5 + 2 * lm.config.num_random_blocks) * 2
    first, _ = states(lm, [0])
    states(lm, [2])
    assert torch.equal(states(lm, [0])[0], first)


def test_the_padding_of_mobilebert_is_blank_whatever_its_vector(tmp_path: Path) -> None:
    def loud(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights["mobilebert.embeddings.word_embeddings.weight"][1] = 7.0
        return weights

    lm = load_folder(rewrite(write(tmp_path, "mobilebert"), loud))
    short, _ = states(lm, [2])
    both, _ = states(lm, [2, 1])
    same(both[0, : short.shape[1]], short[0])


def test_a_tokenizer_with_more_tokens_than_vectors_is_refused_with_both(tmp_path: Path) -> None:
    folder = write(tmp_path, "bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["river1", "river2"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(KbenchError, match=rf"up to id {rows + 1}, and BertModel has {rows} word"):
        load_folder(folder)


def test_more_vectors_than_tokens_are_no_fault(tmp_path: Path) -> None:
    folder = write(tmp_path, "bert")
    network = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    network.resize_token_embeddings(512)
    network.save_pretrained(folder)
    assert load_folder(folder).word_embeddings.num_embeddings == 512


def test_a_length_that_leaves_no_room_for_a_text_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "bert")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 3}))
    with pytest.raises(KbenchError, match="reads texts of 3 tokens at most"):
        load_folder(folder)


def test_positions_that_the_network_lacks_are_found_without_its_layers(tmp_path: Path) -> None:
    lm = load_folder(write(tmp_path, "roformer"))
    lm.max_length = 71  # its positions are no weights: nothing else tells
    with pytest.raises(KbenchError, match="cannot read the 71 tokens"):
        try_out(lm)
    assert not lm.layers[0]._forward_pre_hooks


def test_states_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    def huge(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights["bert.encoder.layer.0.output.dense.weight"].fill_(3e38)
        return weights

    with pytest.raises(KbenchError, match="the states of BertModel are not finite"):
        load_folder(rewrite(write(tmp_path, "bert"), huge))


def test_a_head_that_kbench_cannot_apply_is_refused(tmp_path: Path) -> None:
    lm = load_folder(write(tmp_path, "electra"))
    del lm.network.generator_lm_head
    with pytest.raises(
        KbenchError, match="ElectraModel cannot apply the head that predicts tokens"
    ):
        try_out(lm)


def test_a_pooler_of_another_form_is_refused(tmp_path: Path) -> None:
    lm = load_folder(write(tmp_path, "albert", kind="Model"))
    lm.base.pooler_activation = torch.nn.GELU()
    Trial(lm).says_what_the_network_says()
    lm.pool = lambda hidden, mask: hidden[:, 0]  # type: ignore[method-assign]
    with pytest.raises(KbenchError, match="the pooler of AlbertModel is of a form"):
        Trial(lm).says_what_the_network_says()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_trial_leaves_network_and_generators_as_they_are(tmp_path: Path, name: str) -> None:
    lm = load_folder(write(tmp_path, name))
    before, random = digest(lm), torch.get_rng_state()
    attributes = set(vars(lm)), set(vars(lm.base))
    assert 0 <= try_out(lm) < 1e-6
    assert digest(lm) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert (set(vars(lm)), set(vars(lm.base))) == attributes
    assert not lm.training


def test_a_network_is_tried_once_and_again_when_its_files_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def counted(lm: LanguageModel) -> float:
        tried.append(lm)
        return 3e-6

    monkeypatch.setattr(loading, "try_out", counted)
    folder = write(tmp_path, "bert")
    assert [load_folder(folder).rounding for _ in range(2)] == [3e-6] * 2
    assert len(tried) == 1
    os.utime(folder / "config.json", (time.time() + 9, time.time() + 9))
    load_folder(folder)
    assert len(tried) == 2


def test_a_network_that_failed_once_fails_again_until_its_files_are_mended(tmp_path: Path) -> None:
    folder = configure(write(tmp_path, "bert", kind="LMHeadModel"), is_decoder=True)
    for _ in range(2):
        with pytest.raises(KbenchError, match="reads left to right"):
            load_folder(folder)
    load_folder(configure(folder, is_decoder=False))
