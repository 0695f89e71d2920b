"""The card of a user's own data set: what it may say, and what it makes of the task."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from kbench.data import Lists, Options, Prompt, Role, TaskCard, Verdicts
from kbench.data.files import read_yaml
from kbench.data.sources import find_folder, is_hub
from kbench.errors import DataError, UsageError, nearest
from kbench.knowledge import LINKERS
from kbench.metrics import (
    Accuracy,
    LooseMacroF1,
    LooseMicroF1,
    MacroF1,
    Metric,
    MicroF1WithoutNull,
    StrictAccuracy,
)
from kbench.task import Family

__all__ = [
    "CARD",
    "KEY_WORDS",
    "METRICS",
    "WITHOUT_NULL",
    "CustomCard",
    "metrics_of",
    "prompt_of",
    "read_card",
]

CARD = "card.yaml"
"""Name of the file."""
_EXAMPLE = "a mapping such as `title: My relations`, `family: relation classification`"
WITHOUT_NULL = "micro-f1-without-null"
"""The metric that is told which relation is none."""
_FALLBACK = "argmax-fallback"
_PIECE = re.compile(r"\{(\w*)\}")
"""What stands in a prompt for a part of an example."""
METRICS: Mapping[Family, Mapping[str, Callable[..., Metric]]] = {
    Family.TYPING: {
        "loose-micro-f1": LooseMicroF1,
        "loose-macro-f1": LooseMacroF1,
        "strict-set-accuracy": StrictAccuracy,
    },
    Family.RELATION: {
        "accuracy": Accuracy,
        WITHOUT_NULL: MicroF1WithoutNull,
        "macro-f1-over-classes": MacroF1,
    },
    Family.QUESTION: {"accuracy": partial(Accuracy, any_answer=True)},
}
"""What a card may ask for, by the names of the variants."""
KEY_WORDS: Mapping[str, str] = {
    "title": "text: its name in print",
    "name": "text of letters, digits and . + - _, at most 40: what results call the data",
    "family": f"one of {', '.join(Family)}",
    "licence": "text, such as CC0-1.0",
    "revision": "text or a number: raise it when the data change for good",
    "citation": "text",
    "source": "text",
    "max_length": "a whole number, at least 8: tokens of an input",
    "linking": f"one of {', '.join(LINKERS)}",
    "markers": "a mapping such as {head: '#', tail: '$'}: what is set around mentions of a role",
    "metric": "one or a list of those of the family; the first selects and ranks",
    "null_label": "text: the relation that says that none holds; for relation classification",
    "fallback": "true or false: the best type where none is predicted; for entity typing",
    "link_threshold": "a number from 0 to 1: the score that a mention's link must have",
    "ids": "text: a file of the folder, a line for each id of the data: it, a tab, the knowledge's",
    "prompt": "text with {text}, or of questions {before}, once, and the names of mentions as "
    "{head}, {tail}, {target}: what stands before an answer of models that read from left to right",
    "prompt_alone": "text: the same without an example",
    "words": "a mapping such as {P17: country}: what is said for a label",
    "statements": "a mapping of each relation to a sentence with {head} and {tail}, of which the "
    "likeliest is chosen",
}
"""What a card may say."""


class CustomCard(BaseModel):
    """What ``card.yaml`` says.

    Attributes:
        title: name in print.
        name: short name; the task is called ``custom:NAME`` wherever results are shown. Default:
            the name of the folder.
        family: ``entity typing``, ``relation classification`` or ``question answering``.
        licence: of the data.
        revision: raise it when the data change for good.
        citation: paper that introduced the data.
        source: where they come from.
        max_length: tokens of an input, specials included.
        linking: ``gold`` (ids in the data), ``title`` (by the mention's text) or ``alias``.
        markers: wordpiece set around mentions of each role; default: the family's.
        metric: variants of metrics, the first selects and ranks; default: the family's.
        null_label: the relation that says that none holds.
        fallback: whether the best type is predicted where no logit is above 0.
        link_threshold: the score that the link of a mention must have.
        ids: file of the folder that has the knowledge base's id for ids of the data.
        prompt: what is put before an answer; default: the family's.
        prompt_alone: the same without an example; default: the prompt with nothing for the text
            and ``it`` for the names.
        words: of labels, where they are not their own.
        statements: a sentence of each relation, where these are compared and no words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1)
    name: str | None = Field(default=None, pattern=r"^[\w.+-]{1,40}$", coerce_numbers_to_str=True)
    family: Family
    licence: str = Field(min_length=1)
    revision: str = Field(default="1", coerce_numbers_to_str=True)
    citation: str = "not stated"
    source: str = "not stated"
    max_length: int = Field(default=128, ge=8, strict=True)
    linking: str = "gold"
    markers: dict[Role, str] | None = None
    metric: str | list[str] | None = None
    null_label: str | None = Field(default=None, min_length=1)
    fallback: StrictBool = False
    link_threshold: float | None = Field(default=None, ge=0, le=1, strict=True)
    ids: str | None = Field(default=None, min_length=1)
    prompt: str | None = Field(default=None, min_length=1)
    prompt_alone: str | None = None
    words: dict[str, str] | None = None
    statements: dict[str, str] | None = None


def read_card(data: str, about: TaskCard) -> CustomCard:
    """Reads the card of a folder.

    Args:
        data: value of ``--data``.
        about: what a folder must be, for errors.

    Raises:
        DataError: there is no card, or it is not understood.
        UsageError: it is no folder that is asked for.
    """
    if is_hub(data):
        raise UsageError(f"custom reads folders, not {data}: download it first")
    path = find_folder(data, about, "custom") / CARD
    values = read_yaml(path, _EXAMPLE)
    for key in values:
        if key not in CustomCard.model_fields:
            hint = nearest(key, CustomCard.model_fields)
            raise DataError(path, f"has an unknown key {key!r}{hint}", _EXAMPLE)
    try:
        card = CustomCard.model_validate(values)
        _check(card)
        metrics_of(card)
    except ValidationError as error:
        raise _misread(path, values, error) from None
    except UsageError as error:
        raise DataError(path, str(error), _EXAMPLE) from None
    return card


def _misread(path: Path, values: Mapping[str, Any], error: ValidationError) -> DataError:
    """Returns what is wrong with a card in words of its own: what was given, what belongs there."""
    key = str(error.errors()[0]["loc"][0])
    expected = f"{key}: {KEY_WORDS.get(key, 'as docs/custom-data.md shows')}"
    if key not in values:
        return DataError(path, f"has no {key}", expected)
    hint = nearest(str(values[key]), Family) if key == "family" else ""
    return DataError(path, f"{key} is {values[key]!r}{hint}", expected)


def _check(card: CustomCard) -> None:
    """Refuses what is well formed and means nothing.

    Raises:
        UsageError: it says what was given and what is expected.
    """
    if card.linking not in LINKERS:
        hint = nearest(card.linking, LINKERS)
        raise UsageError(f"linking is {card.linking!r}{hint}")
    for role, marker in (card.markers or {}).items():
        if role == Role.CONTEXT:
            raise UsageError("markers has one for context: expected target, head or tail")
        if not marker.strip():
            raise UsageError(f"markers has {marker!r} for {role}: expected a sign such as '#'")
    if card.fallback and card.family != Family.TYPING:
        raise UsageError(f"fallback is for {Family.TYPING}, not for {card.family}: leave it out")
    if card.null_label is not None and card.family != Family.RELATION:
        raise UsageError(
            f"null_label is for {Family.RELATION}, not for {card.family}: leave it out"
        )
    _check_prompt(card)


def _check_prompt(card: CustomCard) -> None:
    """Refuses what of a prompt names nothing, or is of another family.

    Raises:
        UsageError: it says what was given and what is expected.
    """
    names = ("head", "tail") if card.family == Family.RELATION else ("target",)
    texts = ("text", "before") if card.family == Family.QUESTION else ("text",)
    whole = ("labels",) if card.family == Family.TYPING else ()
    _check_pieces("prompt", card.prompt or "", (*texts, *names, *whole))
    for statement in (card.statements or {}).values():
        _check_pieces("statements", statement, names)
    for where, given in (("words", card.words), ("statements", card.statements)):
        _check_said(where, given, card.family)
    if card.statements is not None and card.family != Family.RELATION:
        raise UsageError(
            f"statements is for {Family.RELATION}, not for {card.family}: leave it out"
        )
    if card.prompt is None:
        if card.prompt_alone is not None:
            raise UsageError("prompt_alone is given, and no prompt that it is of: give both")
    elif sum(piece in texts for piece in _PIECE.findall(card.prompt)) != 1:
        listed = " or ".join(f"{{{name}}}" for name in texts)
        raise UsageError(f"prompt is {card.prompt!r}: expected {listed}, and once")


def _check_pieces(where: str, said: str, known: Sequence[str]) -> None:
    for piece in _PIECE.findall(said):
        if piece not in known:
            listed = ", ".join(f"{{{name}}}" for name in known)
            hint = nearest(piece, known)
            raise UsageError(f"{where} has {{{piece}}}: expected {listed}{hint}")


def _check_said(where: str, given: Mapping[str, str] | None, family: Family) -> None:
    if given is not None and family == Family.QUESTION:
        raise UsageError(f"{where} is of labels, and questions have answers: leave it out")
    empty = next((label for label, said in (given or {}).items() if not said.strip()), None)
    if empty is not None:
        raise UsageError(f"{where} has nothing for {empty!r}: expected text")


def prompt_of(card: CustomCard, own: Prompt | None) -> Prompt | None:
    """Returns how a card has its examples put, in what it does not say as its family does.

    Raises:
        UsageError: it names all labels, and is not asked for a list of them.
    """
    if own is None:
        return None
    ask, alone = own.ask, own.nothing
    # Asked for letters, yes and no, or a list, a model is not asked for statements.
    statements = {} if isinstance(own, Lists | Options | Verdicts) else card.statements
    if "{labels}" in (card.prompt or "") and not isinstance(own, Lists):
        raise UsageError(
            "prompt has {labels}, which are for models that list them; expected a prompt without, "
            "or ask=list"
        )
    if statements and card.prompt is None:
        ask, alone = "{text}", ""
    if card.prompt is not None:
        ask = card.prompt
        bare = _PIECE.sub(lambda at: "" if at[1] in ("text", "before", "labels") else "it", ask)
        alone = " ".join(bare.split()) if card.prompt_alone is None else card.prompt_alone
    return replace(
        own,
        ask=ask,
        nothing=alone,
        words=card.words or own.words,
        statements=statements or own.statements,
    )


def metrics_of(card: CustomCard) -> tuple[Metric, ...]:
    """Returns the metrics of a card, those that it asks for first.

    Raises:
        UsageError: it asks for one that its family does not have.
    """
    asked = [card.metric] if isinstance(card.metric, str) else (card.metric or [])
    if not asked and card.null_label is not None:
        asked = [WITHOUT_NULL]
    usual = {
        Family.TYPING: list(METRICS[Family.TYPING]),
        Family.RELATION: ["accuracy", *([WITHOUT_NULL] if card.null_label else [])],
        Family.QUESTION: ["accuracy"],
    }
    names = dict.fromkeys([*asked, *usual[card.family]])
    made: dict[str, Metric] = {}
    for name in names:
        metric = _metric(card, name)
        made.setdefault(metric.name, metric)
    return tuple(made.values())


def _metric(card: CustomCard, variant: str) -> Metric:
    known = METRICS[card.family]
    name, _, told = variant.partition(":")
    if name not in known:
        listed = ", ".join(known)
        raise UsageError(
            f"metric is {variant!r}: expected {listed} in {card.family}{nearest(name, known)}"
        )
    if name == WITHOUT_NULL:
        null = told or card.null_label
        if not null:
            raise UsageError(f"metric is {variant!r}: say which relation is none by null_label")
        if card.null_label not in (None, null):
            raise UsageError(f"metric is {variant!r}, and null_label {card.null_label!r}: say one")
        return MicroF1WithoutNull(null)
    if card.family == Family.TYPING:
        if told and not (told == _FALLBACK and card.fallback):
            raise UsageError(
                f"metric is {variant!r}: expected {name}, and fallback: true for the "
                "best type where none is predicted"
            )
        return known[name](card.fallback)
    if told and not (card.family == Family.QUESTION and told == "any-answer"):
        raise UsageError(f"metric is {variant!r}: expected {name}")
    return known[name]()
