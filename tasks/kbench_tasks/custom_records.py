"""The lines of a user's own data set, each an example or an error that says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kbench.data import Example, Label, Mention, Role
from kbench.data.records import Record
from kbench.errors import nearest
from kbench.knowledge import DENSE
from kbench.task import Family

__all__ = ["SHAPES", "example_of", "several"]

_MENTION = ("start", "end", "entity", "role", "score")
_KEYS = {
    Family.TYPING: ("id", "text", "mentions", "label"),
    Family.RELATION: ("id", "text", "mentions", "label"),
    Family.QUESTION: ("id", "text", "mentions", "answers", "blank"),
}
_SHAPE = {"text": str, "mentions": [{"start": int, "end": int}]}
SHAPES: Mapping[Family, Any] = {
    Family.TYPING: {**_SHAPE, "label": [str]},
    Family.RELATION: {**_SHAPE, "label": str},
    Family.QUESTION: {**_SHAPE, "answers": [str]},
}
"""What a line must have, by family."""
_MASKS = ("[MASK]", "<mask>")
_DENSE = re.compile(DENSE)


def example_of(family: Family, name: str, record: Record) -> Example:
    """Makes an example of a line.

    Args:
        family: of the task.
        name: of the example, where the line does not give one.
        record: the line.

    Raises:
        DataError: a field is not what it must be, or is unknown.
    """
    _only(record, record.values, _KEYS[family])
    name = record.values.get("id", name)
    if not isinstance(name, str) or not name:
        raise record.error(f"id is {name!r}, not text")
    mentions = tuple(
        _mention(record, number, values) for number, values in enumerate(record["mentions"])
    )
    if family == Family.QUESTION:
        return _question(name, record, mentions)
    return Example(name, record["text"], mentions, _label(family, record))


def several(label: Label) -> tuple[str, ...]:
    """Returns a label as the set that it is in some families."""
    return (label,) if isinstance(label, str) else label


def _only(record: Record, values: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses keys that nobody reads: a misspelt one would be lost in silence."""
    for key in values:
        if key not in known:
            raise record.error(f"has an unknown key {key!r}{nearest(key, known)}")


def _mention(record: Record, number: int, values: Mapping[str, Any]) -> Mention:
    _only(record, values, _MENTION)
    text, what = record["text"], f"mentions[{number}]"
    start, end = values["start"], values["end"]
    record.span(what, start, end, text)
    if not text[start:end].strip():
        raise record.error(f"{what} is {text[start:end]!r}, which names nothing")
    score = values.get("score")
    if score is not None and not _is_share(score):
        raise record.error(f"{what}.score is {score!r}, no number from 0 to 1")
    entity, role = values.get("entity"), values.get("role", Role.CONTEXT)
    if entity is not None and (not isinstance(entity, str) or not entity):
        raise record.error(f"{what}.entity is {entity!r}, neither text nor null")
    if role not in list(Role):
        raise record.error(f"{what}.role is {role!r}{nearest(str(role), Role)}")
    return Mention(start, end, entity, Role(role), None if score is None else float(score))


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _label(family: Family, record: Record) -> Label:
    given: Any = record["label"]
    if not all(label.strip() for label in several(given)) or given == "":
        raise record.error("has an empty label")
    if family == Family.RELATION:
        return str(given)
    if len(set(given)) < len(given):
        raise record.error("has a label twice")
    return tuple(sorted(given))


def _question(name: str, record: Record, mentions: tuple[Mention, ...]) -> Example:
    text, answers = record["text"], record["answers"]
    if not answers or not all(answer.strip() for answer in answers):
        raise record.error("has an empty answer, or none")
    blank = record.values.get("blank")
    for mask in _MASKS:
        if blank is None and mask in text:
            raise record.error(
                f"spells {mask}, which is read as text: take it out, and give its place as blank"
            )
    if blank is None:
        text = f"{text} " if _wants_blank(text) else text
        blank = len(text)
    if not isinstance(blank, int) or isinstance(blank, bool) or not 0 <= blank <= len(text):
        raise record.error(f"blank is {blank!r}, no offset in its text of {len(text)} characters")
    return Example(name, text, mentions, tuple(answers), blank=blank)


def _wants_blank(text: str) -> bool:
    """Whether a word that goes on with a text stands behind a blank that is not there yet."""
    last = next(filter(str.isalpha, reversed(text)), "")
    return not (text.endswith(" ") or _DENSE.match(last))
