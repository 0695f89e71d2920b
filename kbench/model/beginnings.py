"""What texts begin with alike, read once: demonstrations before each text, supports of an episode.

A network that reads from left to right finds the same in the same beginning, whatever follows. So
its keys and values are kept, of one beginning at a time, and each batch of texts goes on after
them. Plugs work in both parts: slots, hooks in layers, and layers of their own
(:meth:`~kbench.model.language_model.LanguageModel.remembered`), as they do where a text is gone on
with token by token. Those with hooks have to say that they look at nothing behind a token
(:meth:`~kbench.model.language_model.LanguageModel.token_by_token`). The result is that of whole
texts to 1e-5 in float32; in a narrow precision the two differ visibly, and texts are read whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kbench.encoding import Batch

if TYPE_CHECKING:
    from kbench.model.language_model import LanguageModel

__all__ = ["Beginning", "beginning_of", "going_on", "read", "sharing"]


@dataclass(frozen=True)
class Beginning:
    """What was read of a beginning.

    Attributes:
        group: the number of the texts that begin with it.
        tokens: how many it has.
        hidden: its last hidden states. ``[1, tokens, width]``.
        layers: keys and values of it in each layer, with one row.
    """

    group: int
    tokens: int
    hidden: Tensor
    layers: list[tuple[Tensor, Tensor]]


@contextmanager
def sharing(lm: LanguageModel) -> Iterator[None]:
    """Reads what texts begin with alike once inside the block, in which nothing of it changes.

    Args:
        lm: with whatever is attached to it. One that runs as compiled code reads whole texts, for
            each new shape would be compiled anew; so does one that computes narrowly, or has hooks
            that may look ahead.
    """
    narrow = lm.dtype != torch.float32 or torch.is_autocast_enabled(
        lm.word_embeddings.weight.device.type
    )
    try:
        whole = narrow or lm.runs_compiled or lm.looks_ahead
        lm.beginnings = None if whole else []
        yield
    finally:
        lm.beginnings = None


def read(lm: LanguageModel, batch: Batch, wanted: Tensor | None) -> Tensor:
    """Returns the last hidden states of a batch, as the network does; see :func:`sharing`.

    Args:
        lm: the network.
        batch: what to read.
        wanted: the positions that are read of them, as the network takes them.
    """
    beginning = beginning_of(lm, batch)
    if beginning is None:
        return lm(batch, wanted)  # type: ignore[no-any-return]
    with lm.cached() as cache:
        return going_on(lm, batch, wanted, beginning, cache)


def beginning_of(lm: LanguageModel, batch: Batch) -> Beginning | None:
    """Returns what the texts of a batch begin with, read now or before; None where they do not."""
    kept = lm.beginnings
    if kept is None or batch.shared is None or batch.states is not None or torch.is_grad_enabled():
        return None
    tokens, group = batch.shared
    if not kept or kept[0].group != group:
        if len(batch.ids) == 1:  # nothing is spared
            return None
        kept[:] = [_begun(lm, batch, tokens, group)]
    return kept[0]


def going_on(
    lm: LanguageModel, batch: Batch, wanted: Tensor | None, beginning: Beginning, cache: Any
) -> Tensor:
    """Returns the last hidden states of a batch that goes on after a beginning.

    Args:
        lm: the network, inside the block of whose cache this is called.
        batch: what to read.
        wanted: as of :func:`read`; none lies within the beginning but where all are wanted.
        beginning: of the batch.
        cache: empty.
    """
    size, (tokens, width) = len(batch.ids), (beginning.tokens, batch.ids.shape[1])
    for place, layer in enumerate(beginning.layers):
        keys, values = (part.expand(size, *part.shape[1:]) for part in layer)
        cache.update(keys, values, place)
    own = None
    if wanted is not None and bool((wanted % width >= tokens).all()):
        own = _shifted(wanted, width, tokens)
    hidden: Tensor = lm(_after(batch, tokens), own)
    return torch.cat([beginning.hidden.expand(size, *beginning.hidden.shape[1:]), hidden], 1)


def _begun(lm: LanguageModel, batch: Batch, tokens: int, group: int) -> Beginning:
    """Reads the beginning of the first text of a batch."""
    width = batch.ids.shape[1]
    inside = batch.mentions[:, 1] <= batch.mentions[:, 0] // width * width + tokens
    chosen = torch.nonzero((batch.mentions[:, 0] < tokens) & inside).flatten()
    slots = torch.nonzero(batch.slot_index < tokens).flatten()
    alone = replace(
        batch,
        ids=batch.ids[:1, :tokens],
        mask=batch.mask[:1, :tokens],
        slot_index=batch.slot_index[slots],
        slot_rows=batch.slot_rows[slots.cpu()],
        mentions=batch.mentions[chosen],
        mention_rows=batch.mention_rows[chosen.cpu()],
        mention_owners=batch.mention_owners[chosen.cpu()],
        blank_index=batch.slot_index[:0],
        examples=batch.examples[:1],
        targets=None,
        segments=None if batch.segments is None else batch.segments[:1, :tokens],
        positions=None if batch.positions is None else batch.positions[:1, :tokens],
        visible=None,  # within a text each token sees those before it
        tree=None,
        shared=None,
    )
    with lm.cached() as cache:
        hidden = lm(alone)
        layers = [(layer.keys, layer.values) for layer in cache.layers]
    return Beginning(group, tokens, hidden, layers)


def _after(batch: Batch, tokens: int) -> Batch:
    """What stands in a batch after the tokens that all its texts begin with."""
    size, width = batch.ids.shape
    slots = torch.nonzero(batch.slot_index % width >= tokens).flatten()
    spans = torch.nonzero(batch.mentions[:, 0] % width >= tokens).flatten()
    positions = batch.positions
    if positions is None:
        positions = torch.arange(width, device=batch.ids.device).expand(size, width)
    return replace(
        batch,
        ids=batch.ids[:, tokens:],
        slot_index=_shifted(batch.slot_index[slots], width, tokens),
        slot_rows=batch.slot_rows[slots.cpu()],
        mentions=_ends(batch.mentions[spans], width, tokens),
        mention_rows=batch.mention_rows[spans.cpu()],
        mention_owners=batch.mention_owners[spans.cpu()],
        blank_index=_shifted(batch.blank_index, width, tokens),
        targets=None,
        segments=None if batch.segments is None else batch.segments[:, tokens:],
        positions=positions[:, tokens:],
        visible=None if batch.visible is None else batch.visible[:, tokens:],
        tree=None,
        shared=None,
    )


def _shifted(places: Tensor, width: int, tokens: int) -> Tensor:
    """Places in rows of ``width`` tokens as places in the same rows without the first tokens."""
    return places - places // width * tokens - tokens


def _ends(spans: Tensor, width: int, tokens: int) -> Tensor:
    """Spans likewise; the token after the last of one may be the first of the next row."""
    rows = spans[:, :1] // width
    return spans - rows * tokens - tokens
