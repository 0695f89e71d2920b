"""Results in the schema of Every Eval Ever (version 0.3.0), for its collection and its readers.

A file a result, and beside it what was predicted of each example. A control is no model that
anybody would use: it has no file, and stands as a detail of the run that it belongs to.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kbench import __version__
from kbench.data import Label
from kbench.data.files import file_digest, write_bytes, write_json
from kbench.data.plain_text import plain
from kbench.errors import ArtifactError, UsageError, first_line, one_line
from kbench.results.comparison import judge
from kbench.results.example_diff import Texts
from kbench.results.identity import Names
from kbench.results.tables import Estimate, Row, rows
from kbench.spec import Control, spelled
from kbench.store import Predictions, Result, Results, Score, Status

__all__ = ["SCHEMA", "export_eee"]

SCHEMA = "0.3.0"
"""Of the schema that is written."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def export_eee(
    store: Results,
    folder: Path,
    results: Sequence[Result] | None = None,
    *,
    organization: str = "unknown",
    texts: bool = False,
) -> list[Path]:
    """Writes results as ``data/BENCHMARK/DEVELOPER/MODEL/UUID.json`` with their examples beside.

    Args:
        store: of results.
        folder: that ``data`` is made in; files of the same results are replaced.
        results: which; all that ended well if not given. Controls among them are left out.
        organization: who ran them.
        texts: also write what the examples say; many data sets may not be handed on.

    Returns:
        the files of results.

    Raises:
        UsageError: there is nothing to write.
        ArtifactError: it cannot be written.
    """
    everything = list(store)
    wanted = everything if results is None else results
    chosen = {one.id for one in wanted if one.status == Status.OK}
    made = [
        (one, row)
        for row in rows(everything, store)
        for one in row.results
        if one.id in chosen and one.spec.control == Control.NONE and one.metrics
    ]
    if not made:
        raise UsageError("no result that ended well with its own knowledge, or without any")
    names, written = Names(everything), []
    for result, row in made:
        try:
            written.append(_write(store, folder, result, row, names, organization, texts))
        except OSError as cause:
            raise ArtifactError(f"{folder}: cannot be written ({first_line(cause)})") from cause
    return written


def _write(
    store: Results,
    folder: Path,
    result: Result,
    row: Row,
    names: Names,
    organization: str,
    texts: bool,
) -> Path:
    model, key = _model(result, names), _uuid(result.id)
    developer, _, name = model["id"].partition("/")
    place = Path("data", *map(_piece, (names.task(result), developer, name)))
    (folder / place).mkdir(parents=True, exist_ok=True)
    started = result.provenance.started if result.provenance else ""
    now = str(int(time.time()))
    value: dict[str, Any] = {
        "schema_version": SCHEMA,
        "evaluation_id": f"{names.task(result)}/{model['id']}/{result.id}",
        "evaluation_timestamp": started,
        "retrieved_timestamp": now,
        "source_metadata": {
            "source_name": "kbench",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": "kbench", "version": __version__},
        "model_info": model,
        "evaluation_results": [
            _metric(result, row, name, score, names, key) for name, score in _scored(result)
        ],
    }
    found = store.predictions(result)
    if found is not None:
        path = place / f"{key}_samples.jsonl"
        lines = [*_samples(result, found, value, key, texts)]
        content = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        write_bytes(folder / path, content.encode("utf-8", "backslashreplace"))
        value["detailed_evaluation_results"] = {
            "format": "jsonl",
            "file_path": path.as_posix(),
            "hash_algorithm": "sha256",
            "checksum": file_digest(folder / path),
            "total_rows": len(lines),
        }
    write_json(folder / place / f"{key}.json", value)
    return folder / place / f"{key}.json"


def _scored(result: Result) -> list[tuple[str, Score]]:
    """The metrics that anything counts for, the main one first."""
    known = [(name, score) for name, score in result.metrics.items() if score.n]
    return sorted(known, key=lambda item: item[0] != result.main_metric)


def _model(result: Result, names: Names) -> dict[str, Any]:
    """The model that was asked: a backbone as tuned, with a plug or without."""
    spec, origin = result.spec, result.provenance
    backbone = names.of(result, "backbone")
    known = _HUB_ID.fullmatch(spec.backbone.partition("@")[0])
    base = known[0] if known else f"unknown/{_piece(backbone)}"
    ran = origin is not None and origin.digests.get("backbone") is not None
    details = {
        "deployment_type": "self_deployed" if ran else "unknown",
        "model_availability": "open_weights" if known else "unknown",
        "backbone": backbone,
        "backbone_sha256": (origin.digests.get("backbone") if origin else None) or "",
        "tuning": spec.tuning,
        "injection_method": spec.method,
        "weights": spec.weights,
        "dtype": spec.dtype,
    }
    if spec.knowledge is None:
        return {"name": backbone, "id": base, "additional_details": details}
    knowledge = names.of(result, "knowledge")
    details |= {"setting": str(spec.setting), "knowledge": knowledge}
    details["knowledge_sha256"] = (origin.digests.get("knowledge") if origin else None) or ""
    return {
        "name": f"{backbone} with {spec.method} ({spec.setting}, {knowledge})",
        "id": f"{base}+{_piece(spec.method)}",
        "additional_details": details,
    }


def _metric(
    result: Result, row: Row, name: str, score: Score, names: Names, key: str
) -> dict[str, Any]:
    origin = result.provenance
    details = {"main": spelled(name == result.main_metric), "n": str(score.n)}
    if name == result.main_metric:
        details |= _beside(result, row)
    return {
        "evaluation_result_id": f"{key}/{name}",
        "evaluation_name": names.task(result),
        "source_data": {
            "dataset_name": names.task(result),
            "source_type": "other",
            "additional_details": {
                "sha256": (origin.digests.get("data") if origin else None) or "",
                "split": "test",
                "limit": spelled(result.spec.limit),
            },
        },
        "metric_config": {
            "metric_id": f"kbench.{name}",
            "metric_name": name,
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 1,
            "additional_details": {"variant": score.variant},
        },
        "score_details": {
            "score": score.value,
            "details": details,
            "uncertainty": {
                "confidence_interval": {
                    "lower": score.low,
                    "upper": score.high,
                    "confidence_level": 0.95,
                    "method": "bootstrap over test examples",
                },
                "num_samples": score.n,
            },
        },
        "generation_config": {
            "additional_details": {
                "command": origin.command if origin else "",
                "seed": str(result.spec.seed),
                **{path: spelled(value) for path, value in result.spec.settings},
            }
        },
    }


def _beside(result: Result, row: Row) -> dict[str, str]:
    """What the score is to be read against: the same over no, and over broken, knowledge."""
    told: dict[str, str] = {}
    for name, group, difference in (
        ("without_knowledge", row.none, row.delta),
        ("control_foreign", row.foreign, row.gain),
        ("control_same_type", row.same_type, row.individual),
    ):
        own = [one for one in group or () if one.spec.seed == result.spec.seed]
        if own and own[0].score:
            told[f"{name}_score"] = f"{own[0].score.value:.6f}"
            told[f"{name}_id"] = own[0].id
        told |= _difference(f"over_{name}", difference)
    if len(row.seeds) > 1:
        told["differences_over_seeds"] = " ".join(map(str, row.seeds))
    if result.coverage:
        told["coverage_examples"] = f"{result.coverage.examples:.6f}"
    return told


def _difference(name: str, estimate: Estimate | None) -> dict[str, str]:
    if estimate is None:
        return {}
    ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    return {f"{name}{end}": f"{value:.6f}" for end, value in ends.items() if value is not None}


def _samples(
    result: Result, found: Predictions, value: dict[str, Any], key: str, texts: bool
) -> Iterator[dict[str, Any]]:
    """Yields what was predicted of each example, by the main metric."""
    right, known = judge(result), Texts.of(result).examples if texts else {}
    for at, (id, label, said) in enumerate(
        zip(found.ids, found.labels, found.predictions, strict=True)
    ):
        answers, is_right = _listed(said), right(label, said)
        example = known.get(id)
        yield {
            "schema_version": SCHEMA,
            "evaluation_id": value["evaluation_id"],
            "model_id": value["model_info"]["id"],
            "evaluation_name": value["evaluation_results"][0]["evaluation_name"],
            "evaluation_result_id": f"{key}/{result.main_metric}",
            "sample_id": id,
            "interaction_type": "single_turn",
            "input": {"raw": example.text if example else "", "reference": _listed(label)},
            "output": {"raw": answers},
            "answer_attribution": [
                {
                    "turn_idx": 0,
                    "source": "output.raw",
                    "extracted_value": ", ".join(answers),
                    "extraction_method": "main metric",
                    "is_terminal": True,
                }
            ],
            "evaluation": {"score": float(is_right), "is_correct": is_right},
            "metadata": {
                "probability": f"{found.scores[at]:.6f}",
                "entity_known": spelled(found.linked[at]),
            },
        }


def _listed(label: Label) -> list[str]:
    return [label] if isinstance(label, str) else [*label]


def _uuid(id: str) -> str:
    """The id of a result in the form of a UUID of version 4, always the same."""
    digits = f"{id[:12]}4{id[13:16]}8{id[17:]}"
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(parts)


def _piece(name: str) -> str:
    """A name as a piece of a path: no stranger's leads elsewhere."""
    text = _UNSAFE.sub("-", plain(one_line(name))).strip(".-")
    return text[:80] or "unnamed"
