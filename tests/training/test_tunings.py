"""LoRA, adapters and BitFit: what they compute, what trains, what stays, and that it comes back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from kbench.data import Example
from kbench.encoding import Batch, Examples, Layout, encode
from kbench.errors import Unsupported, UsageError
from kbench.grid.plan import Place
from kbench.model import DownstreamModel, Encoder, Head, LanguageModel, digest, dropout, rewritten
from kbench.model.freezing import frozen
from kbench.model.heads import BlankHead, RelationHead, TypingHead
from kbench.model.huggingface import load_folder
from kbench.parts.catalogue import Kind
from kbench.parts.run_parts import Parts
from kbench.pipeline.models import tune
from kbench.pipeline.session import Session
from kbench.pipeline.weights import restore, untied
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Artifacts, Result, Status
from kbench.task import Family
from kbench.testing import registered
from kbench.training import Recipe, Tuning, train
from kbench.training.tunings.adapter import AdapterTuning
from kbench.training.tunings.bitfit import BitFitTuning
from kbench.training.tunings.lora import LoRATuning
from tests.architectures import ARCHITECTURES, write, write_decoder
from tests.grid.toygrid import grid, run
from tests.model.test_encoder import rates_in_use

TUNINGS: dict[str, type[Tuning]] = {
    "lora": LoRATuning,
    "adapter": AdapterTuning,
    "bitfit": BitFitTuning,
}
EXAMPLES = [
    Example("a", "we saw it today", (), "x", blank=15),
    Example("b", "near the color it rained again", (), "y", blank=0),
    Example("c", "was there", (), "x", blank=4),
]
each = pytest.mark.parametrize("name", TUNINGS)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name), name) for name in ARCHITECTURES}


def data_of(lm: LanguageModel) -> Examples:
    inputs = encode(lm.tokenizer, EXAMPLES, [(), (), ()], Layout({}))
    return Examples(inputs, np.array([0, 1, 0]))


def batch_of(lm: LanguageModel) -> Batch:
    data = data_of(lm)
    return data.inputs.collate(np.arange(3), data.targets)


def tuned(
    lm: LanguageModel, name: str, head: Head | None = None, **options: Any
) -> DownstreamModel:
    """A model prepared for a tuning; what the tuning adds is no longer at its start."""
    model = DownstreamModel(lm, head or RelationHead(lm.width, ["x", "y"]))
    known = {id(p) for p in model.parameters()}
    tuning = TUNINGS[name]()
    torch.manual_seed(5)
    tuning.prepare(model, {**tuning.defaults, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) not in known:
                parameter.normal_(std=0.3)
    return model.eval()


def marked(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


# -- what is computed ----------------------------------------------------------------------------


def test_lora_is_a_change_of_low_rank_and_published_scale_with_the_biases_kept(
    lm: LanguageModel, toy_folder: Path
) -> None:
    model = tuned(lm, "lora", BlankHead(), rank=3)
    plain = load_folder(toy_folder / "bert")
    with torch.no_grad():
        for ours, theirs in zip(lm.base.encoder.layer, plain.base.encoder.layer, strict=True):
            for path in ("attention.self.query", "attention.self.key", "intermediate.dense"):
                change, target = ours.get_submodule(path), theirs.get_submodule(path)
                b, a = change.lora_B["default"].weight, change.lora_A["default"].weight
                target.weight += b @ a / 3
                assert torch.equal(change.base_layer.bias, target.bias)
        expected = DownstreamModel(plain, BlankHead()).eval()(batch_of(plain))
        got = model(batch_of(lm))
        before = DownstreamModel(load_folder(toy_folder / "bert"), BlankHead()).eval()
        assert (got - before(batch_of(plain))).abs().max() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_adapters_stand_after_both_sub_layers_before_residual_and_normalisation(
    lm: LanguageModel,
) -> None:
    model = tuned(lm, "adapter", rank=5)
    batch = batch_of(lm)
    row, length = 1, int(batch.mask[1].sum())
    with torch.no_grad():
        got = model.lm(batch)[row, :length]
        hidden = lm.base.embeddings(input_ids=batch.ids)[row, :length]
        for layer in lm.base.encoder.layer:
            hidden = _plain_layer(layer, hidden)
    torch.testing.assert_close(got, hidden, atol=1e-4, rtol=1e-4)


def _plain_layer(layer: Any, hidden: Tensor) -> Tensor:
    """One BERT layer with adapters on one sentence ``[tokens, width]``, head after head."""
    attention, heads = layer.attention.self, []
    size = attention.attention_head_size
    for head in range(attention.num_attention_heads):
        part = slice(head * size, (head + 1) * size)
        query, key, value = (
            hidden @ one.weight[part].T + one.bias[part]
            for one in (attention.query, attention.key, attention.value)
        )
        heads.append(torch.softmax(query @ key.T / size**0.5, -1) @ value)
    hidden = _plain_closing(layer.attention.output, torch.cat(heads, -1), hidden)
    dense = layer.intermediate.dense
    inner = hidden @ dense.weight.T + dense.bias
    inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
    return _plain_closing(layer.output, inner, hidden)


def _plain_closing(output: Any, hidden: Tensor, residual: Tensor) -> Tensor:
    adapter, norm = output.dropout, output.LayerNorm
    x = hidden @ output.dense.weight.T + output.dense.bias
    inner = x @ adapter.down.weight.T + adapter.down.bias
    x = x + (inner / (1 + torch.exp(-inner))) @ adapter.up.weight.T + adapter.up.bias + residual
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    closed: Tensor = centred / scale * norm.weight + norm.bias
    return closed


# -- what trains ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(toy_folder: Path) -> Any:
    """Makes encoders of the shape of bert-base-uncased, without weights."""
    tokenizer = load_folder(toy_folder / "bert").tokenizer

    def make(kind: type[Any]) -> LanguageModel:
        with torch.device("meta"):
            network = kind(transformers.BertConfig())
        pooler = getattr(network.base_model, "pooler", None) is not None
        return Encoder(network, tokenizer, pooler=pooler)

    return make


LAYERS, WIDTH, INNER, WORDS = 12, 768, 3072, 30522
LABELS = 80 * WIDTH + 80
# Maps of attention and of the feed-forward network, and two normalisations.
LAYER_BIASES = 4 * WIDTH + INNER + WIDTH + 2 * WIDTH


@pytest.mark.parametrize(
    ("name", "family", "expected"),
    [
        ("lora", Family.TYPING, LAYERS * 2 * 4 * (WIDTH + WIDTH) + LABELS),
        ("lora", Family.RELATION, LAYERS * 32 * (2 * (WIDTH + WIDTH) + WIDTH + INNER) + LABELS),
        ("lora", Family.QUESTION, LAYERS * 4 * (2 * (WIDTH + WIDTH) + WIDTH + INNER)),
        ("adapter", Family.RELATION, LAYERS * 2 * (2 * 32 * WIDTH + 32 + WIDTH) + LABELS),
        ("adapter", Family.QUESTION, LAYERS * 2 * (2 * 32 * WIDTH + 32 + WIDTH)),
        # Normalisation of the embeddings, and the pooler or the masked-LM head's three.
        ("bitfit", Family.TYPING, WIDTH + LAYERS * LAYER_BIASES + WIDTH + LABELS),
        ("bitfit", Family.QUESTION, WIDTH + LAYERS * LAYER_BIASES + 2 * WIDTH + WORDS),
    ],
)
def test_what_trains_in_bert_base_is_what_the_formulas_say(
    name: str, family: Family, expected: int, wide: Any
) -> None:
    answered = family == Family.QUESTION
    lm = wide(transformers.BertForMaskedLM if answered else transformers.BertModel)
    labels = [str(number) for number in range(80)]
    head = BlankHead() if answered else TypingHead(WIDTH, labels)
    model, tuning = DownstreamModel(lm, head), TUNINGS[name]()
    tuning.prepare(model, tuning.defaults_for(family))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


@pytest.mark.parametrize("blank", [True, False])
@each
def test_training_moves_what_is_marked_and_nothing_else(
    name: str, blank: bool, lm: LanguageModel
) -> None:
    model = tuned(lm, name, BlankHead() if blank else None)
    before = {key: value.clone() for key, value in model.named_parameters()}
    recipe = Recipe(learning_rate=1e-2, batch_size=3, epochs=2)
    options = {"seed": 0, "device": torch.device("cpu")}
    train(model, model.loss, data_of(lm), recipe, **options)  # type: ignore[arg-type]
    moved = {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}
    assert moved == marked(model)
    kinds = {key.split(".")[-1] if "head" not in key else "head" for key in moved}
    head = set() if blank else {"head"}
    assert (
        kinds
        == {"bitfit": {"bias"}, "lora": {"weight"}, "adapter": {"weight", "bias"}}[name] | head
    )
    assert not any("word_embeddings" in key or "pooler" in key for key in moved)
    assert any("cls.predictions" in key for key in moved) == (blank and name == "bitfit")


def test_bitfit_trains_the_biases_of_a_pooler_that_is_read(tmp_path: Path) -> None:
    lm = load_folder(write(tmp_path, "bert", kind="ForPreTraining"))
    pooled = marked(tuned(lm, "bitfit"))
    assert "encoder.network.bert.pooler.dense.bias" in pooled
    assert not any("cls." in name for name in pooled)
    lm = load_folder(tmp_path)
    answered = marked(tuned(lm, "bitfit", BlankHead()))
    assert "encoder.network.bert.pooler.dense.bias" not in answered
    assert any("cls." in name for name in answered)


# -- architectures -------------------------------------------------------------------------------

REFUSED = {
    ("modernbert", "bitfit"): "BitFit trains biases, and ModernBertModel has none",
    ("modernbert", "adapter"): "those of ModernBertModel are not of that form",
    ("distilbert", "adapter"): "those of DistilBertModel are not of that form",
    ("albert", "adapter"): "AlbertModel has no list of layers",
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@each
def test_an_architecture_is_tuned_or_refused_in_one_line(
    name: str, architecture: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = folders[architecture]
    lm, tuning = load_folder(folder), TUNINGS[name]()
    model = DownstreamModel(lm, BlankHead())
    batch = batch_of(lm)
    state = digest(model)
    if (architecture, name) in REFUSED:
        with pytest.raises(Unsupported, match=REFUSED[architecture, name]) as caught:
            tuning.prepare(model, tuning.defaults)
        assert "\n" not in str(caught.value)
        assert digest(model) == state
        return
    with torch.no_grad():
        before = model(batch)
        tuning.prepare(model, tuning.defaults)
        assert torch.equal(model.eval()(batch), before)
    assert lm.base is lm.network.base_model
    assert lm.word_embeddings is lm.base.get_input_embeddings()
    _marks(name, architecture, marked(model))
    assert not lm.word_embeddings.weight.requires_grad
    _gradients_reach_what_is_marked(model, batch)
    _comes_back(tuned(load_folder(folder), name, BlankHead()), folder, name, tmp_path)


def _marks(name: str, architecture: str, names: set[str]) -> None:
    """Query, key and feed-forward map of each layer; two bottlenecks; or biases and no weight."""
    layers = 1 if architecture == "albert" else 2
    if name == "lora":
        # ModernBERT makes queries, keys and values by one map.
        assert len(names) == layers * 2 * (2 if architecture == "modernbert" else 3)
        assert all(".lora_A.default." in one or ".lora_B.default." in one for one in names)
    elif name == "adapter":
        assert len(names) == layers * 2 * 4
    else:
        assert all(one.endswith(".bias") for one in names)


@pytest.mark.parametrize("architecture", ["gpt2", "gpt-neox", "modernbert", "phi3"])
def test_lora_leaves_values_alone_where_one_map_makes_them_too(
    architecture: str, tmp_path: Path
) -> None:
    wrote = write if architecture == "modernbert" else write_decoder
    lm = load_folder(wrote(tmp_path / "model", architecture))
    model, tuning = DownstreamModel(lm, RelationHead(lm.width, ["x", "y"])), LoRATuning()
    names = ("c_attn", "qkv_proj", "query_key_value", "Wqkv")
    found = {n: m for n, m in lm.network.named_modules() if n.rpartition(".")[2] in names}
    hidden = torch.randn(3, lm.width)
    with torch.no_grad():
        before = {name: part(hidden) for name, part in found.items()}
    tuning.prepare(model, tuning.defaults)
    data, recipe = data_of(lm), Recipe(learning_rate=0.1, batch_size=3, epochs=4, weight_decay=0.1)
    train(model, model.loss, data, recipe, seed=0, device=torch.device("cpu"))
    assert len(before) == 2
    heads = int(lm.config.num_attention_heads)
    shared = int(getattr(lm.config, "num_key_value_heads", None) or heads)
    for name, part in lm.network.named_modules():
        if name not in before:
            continue
        with torch.no_grad():
            change = part(hidden) - before[name]
        size = change.shape[1] // (heads + 2 * shared)
        if architecture == "gpt-neox":
            queries, keys, values = change.view(3, heads, 3, size).unbind(2)
        else:
            queries, keys, values = change.split([heads * size, shared * size, shared * size], 1)
        assert not values.any()
        assert queries.abs().max() > 1e-4
        assert keys.abs().max() > 1e-4


def _gradients_reach_what_is_marked(model: DownstreamModel, batch: Batch) -> None:
    model(batch).square().sum().backward()
    assert {k for k, p in model.named_parameters() if p.grad is not None} == marked(model)
    with frozen(model):
        assert not model(batch).requires_grad
    assert marked(model)


def _comes_back(model: DownstreamModel, folder: Path, name: str, scratch: Path) -> None:
    store = Artifacts(scratch)
    store.save("model", {"x": 1}, untied(model))
    (path,) = store.all()
    stored = store.load("model", path.name)
    assert stored is not None
    again = DownstreamModel(load_folder(folder), BlankHead())
    torch.manual_seed(99)
    TUNINGS[name]().prepare(again, TUNINGS[name].defaults)
    assert name == "bitfit" or digest(again) != digest(model)
    restore(again, stored.tensors)
    assert digest(again) == digest(model)
    with torch.no_grad():
        batch = batch_of(model.lm)
        assert torch.equal(again.eval()(batch), model(batch))


# -- the frozen path -----------------------------------------------------------------------------


@each
def test_hooks_of_a_plug_work_inside_a_tuned_model_and_leave_nothing(
    name: str, lm: LanguageModel
) -> None:
    model, batch = tuned(lm, name), batch_of(lm)
    layer = lm.layers[1]
    dense, inner = lm.feed_forward(layer)
    seen: list[Tensor] = []

    def watched(output: Tensor) -> Tensor:
        seen.append(output)
        return output + 1

    with torch.no_grad():
        before = model(batch)
        for module in (dense, inner, layer, lm.embeddings):
            with rewritten(module, watched):
                assert not torch.allclose(model(batch), before)
            assert torch.equal(model(batch), before)
    assert [len(output.shape) for output in seen] == [3] * 4
    assert seen[0].shape[-1] == lm.config.intermediate_size
    # What a plug sees of the first map is its tuned output: with the activation, the next one.
    torch.testing.assert_close(nn.functional.gelu(seen[0]), seen[1])


def test_the_first_map_of_a_model_tuned_by_lora_gives_its_changed_output(
    lm: LanguageModel,
) -> None:
    tuned(lm, "lora", rank=3)
    dense: Any = lm.feed_forward(lm.layers[0])[0]
    hidden = torch.randn(7, lm.width)
    b, a = dense.lora_B["default"].weight, dense.lora_A["default"].weight
    expected = hidden @ (dense.weight + b @ a / 3).T + dense.bias
    torch.testing.assert_close(dense(hidden), expected, atol=1e-5, rtol=1e-5)
    assert (dense.in_features, dense.out_features) == (32, 64)


@each
def test_dropout_of_a_frozen_model_and_narrow_numbers_work(
    name: str, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = tuned(lm, name), batch_of(lm)
    with dropout(lm, 0.35):
        assert rates_in_use(lm, batch, monkeypatch) == {0.35}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = model(batch)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), model(batch), atol=0.1, rtol=0.1)


# -- options, recipes and seeds ------------------------------------------------------------------


@each
def test_recipes_are_the_published_ones(name: str) -> None:
    tuning = TUNINGS[name]()
    common = {"optimizer": "adamw", "warmup": 0.1, "decay": "linear", "weight_decay": 0.0}
    expected = {
        Family.TYPING: Recipe(1e-3, 64, 2, **common),  # type: ignore[arg-type]
        Family.RELATION: Recipe(2e-3, 64, 60, **common),  # type: ignore[arg-type]
        Family.QUESTION: Recipe(5e-4, 64, 5, **common),  # type: ignore[arg-type]
    }
    assert {family: tuning.recipe(family) for family in Family} == expected


def test_ranks_and_maps_are_the_published_ones_and_can_be_chosen(toy_tasks: None) -> None:
    chosen = {family: tuple(LoRATuning().defaults_for(family).values()) for family in Family}
    assert chosen == {
        Family.TYPING: (4, 1, False),
        Family.RELATION: (32, 1, True),
        Family.QUESTION: (4, 1, True),
    }
    with registered(Kind.TUNINGS, my_lora="kbench.training.tunings.lora:LoRATuning"):
        parts = _parts("my-lora", {"rank": 2, "learning_rate": 0.5})
        assert parts.tuning_options == {"rank": 2, "alpha": 1, "feed_forward": True}
        assert parts.tuning_recipe.learning_rate == 0.5
        with pytest.raises(UsageError, match="did you mean rank"):
            _ = _parts("my-lora", {"rnk": 2}).tuning_options


def _parts(tuning: str, options: dict[str, Any], backbone: str = "none", seed: int = 0) -> Parts:
    spec = RunSpec(
        task="toy-relations",
        backbone=backbone,
        tuning=tuning,
        method="none",
        setting=Setting.GENERAL,
        knowledge=None,
        control=Control.NONE,
        seed=seed,
        options={"tuning": {tuning: options}},
    )
    return Parts(spec)


def test_alpha_scales_the_change(lm: LanguageModel) -> None:
    tuned(lm, "lora", alpha=6.0, rank=4)
    query: Any = lm.base.encoder.layer[0].attention.self.query
    assert query.scaling == {"default": 1.5}


def test_peft_is_imported_only_by_a_model_that_is_prepared() -> None:
    lines = "import sys, kbench.training.tunings.lora; sys.exit('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", lines], check=False).returncode == 0


# -- in a grid -----------------------------------------------------------------------------------


METHOD = {
    "map-tuning": {
        "start": "scratch",
        "task-specific": {"learning_rate": 2e-2, "epochs": 3, "batch_size": 16, "dropout": 0.0},
    }
}
RATES = {
    "lora": {"learning_rate": 2e-2, "epochs": 2, "batch_size": 16},
    "adapter": {"learning_rate": 3e-3, "epochs": 2, "batch_size": 16},
    "bitfit": {"learning_rate": 1e-2, "epochs": 2, "batch_size": 16},
}


@pytest.fixture
def offered(toy_tasks: None) -> Iterator[None]:
    """The tunings as my-lora, my-adapter and my-bitfit."""
    targets = {
        f"my_{name}": f"{kind.__module__}:{kind.__qualname__}" for name, kind in TUNINGS.items()
    }
    with registered(Kind.TUNINGS, **targets):
        yield


@each
def test_a_stored_model_comes_back_bit_for_bit_and_a_seed_makes_the_same(
    name: str, offered: None, toy_folder: Path, tmp_path: Path
) -> None:
    options = {"learning_rate": 1e-2, "epochs": 1, "batch_size": 16}

    def made(folder: str, seed: int = 0) -> tuple[str, str]:
        parts = _parts(f"my-{name}", options, str(toy_folder / "bert"), seed)
        model, record = tune(Session(Artifacts(tmp_path / folder), torch.device("cpu")), parts)
        assert record.trainable_parameters > 0
        assert not marked(model)
        return digest(model), record.digest

    first = made("one")
    assert first[0] == first[1]
    assert made("one") == first  # loaded
    assert len(list(Artifacts(tmp_path / "one").all())) == 1
    assert made("two") == first  # trained again
    assert made("one", seed=1) != first


@each
def test_knowledge_reaches_a_frozen_model_of_each_tuning(
    name: str, offered: None, toy_folder: Path, tmp_path: Path
) -> None:
    # A random network learns little by its biases alone, so the embedded one is tuned.
    chosen = grid(
        toy_folder,
        tuning=f"my-{name}",
        backbone="kbench-tiny",
        options={"tuning": {f"my-{name}": RATES[name]}, "method": METHOD},
        control="none,shuffled",
    )
    results = run(chosen, Place(tmp_path / "out", tmp_path / "artifacts", "cpu"))
    assert [result.status for result in results] == [Status.OK] * 3, [r.reason for r in results]
    assert len({(r.frozen.before, r.frozen.after) for r in results if r.frozen}) == 1
    assert all(r.frozen and r.frozen.before == r.frozen.after for r in results)
    scores = {(r.spec.method, r.spec.control): _value(r) for r in results}
    assert scores["map-tuning", Control.NONE] > 0.8
    assert scores["map-tuning", Control.SHUFFLED] < 0.45
    assert scores["none", Control.NONE] < 0.45


def _value(result: Result) -> float:
    assert result.score is not None
    return result.score.value
