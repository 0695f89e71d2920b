"""Map-tuning's general step, recomputed from the published equations in the plainest form.

It shares no code with kbench: one Python loop over tokens builds the input vectors, one entity is
mapped at a time, every batch is padded to a fixed length, and the masked-LM head reads every
position. It is the truth of a test and the yardstick of a benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import BertForMaskedLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Instance:
    """Tokens of one instance: a word id or, where ``vectors`` has one, an entity's vector."""

    ids: list[int]
    vectors: dict[int, Tensor]
    labels: list[int]


def instances(
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    mentions: list[tuple[int, int, Tensor | None]],
) -> list[Instance]:
    """The three instances of a sentence with two mentions: both masked, the first, the second.

    Args:
        tokenizer: gives wordpieces.
        text: the sentence.
        mentions: start, end, and ``k_e`` or None, in the order of the text, not overlapping.
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


def embed(model: BertForMaskedLM, linear: nn.Linear, batch: list[Instance], width: int) -> Tensor:
    """Input vectors ``[batch, width, hidden]``, one token at a time, padding included."""
    table = model.bert.embeddings.word_embeddings.weight
    rows = []
    for instance in batch:
        tokens = []
        for position in range(width):
            if position in instance.vectors:
                tokens.append(linear.weight @ instance.vectors[position] + linear.bias)
            elif position < len(instance.ids):
                tokens.append(table[instance.ids[position]])
            else:
                tokens.append(table[0])
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


def loss(model: BertForMaskedLM, linear: nn.Linear, batch: list[Instance], width: int) -> Tensor:
    """Mean cross-entropy at masked positions, all positions going through the head."""
    mask = torch.tensor([[int(at < len(i.ids)) for at in range(width)] for i in batch])
    labels = torch.tensor([i.labels + [-100] * (width - len(i.labels)) for i in batch])
    logits = model(inputs_embeds=embed(model, linear, batch, width), attention_mask=mask).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def bounds(text: str, *names: str) -> list[tuple[int, int]]:
    """Start and end of names in a text, in the order given; they must not overlap."""
    found = [(text.index(name), text.index(name) + len(name)) for name in names]
    assert all(one[1] <= two[0] for one, two in pairwise(found))
    return found
