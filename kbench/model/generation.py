"""Greedy decoding by us: of a batch of texts, with whatever is attached to the network.

A text is read once, and then one token at a time, what was read staying in the network's cache.
Texts are padded on the right, as they are everywhere in kbench: what is said is appended behind
the padding, which nobody sees, and each token is told its position. So hooks, slots and passages
work at these steps as they do elsewhere, and neither padding nor the rest of a batch changes what
is said of a text. A text that has come to its end leaves the batch.

Nothing that a model brings along to be sampled with (its generation config) is read: it is greedy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kbench.encoding import Batch, Entities
from kbench.model.beginnings import beginning_of, going_on

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kbench.model.language_model import LanguageModel

__all__ = ["NOTHING", "ends_of", "go_on", "in_words"]

NOTHING = -1
"""In the place of a token after the end of an answer."""
_NEWLINES = ("\n", "Ċ", "<0x0A>")
"""How tokenizers write what has a new line in it."""


def go_on(lm: LanguageModel, batch: Batch, most: int, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what a network goes on with after each text, and how likely it finds that.

    Args:
        lm: reads from left to right; what is attached to it works at every step.
        batch: texts, each to be gone on with after its blank, its last token.
        most: tokens at most.
        ends: tokens after which a text goes on no further. ``[n]``.

    Returns:
        Tokens ``[batch, most]``, :data:`NOTHING` behind the end, and the log-probability of all of
        them ``[batch]``, in float32.
    """
    assert batch.states is None, "what is gone on with has to be read, and not to be known already"
    size = len(batch.ids)
    tokens = batch.ids.new_full((size, most), NOTHING)
    said = torch.zeros(size, device=batch.ids.device)
    rows = torch.arange(size, device=batch.ids.device)
    mask = torch.cat([batch.mask, batch.mask.new_ones(size, most)], 1)
    lengths = batch.mask.sum(1, keepdim=True)
    width = batch.ids.shape[1]
    begun = beginning_of(lm, batch)
    spoken_of = batch.entities
    with lm.cached() as cache:
        asked = batch.blank_index
        hidden = going_on(lm, batch, asked, begun, cache) if begun else lm(batch, asked)
        state = hidden.flatten(0, 1)[asked]
        for step in range(most):
            logits = lm.predict_tokens(state).float()
            best, token = logits.max(-1)
            tokens[rows, step] = token
            said[rows] += best - logits.logsumexp(-1)
            goes_on = torch.nonzero(~torch.isin(token, ends)).flatten()
            if step + 1 == most or not len(goes_on):
                break
            if len(goes_on) < len(rows):
                cache.batch_select_indices(goes_on)
                rows, mask, lengths, token = (
                    of.index_select(0, goes_on) for of in (rows, mask, lengths, token)
                )
                if len(spoken_of.rows):
                    spoken_of = spoken_of.picked(goes_on.cpu())
            known = mask[:, : width + step + 1]
            state = lm(_one_more(batch, rows, token, known, lengths + step, spoken_of))
            state = state[:, -1]
    return tokens, said


def _one_more(
    batch: Batch,
    rows: Tensor,
    token: Tensor,
    mask: Tensor,
    positions: Tensor,
    before: Entities,
) -> Batch:
    """A batch of the next token of some texts; its mask is over all that is known of them."""
    none = batch.slot_index[:0]
    return replace(
        batch,
        ids=token[:, None],
        mask=mask,
        positions=positions,
        slot_index=none,
        slot_rows=batch.slot_rows[:0],
        mentions=batch.mentions[:0],
        mention_rows=batch.mention_rows[:0],
        mention_owners=batch.mention_owners[:0],
        blank_index=torch.arange(len(rows), device=rows.device),
        examples=batch.examples.to(rows.device)[rows],
        targets=None,
        segments=None,
        shared=None,
        before=before,
    )


def ends_of(lm: LanguageModel) -> Tensor:
    """Returns the tokens that end an answer: those that end a text, and what has a new line.

    Returns:
        ``[n]``, where the network is.
    """
    tokenizer, stated = lm.tokenizer, getattr(lm.config, "eos_token_id", None)
    several = stated if isinstance(stated, list | tuple) else [stated]
    found = {tokenizer.eos_token_id, *several, *_with_newline(tokenizer)} - {None}
    device = lm.word_embeddings.weight.device
    with torch.inference_mode(False):
        return torch.tensor(sorted(found), dtype=torch.int64, device=device)


def _with_newline(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    written = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    likely = [
        number
        for number, token in enumerate(written)
        if token and any(sign in token for sign in _NEWLINES)
    ]
    return [number for number in likely if "\n" in tokenizer.decode([number])]


def in_words(tokenizer: PreTrainedTokenizerFast, tokens: list[list[int]]) -> list[str]:
    """Returns answers as text: up to the first new line, without what stands for no word.

    Args:
        tokenizer: of the network.
        tokens: of each answer; :data:`NOTHING` is left out.
    """
    own = [[token for token in answer if token != NOTHING] for answer in tokens]
    texts = tokenizer.batch_decode(own, skip_special_tokens=True) if own else []
    return [text.split("\n", 1)[0].strip() for text in texts]
