"""A stranger's network on trial: does it do what kbench asks of a language model?

What is taken for granted of language models holds for one family of them. Here it is tried, on a
few short texts of any tokens: that the network reads word vectors, each as it reads the word; that
it masks padding; that it looks both ways, or to the left alone; that its tokenizer and its length
fit it; and that what is read of it (head, pooler) says what the whole network says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kbench.encoding import Batch, affixes
from kbench.errors import KbenchError, first_line
from kbench.model.freezing import dropout
from kbench.model.language_model import LanguageModel
from kbench.model.narrow import NARROW

__all__ = ["Trial", "try_out"]

TOLERANCE = 1e-4
"""How far states may move, as a share of the largest, where only the order of sums differs."""
_NARROW = 0.1
"""The same where weights are held in a narrow precision, which rounds states in every layer."""
_MASKED = 1e-6
"""The same where nothing differs that is read."""
_SHORT, _LONG = 5, 17
_LONGEST = 8192
"""Tokens of the longest text that is tried."""


class _Reached(Exception):
    """No error: the first layer was reached."""


class Trial:
    """Texts of any tokens for a network, and what it must say of them.

    Args:
        lm: the network, in eval mode.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.name = type(lm.base).__name__
        self._tolerance = _NARROW if lm.dtype in NARROW else TOLERANCE
        self._drawn = torch.Generator().manual_seed(0)
        self._rows = lm.word_embeddings.num_embeddings
        special = torch.tensor([*lm.tokenizer.all_special_ids], dtype=torch.int64)
        usable = torch.ones(self._rows, dtype=torch.bool)
        usable[special[special < self._rows]] = False
        self._usable = torch.nonzero(usable).flatten()
        if len(self._usable) < 2:
            raise KbenchError(f"{self.name} has no word vectors but those of special tokens")
        with self._asked("tell the special tokens around a text"):
            around = affixes(lm.tokenizer)
        self._before, self._after = self._known(around.before), self._known(around.after)
        self._short, self._long = self._text(_SHORT), self._text(_LONG)

    def tokens_fit(self) -> None:
        """Every token of the tokenizer has a word vector.

        Raises:
            KbenchError: it has not.
        """
        largest = max(self.lm.tokenizer.get_vocab().values())
        if largest >= self._rows:
            raise KbenchError(
                f"the tokenizer has tokens up to id {largest}, and {self.name} has {self._rows} "
                f"word vectors (ids up to {self._rows - 1}); expected the tokenizer that it was "
                "trained with"
            )

    def reads(self) -> None:
        """It reads word vectors, and says something of them.

        Raises:
            KbenchError: it does not.
        """
        if not torch.isfinite(self._said).all():
            raise KbenchError(f"the states of {self.name} are not finite")

    def reads_vectors_as_words(self) -> None:
        """It says of a word's vector what it says of the word.

        Raises:
            KbenchError: it does not.
        """
        if _apart(self._said, self._own.last_hidden_state) > self._tolerance:
            raise KbenchError(
                f"{self.name} does more with a token than look up its vector (it scales vectors, "
                "or counts masks): states of vectors are not those of their words; kbench needs a "
                "model where they are, for it writes knowledge into vectors"
            )

    @cached_property
    def _said(self) -> Tensor:
        """The states of the long text alone, as kbench reads them."""
        return self._states("read word vectors", self._batch(self._long))

    @cached_property
    def _own(self) -> Any:
        """What the network itself says of it."""
        with self._asked("read tokens"):
            return self.lm.base(**self._given(self._batch(self._long)))

    def masks_padding(self) -> float:
        """What it says of a text is the same alone and padded in a batch.

        Returns:
            How far states move between the two, as a share of the largest.

        Raises:
            KbenchError: they move by more than the order of sums would make them.
        """
        both = self._batch(self._short, self._long)
        padding = torch.nonzero(both.mask.flatten() == 0).flatten()
        rows = torch.arange(len(padding))
        loud = replace(both, slot_index=padding, slot_rows=rows)
        table = self.lm.word_embeddings.weight
        noise = torch.randn(len(padding), table.shape[1], generator=self._drawn)
        noise = 3 * float(table.abs().max()) * noise.to(table)
        padded = self._states("read texts of two lengths in a batch", both)
        with self.lm.slots(lambda rows: noise[rows.to(noise.device)]):
            other = self._states("read texts of two lengths in a batch", loud)
        alone = (self._states("read a text", self._batch(self._short))[0], self._said[0])
        pairs = [(states, padded[row, : len(states)]) for row, states in enumerate(alone)]
        rounding = max(_apart(one, two) for one, two in pairs)
        moved = _apart(padded[0, : len(self._short)], other[0, : len(self._short)])
        if moved > _MASKED or rounding > self._tolerance:
            raise KbenchError(
                f"{self.name} reads the padding of a batch: its states of a text alone and in a "
                "batch are not the same, so that predictions would depend on the batch; kbench "
                "needs a model that masks padding"
            )
        return rounding

    def looks_where_it_should(self) -> None:
        """A token moves the states after it; those before it if the network looks both ways.

        Raises:
            KbenchError: it does not.
        """
        first, last = len(self._before), len(self._long) - len(self._after) - 1
        back = self._moved(last, slice(last)) > _MASKED
        ahead = self._moved(first, slice(first + 1, None)) > _MASKED
        if not back and not ahead:
            raise KbenchError(f"{self.name} reads no text: a token moves no state but its own")
        if self.lm.left_to_right and back:
            raise KbenchError(
                f"{self.name} is loaded as a decoder, and a token moves states before it; expected "
                "a model that reads from left to right alone"
            )
        if not self.lm.left_to_right and not back:
            raise KbenchError(
                f"{self.name} is loaded as an encoder, and reads left to right: a token moves no "
                "state before it; expected a model that looks both ways, or a decoder of an "
                "architecture that is nothing else"
            )

    def reads_whole_length(self) -> None:
        """It reads as many tokens as it says.

        Raises:
            KbenchError: it does not.
        """
        length = self.lm.max_length
        around = len(self._before) + len(self._after)
        if length <= around + 1:
            raise KbenchError(
                f"{self.name} reads texts of {length} tokens at most, by config.json "
                "(max_position_embeddings) and tokenizer_config.json (model_max_length); "
                f"expected more than {around + 1}"
            )
        # A decoder may have a window of a hundred thousand tokens, which nobody tries in vain.
        length = min(length, _LONGEST)
        batch = self._batch([*self._before, *self._ordinary(length)][:length])
        layers = self.lm._found_layers()
        # Positions are a matter of what lies before the layers, which alone are costly.
        hooks = [layer.register_forward_pre_hook(_reached) for layer in layers[:1]]
        try:
            self._states(f"read the {length} tokens that config.json allows", batch)
        except _Reached:
            pass
        finally:
            for hook in hooks:
                hook.remove()

    def says_what_the_network_says(self) -> None:
        """Its pooler and token head, as kbench applies them, give the network's own output.

        Raises:
            KbenchError: they do not.
        """
        batch = self._batch(self._long)
        if self.lm.has_pooler:
            with self._asked("apply its pooler"):
                pooled = self.lm.pool(self._said, batch.mask)
            self._same("pooler", pooled, self._own.pooler_output)
        if self.lm.has_lm_head:
            with self._asked("apply the head that predicts tokens"):
                own = self.lm.network(**self._given(batch)).logits[0]
                said = self.lm.predict_tokens(self._said[0])
            self._same("head that predicts tokens", said, own)

    def _moved(self, at: int, seen: slice) -> float:
        """How far another token moves the states at some places, as a share of the largest."""
        text = [*self._long]
        text[at] = self._ordinary(1, but=text[at])[0]
        return _apart(self._said[0, seen], self._states("read a text", self._batch(text))[0, seen])

    def _same(self, part: str, one: Tensor, other: Tensor) -> None:
        if one.shape != other.shape or _apart(one, other) > self._tolerance:
            raise KbenchError(f"the {part} of {self.name} is of a form that kbench does not know")

    def _states(self, what: str, batch: Batch) -> Tensor:
        with self._asked(what):
            states: Tensor = self.lm(batch)
        return states

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """Whatever a stranger's code raises, in one line."""
        try:
            yield
        except (KbenchError, _Reached):
            raise
        except Exception as cause:
            asked = f"cannot {what}, as kbench asks of a language model"
            raise KbenchError(f"{self.name} {asked} ({first_line(cause)})") from cause

    def _given(self, batch: Batch) -> dict[str, Tensor]:
        """A batch as the network itself would be asked."""
        given = {"input_ids": batch.ids, "attention_mask": batch.mask}
        if self.lm.has_segments:
            given["token_type_ids"] = torch.zeros_like(batch.ids)
        return given

    def _text(self, length: int) -> list[int]:
        """Any tokens, ``[MASK]`` among them, inside the special tokens of a text."""
        room = self.lm.max_length - len(self._before) - len(self._after)
        inside = self._ordinary(max(2, min(length, room)))
        inside[:1] = self._known([self.lm.tokenizer.mask_token_id]) or inside[:1]
        return [*self._before, *inside, *self._after]

    def _ordinary(self, count: int, but: int | None = None) -> list[int]:
        """Tokens that are not special."""
        usable = self._usable if but is None else self._usable[self._usable != but]
        drawn = torch.randint(len(usable), (count,), generator=self._drawn)
        return [int(token) for token in usable[drawn]]

    def _known(self, tokens: Iterable[int | None]) -> list[int]:
        """Those that have a word vector."""
        return [token for token in tokens if token is not None and token < self._rows]

    def _batch(self, *texts: list[int]) -> Batch:
        width = max(map(len, texts))
        pad = self.lm.tokenizer.pad_token_id or 0
        device = self.lm.word_embeddings.weight.device
        ids = [text + [pad] * (width - len(text)) for text in texts]
        mask = [[1] * len(text) + [0] * (width - len(text)) for text in texts]
        none = torch.empty(0, dtype=torch.int64, device=device)
        return Batch(
            ids=torch.tensor(ids, device=device),
            mask=torch.tensor(mask, device=device),
            slot_index=none,
            slot_rows=none.cpu(),
            mentions=none.view(0, 2),
            mention_rows=none.cpu(),
            mention_owners=none.cpu(),
            blank_index=none,
            examples=torch.arange(len(texts)),
        )


def try_out(lm: LanguageModel) -> float:
    """Tries a network on all of :class:`Trial`.

    Args:
        lm: the network.

    Returns:
        How far states move where only the batch differs, as a share of the largest.

    Raises:
        KbenchError: it cannot do what kbench asks.
    """
    with dropout(lm, None), torch.inference_mode():
        trial = Trial(lm)
        trial.reads()
        trial.looks_where_it_should()
        trial.tokens_fit()
        trial.reads_vectors_as_words()
        rounding = trial.masks_padding()
        trial.reads_whole_length()
        trial.says_what_the_network_says()
    return rounding


def _reached(*_: Any) -> None:
    raise _Reached


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    one, other = one.detach().float(), other.detach().float()
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-12))
