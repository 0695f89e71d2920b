"""What a plug does to a model beside its scores: the model with the plug in place against without.

- At the place of the first answer token, the divergence ``KL(base || plug) = sum p log(p / q)`` of
  what is said next, and how often both find the same token likeliest; over all test examples, and
  over those without a linked entity, where a plug that leaves alone what it knows nothing of has 0
  and 1.
- Of a model that reads from left to right, the perplexity of plain text with linked names (the
  sentences of the knowledge base, else the texts of the test examples) divided by that without the
  plug. What a method adds is read, and not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.data import Example, Split
from kbench.encoding import Inputs, TokenKind, Trees
from kbench.encoding.computing import autocast
from kbench.knowledge.linked import linked
from kbench.method import Plug
from kbench.model import DownstreamModel, LanguageModel
from kbench.parts.run_parts import Parts
from kbench.pipeline.preparation import Prepared, inputs_of
from kbench.pipeline.session import Session

__all__ = ["locality"]

_LOGITS = 1 << 25
"""Log-probabilities held at once: 256 MiB."""
_BATCH = 32
_SENTENCES = 256
"""Sentences of which the perplexity is measured, drawn by a fixed seed."""


def locality(
    session: Session, parts: Parts, model: DownstreamModel, plug: Plug, prepared: Prepared
) -> dict[str, float]:
    """Returns how far a plug moves what a model says; empty where nothing is said as tokens.

    Args:
        session: of this process.
        parts: of the run.
        model: the downstream model, nothing attached.
        plug: of the run.
        prepared: the test split as the run reads it.
    """
    plain = session.prepared(parts, Split.TEST, model, injected=False)
    before, after = _texts(plain), _texts(prepared)
    told: dict[str, float] = {}
    if before is not None and after is not None and model.lm.has_lm_head:
        compared = _Compared(session, parts, model.lm, plug)
        apart, same = compared.answers(before, after)
        bare = np.array([max(rows, default=-1) < 0 for rows in prepared.links.rows])
        told = {"kl": float(apart.mean()), "same_first": float(same.mean()), "examples": len(bare)}
        told["examples_unlinked"] = int(bare.sum())
        if bare.any():
            told["kl_unlinked"] = float(apart[bare].mean())
            told["same_first_unlinked"] = float(same[bare].mean())
    if model.lm.left_to_right:
        compared = _Compared(session, parts, model.lm, plug)
        told |= compared.perplexity(_plain_texts(parts, prepared))
    return told


def _texts(prepared: Prepared) -> Inputs | None:
    """The inputs of a split up to the blank; None where it has none, or pairs of texts."""
    inputs = prepared.inputs.inputs if isinstance(prepared.inputs, Trees) else prepared.inputs
    if not isinstance(inputs, Inputs) or not (inputs.blanks >= 0).all():
        return None
    return inputs


def _plain_texts(parts: Parts, prepared: Prepared) -> list[Example]:
    base = parts.base_knowledge
    assert base is not None
    sentences = base.sentences
    number = len(sentences) or len(prepared.examples)
    chosen = np.arange(number)
    if number > _SENTENCES:
        chosen = np.sort(np.random.default_rng(0).choice(number, _SENTENCES, replace=False))
    if not len(sentences):
        return [replace(prepared.examples[at], blank=None, label="") for at in chosen.tolist()]
    return [
        Example(str(at), sentences[at].text, sentences[at].mentions, "") for at in chosen.tolist()
    ]


class _Compared:
    """A network with a plug and without.

    Args:
        session: of this process.
        parts: of the run.
        lm: the network.
        plug: the plug.
    """

    def __init__(self, session: Session, parts: Parts, lm: LanguageModel, plug: Plug) -> None:
        self._device, self._dtype = session.device, parts.spec.dtype
        self._parts, self._lm, self._plug = parts, lm, plug
        # What is left of rounding in single precision would not read as 0; Apple's has no double.
        self._wide = torch.float32 if session.device.type == "mps" else torch.float64

    def answers(
        self, before: Inputs, after: Inputs
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Returns the divergence, and whether the likeliest token is the same. ``[examples]``."""
        apart, same = np.zeros(len(after)), np.zeros(len(after), dtype=bool)
        part = max(1, _LOGITS // self._lm.word_embeddings.num_embeddings // 2)
        order = np.argsort(after.lengths, kind="stable")
        for start in range(0, len(order), part):
            chosen = order[start : start + part]
            base = self._first(before, chosen, attached=False)
            ours = self._first(after, chosen, attached=True)
            told = (base.exp() * (base - ours).nan_to_num()).sum(-1).clamp(min=0)
            apart[chosen] = told.double().cpu().numpy()
            same[chosen] = (base.argmax(-1) == ours.argmax(-1)).cpu().numpy()
        return apart, same

    def _first(self, inputs: Inputs, chosen: NDArray[np.int64], *, attached: bool) -> Tensor:
        """Log-probabilities of the first answer token. ``[chosen, vocabulary]``."""
        said = []
        with self._frozen(attached=attached):
            for start in range(0, len(chosen), _BATCH):
                batch = inputs.collate(chosen[start : start + _BATCH]).to(self._device)
                hidden = self._lm(batch, batch.blank_index).flatten(0, 1)[batch.blank_index]
                said.append(self._lm.predict_tokens(hidden).to(self._wide).log_softmax(-1))
        return torch.cat(said)

    def perplexity(self, texts: Sequence[Example]) -> dict[str, float]:
        """Returns the perplexity of the texts without the plug, and with it in relation to that."""
        parts, base = self._parts, self._parts.base_knowledge
        assert base is not None
        covers = partial(parts.method.covers, base)
        examples, links = linked(texts, base, parts.linker, covers)
        read = partial(inputs_of, parts, self._lm, examples, links)
        before, after = read(injected=False), read(injected=True)
        losses = [
            self._text_losses(inputs, attached=attached)
            for inputs, attached in ((before, False), (after, True))
        ]
        # A text that had to be cut for what is added would be compared with more of itself.
        kept = [at for at in range(len(texts)) if len(losses[0][at]) == len(losses[1][at]) > 0]
        if not kept:
            return {}
        one, two = (float(np.concatenate([side[at] for at in kept]).mean()) for side in losses)
        return {"perplexity_without": math.exp(one), "perplexity_ratio": math.exp(two - one)}

    def _text_losses(self, inputs: Inputs, *, attached: bool) -> list[NDArray[np.float64]]:
        """The loss of each token of a text that another comes before, a list a text."""
        losses = [np.zeros(0)] * len(inputs)
        with self._frozen(attached=attached):
            for at in range(len(inputs)):
                kinds = inputs.kinds[inputs.bounds[at] : inputs.bounds[at + 1]]
                asked = torch.from_numpy(np.flatnonzero(kinds[1:] == TokenKind.TEXT) + 1)
                if not len(asked):
                    continue
                batch = inputs.collate(np.array([at])).to(self._device)
                asked = asked.to(self._device)
                hidden = self._lm(batch)[0, asked - 1]
                said = self._lm.predict_tokens(hidden).float()
                true = said.gather(1, batch.ids[0, asked, None])[:, 0]
                loss = said.logsumexp(-1) - true
                losses[at] = loss.double().cpu().numpy()
        return losses

    @contextmanager
    def _frozen(self, *, attached: bool) -> Iterator[None]:
        plug = self._plug.attach(self._lm) if attached else nullcontext()
        with torch.inference_mode(), plug, autocast(self._device, self._dtype):
            yield
