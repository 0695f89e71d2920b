"""kbench beside the lm-evaluation-harness: are scores of candidates equal, and who is faster?

``tox -e lm-eval``, or ``python -m scripts.compare_lm_eval --backbone FOLDER``. Both read the same
texts, labels and weights in float32 on the same device. Some labels are what kbench writes greedily
behind some texts: the harness is to find greedy what kbench writes, and nothing else. It is asked
through its own ``evaluate`` (backend ``hf``, output ``multiple_choice``), in the batch size that is
fastest for it. Neither the loading of the model nor the start of Python is counted, nor what kbench
writes, and of the harness neither the search for its tasks nor what it asks of the machine
afterwards, which take seconds.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kbench.data import Example, Prompt, Split
from kbench.encoding import Inputs, Layout, encode, inner_tokens
from kbench.encoding.passages import Passage
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.answering import SpokenHead
from kbench.model.candidates import CandidateHead
from kbench.model.generation import NOTHING, in_words
from kbench.model.huggingface import load_folder
from kbench.pipeline.prediction import logits_of
from kbench_tasks.atlas import AtlasTyping

WIDTH, LAYERS, VOCABULARY = 512, 8, 8000
"""The random Llama that is read where no backbone is given: 39 million parameters."""
CLOSE = 1e-4
BATCHES = (8, 32, 128)
TOKENS = 3
"""Of each candidate."""
WRITTEN = 3
"""So many candidates, or a quarter where that is more, are what kbench writes."""
PROMPT = Prompt("{text}")
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
    "greedy",
)


@dataclass(frozen=True)
class Case:
    """What is scored, and by how much kbench is to be faster.

    Attributes:
        what: in words.
        candidates: how many, of three tokens each; some are what kbench writes.
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
    """Log-likelihoods of the candidates, and what follows from them.

    Attributes:
        said: of each candidate. ``[examples, candidates]``.
        right: shares of texts whose gold label wins, by metric.
        greedy: whether a candidate is what the model goes on with. ``[examples, candidates]``.
    """

    said: NDArray[np.float64]
    right: dict[str, float]
    greedy: NDArray[np.bool_]


def main() -> int:
    """Prints a table; returns 1 where the two differ or a demand is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", type=Path, help="a folder; default: a random Llama")
    parser.add_argument("--examples", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3, help="whose median is told")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.backbone or random_llama(Path(scratch))
        lm = load_folder(folder)
        size = sum(parameter.numel() for parameter in lm.parameters())
        print(
            f"{folder.name}, {size:,} parameters; {given.examples} texts, medians of {given.rounds}"
        )
        print(f"\n| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
        held = [compared(case, lm, folder, given.examples, given.rounds) for case in CASES]
    return 0 if all(held) else 1


def compared(case: Case, lm: LanguageModel, folder: Path, count: int, rounds: int) -> bool:
    """Scores a case by both in turn and prints a line; returns whether all is as demanded."""
    asked = examples(case, lm, count)
    harness = Harness(lm, folder, asked)
    ours, mine = timed(asked.scored, rounds)
    theirs, others = timed(harness.scored, rounds)
    apart = float(np.abs(ours.said - theirs.said).max())
    unlike = int((ours.greedy != theirs.greedy).sum())
    same = ours.right == theirs.right and not unlike
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
        str(ours.greedy.sum()) + (f" **{unlike} differ**" if unlike else ""),
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
        greedy: whether each candidate is what kbench writes. ``[texts, candidates]``.
    """

    lm: LanguageModel
    texts: list[Example]
    passages: list[list[Passage]]
    labels: list[str]
    gold: NDArray[np.int64]
    greedy: NDArray[np.bool_]

    def scored(self) -> Scores:
        """What kbench says: texts are encoded, all candidates scored in one tree a text."""
        head = CandidateHead(self.labels, PROMPT, "sum")
        model = DownstreamModel(self.lm, head).eval()
        inputs = head.grown(self.encoded(), self.lm.tokenizer, self.texts)
        said = logits_of(model, inputs, torch.device("cpu")).double().numpy()
        return Scores(said, self.right(said), self.greedy)

    def encoded(self) -> Inputs:
        """The texts as kbench encodes them, without candidates."""
        return encoded(self.lm, self.texts, self.passages)

    def right(self, said: NDArray[np.float64]) -> dict[str, float]:
        """Shares of texts whose gold label scores highest, by each of the harness's metrics."""
        return {
            name: float((first == self.gold).mean())
            for name, first in zip(_METRICS, self.winners(said), strict=True)
        }

    def winners(self, said: NDArray[np.float64]) -> NDArray[np.int64]:
        """The candidate that scores highest by each metric. ``[metrics, texts]``."""
        sizes = (
            np.ones(len(self.labels)),
            np.array([len(label) for label in self.labels]),
            np.array([len(label.encode()) for label in self.labels]),
        )
        return np.array([(said / by).argmax(1) for by in sizes])


def encoded(lm: LanguageModel, texts: list[Example], passages: list[list[Passage]]) -> Inputs:
    """Encodes texts, each behind its passage."""
    rows: list[list[int]] = [[] for _ in texts]
    layout = Layout({}, max_length=200, room=256, left_to_right=True)
    return encode(lm.tokenizer, texts, rows, layout, passages if any(passages) else ())


def examples(case: Case, lm: LanguageModel, count: int) -> Asked:
    """Returns sentences to go on with, candidates of three tokens, and gold labels."""
    rng = np.random.default_rng(0)
    sentences = [example.text for example in AtlasTyping().examples(Split.TEST)]
    chosen = rng.choice(len(sentences), size=count, replace=False)
    texts = [f"{sentences[at].rstrip(' .')}. It is a" for at in chosen]
    other = " ".join(sentences[at] for at in rng.permutation(len(sentences))).split()
    size = case.passage
    passages = [
        [Passage(" ".join(other[size * n : size * (n + 1)]))] if size else [] for n in range(count)
    ]
    made = [Example(str(n), text, (), "", blank=len(text)) for n, text in enumerate(texts)]
    tokens = written(lm, encoded(lm, made, passages))
    labels = spellable(lm, tokens)[: max(case.candidates // 4, WRITTEN)]
    words = sorted({word for text in sentences for word in text.split() if word.isalpha()})
    known = [word for word in words if len(lm.tokenizer.tokenize(f" {word}")) == 1]
    while len(labels) < case.candidates:
        label = " ".join(rng.choice(known, size=TOKENS, replace=False))
        if label not in labels:
            labels.append(label)
    spelled = CandidateHead(labels, PROMPT, "sum").spelled(lm.tokenizer)
    greedy = np.array([[own == wrote[: len(own)] for own in spelled] for wrote in tokens])
    if not greedy.any():
        sys.exit(f"no candidate is what is written behind {count} texts: ask --examples more")
    # A candidate drawn of 80 is hardly ever the best, and where no text is right in either tool
    # equal shares show nothing. So every other text has the best by one of the metrics, in turn,
    # which the harness has to find by itself to count it; the rest keep the shares below one.
    gold = rng.integers(len(labels), size=count)
    asked = Asked(lm, made, passages, labels, gold, greedy)
    best = asked.winners(asked.scored().said)
    at = np.arange(0, count, 2)
    gold[at] = best[at // 2 % len(best), at]
    return replace(asked, gold=gold)


def written(lm: LanguageModel, inputs: Inputs) -> list[list[int]]:
    """What kbench goes on with greedily behind each text: three tokens, fewer at an end."""
    model = DownstreamModel(lm, SpokenHead(PROMPT, TOKENS)).eval()
    tokens = logits_of(model, inputs, torch.device("cpu"))[:, 1:].long().tolist()
    return [[token for token in own if token != NOTHING] for own in tokens]


def spellable(lm: LanguageModel, tokens: list[list[int]]) -> list[str]:
    """In words, what is written most often first.

    Left out is what has other tokens where it is spelled as a candidate: the tools are to be
    compared, and not how each spells what nobody would ask.
    """
    said = in_words(lm.tokenizer, tokens)
    spelled = inner_tokens(lm.tokenizer, [PROMPT.spelled(words) for words in said])
    same = (
        words
        for words, own, wrote in zip(said, spelled, tokens, strict=True)
        if own == wrote and len(own) == TOKENS
    )
    return [words for words, _ in Counter(same).most_common()]


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
            for text, gold in zip(map(lm.tokenizer.decode, plain), asked.gold.tolist(), strict=True)
        ]
        for doc, ids in zip(self._docs, lines, strict=True):
            if self._model.tok_encode(doc["text"]) != ids:
                sys.exit(f"the harness reads other tokens than kbench: {doc['text']!r}")
        self._tasks = self._loaded()
        # Texts that fill two of the largest batches tell which size is fastest: all would take
        # as long as the rounds themselves.
        self._limit: int | None = -(-2 * max(BATCHES) // len(asked.labels))
        self.batch = min(BATCHES, key=self._seconds)
        self._limit = None

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
        found = evaluate(self._model, self._tasks, limit=self._limit, bootstrap_iters=0)
        samples = sorted(found["samples"]["compared"], key=lambda one: one["doc_id"])
        pairs = np.array([sample["filtered_resps"] for sample in samples], dtype=np.float64)
        right = {name: float(found["results"]["compared"][f"{name},none"]) for name in _METRICS}
        return Scores(pairs[..., 0], right, pairs[..., 1] == 1)


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
