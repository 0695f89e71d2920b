"""What the pre-training of both embedded backbones shares: batches of one length, and the loop."""

from __future__ import annotations

import argparse
import math
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from scripts.muon import Muon
from scripts.wordnet_text import Synset

PACKED_LENGTHS = (64, 128, 256)
BLOCK = 64
"""Neighbouring sentences that are joined, or not, together."""
LONGEST = 60


@dataclass(frozen=True)
class Codes:
    """Token ids that batches and masking need."""

    cls: int
    """What begins a sequence."""
    sep: int
    """What ends a sequence."""
    mask: int
    continues: Tensor
    """[vocabulary], whether an entry continues a word."""
    ends_cut: bool = True
    """Whether `sep` also ends a text that goes on in another sequence."""


def codes_of(tokenizer: PreTrainedTokenizerFast, ends_cut: bool = True) -> Codes:
    """The token ids that batches and masking need."""
    vocabulary = tokenizer.get_vocab()
    continues = torch.zeros(len(vocabulary), dtype=torch.bool)
    for piece, index in vocabulary.items():
        continues[index] = piece.startswith("##")
    cls, sep, mask = (vocabulary[word] for word in ("[CLS]", "[SEP]", "[MASK]"))
    return Codes(cls, sep, mask, continues, ends_cut)


def encode(
    tokenizer: PreTrainedTokenizerFast, sentences: Sequence[str], longest: int = LONGEST
) -> list[list[int]]:
    """Token ids without special tokens, cut to `longest`."""
    if not sentences:
        return []
    rows: list[list[int]] = tokenizer(list(sentences), add_special_tokens=False)["input_ids"]
    return [row[:longest] for row in rows]


def _packed(
    rows: Sequence[list[int]], codes: Codes, generator: torch.Generator
) -> Iterator[list[int]]:
    """Joins neighbouring sentences to long sequences.

    WordNet's order puts sentences on one thing and on its kin side by side. So the model learns
    to take from its context what it does not know, and sees late positions.
    """
    stream = [id for row in rows for id in row]
    end = [codes.sep] * codes.ends_cut
    at = 0
    while len(stream) - at > 8:
        pick = int(torch.randint(len(PACKED_LENGTHS), (), generator=generator))
        width = PACKED_LENGTHS[pick] - 1 - len(end)
        # A short rest is shifted back to full length: few distinct shapes, nothing lost.
        start = max(0, min(at, len(stream) - width))
        yield [codes.cls, *stream[start : start + width], *end]
        at += width


def epoch(
    rows: Sequence[list[int]],
    tokens: int,
    packed: float,
    codes: Codes,
    generator: torch.Generator,
    whole: bool = False,
    alone: Sequence[list[int]] = (),
) -> Iterator[Tensor]:
    """One pass over the text, batches and blocks in random order.

    Args:
        rows: Token ids of the sentences, without special tokens, in the order of the text.
        tokens: Tokens of a batch, about.
        packed: Share of the blocks of sentences that are joined to long sequences.
        codes: Token ids.
        generator: Source of the order; nothing is drawn from it after the first batch.
        whole: Whether to leave out a few sentences for the sake of even batch sizes.
        alone: Token ids of further texts, which are never joined.
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
    for row in alone:
        groups[len(row) + 2].append([codes.cls, *row, codes.sep])
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


def rate_at(step: int, steps: int, warm: int, peak: float) -> float:
    """Learning rate: linear warm-up, then linear decay to nothing."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * max(0.0, (steps - step) / max(1, steps - warm))


def unigram(rows: Sequence[list[int]], size: int, targets: Tensor) -> tuple[float, float]:
    """Perplexity and accuracy of an add-one unigram model at the same positions.

    Args:
        rows: Token ids of the training sentences.
        size: Number of entries of the vocabulary.
        targets: [asked], the tokens that were asked.
    """
    seen = torch.tensor([id for row in rows for id in row if id < size])
    counts = torch.bincount(seen, minlength=size) + 1
    logs = (counts.double() / counts.sum()).log()
    best = counts.argmax()
    return math.exp(-logs[targets].mean().item()), (targets == best).double().mean().item()


class Network(ABC):
    """One of the embedded backbones, as its builder sees it.

    Attributes:
        name: Its name in kbench.
        folder: Where it lies.
        defaults: Options of the command line that are its own.
        asked: What the figures call the positions that they are taken at.
    """

    name: ClassVar[str]
    folder: ClassVar[Path]
    defaults: ClassVar[dict[str, Any]]
    asked: ClassVar[str]
    tokenizer: PreTrainedTokenizerFast
    codes: Codes

    @abstractmethod
    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        """Takes the tokenizer of the text; returns the one that goes with the weights."""

    @abstractmethod
    def new_model(self, options: argparse.Namespace) -> Any:
        """The network with random weights."""

    def rows(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token ids of sentences of the text, without special tokens; none is empty."""
        return [row for row in self.encode(sentences) if row]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of any texts, without special tokens."""
        return encode(self.tokenizer, texts)

    def exercises(
        self,
        synsets: dict[str, Synset],
        sentences: Sequence[str],
        names: Sequence[str],
        options: argparse.Namespace,
    ) -> list[str]:
        """Further texts to train on beside the sentences; none holds one of the names."""
        return []

    def kept(self, model: Any) -> Any:
        """The weights as they are written."""
        return model

    @abstractmethod
    def loss(
        self, model: Any, ids: Tensor, options: argparse.Namespace, generator: torch.Generator
    ) -> Tensor:
        """Mean loss of a batch."""

    @abstractmethod
    def evaluate(self, model: Any, rows: Sequence[list[int]]) -> tuple[float, float, Tensor]:
        """Perplexity and accuracy on held-out sentences, and the tokens that were asked."""

    def figures(
        self, model: Any, train: Sequence[list[int]], held: Sequence[list[int]]
    ) -> dict[str, float]:
        """Held-out figures of the model and of the unigram model at the same positions."""
        perplexity, accuracy, targets = self.evaluate(model, held)
        size = len(self.codes.continues)
        base_perplexity, base_accuracy = unigram(train, size, targets)
        return {
            "perplexity": round(perplexity, 3),
            "accuracy": round(accuracy, 4),
            "unigram_perplexity": round(base_perplexity, 3),
            "unigram_accuracy": round(base_accuracy, 4),
            self.asked: len(targets),
            "held_out_sentences": len(held),
        }


def optimizers_of(model: PreTrainedModel, options: argparse.Namespace) -> list[Optimizer]:
    """AdamW; beside it Muon for the matrices of the layers, where the options give it a rate."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    hidden = [p for name, p in named if options.muon and p.dim() == 2 and ".layers." in name]
    taken = set(map(id, hidden))
    decay = [p for _, p in named if p.dim() > 1 and id(p) not in taken]
    plain = [p for _, p in named if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    found: list[Optimizer] = [AdamW(groups, lr=options.rate, betas=(0.9, 0.98), eps=1e-6)]
    if hidden:
        found.append(Muon(hidden, options.muon))
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return found


class Trainer:
    """One run of pre-training.

    Args:
        network: What is trained.
        model: Its weights.
        rows: Token ids of the training sentences.
        alone: Token ids of further texts, which are never joined.
        options: The command line.
    """

    def __init__(
        self,
        network: Network,
        model: PreTrainedModel,
        rows: list[list[int]],
        alone: list[list[int]],
        options: argparse.Namespace,
    ) -> None:
        self.network, self.model, self.options = network, model, options
        self.rows, self.alone = rows, alone
        self.optimizers = optimizers_of(model, options)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.step = self.tokens = self.batches = 0
        self.seconds = self.mean = 0.0
        self.start = self.generator.get_state()
        """State of the generator before the pass over the text that is going on."""

    def one_step(self, ids: Tensor) -> float:
        """One optimiser step; returns the loss."""
        options = self.options
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(self.step, options.steps, options.warm, group["peak"])
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            loss = self.network.loss(self.model, ids, options, self.generator)
        self.model.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()

    def run(self, save: Callable[[Trainer], None]) -> None:
        """Trains to the last step, and calls `save` now and then."""
        options, kept = self.options, self.seconds
        begin = time.monotonic()
        if self.step == options.steps:  # taken up after its end
            save(self)
        self.model.train()
        while self.step < options.steps:
            for ids in self._pass():
                loss = self.one_step(ids)
                self.mean = loss if self.step == 0 else 0.99 * self.mean + 0.01 * loss
                self.tokens, self.step = self.tokens + ids.numel(), self.step + 1
                self.batches += 1
                if self.step % options.every == 0 or self.step == options.steps:
                    self.seconds = kept + time.monotonic() - begin
                    told = f"step {self.step}/{options.steps} loss {self.mean:.3f}"
                    print(f"{told} {self.seconds:.0f} s", flush=True)
                    save(self)
                if self.step == options.steps:
                    break

    def _pass(self) -> Iterator[Tensor]:
        """The batches of a pass over the text, from where it stands."""
        now, done = self.generator.get_state(), self.batches
        self.generator.set_state(self.start)
        options, codes, made = self.options, self.network.codes, self.generator
        found = epoch(self.rows, options.tokens, options.packed, codes, made, True, self.alone)
        for _ in range(done):
            next(found)
        if done:
            self.generator.set_state(now)
        yield from found
        self.start, self.batches = self.generator.get_state(), 0

    def keep(self, path: Path) -> None:
        """Writes all that a run needs to go on."""
        fields = ("step", "tokens", "batches", "seconds", "mean", "start")
        state = {name: getattr(self, name) for name in fields}
        state["generator"] = self.generator.get_state()
        state["model"] = self.model.state_dict()
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        new = path.with_suffix(".new")
        torch.save(state, new)
        new.replace(path)

    def go_on(self, path: Path) -> None:
        """Takes up a run where `keep` left it; the steps that follow are those of one run."""
        state = torch.load(path, weights_only=True)
        self.generator.set_state(state.pop("generator"))
        self.model.load_state_dict(state.pop("model"))
        for optimizer, kept in zip(self.optimizers, state.pop("optimizers"), strict=True):
            optimizer.load_state_dict(kept)
        for name, value in state.items():
            setattr(self, name, value)
