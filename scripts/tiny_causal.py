"""`kbench-tiny-lm`: a small Llama, trained on the same text and on reading exercises."""

from __future__ import annotations

import argparse
import copy
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.reading_text import ANSWER, FUSED, build_exercises, common_words, fused
from scripts.tiny_training import LONGEST, Codes, Network, codes_of, encode, epoch
from scripts.wordnet_text import Synset, choice

_LONGEST_EXERCISE = 126
_MARKED = re.compile(f"([{FUSED[0]}{ANSWER[0]}][^{FUSED[1]}{ANSWER[1]}]*)[{FUSED[1]}{ANSWER[1]}]")
_ASKED = 1 << 24
"""Above all ids: added to those of a marked answer."""


def left_to_right(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same entries for a decoder: `[CLS]` begins a text, nothing ends it.

    Args:
        tokenizer: The tokenizer of `kbench-tiny`.
    """
    inner = copy.deepcopy(tokenizer.backend_tokenizer)
    first = ("[CLS]", inner.token_to_id("[CLS]"))
    inner.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0", pair="[CLS]:0 $A:0 $B:0", special_tokens=[first]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=256,
        do_lower_case=True,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )


class Phrases:
    """Phrases that are one vector; each has an id above those of the vocabulary.

    Args:
        size: Entries of the vocabulary.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._ids: dict[tuple[int, ...], int] = {}
        self._table: Tensor | None = None

    def id_of(self, pieces: Sequence[int]) -> int:
        """The id of a phrase."""
        self._table = None
        return self.size + self._ids.setdefault(tuple(pieces), len(self._ids))

    @property
    def table(self) -> Tensor:
        """[phrases, longest], the pieces of each phrase, filled up with -1."""
        if self._table is None:
            longest = max(map(len, self._ids), default=1)
            rows = [[*pieces, *[-1] * (longest - len(pieces))] for pieces in self._ids]
            self._table = torch.tensor(rows).reshape(-1, longest)
        return self._table

    def embed(self, weight: Tensor, ids: Tensor) -> Tensor:
        """Input vectors: those of the pieces, and means of them for phrases.

        Args:
            weight: [vocabulary, width].
            ids: [batch, tokens].
        """
        where = ids >= self.size
        vectors = torch.nn.functional.embedding(ids.masked_fill(where, 0), weight)
        if not where.any():
            return vectors
        pieces = self.table[ids[where] - self.size]
        there = (pieces >= 0)[..., None]
        parts = torch.nn.functional.embedding(pieces.clamp(min=0), weight) * there
        return vectors.index_put((where,), parts.sum(1) / there.sum(1))


class CausalNetwork(Network):
    """A Llama of 6 layers and width 128, with grouped heads.

    Its embeddings begin as those of `kbench-tiny`, which was trained on the same text.
    """

    name = "kbench-tiny-lm"
    folder = Path("kbench/model/tiny_lm")
    defaults: ClassVar[dict[str, Any]] = {
        "steps": 2400, "tokens": 2048, "rate": 2e-3, "warm": 100, "packed": 0.35,
        "exercises": 45000, "real": 0.3, "muon": 0.02, "bound": 0.0, "answers": 1.0,
    }  # fmt: skip
    asked = "tokens"

    def __init__(self, embeddings: Path = Path("kbench/model/tiny")) -> None:
        self.embeddings = embeddings

    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
        self.codes: Codes = codes_of(tokenizer, ends_cut=False)
        self.tokenizer = left_to_right(tokenizer)
        self.phrases = Phrases(len(tokenizer))
        return self.tokenizer

    def new_model(self, options: argparse.Namespace) -> LlamaForCausalLM:
        """The network with random weights, but for its embeddings."""
        torch.manual_seed(options.seed)
        config = LlamaConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            pad_token_id=self.tokenizer.pad_token_id,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        model = LlamaForCausalLM(config)
        begin = _embeddings(self.embeddings)
        with torch.no_grad():
            # What all vectors share says nothing, and logits of about one begin lower.
            model.get_input_embeddings().weight.copy_(begin - begin.mean(0))
            model.model.norm.weight.fill_(0.3)
        return model

    def rows(self, sentences: Sequence[str]) -> list[list[int]]:
        """Token ids; one in ten of the sentences with a keyword has it as one vector."""
        marked = [fused(s) if choice(f"fused {s}", 10) == 0 else s for s in sentences]
        return [row for row in self.encode(marked, LONGEST) if row]

    def encode(self, texts: Sequence[str], longest: int = _LONGEST_EXERCISE) -> list[list[int]]:
        """Token ids without special tokens.

        What is marked as a phrase becomes one id, that of an answer is raised by `_ASKED`.
        """
        rows = []
        plain = iter(encode(self.tokenizer, [t for t in texts if not _MARKED.search(t)], longest))
        for text in texts:
            marked = _MARKED.search(text)
            rows.append(list(self._pieces(text))[:longest] if marked else next(plain))
        return rows

    def _pieces(self, text: str) -> Iterator[int]:
        for part in _MARKED.split(text):
            mark, plain = part[:1], part.lstrip(FUSED + ANSWER)
            ids = self.tokenizer(plain, add_special_tokens=False)["input_ids"]
            if mark == FUSED[0] and ids:
                yield self.phrases.id_of(ids)
            elif mark == ANSWER[0]:
                yield from (id + _ASKED for id in ids)
            else:
                yield from ids

    def exercises(
        self,
        synsets: dict[str, Synset],
        sentences: Sequence[str],
        names: Sequence[str],
        options: argparse.Namespace,
    ) -> list[str]:
        common = common_words(sentences)
        count, seed, real, bound = options.exercises, options.seed, options.real, options.bound
        return build_exercises(synsets, common, names, count, seed, real, bound)

    def kept(self, model: Any) -> Any:
        """A copy in bfloat16: half the size, and the figures are its own."""
        return copy.deepcopy(model).to(torch.bfloat16)

    def loss(
        self, model: Any, ids: Tensor, options: argparse.Namespace, generator: torch.Generator
    ) -> Tensor:
        asked = ids >= _ASKED
        ids = ids - _ASKED * asked
        logits, targets = self._predicted(model, ids)
        if not asked.any():
            return cross_entropy(logits, targets)
        weights = 1.0 + (options.answers - 1.0) * asked[:, 1:][ids[:, 1:] < self.phrases.size]
        losses = cross_entropy(logits, targets, reduction="none")
        mean: Tensor = (losses * weights).sum() / weights.sum()
        return mean

    def _predicted(self, model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [asked, vocabulary] and targets [asked]: of all pieces but the first."""
        vectors = self.phrases.embed(model.get_input_embeddings().weight, ids)
        hidden = model.model(inputs_embeds=vectors, use_cache=False).last_hidden_state
        targets = ids[:, 1:]
        # What follows is a phrase, which no piece of the vocabulary is.
        there = targets < self.phrases.size
        if there.all():
            return model.lm_head(hidden[:, :-1]).flatten(0, 1).float(), targets.flatten()
        return model.lm_head(hidden[:, :-1][there]).float(), targets[there]

    @torch.no_grad()
    def evaluate(self, model: Any, rows: Sequence[list[int]]) -> tuple[float, float, Tensor]:
        was_training = model.training
        model.eval()
        losses, hits, asked = [], [], []
        for ids in epoch(sorted(rows), 4096, 0.0, self.codes, torch.Generator().manual_seed(0)):
            logits, targets = self._predicted(model, ids)
            losses.append(cross_entropy(logits, targets, reduction="none"))
            hits.append(logits.argmax(-1) == targets)
            asked.append(targets)
        model.train(was_training)
        mean = torch.cat(losses).double().mean().item()
        return math.exp(mean), torch.cat(hits).double().mean().item(), torch.cat(asked)


def _embeddings(folder: Path) -> Tensor:
    """The word embeddings of a BERT's folder."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        (name,) = (key for key in file.keys() if key.endswith("embeddings.word_embeddings.weight"))  # noqa: SIM118
        tensor: Tensor = file.get_tensor(name)
    return tensor
