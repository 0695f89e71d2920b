"""Map-tuning recomputed from the published equations in the plainest form.

It shares no code with kbench: one Python loop over tokens builds the input vectors, one entity is
mapped at a time, every batch of the corpus is padded to a fixed length, the masked-LM head reads
every position, and of few-shot episodes every query meets every class in a call of its own. It is
the truth of a test and the yardstick of a benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Instance:
    """Tokens of one instance: a word id or, where ``vectors`` has one, an entity's vector."""

    ids: list[int]
    vectors: dict[int, Tensor]
    labels: list[int]


Mention = tuple[int, int, Tensor | None]
"""Start, end, and ``k_e`` or None; in the order of the text, not overlapping."""


def instances(
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    mentions: list[Mention],
) -> list[Instance]:
    """The three instances of a sentence with two mentions: both masked, the first, the second.

    Args:
        tokenizer: gives wordpieces.
        text: the sentence.
        mentions: its mentions.
    """
    made = []
    for masked in ({0, 1}, {0}, {1}):
        ids, labels, vectors = [tokenizer.cls_token_id], [-100], {}
        position = 0
        for number, (start, end, vector) in enumerate(mentions):
            before = tokenizer(text[position:start], add_special_tokens=False)["input_ids"]
            ids += before
            labels += [-100] * len(before)
            if vector is not None:
                vectors[len(ids)] = vector
                ids += [tokenizer.unk_token_id, tokenizer.convert_tokens_to_ids("/")]
                labels += [-100, -100]
            pieces = tokenizer(text[start:end], add_special_tokens=False)["input_ids"]
            hidden = number in masked
            ids += [tokenizer.mask_token_id] * len(pieces) if hidden else pieces
            labels += pieces if hidden else [-100] * len(pieces)
            position = end
        rest = tokenizer(text[position:], add_special_tokens=False)["input_ids"]
        ids += [*rest, tokenizer.sep_token_id]
        labels += [-100] * (len(rest) + 1)
        made.append(Instance(ids, vectors, labels))
    return made


def embed(model: PreTrainedModel, linear: nn.Linear, batch: list[Instance], width: int) -> Tensor:
    """Input vectors ``[batch, width, hidden]``, one token at a time, padding included."""
    table = model.get_input_embeddings()
    rows = []
    for instance in batch:
        tokens = []
        for position in range(width):
            if position in instance.vectors:
                tokens.append(linear(instance.vectors[position]))
            elif position < len(instance.ids):
                tokens.append(table(torch.tensor(instance.ids[position])))
            else:
                tokens.append(table(torch.tensor(0)))
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


def loss(model: PreTrainedModel, linear: nn.Linear, batch: list[Instance], width: int) -> Tensor:
    """Mean cross-entropy at masked positions, all positions going through the head."""
    mask = torch.tensor([[int(at < len(i.ids)) for at in range(width)] for i in batch])
    labels = torch.tensor([i.labels + [-100] * (width - len(i.labels)) for i in batch])
    logits = model(inputs_embeds=embed(model, linear, batch, width), attention_mask=mask).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def pair(
    tokenizer: PreTrainedTokenizerFast,
    query: tuple[str, list[Mention]],
    support: tuple[str, list[Mention]],
) -> tuple[Instance, list[int]]:
    """``[CLS] query [SEP] support [SEP]`` with entities before their mentions, and its segments."""
    ids: list[int] = [tokenizer.cls_token_id]
    vectors: dict[int, Tensor] = {}
    bounds = []
    for text, mentions in (query, support):
        position = 0
        for start, end, vector in [*mentions, (len(text), len(text), None)]:
            ids += tokenizer(text[position:start], add_special_tokens=False)["input_ids"]
            if vector is not None:
                vectors[len(ids)] = vector
                ids += [tokenizer.unk_token_id, tokenizer.convert_tokens_to_ids("/")]
            ids += tokenizer(text[start:end], add_special_tokens=False)["input_ids"]
            position = end
        ids.append(tokenizer.sep_token_id)
        bounds.append(len(ids))
    return Instance(ids, vectors, []), [0] * bounds[0] + [1] * (bounds[1] - bounds[0])


def class_logit(
    model: BertForMaskedLM,
    linear: nn.Linear,
    head: nn.Linear,
    pairs: list[tuple[Instance, list[int]]],
) -> Tensor:
    """One call for one query and one class: the mean score of the pairs with its K supports."""
    width = max(len(instance.ids) for instance, _ in pairs)
    mask = torch.tensor([[int(at < len(i.ids)) for at in range(width)] for i, _ in pairs])
    segments = torch.tensor([s + [0] * (width - len(s)) for _, s in pairs])
    vectors = embed(model, linear, [instance for instance, _ in pairs], width)
    states = model.bert(inputs_embeds=vectors, attention_mask=mask, token_type_ids=segments)
    score: Tensor = head(states.last_hidden_state[:, 0]).mean()
    return score


def bounds(text: str, *names: str) -> list[tuple[int, int]]:
    """Start and end of names in a text, in the order given; they must not overlap."""
    found = [(text.index(name), text.index(name) + len(name)) for name in names]
    assert all(one[1] <= two[0] for one, two in pairwise(found))
    return found
