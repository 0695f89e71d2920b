"""Results in the schema of Every Eval Ever: complete, true to the results, controls beside."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import kbench
from kbench.data import Split
from kbench.errors import UsageError
from kbench.interface.eee import export_eee
from kbench.parts.find import find_task
from kbench.spec import Control
from kbench.store import Results
from tests.calling import call
from tests.interface.conftest import GOLD
from tests.stored import predictions, store

FILE = re.compile(
    r"data/[^/]+/[^/]+/[^/]+/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    r"_samples\.jsonl"
)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What was written, by the method that it is of and the seed."""
    found = {}
    for path in folder.glob("data/*/*/*/*.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        first = value["evaluation_results"][0]
        method = value["model_info"]["additional_details"]["injection_method"]
        seed = first["generation_config"]["additional_details"]["seed"]
        found[f"{method} {seed}"] = value
    return found


def test_scores_are_those_of_the_results_and_controls_are_no_models(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", "eee", str(tmp_path / "eee"), "--out", str(results))
    status, out, err = call(capsys, *words, "--organization", "us")
    assert (status, err) == (0, "")
    assert out == f"{tmp_path / 'eee' / 'data'}: 4 results\n"
    found = read(tmp_path / "eee")
    assert sorted(found) == ["map-tuning 0", "map-tuning 1", "none 0", "none 1"]
    row = kbench.load(results).table().query("method == 'map-tuning' and control == 'none'").iloc[0]
    ours, bare = found["map-tuning 1"], found["none 1"]
    assert ours["model_info"]["id"] == "unknown/kbench-tiny+map-tuning"
    assert bare["model_info"]["id"] == "unknown/kbench-tiny"
    details = bare["model_info"]["additional_details"]
    assert (details["deployment_type"], details["model_availability"]) == ("unknown", "unknown")
    assert ours["source_metadata"]["source_organization_name"] == "us"
    (one,) = ours["evaluation_results"]
    assert one["score_details"]["score"] == pytest.approx(0.9)
    details = one["score_details"]["details"]
    assert details["control_foreign_score"] == "0.700000"
    assert float(details["over_control_foreign_low"]) == pytest.approx(row.gain_low, abs=1e-6)
    assert float(details["over_without_knowledge"]) == pytest.approx(row.delta, abs=1e-6)
    foreign = [one.id for one in Results(results) if one.spec.control == Control.FOREIGN]
    assert details["control_foreign_id"] in foreign
    told = one["score_details"]["uncertainty"]["confidence_interval"]
    assert told["lower"] < 0.9 < told["upper"]


def test_examples_lie_beside_and_their_texts_only_if_asked(tmp_path: Path) -> None:
    task = find_task("atlas-relations", None)
    examples = task.examples(Split.TEST)[:8]
    labels = [example.label for example in examples]
    said = ["nothing", *labels[1:]]
    found = predictions(labels, said, [example.id for example in examples])
    store(tmp_path / "out", found, task="atlas-relations", method="none", digest=task.digest)
    for texts in (False, True):
        (path,) = export_eee(Results(tmp_path / "out"), tmp_path / "eee", texts=texts)
        value = json.loads(path.read_text(encoding="utf-8"))
        about = value["detailed_evaluation_results"]
        assert FILE.fullmatch(about["file_path"])
        lines = (tmp_path / "eee" / about["file_path"]).read_text(encoding="utf-8").splitlines()
        samples = [json.loads(line) for line in lines]
        assert len(samples) == about["total_rows"] == 8
        assert [sample["evaluation"]["is_correct"] for sample in samples] == [False] + [True] * 7
        assert samples[0]["input"]["raw"] == (examples[0].text if texts else "")
        assert samples[0]["output"]["raw"] == ["nothing"]
        assert {sample["evaluation_id"] for sample in samples} == {value["evaluation_id"]}


def test_names_of_strangers_lead_nowhere_else(tmp_path: Path) -> None:
    found = predictions(GOLD, GOLD)
    for name in ("../../../x", "/etc/passwd", "..", "a\x00b", "x" * 300):
        store(tmp_path / "out", found, task="atlas-relations", method="none", backbone=name)
    paths = export_eee(Results(tmp_path / "out"), tmp_path / "eee")
    assert len({*paths}) == 5
    inside = (tmp_path / "eee").resolve()
    assert all(path.resolve().is_relative_to(inside) for path in paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "eee", "out"]


def test_nothing_to_write_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="no result that ended well"):
        export_eee(Results(tmp_path / "out"), tmp_path / "eee")
    assert not (tmp_path / "eee").exists()


def test_the_published_schema_holds(results: Path, tmp_path: Path) -> None:
    schemas = pytest.importorskip("every_eval_ever.schemas", reason="its schema is not installed")
    jsonschema = pytest.importorskip("jsonschema")
    folder = Path(schemas.__path__[0])
    whole, one = (
        jsonschema.Draft7Validator(json.loads((folder / name).read_text(encoding="utf-8")))
        for name in ("eval.schema.json", "instance_level_eval.schema.json")
    )
    for path in export_eee(Results(results), tmp_path):
        value = json.loads(path.read_text(encoding="utf-8"))
        assert [error.message for error in whole.iter_errors(value)] == []
        samples = tmp_path / value["detailed_evaluation_results"]["file_path"]
        for line in samples.read_text(encoding="utf-8").splitlines():
            assert [error.message for error in one.iter_errors(json.loads(line))] == []
