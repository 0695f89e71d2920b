"""What two runs predict otherwise: example by example, with the knowledge that was brought in.

Texts come from the task and knowledge from the bundle, where they are what the runs had: their
digests are compared. Where they are not there, predictions are shown alone. Free of torch, as far
as the task is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from kbench.data import Example, Label, Split, is_right
from kbench.data.files import canonical_digest
from kbench.errors import KbenchError, Unsupported, UsageError, lacking, with_type
from kbench.knowledge import Bundle, KnowledgeBase
from kbench.knowledge.controls import controlled
from kbench.knowledge.exchange import Exchanged
from kbench.knowledge.linked import anyone, linked
from kbench.parts.find import find_knowledge, task_of
from kbench.pipeline.buckets import Popularity
from kbench.results.nearest import nearest_rows
from kbench.spec import Control
from kbench.store import Predictions, Result

if TYPE_CHECKING:
    from kbench.parts.run_parts import PartLoader

__all__ = [
    "BUCKETS",
    "Change",
    "Changed",
    "Injected",
    "Texts",
    "Views",
    "changes",
    "injected",
    "known",
]

_BY_METHOD = (Control.FOREIGN, Control.SAME_TYPE, Control.SHUFFLED, Control.ANSWER_REMOVED)
"""Controls under which what is seen hangs on the method, too."""
BUCKETS = ("known", "unknown", "head", "torso", "tail")
"""By what an example can be chosen: its entity is known or not, and how popular it is."""


class Change(StrEnum):
    """What became of an example; right means the label, or the whole set of labels."""

    GAINED = "gained"
    LOST = "lost"
    WRONG = "both wrong"


@dataclass(frozen=True)
class Injected:
    """What a run had to say of a mention.

    Attributes:
        mention: its text.
        entity: id of its entity.
        label: how it is called.
        instead: name of the entity whose knowledge a control brought in its stead.
        types: as brought in, like all that follows.
        description: or the facts as text.
        vector: whether there was one.
        neighbours: names of the nearest entities, with their cosines.
    """

    mention: str
    entity: str
    label: str
    instead: str | None
    types: tuple[str, ...]
    description: str
    vector: bool
    neighbours: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Changed:
    """An example that two runs do not both have right.

    Attributes:
        id: of the example.
        change: what became of it.
        gold: its label.
        ours: what the one run predicts.
        theirs: what the other does.
        probabilities: that ours and theirs give their predictions.
        linked: whether knowledge was brought in, by either run.
        degree: in how many facts its entity is; -1 for none.
        example: its text and mentions; None where the data are not there.
    """

    id: str
    change: Change
    gold: Label
    ours: Label
    theirs: Label
    probabilities: tuple[float, float]
    linked: bool
    degree: int
    example: Example | None = field(default=None, repr=False)

    def within(self, bucket: str, popularity: Popularity | None) -> bool:
        """Whether it is of a bucket.

        Raises:
            UsageError: the bucket is one of popularity, and that of entities is not known.
        """
        if bucket in ("known", "unknown"):
            return (self.degree >= 0) == (bucket == "known")
        if popularity is None:
            raise UsageError(f"bucket {bucket} needs the knowledge base, which is not there")
        return self.degree >= 0 and popularity.name(self.degree) == bucket

    def about(self, glob: str) -> bool:
        """Whether its gold label or either prediction fits a glob."""
        labels = (self.gold, self.ours, self.theirs)
        names = {name for each in labels for name in ([each] if isinstance(each, str) else each)}
        return any(fnmatchcase(name, glob) for name in names)

    def as_json(self, knowledge: Mapping[str, Sequence[Injected]]) -> dict[str, Any]:
        """Returns the example as a JSON value, with what each side brought in."""
        value: dict[str, Any] = {
            "id": self.id,
            "change": str(self.change),
            "gold": self.gold,
            "ours": {"prediction": self.ours, "score": self.probabilities[0]},
            "theirs": {"prediction": self.theirs, "score": self.probabilities[1]},
            "linked": self.linked,
            "degree": self.degree,
            "text": None,
            "mentions": [],
            "knowledge": {side: [asdict(i) for i in items] for side, items in knowledge.items()},
        }
        if self.example is not None:
            value["text"] = self.example.text
            value["mentions"] = [asdict(mention) for mention in self.example.mentions]
        return value


def changes(
    ours: Predictions, theirs: Predictions, is_right: Callable[[Label, Label], bool] = is_right
) -> list[Changed]:
    """Returns the examples that not both have right, in the order of the data.

    Args:
        ours: of the one run.
        theirs: of the other, over the same examples.
        is_right: says of a label and a prediction whether that is right, see
            :func:`kbench.results.comparison.judge`.
    """
    changed = []
    for at, gold in enumerate(ours.labels):
        right = [is_right(gold, side.predictions[at]) for side in (ours, theirs)]
        if all(right):
            continue
        change = Change.GAINED if right[0] else Change.LOST if right[1] else Change.WRONG
        changed.append(
            Changed(
                ours.ids[at],
                change,
                gold,
                ours.predictions[at],
                theirs.predictions[at],
                (ours.scores[at], theirs.scores[at]),
                ours.linked[at] or theirs.linked[at],
                max(ours.degrees[at], theirs.degrees[at]),
            )
        )
    return changed


@dataclass(frozen=True)
class Texts:
    """The test examples of a result by id, or why they are not shown."""

    examples: Mapping[str, Example]
    problem: str = ""

    @classmethod
    def of(cls, result: Result, data: str | None = None) -> Texts:
        """Reads the data of a result.

        Args:
            result: says which, and where they were.
            data: where they are now, if elsewhere.
        """
        try:
            task = task_of(result.spec, data)
            digest = task.digest
        except KbenchError as error:
            return cls({}, f"texts are not shown: {error}")
        if result.provenance is None or digest != result.provenance.digests.get("data"):
            return cls({}, "texts are not shown: the data are not those that the result is of")
        return cls({example.id: example for example in task.examples(Split.TEST)})


def known(result: Result, bundle: str | None = None) -> tuple[Bundle | None, str]:
    """Returns the knowledge base of a result, or why it is not shown.

    Args:
        result: says which, and where it was.
        bundle: where it is now, if elsewhere.
    """
    if result.spec.knowledge is None:
        return None, ""
    try:
        base = find_knowledge(bundle or result.spec.knowledge)
    except KbenchError as error:
        return None, f"knowledge is not shown: {error}"
    if result.provenance is None or base.digest != result.provenance.digests.get("knowledge"):
        return None, f"knowledge is not shown: {base.folder} is not what the result was made with"
    try:
        Views().of(result, base)
    except KbenchError as error:
        return None, f"knowledge is not shown: {error}"
    return base, ""


class Views:
    """Knowledge bases as runs saw them, each made once for all runs that saw it alike."""

    def __init__(self) -> None:
        self._loader: PartLoader | None = None

    def of(self, result: Result, base: Bundle) -> KnowledgeBase:
        """Returns what a run saw of a base; who is swapped for whom hangs on the method.

        Raises:
            KbenchError: entities are swapped, and the method is not installed or refuses its
                options, ``foreign`` cannot read the task's labels, or the result is by another
                revision of the engine.
        """
        spec = result.spec
        if spec.control not in _BY_METHOD:
            return controlled(base, spec.control, spec.seed)
        from kbench.pipeline.revision import ENGINE_REVISION

        made = result.provenance.revision if result.provenance else ENGINE_REVISION
        if made != ENGINE_REVISION:
            was = f"revision {made} of the engine, and {ENGINE_REVISION} swaps others"
            raise Unsupported(f"the result is by {was}")
        try:
            from kbench.parts.run_parts import PartLoader, Parts  # brings torch, as the method does
        except ModuleNotFoundError as error:
            raise Unsupported(lacking(error) or with_type(error)) from None

        loader = self._loader = self._loader or PartLoader()
        parts = Parts(spec, loader)
        of = [base.digest, spec.task, spec.data, spec.options_of("task"), spec.linker]
        key = canonical_digest([*of, str(spec.control), spec.seed, parts.grounds])
        return loader.once("view", key, lambda: parts.control_of(base))


def injected(
    result: Result,
    base: Bundle,
    examples: Sequence[Example],
    neighbours: int = 3,
    views: Views | None = None,
) -> list[list[Injected]]:
    """Returns what a run had to say of the mentions of each example, seen through its control.

    What a method reads of it (vectors, texts, facts) is its own.

    Args:
        result: the run.
        base: its true knowledge base.
        examples: as the task gives them.
        neighbours: how many of the nearest entities are named.
        views: of the same bases, where several runs are asked of.
    """
    linker = result.coverage.linker if result.coverage else result.spec.linker or "gold"
    examples, links = linked(examples, base, linker, anyone)
    rows = links.rows
    seen = (views or Views()).of(result, base)
    entities = np.unique(np.array([r for several in rows for r in several if r >= 0], dtype="i8"))
    sources = seen.other[entities] if isinstance(seen, Exchanged) else entities
    vectors = base.has_vector(sources)
    near: dict[int, tuple[tuple[str, float], ...]] = {}
    if neighbours and vectors.any():
        asked = entities[vectors]
        closest, cosines = nearest_rows(base, seen.vectors(asked), neighbours, sources[vectors])
        for row, each, values in zip(asked.tolist(), closest.tolist(), cosines, strict=True):
            near[row] = tuple(
                (_name(base, other), round(float(value), 4))
                for other, value in zip(each, values, strict=True)
                if other >= 0
            )
    source = dict(zip(entities.tolist(), sources.tolist(), strict=True))

    @cache
    def brought(row: int) -> tuple[Any, ...]:
        entity, other = seen.entity(row), source[row]
        instead = _name(base, other) if other != row else None
        vector = bool(base.has_vector(np.array([other]))[0])
        told = seen.describe(row)
        text = " ".join(seen.shown(row, [told] if told else []))
        return entity.id, entity.name, instead, entity.types, text, vector, near.get(row, ())

    return [
        [
            Injected(example.text[mention.start : mention.end], *brought(row))
            for mention, row in zip(example.mentions, several, strict=True)
            if row >= 0
        ]
        for example, several in zip(examples, rows, strict=True)
    ]


def _name(base: Bundle, row: int) -> str:
    """How an entity is called, or its id where it has no name."""
    entity = base.entity(row)
    return entity.name or entity.id
