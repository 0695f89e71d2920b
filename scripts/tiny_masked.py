"""`kbench-tiny`: a small BERT. Words or pieces are masked, the head runs at masked ones only."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from scripts.tiny_training import Codes, Network, codes_of, epoch


@dataclass(frozen=True)
class Batch:
    """Sequences of one length: no padding, so no attention mask.

    Attributes:
        ids: [batch, tokens].
        where: [batch, tokens], true at positions to predict.
        targets: [masked].
    """

    ids: Tensor
    where: Tensor
    targets: Tensor


def mask_words(ids: Tensor, rate: float, codes: Codes, generator: torch.Generator) -> Batch:
    """Masks whole words; one in ten of the chosen words stays as it is.

    Args:
        ids: [batch, tokens], with [CLS] and [SEP].
        rate: Share of the words to predict.
        codes: Token ids.
        generator: Source of the choice.
    """
    start = ~codes.continues[ids]
    word = start.cumsum(1) - 1
    noise = torch.rand(ids.shape, generator=generator)
    keep = torch.rand(ids.shape, generator=generator) < 0.1
    # Every piece looks up the draw of its word's number, so a word is masked as a whole.
    where = noise.gather(1, word) < rate
    where &= (ids != codes.cls) & (ids != codes.sep)
    empty = ~where.any(1)
    where[empty, 1] = True
    masked = torch.where(where & ~keep.gather(1, word), codes.mask, ids)
    return Batch(masked, where, ids[where])


def mask_pieces(ids: Tensor, rate: float, codes: Codes, generator: torch.Generator) -> Batch:
    """Masks single pieces, all of them by [MASK]: the measure of evaluation."""
    where = torch.rand(ids.shape, generator=generator) < rate
    where &= (ids != codes.cls) & (ids != codes.sep)
    where[~where.any(1), 1] = True
    return Batch(torch.where(where, codes.mask, ids), where, ids[where])


def mask_mixed(ids: Tensor, rate: float, codes: Codes, generator: torch.Generator) -> Batch:
    """Masks whole words in every other batch and single pieces in the rest.

    Knowledge methods mask whole mentions; completing a half-masked word is another skill.
    """
    by_word = torch.rand((), generator=generator).item() < 0.5
    return (mask_words if by_word else mask_pieces)(ids, rate, codes, generator)


def masked_loss(model: BertForMaskedLM, batch: Batch) -> Tensor:
    """Mean cross-entropy at the positions to predict, padded to a round number of them."""
    where = batch.where.flatten().nonzero()[:, 0]
    extra = -len(where) % 128
    where = torch.cat([where, where[:1].expand(extra)])
    targets = torch.cat([batch.targets, batch.targets.new_full((extra,), -100)])
    hidden = model.bert(input_ids=batch.ids).last_hidden_state.flatten(0, 1)
    logits: Tensor = model.cls(hidden[where])
    return cross_entropy(logits.float(), targets)


def masked_logits(model: BertForMaskedLM, batch: Batch) -> Tensor:
    """Logits [masked, vocabulary] at the positions to predict, and at no others."""
    hidden = model.bert(input_ids=batch.ids).last_hidden_state
    logits: Tensor = model.cls(hidden[batch.where])
    return logits.float()


@torch.no_grad()
def evaluate(
    model: BertForMaskedLM, rows: Sequence[list[int]], codes: Codes, seed: int, rate: float = 0.15
) -> tuple[float, float, Tensor]:
    """Perplexity and accuracy on held-out sentences, and the targets that were asked [masked]."""
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    losses, hits, targets = [], [], []
    for ids in epoch(sorted(rows), 4096, 0.0, codes, generator):
        batch = mask_pieces(ids, rate, codes, generator)
        if len(batch.targets):
            logits = masked_logits(model, batch)
            losses.append(cross_entropy(logits, batch.targets, reduction="none"))
            hits.append(logits.argmax(-1) == batch.targets)
            targets.append(batch.targets)
    model.train(was_training)
    mean = torch.cat(losses).double().mean().item()
    return math.exp(mean), torch.cat(hits).double().mean().item(), torch.cat(targets)


class MaskedNetwork(Network):
    """A BERT of 4 layers and width 128."""

    name = "kbench-tiny"
    folder = Path("kbench/model/tiny")
    defaults: ClassVar[dict[str, Any]] = {
        "steps": 6000, "size": 7400, "tokens": 3072, "rate": 2e-3, "warm": 500,
        "mask": 0.2, "packed": 0.35, "dropout": 0.0,
    }  # fmt: skip
    asked = "masked_tokens"

    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        self.tokenizer, self.codes = tokenizer, codes_of(tokenizer)
        return tokenizer

    def new_model(self, options: argparse.Namespace) -> BertForMaskedLM:
        """A small BERT with random weights and tied embeddings."""
        torch.manual_seed(options.seed)
        config = BertConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=256,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            pad_token_id=0,
        )
        # PyTorch's fused attention has a slow backward pass in bfloat16 on a CPU.
        config._attn_implementation = "eager"
        model = BertForMaskedLM(config)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = options.dropout
        return model

    def loss(
        self, model: Any, ids: Tensor, options: argparse.Namespace, generator: torch.Generator
    ) -> Tensor:
        return masked_loss(model, mask_mixed(ids, options.mask, self.codes, generator))

    def evaluate(self, model: Any, rows: Sequence[list[int]]) -> tuple[float, float, Tensor]:
        return evaluate(model, rows, self.codes, seed=0)
