"""A plan counts what can run, and says of the rest why it cannot, before anything is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kbench.data import Example
from kbench.errors import InputError, Unsupported
from kbench.grid import runner, workload
from kbench.grid.plan import CANNOT, Place
from kbench.model import LanguageModel
from kbench.parts.run_parts import PartLoader, Parts
from kbench.store import Artifacts, Status
from kbench.testing.toys import write_backbone
from kbench.training.tunings.bitfit import BitFitTuning
from kbench.training.tunings.full import FullTuning
from kbench_baselines.map_tuning import MapTuning
from tests.calling import call
from tests.grid.toygrid import QUICK, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")


def test_what_its_parts_say_against_a_run_is_in_the_plan(
    tmp_path: Path, toy_folder: Path, place: Place
) -> None:
    headless = write_backbone(tmp_path / "headless", lm_head=False)
    chosen = grid(
        toy_folder,
        task="toy-qa,toy-relations",
        method="none,pelt",
        tuning="full,head",
        backbone=str(headless),
        setting="general",
        control="none",
    )
    cells = runner.plan(runner.resolve(chosen), place)
    told = {(c.spec.task, c.spec.method, c.spec.tuning): c.obstacle for c in cells}
    lacks = f"task toy-qa is answered at [MASK], and backbone {headless} has no masked-LM head"
    pelt = "PELT needs a backbone with a masked-LM head"
    assert told == {
        ("toy-qa", "none", "full"): lacks,
        ("toy-qa", "none", "head"): lacks,
        ("toy-qa", "pelt", "full"): lacks,
        ("toy-qa", "pelt", "head"): lacks,
        ("toy-relations", "none", "full"): "",
        ("toy-relations", "none", "head"): "",
        ("toy-relations", "pelt", "full"): pelt,
        ("toy-relations", "pelt", "head"): pelt,
    }
    results = runner.run([c for c in cells if c.standing == CANNOT], place)
    assert {r.status for r in results} == {Status.SKIPPED}
    assert [*place.artifacts.glob("*/*")] == []  # nothing was trained to find it out


def test_the_training_of_a_setting_is_asked_for_what_it_needs(
    tmp_path: Path, toy_folder: Path, place: Place
) -> None:
    headless = write_backbone(tmp_path / "headless", lm_head=False)
    chosen = grid(
        toy_folder,
        method="map-tuning,ernie,kar,k-adapter",
        tuning="head",
        backbone=str(headless),
        setting="general,fine-tuning,task-specific",
        control="none",
        options={},
        limit=8,
    )
    cells = runner.plan(runner.resolve(chosen), place)
    told: dict[str, set[str]] = {}
    for cell in cells:
        told.setdefault(cell.obstacle[:20], set()).add(f"{cell.spec.method} {cell.spec.setting}")
    settings = ("general", "fine-tuning", "task-specific")
    corpus = {f"{method} {s}" for method in ("map-tuning", "ernie", "kar") for s in settings}
    scratch = {each for each in corpus if each.endswith("task-specific")}
    assert told == {
        "masked language mode": corpus - scratch,
        "factual pre-training": {f"k-adapter {setting}" for setting in settings},
        "": scratch,
    }
    cannot = [cell for cell in cells if cell.standing == CANNOT]
    without = [replace(cell, impossible="") for cell in cannot]
    tried = runner.run(without, place)  # what the plan says is what the run would say
    assert [r.reason for r in tried] == [cell.obstacle for cell in cannot]


def test_two_data_sets_of_ones_own_have_obstacles_of_their_own(
    tmp_path: Path, toy_folder: Path, place: Place
) -> None:
    ends = [{"start": 4, "end": 7, "role": "head"}, {"start": 22, "end": 27, "role": "tail"}]
    text = "The Wye flows through Wales ."
    records = {
        "relation classification": {"text": text, "mentions": ends, "label": "in"},
        "question answering": {"text": text[:22], "mentions": [], "answers": ["Wales"]},
    }
    for family, record in records.items():
        folder = tmp_path / family.split()[0]
        folder.mkdir()
        (folder / "card.yaml").write_text(f"title: t\nfamily: {family}\nlicence: none\n")
        for split in ("train", "dev", "test"):
            (folder / f"{split}.jsonl").write_text(json.dumps(record))
    headless = str(write_backbone(tmp_path / "headless", lm_head=False))
    for order in (("relation", "question"), ("question", "relation")):
        chosen = [
            grid(
                toy_folder,
                task="custom",
                data=str(tmp_path / name),
                method="none",
                tuning="head",
                backbone=headless,
            )
            for name in order
        ]
        cells = runner.plan(runner.resolve(*chosen), place)
        told = {Path(str(cell.spec.data)).name: cell.obstacle for cell in cells}
        assert told["relation"] == ""
        assert "has no masked-LM head" in told["question"]


def test_a_tuning_that_finds_nothing_to_train_is_seen_and_leaves_no_trace(
    toy_folder: Path, place: Place
) -> None:
    chosen = grid(toy_folder, task="toy-qa,toy-relations", method="none", tuning="head,lora")
    cells = runner.plan(runner.resolve(chosen), place)
    told = [(c.spec.task, c.spec.tuning, c.standing) for c in cells]
    assert sorted(told) == [
        ("toy-qa", "head", CANNOT),
        ("toy-qa", "lora", "run"),
        ("toy-relations", "head", "run"),
        ("toy-relations", "lora", "run"),
    ]


def test_a_backbone_that_does_not_load_is_refused_by_the_plan(
    tmp_path: Path, toy_folder: Path, place: Place
) -> None:
    broken = write_backbone(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    (cell,) = runner.plan(
        runner.resolve(grid(toy_folder, method="none", backbone=str(broken))), place
    )
    assert isinstance(cell.refusal, InputError)
    (result,) = runner.run([cell], place)
    assert result.status == Status.REFUSED
    assert "cannot be loaded" in result.reason
    assert not place.out.exists()


def test_a_backbone_that_fails_is_loaded_once_and_spoils_no_plan(
    toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = grid(toy_folder, task="toy-relations,toy-qa", method="none", tuning="full,head")
    specs = runner.resolve(chosen)
    for error, standing in (
        (InputError("no"), CANNOT),
        (Unsupported("not this one"), CANNOT),
        (ValueError("a plugin's"), "run"),  # told where its run is tried
    ):
        tried: list[Exception] = []

        def load(
            _: Parts, error: Exception = error, tried: list[Exception] = tried
        ) -> LanguageModel:
            tried.append(error)
            raise error

        monkeypatch.setattr("kbench.grid.obstacles.loaded", load)
        cells = runner.plan(specs, place)
        assert {cell.standing for cell in cells} == {standing}
        assert {cell.obstacle for cell in cells} == {str(error) if standing == CANNOT else ""}
        assert len(tried) == 1


def test_parts_are_asked_once_for_all_runs_in_which_they_are_alike(
    toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counts(kind: type, name: str, what: str) -> None:
        own = getattr(kind, name)

        def counted(*given: object) -> object:
            asked.append(what)
            return own(*given)

        monkeypatch.setattr(kind, name, counted)

    counts(FullTuning, "prepare", "full")
    counts(BitFitTuning, "prepare", "bitfit")
    counts(MapTuning, "check", "map-tuning")
    chosen = grid(
        toy_folder,
        method="none,map-tuning",
        tuning="full,bitfit",
        setting="general,task-specific",
        control="none,foreign",
        seed="0-2",
    )
    cells = runner.plan(runner.resolve(chosen), place)
    assert len(cells) == 2 * 3 * (1 + 2 * 2)
    assert sorted(asked) == ["bitfit", "full", "map-tuning", "map-tuning"]  # in two settings

    read: list[Example] = []
    own = workload._read
    monkeypatch.setattr(workload, "_read", lambda example: read.append(example) or own(example))
    loader = PartLoader()
    works = workload.works(cells, loader, Artifacts(place.artifacts))
    assert len(works) > len(cells)
    assert 0 < len(read) == len({id(example) for example in read})


def test_the_first_line_counts_what_can_run_and_each_reason_is_told_once(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--task", "toy-relations", "--method", "none,ra", "--control", "none"]
    words += ["--backbone", str(toy_folder / "bert"), "--knowledge", str(toy_folder / "kb")]
    words += ["--setting", "general,task-specific", "--seed", "0-2", "--device", "cpu"]
    words += ["--out", str(tmp_path / "out"), "--set", "tuning.full.epochs=1"]
    _, out, _ = call(capsys, *words, "--dry-run")
    assert "9 runs: 0 stored, 6 to run, 3 cannot; to train: 3 downstream models" in out
    why = "ra has no task-specific setting (it has fine-tuning, general)"
    assert out.count(why) == 1
    assert f"seed 0 and 2 more: {why}" in out


def test_processor_time_stands_beside_wall_clock(toy_folder: Path, place: Place) -> None:
    results = run(grid(toy_folder, setting="general", control="none", options=QUICK), place)
    for result in results:
        for stage in ("tune", "train", "start", "evaluate"):
            assert result.cost[f"{stage}_processor_seconds"] >= 0.0
        assert result.cost["tune_processor_seconds"] > 0.1 * result.cost["tune_seconds"]
    none, mapped = results
    assert none.cost["train_processor_seconds"] == 0.0
    assert mapped.cost["train_processor_seconds"] > 0.0
    # The same figures, whoever made the model: they come with it from the store.
    assert none.cost["tune_processor_seconds"] == mapped.cost["tune_processor_seconds"]
