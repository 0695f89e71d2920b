"""What a run is: one cell of the grid, in names."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, TypeAlias

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kbench.data.files import dump_yaml, parse_yaml
from kbench.errors import UsageError, nearest

__all__ = [
    "PACKED",
    "Control",
    "Held",
    "Limit",
    "OptionKind",
    "OptionType",
    "Precision",
    "RunSpec",
    "Seed",
    "Setting",
    "check_options",
    "check_values",
    "limit_of",
    "short_names",
    "spelled",
]


Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""The precisions that a run may compute in."""
Held: TypeAlias = Literal["float32", "bfloat16", "8bit", "4bit"]
"""How the weights of a backbone may be held; all but float32 stay frozen."""
PACKED: frozenset[Held] = frozenset({"8bit", "4bit"})
"""Those of them that are made where a backbone computes, and read nowhere else."""
OptionKind: TypeAlias = Literal["task", "tuning", "method"]
"""The kinds of part that take options."""
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
"""The seed of everything random in a run."""


def _a_limit(value: Any) -> Any:
    if (type(value) is int and value >= 1) or (type(value) is float and 0 < value < 1):
        return value
    raise ValueError("expected a whole number, at least 1, or a share between 0 and 1")


Limit: TypeAlias = Annotated[int | float, BeforeValidator(_a_limit)]
"""How many examples of a split are taken at most, or which share of them."""


_YOUNGER = ("weights", "chat")
_LARGEST = sys.float_info.max


class Setting(StrEnum):
    """What a plug is trained on and what stays frozen meanwhile.

    ``general``: the plug never saw the task. ``task-specific``: trained on the task while the
    downstream model stays frozen. ``fine-tuning``: the plug is fixed and the model is tuned with
    it in place (an upper reference, not plug-and-play).
    """

    GENERAL = "general"
    TASK_SPECIFIC = "task-specific"
    FINE_TUNING = "fine-tuning"


class Control(StrEnum):
    """How the knowledge is broken; ``none`` is the true knowledge base.

    The last three say which document a method with texts puts into an input
    (:mod:`kbench.knowledge.documents`).
    """

    NONE = "none"
    FOREIGN = "foreign"
    SAME_TYPE = "same-type"
    SHUFFLED = "shuffled"
    RANDOM = "random"
    ZERO = "zero"
    VALUE_SWAPPED = "value-swapped"
    CONSTANT = "constant"
    ORACLE = "oracle"
    ANSWER_REMOVED = "answer-removed"
    EMPTY = "empty"


def limit_of(limit: Limit | None, examples: int) -> int:
    """Returns how many of the examples of a split are taken.

    Args:
        limit: their number at most, a share of them (of one that is not empty one at least), or
            None for all.
        examples: how many there are.
    """
    if limit is None:
        return examples
    if isinstance(limit, float):
        return min(examples, max(1, round(limit * examples)))
    return min(examples, limit)


class RunSpec(BaseModel):
    """One run. ``knowledge`` is None for methods that use none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    backbone: str
    tuning: str
    method: str
    setting: Setting
    knowledge: str | None
    control: Control
    seed: Seed
    limit: Limit | None = None
    data: str | None = None
    linker: str | None = None
    dtype: Precision = "float32"
    weights: Held = "float32"
    chat: bool = False
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        """A short name for people."""
        parts = [self.task, self.backbone, self.tuning, self.method]
        if self.knowledge is not None:
            parts += [str(self.setting), self.knowledge]
            parts += [] if self.control == Control.NONE else [f"control={self.control}"]
        return f"{' / '.join(parts)} / seed {self.seed}"

    @property
    def label(self) -> str:
        """The title with all else that is set: data, options, linker, precisions, limit."""
        parts = [self.title]
        parts += [f"data={self.data.rstrip('/').rsplit('/', 1)[-1]}"] if self.data else []
        short = short_names([path for path, _ in self.settings])
        parts += [f"{short[path]}={spelled(value)}" for path, value in self.settings]
        parts += [f"linker={self.linker}"] if self.linker else []
        parts += [f"dtype={self.dtype}"] if self.dtype != "float32" else []
        parts += [f"weights={self.weights}"] if self.weights != "float32" else []
        parts += ["chat"] if self.chat else []
        parts += [f"limit={self.limit}"] if self.limit else []
        return " / ".join(parts)

    @property
    def usual(self) -> set[str]:
        """Fields that came after the first results and say nothing new: no part of an address."""
        fields = type(self).model_fields
        return {name for name in _YOUNGER if getattr(self, name) == fields[name].default}

    @property
    def settings(self) -> list[tuple[str, Any]]:
        """Every option that is set, by its path as of ``--set``, and its value."""
        return _leaves(self.options)

    def options_of(self, kind: OptionKind) -> dict[str, Any]:
        """Returns what is set of the run's task, tuning or method.

        Raises:
            UsageError: it is no mapping.
        """
        name = getattr(self, kind)
        options = self.options.get(kind, {}).get(name, {})
        if not isinstance(options, dict):
            raise UsageError(f"options.{kind}.{name} is {options!r}; expected a mapping")
        return options

    def command(self) -> str:
        """Returns the command that repeats this run alone."""
        import shlex

        words = ["kbench", "run", "--task", self.task, "--method", self.method]
        words += ["--backbone", self.backbone, "--tuning", self.tuning, "--seed", str(self.seed)]
        if self.knowledge is not None:
            words += ["--setting", self.setting, "--knowledge", self.knowledge]
            words += ["--control", self.control]
        for name in ("limit", "data", "linker"):
            if getattr(self, name) is not None:
                words += [f"--{name}", str(getattr(self, name))]
        if self.dtype != "float32":
            words += ["--dtype", self.dtype]
        if self.weights != "float32":
            words += ["--weights", self.weights]
        words += ["--chat"] if self.chat else []
        for path, value in self.settings:
            words += ["--set", f"{path}={spelled(value)}"]
        return shlex.join(words)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Returns the last word of each path, or as much of it as tells it from the others."""
    forms = {path: (path.rsplit(".", 1)[-1], path.partition(".")[2], path) for path in paths}
    taken = [Counter(each) for each in zip(*forms.values(), strict=True)]
    return {
        path: next(form for form, among in zip(each, taken, strict=True) if among[form] == 1)
        for path, each in forms.items()
    }


def spelled(value: Any) -> str:
    """Returns text that ``--set`` reads as the value."""
    if isinstance(value, str) and _reads_back(value):
        return value
    # Text that looks like a number or a word of YAML is put in quotes.
    style = '"' if isinstance(value, str) else None
    text = dump_yaml(value, style)
    # A line end of Unicode in the text of a list would be folded into a blank.
    return text if parse_yaml(text) == value else dump_yaml(value, style, readable=False)


def _reads_back(text: str) -> bool:
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        return False
    return isinstance(value, str) and value == text


def _leaves(options: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in sorted(options.items()):
        name = f"{path}.{key}" if path else key
        leaves += _leaves(value, name) if isinstance(value, dict) else [(name, value)]
    return leaves


def check_options(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Refuses options that nobody reads.

    Raises:
        UsageError: an option is unknown; the nearest names are given.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            hint = nearest(name, names) if names else "; it has none"
            raise UsageError(f"{what} has no option {name!r}{hint}")


@dataclass(frozen=True)
class OptionType:
    """What the value of an option may be.

    A whole number is a number too, but 8.0 is no whole number, true is no number, and nothing is
    that is not finite. Text that looks like a number is told apart by quotes, as in YAML.

    Attributes:
        kind: of value.
        least: of a number.
        above: what a number is greater than.
        most: of a number.
        below: what a number is less than.
        words: the texts allowed; empty for any.
        null: whether null is allowed.
        listed: whether it is a list of such values.
    """

    kind: Literal["whole number", "number", "true or false", "text"]
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    words: tuple[str, ...] = ()
    null: bool = False
    listed: bool = False

    @classmethod
    def of(cls, default: Any) -> Self | None:
        """Returns the type of a default, any value of its kind; None if it does not tell."""
        if isinstance(default, bool):
            return cls("true or false")
        if isinstance(default, int):
            return cls("whole number")
        if isinstance(default, float):
            return cls("number")
        if isinstance(default, str):
            return cls("text")
        if isinstance(default, list | tuple) and default and all(type(v) is str for v in default):
            return cls("text", listed=True)
        return None

    @property
    def expected(self) -> str:
        """What is allowed, in words."""
        if self.kind == "text":
            text = " or ".join(self.words) or "text"
        else:
            text = self.kind if self.kind == "true or false" else f"a {self.kind}"
        if self.listed:
            text = f"a list of {text}"
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (
                ("of at least", self.least),
                ("above", self.above),
                ("of at most", self.most),
                ("below", self.below),
            )
            if bound is not None
        ]
        text = f"{text} {' and '.join(bounds)}".strip()
        return f"null or {text}" if self.null else text

    def allows(self, value: Any) -> bool:
        """Returns whether a value is allowed."""
        if value is None:
            return self.null
        if self.listed:
            return isinstance(value, list | tuple) and all(map(self._allows_one, value))
        return self._allows_one(value)

    def check(self, name: str, value: Any) -> None:
        """Refuses what is not allowed.

        Raises:
            UsageError: it says what was given and what is expected.
        """
        if not self.allows(value):
            hint = nearest(value, self.words) if isinstance(value, str) else ""
            # All words that are allowed stand there already.
            hint = hint if "did you mean" in hint else ""
            raise UsageError(f"{name} is {value!r}; expected {self.expected}{hint}")

    def settled(self, value: Any) -> Any:
        """Returns an allowed value in the one form that an address is made of: 8 is 8.0."""
        if self.kind != "number" or value is None:
            return value
        # The sum takes the sign off -0.0.
        return [one + 0.0 for one in value] if self.listed else value + 0.0

    def _allows_one(self, value: Any) -> bool:
        if self.kind == "text":
            return isinstance(value, str) and (not self.words or value in self.words)
        if self.kind == "true or false" or isinstance(value, bool):
            return self.kind == "true or false" and isinstance(value, bool)
        if not isinstance(value, int if self.kind == "whole number" else int | float):
            return False
        return (
            # No number compares with nan, and a whole number may be larger than any float.
            (self.kind == "whole number" or -_LARGEST <= value <= _LARGEST)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


def check_values(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    types: Mapping[str, OptionType],
    what: str,
) -> dict[str, Any]:
    """Returns options with a number in one form each; refuses values that are not of their types.

    The form is that of the default for what equals it, else that of
    :meth:`OptionType.settled`: 1 and 1.0 are one run.

    Args:
        given: the options.
        defaults: of the part; an option without a type is of the kind of its default.
        types: that the part declares.
        what: whose they are, for the error.

    Raises:
        UsageError: a value is not allowed; it says what is expected.
    """
    settled = dict(given)
    for name, value in given.items():
        default = defaults.get(name)
        kind = types.get(name) or OptionType.of(default)
        if kind is not None:
            kind.check(f"{what}: {name}", value)
            settled[name] = default if value == default else kind.settled(value)
    return settled
