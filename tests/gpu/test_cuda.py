"""What only a GPU can show: skipped, and said so, where there is none. See docs/gpu.md.

Everything here has a counterpart on the CPU, where the device is played: tests/baselines
(test_waiting, test_parts, test_compiling), tests/encoding (test_prefetch,
test_micro_batches), tests/training/test_steps and tests/grid (test_devices, test_computing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kbench.encoding import Batch, computing
from kbench.grid.executor import Setup
from kbench.grid.executors.local import Local
from kbench.grid.plan import Place
from kbench.pipeline.models import tune
from kbench.pipeline.plugs import fit
from kbench.pipeline.session import Session
from kbench.spec import Setting
from kbench.store import Artifacts, Result, Results, Status
from kbench.testing.bench import Bench
from kbench.testing.tiny import TASKS, offered
from kbench.testing.toys import write_backbone
from kbench.training.steps import OptimizerStep
from tests.devices import TRAINED
from tests.grid.toygrid import OPTIONS, grid, run

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (CUDA)"),
    pytest.mark.usefixtures("toy_tasks"),
    # What torch has to say of a GPU and of its compiler is no matter of these tests.
    pytest.mark.filterwarnings("ignore"),
]

CUDA = torch.device("cuda")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "artifacts", "cuda", 1)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
    torch.compiler.reset()


def _ok(results: list[Result]) -> list[Result]:
    assert [(r.status, r.reason) for r in results] == [(Status.OK, "")] * len(results)
    return results


def _made(place: Place) -> dict[str, bytes]:
    files = sorted(place.artifacts.glob("*/*/weights.safetensors"))
    files += sorted(place.out.glob("*/predictions.parquet"))
    return {file.parent.name: file.read_bytes() for file in files}


def _session(folder: Path) -> Session:
    return Session(Artifacts(folder), CUDA)


@pytest.mark.parametrize("task", ["toy-typing", "toy-relations", "toy-qa"])
def test_a_frozen_model_scores_as_on_the_cpu(
    task: str, toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    """Trained on the CPU, evaluated on both: the same weights, other kernels."""
    here = replace(place, device="cpu")
    first = _ok(run(grid(toy_folder, task=task, control="none"), here))
    there = replace(place, out=tmp_path / "there")
    for one, two in zip(
        first, _ok(run(grid(toy_folder, task=task, control="none"), there)), strict=True
    ):
        assert one.id == two.id
        cpu, gpu = Results(here.out).predictions(one), Results(there.out).predictions(two)
        assert cpu is not None
        assert gpu is not None
        assert cpu.predictions == gpu.predictions
        assert np.abs(np.subtract(cpu.scores, gpu.scores)).max() < 1e-4
        assert two.training["evaluation"]["rounding"]["else_scores_move"] is None


def test_planted_knowledge_is_found_on_a_gpu(toy_folder: Path, place: Place) -> None:
    true, broken = _ok(run(grid(toy_folder, method="map-tuning"), place))
    assert true.score is not None
    assert broken.score is not None
    assert true.score.value > 0.8
    assert broken.score.value < 0.45


def test_the_same_work_gives_the_same_bits_and_says_so(
    toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    made = []
    for name in ("one", "two"):
        own = replace(place, out=tmp_path / name, artifacts=tmp_path / f"{name} made")
        for result in _ok(run(grid(toy_folder, setting="general,task-specific"), own)):
            assert result.provenance is not None
            assert result.provenance.hardware["deterministic"] == "yes"
            assert result.provenance.hardware["matmul"] == "highest"
        made.append(_made(own))
    assert made[0] == made[1]
    loose = replace(place, out=tmp_path / "loose", deterministic=False)
    (result,) = _ok(run(grid(toy_folder, method="none"), loose))
    assert result.provenance is not None
    assert result.provenance.hardware["deterministic"] == "no"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrow_precision_trains_and_finds_what_is_planted(
    dtype: str, toy_folder: Path, place: Place
) -> None:
    _, mapped = _ok(run(grid(toy_folder, control="none", dtype=dtype), place))
    assert mapped.score is not None
    assert mapped.score.value > 0.8
    history = mapped.training["tuning"]["history"]
    assert 0 <= history["skipped"] < history["steps"] / 4


@pytest.mark.parametrize(("method", "setting"), TRAINED)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_step_waits_for_the_device(
    method: str, setting: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's own alarm: an operation for which the host waits raises."""
    step: Callable[[OptimizerStep, Batch], Tensor] = OptimizerStep.step
    taken: list[int] = []

    def alarmed(stepper: OptimizerStep, batch: Batch) -> Tensor:
        taken.append(len(batch.ids))
        if len(taken) == 1:
            return step(stepper, batch)  # the first sets libraries up
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(stepper, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(OptimizerStep, "step", alarmed)
    with offered():
        bench, session = Bench(method), _session(tmp_path)
        for task in TASKS if setting == "task-specific" else TASKS[:1]:
            parts = bench.parts(Setting(setting), task=task, dtype=dtype)
            model, _ = tune(session, parts)
            fit(session, parts, Setting(setting), model)
    assert len(taken) > 3


def test_batches_are_made_ahead_in_pinned_memory_and_change_nothing(
    tmp_path: Path, toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    step: Callable[[OptimizerStep, Batch], Tensor] = OptimizerStep.step

    def watched(stepper: OptimizerStep, batch: Batch) -> Tensor:
        seen.append(batch.ids.is_pinned())
        return step(stepper, batch)

    monkeypatch.setattr(OptimizerStep, "step", watched)
    made = []
    for name, ahead in (("fed", 4), ("unfed", 0)):
        own = replace(place, out=tmp_path / name, artifacts=tmp_path / f"{name} made")
        monkeypatch.setattr(computing, "_AHEAD", ahead)
        _ok(run(grid(toy_folder, control="none"), own))
        made.append(_made(own))
    assert made[0] == made[1]
    assert all(seen)


def test_memory_that_runs_out_makes_parts_that_are_repeated_by_fixing_them(
    tmp_path: Path, place: Place
) -> None:
    from kbench.testing.toys import write_world

    write_world(tmp_path / "kb")
    write_backbone(tmp_path / "bert", layers=6, width=512)
    tuning = {**OPTIONS["tuning"]["full"], "batch_size": 256, "epochs": 2}

    def tuned(name: str, **more: Any) -> tuple[Result, dict[str, bytes]]:
        own = replace(place, out=tmp_path / name, artifacts=tmp_path / f"{name} made")
        options = {**OPTIONS, "tuning": {"full": {**tuning, **more}}}
        (result,) = _ok(run(grid(tmp_path, method="none", options=options), own))
        return result, _made(own)

    whole, _ = tuned("whole")
    assert whole.training["tuning"]["history"]["micro_batch"] == 256
    peak = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction(0.6 * peak / total)
    scarce, weights = tuned("scarce")
    torch.cuda.set_per_process_memory_fraction(1.0)
    used = scarce.training["tuning"]["history"]["micro_batch"]
    assert 1 <= used < 256
    assert scarce.id == whole.id
    assert (
        scarce.cost["tune_peak_device_memory_bytes"] < whole.cost["tune_peak_device_memory_bytes"]
    )
    fixed, again = tuned("fixed", micro_batch=used)
    assert fixed.training["tuning"]["history"]["micro_batch"] == used
    assert again == weights


def test_the_peak_of_each_stage_is_told(toy_folder: Path, place: Place) -> None:
    none, mapped = _ok(run(grid(toy_folder, control="none"), place))
    stages = ("tune", "train", "evaluate")
    peaks = [mapped.cost[f"{stage}_peak_device_memory_bytes"] for stage in stages]
    assert all(peak > 1e5 for peak in peaks)
    assert mapped.cost["peak_device_memory_bytes"] == max(peaks)
    assert "train_peak_device_memory_bytes" not in none.cost


def test_compiled_layers_score_as_the_layers_do(
    toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    first = _ok(run(grid(toy_folder, control="none"), place))
    other = replace(place, out=tmp_path / "compiled", compiled=True)
    for one, two in zip(first, _ok(run(grid(toy_folder, control="none"), other)), strict=True):
        assert one.id == two.id
        assert two.provenance is not None
        assert two.provenance.hardware["compiled"] == "yes"
        plain, found = Results(place.out).predictions(one), Results(other.out).predictions(two)
        assert plain is not None
        assert found is not None
        assert np.abs(np.subtract(plain.scores, found.scores)).max() < 1e-4


def test_jobs_go_round_the_gpus(toy_folder: Path, tmp_path: Path) -> None:
    # Toy tasks exist in this process alone, so the embedded ones run, on a few examples.
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cuda", 1)
    chosen = grid(
        toy_folder,
        task="atlas-relations,atlas-typing",
        method="none",
        seed="0,1",
        limit=40,
        options={"tuning": {"full": {"epochs": 1}}},
    )
    jobs = max(2, torch.cuda.device_count())
    results = _ok(run(chosen, place, executor=Local(Setup(jobs))))
    used = {str(r.provenance.hardware["device"]) for r in results if r.provenance}
    there = {f"cuda:{number}" for number in range(torch.cuda.device_count())}
    assert used <= there
    assert len(used) >= min(2, len(there))
