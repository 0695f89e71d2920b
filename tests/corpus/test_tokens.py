"""Masked language modelling on linked sentences: what is masked, and with what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.corpus import masked_tokens, mention_loss, next_tokens
from kbench.encoding import TokenKind
from kbench.errors import Unsupported
from kbench.model import LanguageModel
from kbench.model.huggingface import load_folder
from kbench.testing.toys import write_backbone
from tests import linked_world as world


@pytest.fixture(scope="module")
def lm(toy_folder: Path) -> LanguageModel:
    return load_folder(toy_folder / "bert")


def test_only_sentences_that_link_something_and_are_short_enough_are_kept(
    lm: LanguageModel, tmp_path: Path
) -> None:
    bundle = world.write_linked(tmp_path / "kb")
    lengths = world.texts(lm, bundle).lengths
    linked = [at for at, (_, names) in enumerate(world.TEXTS) if at not in (2, 5)]
    longest = int(lengths[linked].max())
    assert masked_tokens(lm, bundle, longest, 0).lengths.tolist() == lengths[linked].tolist()
    data = masked_tokens(lm, bundle, longest - 1, 0)
    assert data.corpus.dropped == {
        "corpus_sentences": 7,
        "corpus_sentences_unlinked": 2,
        "corpus_sentences_too_long": 1,
    }
    assert len(data.lengths) == 4


def test_targets_are_the_hidden_tokens_and_nothing_else_changes(
    lm: LanguageModel, tmp_path: Path
) -> None:
    data = masked_tokens(lm, world.write_linked(tmp_path / "kb"), 62, 0)
    chosen = np.arange(len(data.lengths))
    batch, inputs = data.batch(chosen), data.corpus.inputs
    width = batch.ids.shape[1]
    restored = batch.ids.flatten().clone()
    assert batch.targets is not None
    restored[batch.blank_index] = batch.targets
    for number in chosen.tolist():
        own = inputs.ids[inputs.bounds[number] : inputs.bounds[number + 1]]
        found = restored[number * width : number * width + len(own)]
        assert found.tolist() == own.tolist()
        # Specials at both ends and padding are never chosen; at least one token is.
        places = batch.blank_index[batch.blank_index // width == number] % width
        assert len(places) == max(1, round(0.15 * (len(own) - 2)))
        assert ((places > 0) & (places < len(own) - 1)).all()


def test_of_the_chosen_80_are_masked_10_random_10_kept(lm: LanguageModel, tmp_path: Path) -> None:
    bundle = world.write_linked(tmp_path / "kb", copies=300)
    data = masked_tokens(lm, bundle, 62, 0)
    mask = lm.tokenizer.mask_token_id
    fates, drawn = np.zeros(3), set()
    for _ in range(3):
        for chosen in np.split(np.arange(len(data.lengths)), 10):
            batch = data.batch(chosen)
            assert batch.targets is not None
            seen = batch.ids.flatten()[batch.blank_index]
            kept = seen == batch.targets
            masked = seen == mask
            fates += [int(masked.sum()), int((~masked & ~kept).sum()), int(kept.sum())]
            drawn |= set(seen[~masked & ~kept].tolist())
    assert fates.sum() > 5000
    np.testing.assert_allclose(fates / fates.sum(), [0.8, 0.1, 0.1], atol=0.02)
    assert drawn.isdisjoint(lm.tokenizer.all_special_ids)
    assert len(drawn) > 100


def test_masks_are_drawn_anew_each_time_and_by_the_seed(lm: LanguageModel, tmp_path: Path) -> None:
    bundle = world.write_linked(tmp_path / "kb")
    every = np.arange(5)
    one, same, other = (masked_tokens(lm, bundle, 62, seed) for seed in (0, 0, 1))
    first, second = one.batch(every).ids, one.batch(every).ids
    assert torch.equal(first, same.batch(every).ids)
    assert torch.equal(second, same.batch(every).ids)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other.batch(every).ids)


def test_a_backbone_without_masked_lm_head_is_unsupported(tmp_path: Path) -> None:
    headless = load_folder(write_backbone(tmp_path / "bert", lm_head=False))
    with pytest.raises(Unsupported, match="masked-LM head"):
        masked_tokens(headless, world.write_linked(tmp_path / "kb"), 62, 0)


def test_what_comes_next_is_every_text_token_but_one_that_stands_first(tmp_path: Path) -> None:
    lm = load_folder(write_backbone(tmp_path / "llama", left_to_right=True))
    data = next_tokens(lm, world.write_linked(tmp_path / "kb"), 62)
    chosen = np.arange(len(data.lengths))
    batch, inputs = data.batch(chosen), data.corpus.inputs
    width = batch.ids.shape[1]
    asked = [list[int](), list[int]()]
    for number in chosen.tolist():
        start, end = inputs.bounds[number : number + 2]
        own = inputs.ids[start:end]
        text = np.flatnonzero(inputs.kinds[start:end] == TokenKind.TEXT)
        asked[0] += (number * width + text[text > 0] - 1).tolist()
        asked[1] += own[text[text > 0]].tolist()
    assert batch.targets is not None
    assert [batch.blank_index.tolist(), batch.targets.tolist()] == asked
    with torch.no_grad():
        logits = lm.predict_tokens(lm(batch).flatten(0, 1)[batch.blank_index])
        by_hand = torch.nn.functional.cross_entropy(logits, batch.targets)
        torch.testing.assert_close(mention_loss(lm, batch), by_hand)


def test_what_comes_next_is_not_asked_of_a_model_that_looks_both_ways(
    lm: LanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match="reads from left to right"):
        next_tokens(lm, world.write_linked(tmp_path / "kb"), 62)
