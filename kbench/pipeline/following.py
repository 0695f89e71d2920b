"""The false answers that a run's knowledge holds, as its head would say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from kbench.data import Label
from kbench.knowledge.values import ValueSwapped, injected
from kbench.model import DownstreamModel
from kbench.parts.run_parts import Parts
from kbench.pipeline.preparation import Prepared

__all__ = ["FalseAnswers", "false_answers"]


@dataclass(frozen=True)
class FalseAnswers:
    """What a model answers that follows its false knowledge.

    Attributes:
        labels: of each test example all names of the false values; empty where none is known, or
            none can be said.
        spelled: how the knowledge base spells what the head says, by the number of the example.
        known: examples with a false value, whether it can be said or not.
    """

    labels: Sequence[tuple[str, ...]]
    spelled: Mapping[int, Mapping[str, str]]
    known: int

    def named(self, predictions: Sequence[Label], right: Sequence[Label]) -> list[Label]:
        """Returns predictions in the words of the data, or of the false value that they are.

        Args:
            predictions: as the head says them.
            right: the same in the words of the data, as far as they are right.
        """
        named = list(right)
        for at, own in self.spelled.items():
            guess = predictions[at]
            if isinstance(guess, str) and named[at] == guess:
                named[at] = own.get(guess, guess)
        return named


def false_answers(parts: Parts, model: DownstreamModel, prepared: Prepared) -> FalseAnswers | None:
    """Returns the false answers to test questions; None where no value was swapped, or none is one.

    Args:
        parts: of the run.
        model: its head says which answers can be given.
        prepared: the test split.
    """
    seen = parts.knowledge
    if not isinstance(seen, ValueSwapped):
        return None
    covers = partial(parts.method.covers, seen.base)
    false = injected(prepared.examples, seen, parts.linker, covers)
    asked = [at for at, names in enumerate(false) if names]
    if not asked:
        return None
    examples = [replace(prepared.examples[at], label=false[at]) for at in asked]
    gold = model.head.gold(examples, model.lm.tokenizer)
    said = [asked[number] for number in gold.kept.tolist()]
    sayable = {*said}
    return FalseAnswers(
        labels=[names if at in sayable else () for at, names in enumerate(false)],
        spelled=dict(zip(said, gold.spelled, strict=True)) if gold.spelled else {},
        known=len(asked),
    )
