"""Where and how to compute: what it changes in a result, and what it must not change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.parts.run_parts import Parts
from kbench.pipeline.addresses import model_inputs, plug_inputs
from kbench.pipeline.reproducibility import MOVES
from kbench.spec import Setting
from kbench.store import Artifacts, Result, Results, Status
from kbench.store.result import read_result
from tests.architectures import rewrite
from tests.calling import call
from tests.grid.toygrid import OPTIONS, QUICK, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "artifacts", "cpu", 1)


@pytest.fixture
def shared(tmp_path: Path, made: Path) -> Place:
    return Place(tmp_path / "out", made, "cpu", 1)


def _ok(results: list[Result]) -> list[Result]:
    assert [(r.status, r.reason) for r in results] == [(Status.OK, "")] * len(results)
    return results


@pytest.mark.parametrize("task", ["toy-typing", "toy-relations", "toy-qa"])
def test_the_size_of_a_batch_moves_last_bits_of_scores_and_is_told(
    task: str, toy_folder: Path, tmp_path: Path, shared: Place
) -> None:
    chosen = grid(toy_folder, task=task, control="none")
    first, known = _ok(run(chosen, shared)), Results(shared.out)
    told = [r.training["evaluation"] for r in first]
    assert [(one["batch_size"], one["batch_tokens"]) for one in told] == [(128, 2048)] * 2
    for size in (1, 7, 400):
        other = replace(shared, out=tmp_path / str(size), evaluation_batch=size)
        for before, after in zip(first, _ok(run(chosen, other)), strict=True):
            assert after.id == before.id
            assert after.metrics == before.metrics
            own = after.training["evaluation"]
            assert (own["batch_size"], own["batch_tokens"], own["threads"]) == (size, None, 1)
            assert own["device"] == "cpu"
            assert own["rounding"]["else_scores_move"] == MOVES["float32"]
            one, two = known.predictions(before), Results(other.out).predictions(after)
            assert one is not None
            assert two is not None
            assert one.predictions == two.predictions
            assert one.scores == pytest.approx(two.scores, abs=MOVES["float32"])


def test_a_narrow_precision_trains_in_it_and_is_part_of_the_addresses(
    toy_folder: Path, shared: Place
) -> None:
    made = {}
    # float16 takes long on a CPU: of it two epochs, in which nothing much is learnt.
    for dtype, options in (("float32", OPTIONS), ("bfloat16", OPTIONS), ("float16", QUICK)):
        results = _ok(run(grid(toy_folder, control="none", dtype=dtype, options=options), shared))
        made[dtype] = results[1]
        assert results[1].training["tuning"]["computed"]["dtype"] == dtype
        assert results[1].training["plug"]["computed"]["dtype"] == dtype
        assert results[1].score is not None
        # The planted knowledge is found in a narrow precision too.
        assert options is QUICK or results[1].score.value > 0.8
    origins = [r.provenance.addresses for r in made.values() if r.provenance]
    assert len({found["model"] for found in origins}) == 3
    assert len({found["plug"] for found in origins}) == 3
    (short,) = run(grid(toy_folder, method="none", options=QUICK), shared)
    assert short.provenance is not None
    assert short.provenance.addresses["model"] != origins[2]["model"]  # but for the precision alike
    histories = [r.training[what]["history"] for r in made.values() for what in ("tuning", "plug")]
    assert all(0 <= history["skipped"] < history["steps"] / 4 for history in histories)
    weights = Artifacts(shared.artifacts).load("model", str(origins[2]["model"]))
    assert weights is not None
    assert {t.dtype for t in weights.tensors.values() if t.is_floating_point()} == {torch.float32}


def test_float32_has_the_addresses_it_always_had(toy_folder: Path) -> None:
    def inputs(dtype: str, **options: Any) -> list[dict[str, Any]]:
        (spec,) = runner.resolve(
            grid(toy_folder, method="map-tuning", control="none", dtype=dtype, **options)
        )
        parts = Parts(spec)
        plugs = (plug_inputs(parts, setting) for setting in Setting)
        return [model_inputs(parts), *plugs]

    wide, narrow = inputs("float32"), inputs("bfloat16")
    assert not any("dtype" in one for one in wide)
    assert all(one["dtype"] == "bfloat16" for one in narrow)
    parted = {"tuning": {"full": {**OPTIONS["tuning"]["full"], "micro_batch": 3}}}
    assert inputs("float32", options={**OPTIONS, **parted}) == wide


def test_parts_that_are_fixed_are_told_and_change_no_address(
    toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    (whole,) = _ok(run(grid(toy_folder, method="none", options=QUICK), place))
    options = {"tuning": {"full": {**QUICK["tuning"]["full"], "micro_batch": 3}}}
    other = replace(place, out=tmp_path / "parts", artifacts=tmp_path / "parted")
    (parts,) = _ok(run(grid(toy_folder, method="none", options=options), other))
    assert parts.id == whole.id
    assert parts.provenance is not None
    assert "tuning.full.micro_batch=3" in parts.provenance.command
    histories = [r.training["tuning"]["history"] for r in (whole, parts)]
    assert [history["micro_batch"] for history in histories] == [16, 3]


def test_the_memory_of_a_device_is_told_stage_by_stage(
    toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []
    monkeypatch.setattr("kbench.pipeline.session.reset_peak", lambda device: began.append("reset"))
    monkeypatch.setattr("kbench.pipeline.session.peak_bytes", lambda device: 1000 * len(began))
    none, mapped = _ok(run(grid(toy_folder, control="none", options=QUICK), place))
    assert none.cost["tune_peak_device_memory_bytes"] == 1000
    assert none.cost["evaluate_peak_device_memory_bytes"] == 2000
    assert mapped.cost["tune_peak_device_memory_bytes"] == 1000
    assert mapped.cost["train_peak_device_memory_bytes"] == 3000
    assert mapped.cost["evaluate_peak_device_memory_bytes"] == 4000
    assert mapped.cost["peak_device_memory_bytes"] == 4000
    assert mapped.cost["peak_memory_bytes"] > 1e6


def test_on_the_cpu_there_is_no_device_memory(toy_folder: Path, place: Place) -> None:
    (none,) = _ok(run(grid(toy_folder, method="none", options=QUICK), place))
    assert not any("device_memory" in name for name in none.cost)


def test_options_reach_the_place_and_the_result(
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Place] = []
    work: Callable[..., Any] = runner.run

    def watched(cells: Any, place: Place, **more: Any) -> Any:
        seen.append(place)
        return work(cells, place, **more)

    monkeypatch.setattr(runner, "run", watched)
    threads = torch.get_num_threads()
    asked = ["run", "--task", "toy-relations", "--method", "none", "--device", "cpu"]
    asked += ["--backbone", str(toy_folder / "bert"), "--set", "tuning.full.epochs=1"]
    asked += ["--threads", "1", "--evaluation-batch", "7", "--no-deterministic"]
    try:
        status, _, _ = call(capsys, *asked, "--out", str(tmp_path / "out"))
    finally:
        torch.set_num_threads(threads)
    (place,) = seen
    assert status == 0
    assert (place.threads, place.evaluation_batch, place.deterministic) == (1, 7, False)
    (path,) = (tmp_path / "out").glob("*/result.json")
    result = read_result(path)
    assert result.training["evaluation"]["batch_size"] == 7
    assert result.provenance is not None
    assert result.provenance.hardware["threads"] == 1
    assert "compiled" not in result.provenance.hardware


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:0,cuda:1"])
def test_a_gpu_that_is_not_there_is_told_in_one_line(
    device: str, jobs: str, toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["run", "--task", "toy-relations", "--method", "none", "--device", device]
    asked += ["--backbone", str(toy_folder / "bert"), "--out", str(tmp_path / "o"), "--jobs", jobs]
    status, out, err = call(capsys, *asked)
    assert (status, out) == (2, "")
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "cannot be used: PyTorch" in line
    assert line.endswith("try --device cpu")
    assert "Traceback" not in err


def test_heads_that_came_with_a_backbone_and_are_not_read_are_named(
    toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    plain = grid(toy_folder, method="none", options=QUICK)
    shutil.copytree(toy_folder / "bert", tmp_path / "bert")
    rewrite(tmp_path / "bert", lambda held: {**held, "classifier.weight": torch.ones(2, 32)})
    tuned = grid(toy_folder, method="none", backbone=str(tmp_path / "bert"), options=QUICK)
    assert "unread" not in _ok(run(plain, place))[0].training
    assert _ok(run(tuned, place))[0].training["unread"] == ["classifier"]
