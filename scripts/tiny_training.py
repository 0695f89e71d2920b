"""Masked-LM pre-training on a CPU: batches of one length, the head at masked positions only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import BertForMaskedLM

PACKED_LENGTHS = (64, 128, 256)
BLOCK = 64
"""Neighbouring sentences that are joined, or not, together."""


@dataclass(frozen=True)
class Codes:
    """Token ids that masking needs."""

    cls: int
    sep: int
    mask: int
    continues: Tensor
    """[vocabulary], whether an entry continues a word."""


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


def _packed(
    rows: Sequence[list[int]], codes: Codes, generator: torch.Generator
) -> Iterator[list[int]]:
    """Joins neighbouring sentences to long sequences.

    WordNet's order puts sentences on one thing and on its kin side by side. So the model learns
    to take from its context what it does not know, and sees late positions.
    """
    stream = [id for row in rows for id in row]
    at = 0
    while len(stream) - at > 8:
        pick = int(torch.randint(len(PACKED_LENGTHS), (), generator=generator))
        width = PACKED_LENGTHS[pick] - 2
        # A short rest is shifted back to full length: few distinct shapes, nothing lost.
        start = max(0, min(at, len(stream) - width))
        yield [codes.cls, *stream[start : start + width], codes.sep]
        at += width


def epoch(
    rows: Sequence[list[int]],
    tokens: int,
    packed: float,
    codes: Codes,
    generator: torch.Generator,
    whole: bool = False,
) -> Iterator[Tensor]:
    """One pass over the text, batches and blocks in random order.

    Args:
        rows: Token ids of the sentences, without special tokens, in the order of the text.
        tokens: Tokens of a batch, about.
        packed: Share of the blocks of sentences that are joined to long sequences.
        codes: Token ids.
        generator: Source of the order.
        whole: Whether to leave out a few sentences for the sake of even batch sizes.
    """
    groups: defaultdict[int, list[list[int]]] = defaultdict(list)
    for block in torch.randperm(-(-len(rows) // BLOCK), generator=generator).tolist():
        members = rows[block * BLOCK : (block + 1) * BLOCK]
        joined = torch.rand((), generator=generator).item() < packed
        sequences = (
            list(_packed(members, codes, generator))
            if joined
            else [[codes.cls, *row, codes.sep] for row in members]
        )
        for row in sequences:
            groups[len(row)].append(row)
    batches: list[list[list[int]]] = []
    for length, group in groups.items():
        order = torch.randperm(len(group), generator=generator).tolist()
        members = [group[i] for i in order]
        size = max(1, tokens // length)
        batches += [members[i : i + size] for i in range(0, len(members), size)]
        if whole and (short := len(batches[-1]) % 16):
            # Few distinct shapes: the CPU library compiles a kernel for each new one.
            batches[-1] = batches[-1][short:]
    batches = [batch for batch in batches if batch]
    for i in torch.randperm(len(batches), generator=generator).tolist():
        yield torch.tensor(batches[i])


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


def rate_at(step: int, steps: int, warm: int, peak: float) -> float:
    """Learning rate: linear warm-up, then linear decay to nothing."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * max(0.0, (steps - step) / max(1, steps - warm))


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


def unigram(rows: Sequence[list[int]], size: int, targets: Tensor) -> tuple[float, float]:
    """Perplexity and accuracy of an add-one unigram model at the same positions.

    Args:
        rows: Token ids of the training sentences.
        size: Number of entries of the vocabulary.
        targets: [masked], the tokens that were asked.
    """
    counts = torch.bincount(torch.tensor([id for row in rows for id in row]), minlength=size) + 1
    logs = (counts.double() / counts.sum()).log()
    best = counts.argmax()
    return math.exp(-logs[targets].mean().item()), (targets == best).double().mean().item()
