"""`kbench.run` and `kbench.plan` against the command: the same words, addresses and bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import kbench
from kbench.errors import InputError, UsageError
from kbench.parts.find import find_backbone
from kbench.spec import Control
from kbench.store import Results, Status
from tests.calling import call
from tests.grid.toygrid import QUICK

OWN = {"start": "scratch", "task-specific": QUICK["method"]["map-tuning"]["task-specific"]}
OPTIONS = {"tuning": QUICK["tuning"], "method": {"map-tuning": OWN}}

pytestmark = pytest.mark.usefixtures("toy_tasks")


def words(folder: Path, **changes: Any) -> dict[str, Any]:
    given = {
        "task": "toy-relations",
        "method": ["none", "map-tuning"],
        "backbone": folder / "bert",
        "knowledge": folder / "kb",
        "setting": "task-specific",
        "control": ["none", "foreign"],
        "options": QUICK,
    }
    return {**given, **changes}


def typed(folder: Path, *more: str) -> list[str]:
    arguments = ["--task", "toy-relations", "--method", "none,map-tuning", "--backbone"]
    arguments += [str(folder / "bert"), "--knowledge", str(folder / "kb"), "--setting"]
    arguments += ["task-specific", *more]
    tuning = QUICK["tuning"]["full"]
    for kind, part, options in (("tuning", "full", tuning), ("method", "map-tuning", OWN)):
        for key, value in options.items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            for name, each in inner:
                path = ".".join(filter(None, (kind, part, key, name)))
                arguments += ["--set", f"{path}={json.dumps(each)}"]
    return arguments


def test_a_call_and_the_command_leave_the_same_bits(
    toy_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said: list[str] = []
    asked = words(toy_folder, options=OPTIONS)
    runs = kbench.run(**asked, out=tmp_path / "called", device="cpu", threads=1, tell=said.append)
    monkeypatch.setenv("KBENCH_CACHE", str(tmp_path / "another"))
    where = ("--control", "none,foreign", "--device", "cpu", "--threads", "1", "-q", "--out")
    status, _, err = call(capsys, "run", *typed(toy_folder, *where, str(tmp_path / "typed")))
    assert status == 0, err
    assert [one.status for one in runs] == [Status.OK] * 3
    assert len(said) == 3
    assert said[0].startswith("ok      toy-relations / ")
    stored = {one.id: one for one in Results(tmp_path / "typed")}
    assert {*stored} == {one.id for one in runs}
    for one in runs:
        other = stored[one.id]
        assert one.metrics == other.metrics
        assert one.frozen == other.frozen
        paths = [tmp_path / place / one.id / "predictions.parquet" for place in ("called", "typed")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    again = kbench.run(**asked, out=tmp_path / "called", tell=said.append)
    assert [one.id for one in again] == [one.id for one in runs]
    assert len(said) == 3, "what is stored was run again"


def test_a_plan_is_that_of_the_command_and_writes_nothing(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(toy_folder, control="all", seed="0-1", options=OPTIONS)
    plan = kbench.plan(**asked, out=tmp_path / "out")
    more = ["--control", "all", "--seed", "0-1", "--out", str(tmp_path / "out")]
    status, printed, err = call(capsys, "run", *typed(toy_folder, *more), "--dry-run", "--json")
    assert status == 0, err
    *lines, last = [json.loads(line) for line in printed.splitlines()]
    assert plan.runs["id"].tolist() == [line["id"] for line in lines]
    assert plan.runs["plan"].tolist() == [line["plan"] for line in lines]
    assert {*plan.runs["control"]} == {*Control}
    assert plan.estimate.as_json().items() <= last["estimate"].items()
    assert str(plan).splitlines()[0].startswith(f"{len(lines)} runs: 0 stored")
    assert not (tmp_path / "out").exists()


def test_a_grid_is_a_file_or_what_would_stand_in_it(toy_folder: Path, tmp_path: Path) -> None:
    values = {"task": "toy-typing,toy-qa", "method": "none", "backbone": str(toy_folder / "bert")}
    (tmp_path / "grid.yaml").write_text(json.dumps(values), encoding="utf-8")
    ids = [kbench.plan(grid).runs["id"].tolist() for grid in (values, tmp_path / "grid.yaml")]
    assert len(ids[0]) == 2
    assert ids[0] == ids[1]
    assert kbench.plan(values, task="toy-qa").runs["id"].tolist() == ids[0][1:]
    narrow = {"set": "tuning.full.epochs=7", "task": "toy-qa"}
    assert kbench.plan(values, **narrow).runs["options"].tolist() == ["tuning.full.epochs=7"]


def test_without_words_it_is_the_demo() -> None:
    named = kbench.plan(demo="encoder", task="atlas-qa", seed=3)
    assert {*named.runs["method"]} == {"none", "map-tuning"}
    assert kbench.plan(seed=3).runs["id"].isin(named.runs["id"]).sum() == len(named.runs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": "none"}, "no option 'methods'; did you mean method"),
        ({"task": "toy-qa"}, "--method is missing"),
        ({"demo": "no"}, "--demo 'no'; known: decoder, encoder"),
        ({"grid": {"task": "toy-qa"}, "demo": "encoder"}, "--demo encoder and a grid"),
        ({"task": "toy-qa", "method": "none", "seed": -1}, "seed.0 is -1"),
        ({"task": "toy-qa", "method": "none", "set": "x"}, "--set 'x': expected KIND.PART"),
        ({"task": "toy-qa", "method": "none", "backbone": (1, 2)}, "the model is a int; expected"),
        ({"task": "toy-qa", "method": "none", "backbone": "nowhere"}, "backbone 'nowhere'"),
    ],
)
def test_what_cannot_be_understood_is_told_in_a_line(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as told:
        kbench.run(**given, out=tmp_path / "out")
    assert len(str(told.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_options_that_no_run_has_and_runs_that_are_refused_are_warnings(
    toy_folder: Path, tmp_path: Path
) -> None:
    asked = words(toy_folder, method="none", out=tmp_path / "out")
    with pytest.warns(UserWarning, match=r"options.method.map-tuning changes nothing"):
        kbench.run(**asked)
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    tuning = {"tuning": QUICK["tuning"]}
    both = {**asked, "options": tuning, "backbone": [toy_folder / "bert", tmp_path / "no"]}
    with pytest.warns(UserWarning, match=r"refused: toy-relations / .*/no / .* no .safetensors"):
        assert len(kbench.run(**both)) == 1
    with pytest.raises(InputError, match=r"no .safetensors"):
        kbench.run(**{**both, "backbone": tmp_path / "no"})


def test_a_model_in_memory_has_the_address_of_its_folder(toy_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model = AutoModelForMaskedLM.from_pretrained(toy_folder / "bert")
    tokenizer = AutoTokenizer.from_pretrained(toy_folder / "bert")
    model.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    tokenizer(["it is", "it is a thing"], padding=True, truncation=True, max_length=4)
    asked = words(toy_folder, method="none", options={"tuning": QUICK["tuning"]})
    in_memory, on_disk = (
        kbench.plan(**{**asked, "backbone": backbone})
        for backbone in ((model, tokenizer), tmp_path / "bert")
    )
    assert in_memory.runs["id"].tolist() == on_disk.runs["id"].tolist()
    both = kbench.plan(**{**asked, "backbone": [(model, tokenizer), toy_folder / "bert"]})
    assert len({*both.runs["backbone"]}) == 2
    name = in_memory.cells[0].spec.backbone
    assert find_backbone(name).digest == find_backbone(str(tmp_path / "bert")).digest
    with_other_weights = model.get_input_embeddings().weight
    with_other_weights.data[5] += 1
    other = kbench.plan(**{**asked, "backbone": (model, tokenizer)})
    assert other.runs["id"].tolist() != in_memory.runs["id"].tolist()
    with pytest.raises(UsageError, match="the tokenizer is a NoneType"):
        kbench.plan(**{**asked, "backbone": (model, None)})
