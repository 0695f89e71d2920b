"""The frozen path: slots filled, nothing left behind, nothing trained, a digest that sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kbench.data import Example, Mention, Role
from kbench.encoding import Batch, Layout, encode
from kbench.errors import FrozenError, Unsupported
from kbench.model import DownstreamModel, LanguageModel, digest, dropout
from kbench.model.freezing import frozen
from kbench.model.heads import BlankHead, RelationHead

EXAMPLES = [
    Example("a", "we saw it today", (Mention(7, 9, "e", Role.TARGET),), ("red",), blank=15),
    Example(
        "b",
        "near the color it rained again",
        (Mention(0, 4, "e"), Mention(9, 14, "e"), Mention(25, 30, "e")),
        ("blue",),
        blank=0,
    ),
    Example("c", "was there", (), ("red",), blank=4),
]
ROWS = [(4,), (2, -1, 4), ()]


def batch_of(
    lm: LanguageModel,
    *,
    slot: str | None = "{slot} / {mention}",
    chosen: tuple[int, ...] = (0, 1, 2),
) -> Batch:
    layout = Layout({Role.TARGET: "$"}, slot, 32)
    inputs = encode(lm.tokenizer, EXAMPLES, ROWS, layout)
    return inputs.collate(np.array(chosen))


def source(lm: LanguageModel) -> nn.Embedding:
    torch.manual_seed(1)
    return nn.Embedding(9, lm.slot_width)


def test_embedding_with_slots_is_what_a_loop_over_tokens_makes(lm: LanguageModel) -> None:
    batch, table = batch_of(lm), source(lm)
    with lm.slots(table), torch.no_grad():
        got = lm.embed(batch)
    slots = dict(zip(batch.slot_index.tolist(), batch.slot_rows.tolist(), strict=True))
    assert len(slots) == 3
    for row, ids in enumerate(batch.ids.tolist()):
        for column, token in enumerate(ids):
            flat = row * len(ids) + column
            expected = (
                table.weight[slots[flat]] if flat in slots else lm.word_embeddings.weight[token]
            )
            assert torch.equal(got[row, column], expected)


def test_slots_fill_only_their_positions_whatever_the_placeholder(lm: LanguageModel) -> None:
    batch, table = batch_of(lm), source(lm)
    other = batch.ids.flatten().index_fill(0, batch.slot_index, 7).view_as(batch.ids)
    changed = Batch(**{**vars(batch), "ids": other})
    with lm.slots(table), torch.no_grad():
        assert torch.equal(lm(batch), lm(changed))


def test_slots_reach_the_output_and_the_gradient_reaches_the_slots(lm: LanguageModel) -> None:
    batch, table = batch_of(lm), source(lm)
    with frozen(lm), lm.slots(table):
        one = lm(batch)
        one.square().sum().backward()
    with lm.slots(lambda rows: table(rows) * 2):
        assert not torch.allclose(lm(batch), one)
    assert table.weight.grad is not None
    assert table.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [2, 4]


def test_what_fills_the_slots_does_not_become_a_part_of_the_encoder(lm: LanguageModel) -> None:
    before = digest(lm)
    with lm.slots(source(lm)), lm.held(torch.tensor([2])):
        assert digest(lm) == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_plug_leaves_nothing_behind(lm: LanguageModel, fails: bool) -> None:
    lm.eval()
    batch = batch_of(lm, slot=None)
    before, state = lm(batch), digest(lm)
    attributes = set(vars(lm))
    table = source(lm)
    try:
        with lm.slots(table), lm.held(torch.tensor([2, 4])):
            lm(batch_of(lm))
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert torch.equal(lm(batch), before)
    assert digest(lm) == state
    assert set(vars(lm)) == attributes
    with pytest.raises(RuntimeError, match="no plug is attached"):
        lm(batch_of(lm))


def test_a_second_plug_is_refused_and_the_first_stays(lm: LanguageModel) -> None:
    table = source(lm)
    with lm.slots(table), torch.no_grad():
        before = lm(batch_of(lm))
        with pytest.raises(RuntimeError, match="another plug"), lm.slots(table):
            pass
        assert torch.equal(lm(batch_of(lm)), before)


def test_a_held_table_gives_what_mapping_each_batch_gives(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kbench.model.language_model._HELD", 2)
    table, calls = source(lm), []

    def mapped(rows: Tensor) -> Tensor:
        calls.append(rows.tolist())
        vectors: Tensor = table(rows)
        return vectors

    with lm.slots(mapped), torch.no_grad():
        plain = lm(batch_of(lm))
        calls.clear()
        with lm.held(torch.tensor([4, 2, 8, 4, 0])):
            held = lm(batch_of(lm))
            lm(batch_of(lm))
        assert calls == [[0, 2], [4, 8]]
        assert torch.equal(held, plain)
        lm(batch_of(lm))
        assert len(calls) == 3


@pytest.mark.parametrize("rows", [[], [1]])
def test_holding_without_plug_or_rows_changes_nothing(lm: LanguageModel, rows: list[int]) -> None:
    batch = batch_of(lm, slot=None)
    before = lm(batch)
    with lm.held(torch.tensor(rows, dtype=torch.long)):
        assert torch.equal(lm(batch), before)


def test_padding_does_not_change_an_example(lm: LanguageModel) -> None:
    table = source(lm)
    with lm.slots(table), torch.no_grad():
        together = lm(batch_of(lm))
        alone = lm(batch_of(lm, chosen=(0,)))
    torch.testing.assert_close(together[0, : alone.shape[1]], alone[0], rtol=0, atol=1e-5)


# -- frozen, dropout, digest ----------------------------------------------------------------------


def test_frozen_weights_take_no_gradient_and_are_as_before_afterwards(lm: LanguageModel) -> None:
    parameters = list(lm.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    table = source(lm)
    with frozen(lm), lm.slots(table):
        assert not any(p.requires_grad for p in lm.parameters())
        lm(batch_of(lm)).sum().backward()
    assert all(p.grad is None for p in parameters)
    assert [p.requires_grad for p in parameters] == [False] + [True] * (len(parameters) - 1)


def test_a_gradient_on_a_frozen_weight_is_an_error_that_names_it(lm: LanguageModel) -> None:
    def thaw() -> None:
        lm.word_embeddings.weight.requires_grad_(True)
        lm(batch_of(lm, slot=None)).sum().backward()

    with pytest.raises(FrozenError, match=r"word_embeddings\.weight"), frozen(lm):
        thaw()
    assert all(p.requires_grad for p in lm.parameters())


def test_frozen_lets_an_error_through_and_restores(lm: LanguageModel) -> None:
    with pytest.raises(ZeroDivisionError), frozen(lm):
        raise ZeroDivisionError
    assert all(p.requires_grad for p in lm.parameters())


def rates_in_use(model: nn.Module, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> set[float]:
    """The rates that dropout of hidden states and of attention really use in a forward pass."""
    used: set[float] = set()
    attention = torch.nn.functional.scaled_dot_product_attention
    plain = torch.nn.functional.dropout

    def hidden(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        used.add(p if training else 0.0)
        return plain(x, p, training, inplace)

    def attend(*given: Any, **options: Any) -> Tensor:
        used.add(options.get("dropout_p", 0.0))
        return attention(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "dropout", hidden)
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
        model(batch)
    return used


def test_dropout_sets_every_rate_and_restores_rates_and_modes(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(lm, slot=None)
    lm.eval()
    lm.base.embeddings.train()  # a mode of its own, to be found again
    modes = {m: m.training for m in lm.modules()}
    rates = {m: m.p for m in lm.modules() if isinstance(m, nn.Dropout)}
    with dropout(lm, 0.35):
        assert rates_in_use(lm, batch, monkeypatch) == {0.35}
        assert lm.training
    with dropout(lm, None):
        assert rates_in_use(lm, batch, monkeypatch) == {0.0}
        assert not any(m.training for m in lm.modules())
    with pytest.raises(ZeroDivisionError), dropout(lm, 0.35):
        raise ZeroDivisionError
    assert {m: m.training for m in lm.modules()} == modes
    assert {m: m.p for m in lm.modules() if isinstance(m, nn.Dropout)} == rates


def test_dropout_of_rate_zero_is_eval_mode(lm: LanguageModel) -> None:
    batch = batch_of(lm, slot=None)
    with dropout(lm, 0.0):
        noisy = lm(batch)
    with dropout(lm, None):
        assert torch.equal(lm(batch), noisy)


def test_the_digest_sees_every_element_of_every_parameter_and_buffer(lm: LanguageModel) -> None:
    model = DownstreamModel(lm, RelationHead(lm.width, ["x", "y"]))
    model.register_buffer("scale", torch.ones(3, dtype=torch.bfloat16))
    model.register_buffer("unsaved", torch.arange(3), persistent=False)
    model.register_buffer("flag", torch.tensor(True))
    seen = {digest(model)}
    tensors = [*model.parameters(), *model.buffers()]
    for count, tensor in enumerate(tensors, 1):
        flat = tensor.data.view(-1)
        for at in {0, len(flat) // 2, len(flat) - 1}:
            old = flat[at].clone()
            flat[at] = ~old if flat.dtype == torch.bool else old + 1
            assert digest(model) not in seen
            flat[at] = old
        flat[-1] = ~flat[-1] if flat.dtype == torch.bool else flat[-1] + 1
        seen.add(digest(model))
        assert len(seen) == count + 1


def test_the_digest_sees_names_types_and_shapes() -> None:
    zeros = torch.zeros(2, 3)
    variants = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.view(3, 2)},
        {"a": zeros.view(torch.int32)},
        {"a": zeros.double()[:, :1]},
        {"a": -zeros},
        {"a": zeros, "b": zeros[:0]},
    ]
    assert len({digest(variant) for variant in variants}) == len(variants)
    assert digest({"a": zeros, "b": zeros + 1}) == digest({"b": zeros + 1, "a": zeros.clone()})
    assert digest({"a": torch.arange(6).view(2, 3).t()}) == digest(
        {"a": torch.arange(6).view(2, 3).t().contiguous()}
    )


def test_a_step_of_training_changes_the_digest_and_a_forward_does_not(lm: LanguageModel) -> None:
    batch, before = batch_of(lm, slot=None), digest(lm)
    loss = lm(batch).square().sum()
    assert digest(lm) == before
    loss.backward()
    torch.optim.SGD(lm.parameters(), 1e-3).step()
    assert digest(lm) != before


# -- heads of the network --------------------------------------------------------------------------


def test_tokens_predicted_at_the_blank_are_the_whole_networks(lm: LanguageModel) -> None:
    batch = batch_of(lm, slot=None)
    model = DownstreamModel(lm, BlankHead()).eval()
    with torch.no_grad():
        whole = lm.network(input_ids=batch.ids, attention_mask=batch.mask).logits
        got = model(batch)
    expected = whole.flatten(0, 1)[batch.blank_index]
    assert got.shape == (3, lm.config.vocab_size)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_without_a_masked_lm_head_nothing_is_predicted(tmp_path: Path) -> None:
    from kbench.model.huggingface import load_folder
    from kbench.testing.toys import write_backbone

    lm = load_folder(write_backbone(tmp_path, lm_head=False))
    assert not lm.has_lm_head
    with pytest.raises(Unsupported, match="no masked-LM head"):
        lm.predict_tokens(torch.zeros(1, lm.width))


def test_the_loss_of_a_model_is_its_heads(lm: LanguageModel) -> None:
    model = DownstreamModel(lm, RelationHead(lm.width, ["x", "y"])).eval()
    batch = batch_of(lm, slot=None)
    batch = Batch(**{**vars(batch), "targets": torch.tensor([0, 1, 1])})
    logits = model(batch).log_softmax(-1)
    expected = -(logits[0, 0] + logits[1, 1] + logits[2, 1]) / 3
    assert model.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)
