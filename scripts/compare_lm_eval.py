"""kbench beside the lm-evaluation-harness: are scores of candidates equal, and who is faster?

``tox -e lm-eval``, or ``python -m scripts.compare_lm_eval --backbone FOLDER``. Both read the same
texts, labels and weights in float32 on the same device. The harness is asked through its own
``evaluate`` (backend ``hf``, output ``multiple_choice``), in the batch size that is fastest for it.
Neither the loading of the model nor the start of Python is counted, and of the harness neither the
search for its tasks nor what it asks of the machine afterwards, which take seconds.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kbench.data import Example, Prompt, Split
from kbench.encoding import Layout, encode
from kbench.encoding.passages import Passage
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.candidates import CandidateHead
from kbench.model.huggingface import load_folder
from kbench.pipeline.prediction import logits_of
from kbench_tasks.atlas import AtlasTyping

WIDTH, LAYERS, VOCABULARY = 512, 8, 8000
"""The random Llama that is read where no backbone is given: 29 million parameters."""
CLOSE = 1e-4
BATCHES = (8, 32, 128)
ROUNDS = 3
_METRICS = ("acc", "acc_norm", "acc_bytes")
_COLUMNS = (
    "method",
    "candidates",
    "kbench",
    "lm-eval",
    "its batches",
    "times as fast",
    "demand",
    "largest difference",
    *_METRICS,
)


@dataclass(frozen=True)
class Case:
    """What is scored, and by how much kbench is to be faster.

    Attributes:
        what: in words.
        candidates: how many, of three tokens each.
        passage: words of a passage before each text, as of ``ra``; 0 for none.
        demand: the harness's time over kbench's, at least.
    """

    what: str
    candidates: int
    passage: int
    demand: float


CASES = (
    Case("none", 80, 0, 4.0),
    Case("ra", 80, 60, 4.0),
    Case("none", 4, 0, 1.5),
    Case("ra", 4, 60, 1.5),
)


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of the candidates ``[examples, candidates]``, and what follows from them."""

    said: NDArray[np.float64]
    right: dict[str, float]


def main() -> int:
    """Prints a table; returns 1 where the two differ or a demand is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", type=Path, help="a folder; default: a random Llama")
    parser.add_argument("--examples", type=int, default=20)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.backbone or random_llama(Path(scratch))
        lm = load_folder(folder)
        size = sum(parameter.numel() for parameter in lm.parameters())
        print(f"{folder.name}, {size:,} parameters; {given.examples} texts, medians of {ROUNDS}")
        print(f"\n| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
        held = [compared(case, lm, folder, given.examples) for case in CASES]
    return 0 if all(held) else 1


def compared(case: Case, lm: LanguageModel, folder: Path, count: int) -> bool:
    """Scores a case by both in turn and prints a line; returns whether all is as demanded."""
    asked = examples(case, lm, count)
    harness = Harness(lm, folder, asked)
    ours, mine = timed(asked.scored, ROUNDS)
    theirs, others = timed(harness.scored, ROUNDS)
    apart = float(np.abs(ours.said - theirs.said).max())
    same = ours.right == theirs.right
    ratio = others / mine
    cells = (
        case.what,
        str(case.candidates),
        f"{mine:.2f} s",
        f"{others:.2f} s",
        str(harness.batch),
        f"{ratio:.1f}",
        f"{case.demand:g}" + ("" if ratio >= case.demand else " **missed**"),
        f"{apart:.0e}",
        *(_cell(value, theirs.right[name]) for name, value in ours.right.items()),
    )
    print(f"| {' | '.join(cells)} |", flush=True)
    return same and apart <= CLOSE and ratio >= case.demand


def _cell(ours: float, theirs: float) -> str:
    return f"{ours:.2f}" if ours == theirs else f"**{ours:.2f}, not {theirs:.2f}**"


def timed(scored: Callable[[], Scores], rounds: int) -> tuple[Scores, float]:
    """Returns scores and the median of seconds."""
    seconds = []
    for _ in range(rounds):
        gc.collect()
        start = time.perf_counter()
        found = scored()
        seconds.append(time.perf_counter() - start)
    return found, median(seconds)


@dataclass(frozen=True)
class Asked:
    """Texts, labels and gold labels, and the model that is asked.

    Attributes:
        lm: frozen.
        texts: as they are put.
        passages: what stands before each.
        labels: the candidates.
        gold: the number of the right one for each text.
    """

    lm: LanguageModel
    texts: list[Example]
    passages: list[list[Passage]]
    labels: list[str]
    gold: list[int]

    def scored(self) -> Scores:
        """What kbench says: texts are encoded, all candidates scored in one tree a text."""
        head = CandidateHead(self.labels, Prompt("{text}"), "sum")
        model = DownstreamModel(self.lm, head).eval()
        inputs = head.grown(self.encoded(), self.lm.tokenizer, self.texts)
        said = logits_of(model, inputs, torch.device("cpu")).double().numpy()
        return Scores(said, self.right(said))

    def encoded(self) -> Any:
        """The texts as kbench encodes them, without candidates."""
        rows: list[list[int]] = [[] for _ in self.texts]
        layout = Layout({}, max_length=200, room=256, left_to_right=True)
        has = any(self.passages)
        return encode(self.lm.tokenizer, self.texts, rows, layout, self.passages if has else ())

    def right(self, said: NDArray[np.float64]) -> dict[str, float]:
        """Shares of texts whose gold label scores highest, by each of the harness's metrics."""
        sizes = {
            "acc": np.ones(len(self.labels)),
            "acc_norm": np.array([len(label) for label in self.labels]),
            "acc_bytes": np.array([len(label.encode()) for label in self.labels]),
        }
        gold = np.array(self.gold)
        return {n: float(((said / by).argmax(1) == gold).mean()) for n, by in sizes.items()}


def examples(case: Case, lm: LanguageModel, count: int) -> Asked:
    """Returns sentences to go on with, and candidates of three words of one token each."""
    rng = np.random.default_rng(0)
    sentences = [example.text for example in AtlasTyping().examples(Split.TEST)]
    words = sorted({word for text in sentences for word in text.split() if word.isalpha()})
    known = [word for word in words if len(lm.tokenizer.tokenize(f" {word}")) == 1]
    labels = list[str]()
    while len(labels) < case.candidates:
        label = " ".join(rng.choice(known, size=3, replace=False))
        if label not in labels:
            labels.append(label)
    chosen = rng.choice(len(sentences), size=count, replace=False)
    texts = [f"{sentences[at].rstrip(' .')}. It is a" for at in chosen]
    other = " ".join(sentences[at] for at in rng.permutation(len(sentences))).split()
    size = case.passage
    passages = [
        [Passage(" ".join(other[size * n : size * (n + 1)]))] if size else [] for n in range(count)
    ]
    made = [Example(str(n), text, (), labels[0], blank=len(text)) for n, text in enumerate(texts)]
    gold = [int(number) for number in rng.integers(len(labels), size=count)]
    return Asked(lm, made, passages, labels, gold)


class Harness:
    """The lm-evaluation-harness on the same texts, labels and weights.

    Args:
        lm: whose tokens it is to read.
        folder: with the weights.
        asked: the texts.
    """

    def __init__(self, lm: LanguageModel, folder: Path, asked: Asked) -> None:
        from lm_eval.models.huggingface import HFLM
        from transformers import AutoModelForCausalLM

        self._asked = asked
        whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._model: Any = HFLM(pretrained=whole, tokenizer=lm.tokenizer, device="cpu")
        inputs = asked.encoded()
        lines = [ids.tolist() for ids in np.split(inputs.ids, inputs.bounds[1:-1])]
        bos = lm.tokenizer.bos_token_id
        plain = [ids[1:] if ids[0] == bos else ids for ids in lines]
        self._docs = [
            {"text": text, "gold": gold}
            for text, gold in zip(map(lm.tokenizer.decode, plain), asked.gold, strict=True)
        ]
        for doc, ids in zip(self._docs, lines, strict=True):
            if self._model.tok_encode(doc["text"]) != ids:
                sys.exit(f"the harness reads other tokens than kbench: {doc['text']!r}")
        self._tasks = self._loaded()
        self.batch = min(BATCHES, key=self._seconds)

    def _loaded(self) -> Any:
        """The task as the harness holds it."""
        import datasets
        from lm_eval.tasks import TaskManager

        task = {
            "task": "compared",
            "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(self._docs)},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{text}}",
            "doc_to_choice": self._asked.labels,
            "doc_to_target": "{{gold}}",
            "target_delimiter": " ",
            "metric_list": [{"metric": name} for name in _METRICS],
        }
        return TaskManager().load([task])

    def _seconds(self, batch: int) -> float:
        self.batch = batch
        return timed(self.scored, 1)[1]

    def scored(self) -> Scores:
        """What the harness says."""
        from lm_eval import evaluate

        self._model.batch_size_per_gpu = self.batch
        found = evaluate(self._model, self._tasks, bootstrap_iters=0)
        said = [
            [first[0] for first in sample["filtered_resps"]]
            for sample in sorted(found["samples"]["compared"], key=lambda one: one["doc_id"])
        ]
        right = {name: float(found["results"]["compared"][f"{name},none"]) for name in _METRICS}
        return Scores(np.array(said, dtype=np.float64), right)


def random_llama(folder: Path) -> Path:
    """Writes a random Llama with grouped heads, whose tokenizer is made of the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet
    )
    core.train_from_iterator((e.text for e in AtlasTyping().examples(Split.TRAIN)), trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.05,
    )
    target = folder / "random-llama"
    LlamaForCausalLM(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


if __name__ == "__main__":
    sys.exit(main())
