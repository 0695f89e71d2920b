"""What holds for every backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Batch, Layout, TokenKind, encode, known_markers
from kbench.errors import KbenchError
from kbench.model import Backbone, LanguageModel, digest, dropout
from kbench.model.trial import Trial
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.source_text import summary
from kbench.spec import check_options, check_values
from kbench.testing.contracts import Finding, Verdict, contract
from kbench.training import Recipe

__all__ = ["CONTRACTS", "subject"]

TOLERANCE = 1e-4
_CUT = (
    (
        "The town's bank (Tiber) was near Rome, not on it.",
        ("town", "Tiber", "Rome"),
        "The {0} town {0} 's bank (Tiber) was near Rome, not on it.",
    ),
    (
        "(Rome)'s river and its towns: a port.",
        ("Rome", "river", "port"),
        "( {0} Rome {0} )'s river and its towns: a port.",
    ),
    ("ria", ("i",), "r {0} i {0} a"),
)
"""Texts with names that a tokenizer would write otherwise apart; with the first one marked."""
_TEXTS = ("It rained.", "The river flows to the sea , and a town lies on it .")


class Loaded:
    """A backbone and one copy of its network.

    Args:
        name: of the backbone.
    """

    def __init__(self, name: str) -> None:
        self.entry = registry.find(Kind.BACKBONES, name)
        self.kind = cast("type[Backbone]", registry.load(self.entry))

    @cached_property
    def lm(self) -> LanguageModel:
        """A copy of the network."""
        return self.kind().load()

    def batch(self, *chosen: int) -> Batch:
        """Returns some of two texts, padded."""
        examples = [Example(str(at), text, (), "") for at, text in enumerate(_TEXTS)]
        inputs = encode(self.lm.tokenizer, examples, [(), ()], Layout({}))
        return inputs.collate(np.array(chosen))


subject = Loaded


@contract
def card(loaded: Loaded) -> Verdict:
    """It says in a line what it is, and its recipes have fields that there are."""
    for recipe in loaded.kind.recipes.values():
        check_options(recipe, Recipe.types, "a recipe")
        check_values(recipe, {}, Recipe.types, "a recipe")
    told = summary(loaded.entry)
    return bool(told), f"{told or 'no docstring'} {len(loaded.kind.recipes)} recipes of its own"


@contract
def loads(loaded: Loaded) -> Verdict:
    """It loads in eval mode, in float32, with a tokenizer and sizes."""
    lm = loaded.lm
    wrong = ["is in train mode"] if lm.training else []
    wrong += [n for n, p in lm.named_parameters() if p.dtype != torch.float32][:1]
    wrong += [] if lm.max_length > 0 and lm.width > 0 else ["has no length or width"]
    size = sum(p.numel() for p in lm.parameters())
    head = "with" if lm.has_lm_head else "without"
    figure = f"{size} parameters, width {lm.width}, {lm.max_length} tokens"
    unread = f"; not read: {', '.join(lm.unread)}" if lm.unread else ""
    return not wrong, "; ".join(wrong) or f"{figure}, {head} a masked-LM head{unread}"


@contract
def weights(loaded: Loaded) -> Verdict:
    """All weights are finite numbers."""
    state = loaded.lm.state_dict()
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    return not bad, f"not finite: {', '.join(bad[:3])}" if bad else f"{len(state)} tensors"


@contract
def same_weights(loaded: Loaded) -> Verdict:
    """Loaded twice it has the same weights, and the same digest by content."""
    one, two = loaded.kind(), loaded.kind()
    weights = digest(loaded.lm), digest(two.load())
    figure = f"content {one.digest[:8]} and {two.digest[:8]}, weights {weights[0][:8]}"
    return one.digest == two.digest and weights[0] == weights[1], f"{figure} and {weights[1][:8]}"


@contract
def whole_texts(loaded: Loaded) -> Verdict:
    """A text has the tokens that its tokenizer writes, whatever is marked or inserted in it."""
    tokenizer = loaded.lm.tokenizer
    markers = known_markers(tokenizer, {Role.TARGET: "$"})
    wrong = []
    for text, names, written in _CUT:
        spans = [(text.index(name), text.index(name) + len(name)) for name in names]
        bare = Example("", text, tuple(Mention(*span) for span in spans), "")
        target = Example("", text, (Mention(*spans[0], None, Role.TARGET),), "")
        plain = encode(tokenizer, [bare], [[-1] * len(spans)], Layout({}))
        slotted = encode(tokenizer, [bare], [[0] * len(spans)], Layout({}, "{slot}{mention}"))
        marked = encode(tokenizer, [target], [[-1]], Layout(markers))
        words = slotted.ids[slotted.kinds != TokenKind.SLOT].tolist()
        if not plain.ids.tolist() == words == tokenizer(text)["input_ids"]:
            wrong.append(text)
        full = written.format(markers[Role.TARGET])
        if marked.ids.tolist() != tokenizer(full)["input_ids"]:
            wrong.append(full)
    return not wrong, f"{len(_CUT)} texts, {'; '.join(wrong) or 'nothing'} otherwise"


@contract
def slots(loaded: Loaded) -> Verdict:
    """A slot takes a vector, which changes the outputs; afterwards nothing is left."""
    lm, batch = loaded.lm, loaded.batch(1)
    slotted = replace(batch, slot_index=torch.tensor([2]), slot_rows=torch.tensor([0]))
    vector = lm.word_vectors.detach()[-1:] + 1
    with torch.inference_mode():
        before = lm(batch)
        with lm.slots(lambda rows: vector.expand(len(rows), -1)):
            filled = lm(slotted)
        after = lm(batch)
    moved = float((filled - before).abs().max())
    return moved > 0 and torch.equal(
        before, after
    ), f"max |Δ| {moved:.1e}, then {_apart(before, after)}"


@contract
def own_words(loaded: Loaded) -> Verdict:
    """A slot with a word's own vector gives what the word gives."""
    lm, batch = loaded.lm, loaded.batch(1)
    slotted = replace(batch, slot_index=torch.tensor([2]), slot_rows=torch.tensor([0]))
    word = lm.word_vectors.detach()[batch.ids[0, 2]]
    with torch.inference_mode(), lm.slots(lambda rows: word.expand(len(rows), -1)):
        apart = _apart(lm(batch), lm(slotted))
    return float(apart) <= TOLERANCE, f"max |Δ| {apart} (at most {TOLERANCE:.0e})"


@contract
def both_ways(loaded: Loaded) -> Verdict:
    """A token moves the states of those before it, and of none if it reads left to right."""
    says, reads = loaded.kind().left_to_right, loaded.lm.left_to_right
    if says != reads:
        return False, f"left_to_right is {says} of the backbone, and {reads} of what it loads"
    return _tried(loaded, Trial.looks_where_it_should)


@contract
def fitting(loaded: Loaded) -> Verdict:
    """Every token of its tokenizer has a word vector, and it reads as many tokens as it says."""
    return _tried(loaded, Trial.tokens_fit, Trial.reads_whole_length)


@contract
def own_outputs(loaded: Loaded) -> Verdict:
    """Its states, pooler and masked-LM head are those of the network asked with tokens."""
    return _tried(loaded, Trial.reads_vectors_as_words, Trial.says_what_the_network_says)


@contract
def padding(loaded: Loaded) -> Verdict:
    """Hidden states depend neither on what padding holds nor on how much of it there is."""
    with torch.inference_mode():
        short, both = loaded.lm(loaded.batch(0)), loaded.lm(loaded.batch(0, 1))
    apart = _apart(short[0], both[0, : short.shape[1]])
    figure = f"max |Δ| {apart} (at most {TOLERANCE:.0e})"
    if float(apart) > TOLERANCE:
        return False, figure
    sound, said = _tried(loaded, Trial.masks_padding)
    return sound, figure if sound else said


def _tried(loaded: Loaded, *asked: Callable[[Trial], object]) -> Verdict:
    """Whether it does what is asked of a backbone when it is loaded, and what it does instead."""
    try:
        with dropout(loaded.lm, None), torch.inference_mode():
            trial = Trial(loaded.lm)
            for ask in asked:
                ask(trial)
    except KbenchError as problem:
        return False, str(problem)
    return True, f"{trial.name}, {loaded.lm.max_length} tokens"


def _apart(one: Tensor, other: Tensor) -> str:
    return f"{float((one - other).abs().max()):.1e}"


CONTRACTS: tuple[Callable[[Loaded], Finding], ...] = (
    card,
    loads,
    weights,
    same_weights,
    whole_texts,
    slots,
    own_words,
    both_ways,
    fitting,
    own_outputs,
    padding,
)
