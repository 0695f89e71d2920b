"""What holds for an injection method under the controls of knowledge.

A method says whom it covers, and a control breaks what is known of those. The two must agree, or a
gain over the control is that of having something to say, right or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.data import Example, Mention, Role
from kbench.encoding import Inputs
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Rows
from kbench.knowledge.linked import linked
from kbench.method import InjectionMethod, Plug
from kbench.parts.run_parts import impossible
from kbench.pipeline.preparation import inputs_of
from kbench.spec import Control
from kbench.testing.bench import Bench
from kbench.testing.contracts import TOLERANCE, Finding, Unchecked, Verdict, contract
from kbench.testing.tiny import tiny
from kbench.testing.trial import Trial

__all__ = ["CONTRACTS"]

_CONTROLS = (Control.FOREIGN, Control.SAME_TYPE, Control.SHUFFLED, Control.RANDOM)
_OF_SOME = (Control.VALUE_SWAPPED, Control.CONSTANT)
"""Those that say nothing of some methods."""
_AS_MUCH = (Control.SHUFFLED, Control.RANDOM)
"""Those under which exactly as many words are there; of the others like texts are drawn."""
_SEEDS = 3


@contract
def controls(bench: Bench) -> Verdict:
    """Under every control knowledge is there of the same entities, and is as much."""
    if not bench.declared or not bench.method.reads_knowledge:
        raise Unchecked("it reads no knowledge")
    wrong, figure = [], ""
    for control in (*_CONTROLS, *_OF_SOME):
        for seed in range(_SEEDS):
            named = {"knowledge": str(tiny().uneven), "control": control, "seed": seed}
            parts = bench.parts(bench.declared[0], **named)
            if impossible(parts):
                continue
            base, seen, method = parts.base_knowledge, parts.knowledge, parts.method
            assert base is not None
            assert seen is not None
            rows = np.arange(len(base), dtype=np.int64)
            covered = method.covers(base, rows)
            if covered.sum() < 2:
                raise Unchecked(f"it covers {covered.sum()} of {len(rows)} entities")
            other = int((method.covers(seen, rows) != covered).sum())
            if other:
                wrong.append(f"{control}, seed {seed}: {other} entities more or fewer are covered")
            amount = _amount(method, base, seen, rows[covered], control)
            if amount:
                wrong.append(f"{control}, seed {seed}: {amount}")
            figure = f"{int(covered.sum())} of {len(rows)} entities covered, under every control"
    return not wrong, "; ".join(wrong) or figure


def _amount(
    method: InjectionMethod, base: KnowledgeBase, seen: KnowledgeBase, rows: Rows, control: Control
) -> str:
    """What is wrong with how many words a method brings of the entities it covers."""
    if method.text is None:
        return ""
    true, broken = _words(method, base, rows), _words(method, seen, rows)
    silent = [int((words == 0).sum()) for words in (true, broken)]
    if any(silent):
        return f"of {len(rows)} covered entities {silent[0]} bring no text, {silent[1]} broken"
    if control not in _AS_MUCH:
        return ""
    # Shuffled, an entity has another's; drawn at random, as much as its own.
    same = true.sum() == broken.sum() if control == Control.SHUFFLED else (true == broken).all()
    return "" if same else f"{broken.sum()} words in the place of {true.sum()}"


def _words(method: InjectionMethod, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.int64]:
    texts = (method.passages(knowledge, row) for row in rows.tolist())
    return np.array([sum(len(text.split()) for text in several) for several in texts])


@contract
def injects(bench: Bench) -> Verdict:
    """Every entity that it covers changes what the model says, and no other does."""
    if not bench.declared or not bench.method.reads_knowledge:
        raise Unchecked("it reads no knowledge")
    if not bench.method.switched:
        raise Unchecked("declared without a switch for each entity")
    wrong, figures, refused = [], [], ""
    for setting in bench.fits:
        for control in (Control.NONE, *_CONTROLS, *_OF_SOME):
            if impossible(bench.parts(setting, knowledge=str(tiny().uneven), control=control)):
                continue
            try:
                tried = bench.tried(setting, control, tiny().uneven)
            except Unsupported as reason:
                refused = str(reason)
                continue
            problem, figure = _changed(tried)
            figures.append(figure)
            if problem:
                wrong.append(f"{setting}, {control}: {problem}")
    if not figures:
        raise Unchecked(f"it does not run on the uneven knowledge base: {refused}")
    return not wrong, "; ".join(wrong) or figures[0]


def _changed(tried: Trial) -> tuple[str, str]:
    """What is wrong with whom a plug changes the states of, and how many those are."""
    base, method = tried.parts.base_knowledge, tried.parts.method
    assert base is not None
    rows = np.arange(len(base), dtype=np.int64)
    texts, covered = [_about(base, row) for row in rows.tolist()], method.covers(base, rows)
    _, links = linked(texts, base, "gold", lambda asked: method.covers(base, asked))
    lm = tried.model.lm
    plain, injected = (
        inputs_of(tried.parts, lm, texts, links, injected=with_plug) for with_plug in (False, True)
    )
    with tried.chosen():
        apart = _apart(_states(tried, plain, None), _states(tried, injected, tried.plug))
    told = {
        "covered entities give what is not finite": covered & np.isnan(apart),
        "covered entities change nothing": covered & (apart == 0),
        "entities change the model and are not covered": ~covered & ~(apart <= TOLERANCE),
    }
    found = [f"{int(which.sum())} {what}" for what, which in told.items() if which.any()]
    changed = f"{int((apart > 0)[covered].sum())} of {int(covered.sum())} covered entities"
    return "; ".join(found), f"{changed} change the model, of others none"


def _about(base: KnowledgeBase, row: int) -> Example:
    """A text that mentions an entity."""
    entity, before = base.entity(row), "we saw "
    name = entity.label or "it"
    mention = Mention(len(before), len(before) + len(name), entity.id, Role.TARGET)
    return Example(entity.id, f"{before}{name} today", (mention,), "")


def _states(tried: Trial, inputs: Inputs, plug: Plug | None) -> list[Tensor]:
    """Last hidden states of each input, without padding."""
    lm = tried.model.lm
    batch = inputs.collate(np.arange(len(inputs)))
    attached = plug.attach(lm) if plug else nullcontext()
    with attached, torch.inference_mode():
        hidden = lm(batch).float()
    return [state[mask] for state, mask in zip(hidden, batch.mask.bool(), strict=True)]


def _apart(before: list[Tensor], after: list[Tensor]) -> NDArray[np.float64]:
    """How far states are apart: infinitely if they are of other tokens, NaN if not finite."""
    distances = []
    for one, two in zip(before, after, strict=True):
        if not torch.isfinite(two).all():
            distances.append(float("nan"))
        else:
            distances.append(
                float((one - two).abs().max()) if one.shape == two.shape else float("inf")
            )
    return np.array(distances)


@contract
def reads_facts(bench: Bench) -> Verdict:
    """It brings false values where facts have them, if it declares that it reads facts."""
    method = bench.method
    if not bench.declared or method.text is None:
        raise Unchecked("it brings no text")
    parts = bench.parts(bench.declared[0], knowledge=str(tiny().uneven))
    base = parts.base_knowledge
    assert base is not None
    seen = parts.control_of(base, Control.VALUE_SWAPPED)
    rows = np.arange(len(base), dtype=np.int64)
    covered = rows[parts.method.covers(base, rows)].tolist()
    other = sum(
        list(parts.method.passages(base, row)) != list(parts.method.passages(seen, row))
        for row in covered
    )
    figure = f"{other} of {len(covered)} texts are others where values are swapped"
    declared = "declared to read facts" if method.reads_facts else "declared to read no facts"
    return (other > 0) == method.reads_facts, f"{figure}, and it is {declared}"


@contract
def reads_text(bench: Bench) -> Verdict:
    """What is said to be read of texts is what a control of documents shows."""
    if not bench.method.reads_text:
        raise Unchecked("it reads no text by itself")
    moved = []
    for setting in bench.fits:
        true, empty = bench.tried(setting), bench.tried(setting, Control.EMPTY)
        with true.chosen(), empty.chosen():
            moved.append(true.plugged().apart(empty.plugged()))
    return all(value > 0 for value in moved), f"max |Δ| {min(moved):.1e} with nothing to read"


CONTRACTS: tuple[Callable[[Bench], Finding], ...] = (controls, injects, reads_facts, reads_text)
