"""A decoder in one GGUF file is the decoder that it was written from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from kbench.errors import KbenchError, UsageError
from kbench.model import Decoder
from kbench.model.huggingface import HuggingFaceBackbone, load_folder
from tests.architectures import write_decoder


def written(folder: Path, path: Path, *, template: str | None = None) -> Path:
    """Writes a Llama of a folder as GGUF: its queries and keys lie in llama.cpp's order."""
    gguf: Any = pytest.importorskip("gguf")
    network = transformers.AutoModelForCausalLM.from_pretrained(folder)
    config = network.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _vocabulary(writer, folder)
    if template is not None:
        writer.add_chat_template(template)
    for name, value in network.state_dict().items():
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            writer.add_tensor(_renamed(name), _ordered(name, value, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary(writer: Any, folder: Path) -> None:
    about = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(about["vocab"], key=about["vocab"].__getitem__)
    # transformers adds this one where it is lacking, and the network has no vector for it.
    tokens[tokens.index("<mask>")] = "<|endoftext|>"
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    special = {"<s>", "<pad>", "</s>", "<unk>", "<|endoftext|>"}
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    merges = [m if isinstance(m, str) else " ".join(m) for m in about["merges"]]
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("</s>"))
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_pad_token_id(tokens.index("<pad>"))


_NAMES = (
    ("lm_head", "output"),
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("model.layers", "blk"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
)


def _renamed(name: str) -> str:
    for here, there in _NAMES:
        name = name.replace(here, there)
    return name


def _ordered(name: str, value: torch.Tensor, config: Any) -> Any:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if part in name:
            halves = value.view(count, 2, -1, value.shape[1])
            value = halves.transpose(1, 2).reshape(value.shape)
    return np.ascontiguousarray(value.numpy())


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_decoder(tmp_path / "llama", "llama", tie_word_embeddings=request.param)


def test_it_says_what_the_folder_says_that_it_was_written_from(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone = HuggingFaceBackbone(str(written(folder, tmp_path / "tiny.gguf")))
    assert backbone.left_to_right
    lm, own = backbone.load(), load_folder(folder)
    assert isinstance(lm, Decoder)
    text = lm.tokenizer("we saw istanbul today", add_special_tokens=False)["input_ids"]
    assert text == own.tokenizer("we saw istanbul today", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        said, wanted = (one.network(input_ids=torch.tensor([text])).logits for one in (lm, own))
    torch.testing.assert_close(said, wanted, rtol=0, atol=1e-5)
    assert "GGUF" not in capfd.readouterr().err


def test_it_is_addressed_by_its_content(folder: Path, tmp_path: Path) -> None:
    path = written(folder, tmp_path / "tiny.gguf")
    other = tmp_path / "other.gguf"
    other.write_bytes(path.read_bytes())
    digests = [HuggingFaceBackbone(str(file)).digest for file in (path, other)]
    assert digests[0] == digests[1]
    other.write_bytes(other.read_bytes()[:-1] + b"\1")
    assert HuggingFaceBackbone(str(other)).digest != digests[0]


def test_what_is_no_gguf_says_so_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"no model at all")
    with pytest.raises(KbenchError, match=r"broken\.gguf: cannot be read as GGUF") as caught:
        load_folder(path)
    assert "\n" not in str(caught.value)


def test_the_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"anything")
    monkeypatch.setattr("kbench.model.gguf.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install knowledge-bench\[gguf\]"):
        HuggingFaceBackbone(str(path)).config()
