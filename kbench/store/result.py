"""What a run leaves: ``result.json`` (versioned) and ``predictions.parquet``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)

from kbench import __version__
from kbench.data import Label, Predictions
from kbench.data.json_text import read_json
from kbench.errors import DataError, VersionError, first_line
from kbench.spec import RunSpec
from kbench.store.likelihoods import LIKELIHOODS, likelihoods_of, with_likelihoods
from kbench.store.pages import Budget, check_budget

if TYPE_CHECKING:
    from pyarrow import Schema, Table

__all__ = [
    "Coverage",
    "Frozen",
    "Predictions",
    "Provenance",
    "Result",
    "Score",
    "Status",
    "read_predictions",
    "read_result",
    "write_predictions",
    "write_table",
]

SCHEMA = 1
_OF_SOME = ("relation", "injected", "in_context")
"""Columns of predictions that not every run has."""
_TYPES = {
    **dict.fromkeys(("id", "label", "prediction", "stratum", "relation", "injected"), "string"),
    **dict.fromkeys(("linked", "in_context"), "boolean"),
    "score": "float32",
    "degree": "int32",
}
"""What the values of each column are, as :mod:`pyarrow.types` calls it."""
_SEVERAL = ("label", "prediction", "injected")
"""Columns that may be lists."""
_UNREADABLE = (OSError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a damaged file may end in, beside errors of its format."""
_DEEPEST = 64
"""Levels of a result: those of a run have ten."""
_LONGEST_NAME, _LONGEST_TEXT = 1000, 4096
"""Letters of a key, and of what a spec says, which may be a path."""
_MOST_OPTIONS, _MOST_VALUES = 10_000, 200_000
"""Values that options hold, and all of a result: histories of trainings are the most of them."""
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,39}")


class Status(StrEnum):
    """How a run ended; what is refused for bad input is told, and never stored."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"
    REFUSED = "refused"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(_Model):
    """A metric on the test split: a fraction in [0, 1] with its 95% bootstrap interval."""

    value: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    n: int = Field(ge=0)
    variant: str


class Coverage(_Model):
    """Share of test examples and of their mentions that got knowledge, and how they were linked.

    ``threshold`` is the confidence that links of the data must have; None where they have none.
    """

    examples: float = Field(ge=0, le=1)
    mentions: float = Field(ge=0, le=1)
    linker: str
    threshold: float | None = None
    ambiguous: int = 0
    unlinked: Literal["skip"] = "skip"


class Frozen(_Model):
    """SHA-256 of the downstream model's weights after tuning and after evaluation."""

    before: str
    after: str


class Provenance(_Model):
    """Where a result comes from, enough to repeat it.

    ``names`` holds what data call themselves: ``task`` where data of one's own make the task, and
    ``data``, the name of their folder. ``parts`` holds which distribution, in which version, offers
    the task, the method, the tuning, and the backbone and knowledge base that have names: what is a
    folder is of none. ``revisions`` holds those of the task, the tuning and the method, where
    ``revision`` is the engine's. ``defaults`` holds, by its path, what each option that the
    spec sets would have been otherwise.
    """

    kbench: str
    revision: int
    versions: dict[str, str]
    git: dict[str, str | bool | None]
    plugin: dict[str, str | bool | None]
    hardware: dict[str, str | int]
    digests: dict[str, str | None]
    addresses: dict[str, str | None]
    names: dict[str, str] = Field(default_factory=dict)
    parts: dict[str, str] = Field(default_factory=dict)
    revisions: dict[str, str] = Field(default_factory=dict)
    defaults: dict[str, Any] = Field(default_factory=dict)
    command: str
    started: str
    seconds: float


class Result(_Model):
    """The outcome of a run. Tools rely on these names.

    ``counts`` says what of the data was kept and dropped, and why; ``training`` holds the recipe
    and history of each stage; numbers in ``cost`` carry their unit in the name. ``buckets`` has
    the main metric by ``coverage`` (``known``, ``unknown``) and ``popularity`` (``head``,
    ``torso``, ``tail``) of the entity, and by ``context``: whether texts that were brought spell
    out an answer (``answered``, ``unanswered``). ``locality`` says how far a plug moves what the
    model says, where that was asked for (:mod:`kbench.pipeline.locality`). ``dev`` is the main
    metric on the dev split, by which the options of a sweep are chosen; None without such a split,
    and of controls.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: str = Field(pattern="^[0-9a-f]{32}$")  # the name of a folder: no stranger may choose it
    status: Status
    reason: str = ""
    spec: RunSpec
    main_metric: str | None = None
    metrics: dict[str, Score] = Field(default_factory=dict)
    dev: float | None = Field(default=None, ge=0, le=1)
    coverage: Coverage | None = None
    buckets: dict[str, dict[str, Score]] = Field(default_factory=dict)
    locality: dict[str, float] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    cost: dict[str, float] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    frozen: Frozen | None = None
    provenance: Provenance | None = None
    predictions: str | None = None

    _trace: str = PrivateAttr(default="")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def trace(self) -> str:
        """Where a run failed, frame by frame; no part of the JSON, for it names local folders."""
        return self._trace

    def tracing(self, trace: str) -> Result:
        """Returns the result with the trace of what ended it."""
        made = self.model_copy()
        made._trace = trace
        return made

    @field_validator("cost", "locality")
    @classmethod
    def _finite(cls, numbers: dict[str, float]) -> dict[str, float]:
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
        return numbers

    @property
    def score(self) -> Score | None:
        """The main metric's score, if the run ended well."""
        return self.metrics.get(self.main_metric) if self.main_metric else None

    def holding(self, digest: str) -> Result:
        """Returns the result with the SHA-256 of its predictions, if it has a provenance."""
        if self.provenance is None:
            return self
        digests = {**self.provenance.digests, "predictions": digest}
        provenance = self.provenance.model_copy(update={"digests": digests})
        return self.model_copy(update={"provenance": provenance})

    def as_json(self) -> dict[str, Any]:
        """Returns the value written to ``result.json``."""
        value = self.model_dump(mode="json", by_alias=True)
        if not self.locality:  # measured where it is asked for
            del value["locality"]
        return value


def read_result(path: Path) -> Result:
    """Reads a ``result.json``.

    Raises:
        VersionError: another version of kbench wrote it, and this one does not understand it.
        DataError: it is unreadable or not a result.
    """
    value = read_json(path, "a result")
    if not isinstance(value, dict):
        raise DataError(path, "is no JSON object", "a result of `kbench schema`")
    if excess := _excess(value):
        raise DataError(path, excess, "a result of `kbench schema`")
    schema, writer = value.get("schema"), _writer(value)
    if type(schema) is int and schema != SCHEMA:
        raise _of_another(path, writer, f"schema {schema}, not {SCHEMA}")
    if schema != SCHEMA:
        raise DataError(path, f"has schema {schema!r}", f"schema {SCHEMA}")
    try:
        result = Result.model_validate(value)
        if result.status != Status.REFUSED:
            return result
        raise DataError(path, "is of a run that was refused", "a run that was made or skipped")
    except ValidationError as error:
        faults = error.errors(include_url=False)
    where = ".".join(str(part) for part in faults[0]["loc"])
    # What a later kbench adds must not be taken for damage, or this one would write over it.
    if writer != __version__ or all(fault["type"] == "extra_forbidden" for fault in faults):
        known = "a field unknown here" if faults[0]["type"] == "extra_forbidden" else "a value"
        raise _of_another(path, writer, f"{known} at {where}")
    raise DataError(path, f"{where}: {faults[0]['msg']}", "a result of `kbench schema`")


def _excess(value: dict[str, Any]) -> str:
    """Why a JSON value is more than whatever walks through it, or shows it, can follow; or empty.

    Nested too deep, with a name or a text of a spec that is no name, or with so many values.
    """
    level: list[Any] = [value]
    values = 0
    for _ in range(_DEEPEST):
        values += sum(map(len, level))
        if values > _MOST_VALUES:
            return f"has more than {_MOST_VALUES:,} values"
        names = [key for each in level if isinstance(each, dict) for key in each]
        if max(map(len, names), default=0) > _LONGEST_NAME:
            return f"has a name of more than {_LONGEST_NAME:,} letters"
        parts = (each.values() if isinstance(each, dict) else each for each in level)
        level = [inner for part in parts for inner in part if isinstance(inner, dict | list)]
        if not level:
            break
    else:
        return f"is nested more than {_DEEPEST} deep"
    spec = value.get("spec")
    options = spec.get("options") if isinstance(spec, dict) else None
    told = [*_within(options)]
    if len(told) > _MOST_OPTIONS:
        return f"has more than {_MOST_OPTIONS:,} options"
    told += [value.get("main_metric"), *(spec.values() if isinstance(spec, dict) else ())]
    if any(isinstance(text, str) and len(text) > _LONGEST_TEXT for text in told):
        return f"has a name or an option of more than {_LONGEST_TEXT:,} letters"
    return ""


def _within(value: Any) -> Iterator[Any]:
    """All values in one that is not nested too deep, itself the first."""
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _within(inner)


def _writer(value: dict[str, Any]) -> str:
    """The version that wrote a result, as it says; this one's if it does not."""
    provenance = value.get("provenance")
    stated = provenance.get("kbench") if isinstance(provenance, dict) else None
    return stated if isinstance(stated, str) and _VERSION.fullmatch(stated) else __version__


def _of_another(path: Path, writer: str, what: str) -> VersionError:
    named = f"kbench {writer}" if writer != __version__ else f"another kbench {writer}"
    return VersionError(
        path,
        f"was written by {named} and has {what}",
        f"what kbench {__version__} writes: install the version that wrote it, or give another "
        "--out; it is left as it is",
    )


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes predictions; label sets become lists, and so do acceptable answers."""
    import pyarrow as pa

    table = pa.table(
        {
            "id": pa.array(predictions.ids, pa.string()),
            "label": _column(predictions.labels),
            "prediction": _column(predictions.predictions),
            "score": pa.array(predictions.scores, pa.float32()),
            "linked": pa.array(predictions.linked, pa.bool_()),
            "degree": pa.array(predictions.degrees, pa.int32()),
            "stratum": pa.array(predictions.strata, pa.string()),
            **_of_some_runs(predictions),
        }
    )
    if predictions.likelihoods is not None:
        table = with_likelihoods(table, predictions.likelihoods)
    write_table(table, path)


def write_table(table: Table, path: Path) -> None:
    """Writes a table of predictions: the same table gives the same bytes."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


def read_predictions(path: Path, budget: Budget | None = None) -> Predictions:
    """Reads the ``predictions.parquet`` of a result.

    Args:
        path: the file.
        budget: what it may unpack to; some dozen times its own size if not given.

    Raises:
        DataError: the file is damaged, has other columns, or would unpack to too much.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["id", "label", "prediction", "score", "linked", "degree", "stratum"]
    try:
        check_budget(path, budget or Budget.of_own(path))
        # Not `read_table`: it imports pyarrow's data sets, and with them pandas.
        with pq.ParquetFile(path) as file:
            names += [name for name in _OF_SOME if name in file.schema_arrow.names]
            _check_types(file.schema_arrow, names)
            if others := {*file.schema_arrow.names} - {*names, *LIKELIHOODS}:
                raise ValueError(f"column {min(others)[:40]} is none of predictions")
            columns = file.read(columns=names).to_pydict()
            likelihoods = likelihoods_of(file)
        if list(columns) != names:
            raise ValueError(f"columns {list(columns)}")
        if null := next((name for name in names if None in columns[name]), None):
            raise ValueError(f"column {null} lacks a value")
        labels, words = (_labels(columns[name]) for name in ("label", "prediction"))
        injected = tuple(tuple(names) for names in columns.get("injected", ()))
    except (*_UNREADABLE, pa.ArrowException) as cause:
        problem = f"cannot be read ({first_line(cause)})"
        raise DataError(path, problem, "predictions of a run") from None
    return Predictions(
        ids=columns["id"],
        labels=labels,
        predictions=words,
        scores=columns["score"],
        linked=columns["linked"],
        degrees=columns["degree"],
        strata=columns["stratum"],
        relations=tuple(columns.get("relation", ())),
        injected=injected,
        in_context=tuple(columns.get("in_context", ())),
        likelihoods=likelihoods,
    )


def _check_types(schema: Schema, names: Sequence[str]) -> None:
    """Refuses columns of another type: what Python makes of them would be compared all the same.

    Raises:
        ValueError: a column is missing, is there twice, or is of a type that kbench never wrote.
    """
    import pyarrow.types as of

    for name in names:
        if len(at := schema.get_all_field_indices(name)) != 1:
            raise ValueError(f"column {name} is there {len(at)} times")
        kind, expected = schema.field(at[0]).type, _TYPES[name]
        several = of.is_list(kind) and name in _SEVERAL
        inner = kind.value_type if several else kind
        # What has no value in it, as the relation of no example, is of no type.
        if not (getattr(of, f"is_{expected}")(inner) or of.is_null(inner)):
            raise ValueError(f"column {name} is of {kind}")
        if name == "injected" and not several:
            raise ValueError(f"column {name} is of {kind}")


def _of_some_runs(predictions: Predictions) -> dict[str, Any]:
    """Returns the columns that not every run has."""
    import pyarrow as pa

    several = [list(names) for names in predictions.injected]
    columns = {
        "relation": pa.array(predictions.relations, pa.string()),
        "injected": pa.array(several, pa.list_(pa.string())),
        "in_context": pa.array(predictions.in_context, pa.bool_()),
    }
    return {name: column for name, column in columns.items() if len(column)}


def _column(labels: Sequence[Label]) -> Any:
    """Returns labels as a column of text, or of lists where one is several."""
    import pyarrow as pa

    if all(isinstance(label, str) for label in labels):
        return pa.array(labels, pa.string())
    several = [label if isinstance(label, str) else list(label) for label in labels]
    return pa.array(several, pa.list_(pa.string()))


def _labels(values: list[str] | list[list[str]]) -> list[Label]:
    """Labels of a column, each of which is of the type of the first."""
    if values and isinstance(values[0], str):
        return cast("list[Label]", values)
    return [*map(tuple, values)]
