"""Predictions made elsewhere as a result: so an old code base can stand beside kbench's runs.

Nothing is known of them but what was predicted. So such a result says ``external`` wherever it is
shown, has no downstream model, no cost and no control, and shares no table with kbench's own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kbench import __version__
from kbench.data import Example, Label, Split
from kbench.data.files import file_digest
from kbench.data.json_text import stream_values
from kbench.data.plain_text import plain, steers
from kbench.data.records import encodable
from kbench.errors import DataError, UsageError
from kbench.parts.find import find_task
from kbench.pipeline.buckets import estimate
from kbench.pipeline.revision import ENGINE_REVISION
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Predictions, Provenance, Result, Status
from kbench.store.folder import address
from kbench.task import Family, Task

__all__ = ["EXTERNAL", "external"]

EXTERNAL = "external"
"""What such a result says in the place of a tuning, and before the name of its method."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_LONGEST = 1000
_SHAPE = '{"id": example, "prediction": label, list of labels or null, "score": from 0 to 1}'


def external(
    path: Path,
    name: str,
    task: str,
    *,
    data: str | None = None,
    backbone: str | None = None,
    seed: int = 0,
) -> tuple[Result, Predictions]:
    """Scores a file of predictions.

    Args:
        path: of JSON Lines, an object a test example: ``id`` and ``prediction``, and ``score``, how
            sure it is, if that is known. ``null`` is no prediction, and wrong.
        name: what made them; the method of the result is ``external:NAME``.
        task: its name.
        data: the folder of the task's files.
        backbone: the model behind them, as a text for the reader.
        seed: of the run that made them.

    Returns:
        the result and its predictions, of the whole test split in its order; neither is stored.

    Raises:
        UsageError: the name is none, or the task is not installed.
        DataError: a line is malformed, or of no test example, or one has no line, or two.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: expected up to 60 letters, digits, -, _ and .")
    if backbone and (len(backbone) > _LONGEST or steers(backbone)):
        raise UsageError(
            f"--backbone {plain(backbone[:60])!r}: expected up to {_LONGEST} letters, each of them "
            "one that is seen"
        )
    part = find_task(task, data)
    examples = part.examples(Split.TEST)
    told = _read(path, part, {example.id: example for example in examples})
    missing = [example.id for example in examples if example.id not in told]
    if missing:
        problem = f"lacks {len(missing)} of {len(examples)} test examples, such as {missing[0]!r}"
        raise DataError(path, problem, "a line for each; prediction null where nothing was said")
    spec = RunSpec(
        task=task,
        backbone=backbone or EXTERNAL,
        tuning=EXTERNAL,
        method=f"{EXTERNAL}:{name}",
        setting=Setting.GENERAL,
        knowledge=None,
        control=Control.NONE,
        seed=seed,
        data=data,
    )
    found = _predictions(part, examples, told)
    return _result(spec, part, found, path), found


def _read(
    path: Path, task: Task, examples: Mapping[str, Example]
) -> dict[str, tuple[Label, float]]:
    """Returns prediction and score by id."""
    told: dict[str, tuple[Label, float]] = {}
    for line, value in stream_values(path, f"JSON Lines such as {_SHAPE}"):
        if not isinstance(value, dict) or value.keys() - {"id", "prediction", "score"}:
            raise DataError(path, "is another object", _SHAPE, line)
        key, score = value.get("id"), value.get("score", 0.0)
        if not isinstance(key, str) or key not in examples:
            expected = f"the id of a test example of {task.card.title}"
            raise DataError(path, f"id is {key!r}", expected, line)
        if key in told:
            raise DataError(path, f"id {key!r} is there twice", "each example once", line)
        if type(score) not in (int, float) or not 0 <= score <= 1:
            raise DataError(path, f"score is {score!r}", "a number from 0 to 1", line)
        if "prediction" not in value:
            raise DataError(path, "has no prediction", _SHAPE, line)
        told[key] = _label(value["prediction"], task, path, line), float(score)
    return told


def _label(value: Any, task: Task, path: Path, line: int | str) -> Label:
    """A prediction as the task's metrics read it: a set of labels of entity typing, else one."""
    several = task.family == Family.TYPING
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and not encodable(text):
            raise DataError(path, f"prediction is {text[:80]!a}", "text that UTF-8 can write", line)
    if value is None:
        return () if several else ""
    if several and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(dict.fromkeys(value))
    if not several and isinstance(value, str):
        return value
    expected = "a list of labels" if several else "one label, as text"
    raise DataError(path, f"prediction is {str(value)[:80]!r}", f"{expected}, or null", line)


def _predictions(
    task: Task, examples: Sequence[Example], told: Mapping[str, tuple[Label, float]]
) -> Predictions:
    by_relation = any(metric.by_relation for metric in task.metrics)
    return Predictions(
        ids=[example.id for example in examples],
        labels=[example.label for example in examples],
        predictions=[told[example.id][0] for example in examples],
        scores=[told[example.id][1] for example in examples],
        linked=[False] * len(examples),
        degrees=[-1] * len(examples),
        strata=[example.stratum for example in examples],
        relations=[example.relation for example in examples] if by_relation else (),
    )


def _result(spec: RunSpec, task: Task, found: Predictions, path: Path) -> Result:
    inputs = {"spec": spec.model_dump(mode="json"), "data": task.digest, "file": file_digest(path)}
    words = ["kbench", "score", "--external", str(path), "--task", spec.task, "--name"]
    words += [spec.method.partition(":")[2], "--seed", str(spec.seed)]
    words += ["--data", spec.data] if spec.data else []
    words += ["--backbone", spec.backbone] if spec.backbone != EXTERNAL else []
    return Result(
        id=address(EXTERNAL, inputs),
        status=Status.OK,
        spec=spec,
        main_metric=task.main_metric.name,
        metrics={m.name: estimate(m, m.measure(found)) for m in task.metrics},
        counts={"test_total": len(found.ids), "test_kept": len(found.ids), **found.spread},
        provenance=Provenance(
            kbench=__version__,
            revision=ENGINE_REVISION,
            versions={},
            git={},
            plugin={},
            hardware={},
            digests={"data": task.digest, "backbone": None, "knowledge": None},
            addresses={"model": None, "plug": None},
            command=shlex.join(words),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0.0,
        ),
        predictions="predictions.parquet",
    )
