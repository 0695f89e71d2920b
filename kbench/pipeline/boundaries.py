"""Where a prompt and its answer meet: would a tokenizer read both as one text by other tokens?"""

from __future__ import annotations

from collections.abc import Sequence

from kbench.data import Example
from kbench.encoding import bare_tokens
from kbench.model import DownstreamModel
from kbench.parts.run_parts import Parts

__all__ = ["respelled"]


def respelled(parts: Parts, model: DownstreamModel, tested: Sequence[Example]) -> dict[str, int]:
    """Counts the tested examples whose right answer is other tokens in one text with its prompt.

    Answers are spelled once for all texts, behind a blank or behind a sign. Where a tokenizer
    joins what stands on both sides of the boundary, a model is asked for tokens that it never saw
    follow there. Nothing is counted where no prompt asks, and none where a template of messages
    stands between.

    Args:
        parts: of the run.
        model: its head spells answers.
        tested: what is asked; of several answers the first is looked at.
    """
    task, tokenizer = parts.task, model.lm.tokenizer
    prompt = task.asked
    if parts.prompting is None or parts.spec.chat or prompt is None:
        return {}
    asked = [(e, answer) for e in tested for answer in [*task.shows(e).values()][:1]]
    joins = [prompt.joins(example) for example, _ in asked]
    put = [prompt.put(example) for example, _ in asked]
    whole = [prompt.shown(example, answer) for example, answer in asked]
    texts, together = (
        bare_tokens(tokenizer, [each.text if each else "" for each in several])
        for several in (put, whole)
    )
    spelled: dict[tuple[str, bool], list[int]] = {}
    for way in {*joins}:
        known = list({a: None for (_, a), own in zip(asked, joins, strict=True) if own == way})
        tokens = model.head.answer_tokens(tokenizer, known, joined=way)
        spelled |= {(answer, way): ids for answer, ids in zip(known, tokens, strict=True)}
    other = sum(
        text + spelled[answer, way] != one
        for (_, answer), way, text, one in zip(asked, joins, texts, together, strict=True)
    )
    return {"test_answers_spelled_otherwise": other}
