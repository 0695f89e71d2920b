"""The command as a user meets it: exit status, one-line errors, what goes where."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from kbench.cli.render import print_table
from kbench.cli.show import marked
from kbench.data import Example, Mention, Role
from kbench.grid.plan import Place
from kbench.results import published
from kbench.results.tables import rows
from kbench.store import Results
from tests.calling import call
from tests.grid.toygrid import grid, run


def _toy(folder: Path, *more: str) -> list[str]:
    words = ["run", "--task", "toy-relations", "--method", "none,map-tuning", "--device", "cpu"]
    words += ["--setting", "task-specific", "--control", "none"]
    words += ["--backbone", str(folder / "bert"), "--knowledge", str(folder / "kb")]
    for epochs in ("tuning.full", "method.map-tuning.task-specific"):
        words += ["--set", f"{epochs}.epochs=1"]
    return [*words, "--set", "method.map-tuning.start=scratch", *more]


@pytest.mark.usefixtures("toy_tasks")
def test_a_run_prints_its_table_then_answers_from_the_store(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _toy(toy_folder, "--out", str(tmp_path / "out"))
    status, out, err = call(capsys, *arguments)
    assert status == 0
    assert "to train: 1 downstream models, 1 plugs" in err
    assert "toy-relations" in out
    assert "288" in out  # the map's 8 * 32 + 32 parameters
    status, again, err = call(capsys, *arguments)
    assert status == 0
    assert "2 stored, 0 to run" in err
    assert again == out


@pytest.mark.usefixtures("toy_tasks")
def test_the_table_of_another_metric(
    toy_folder: Path, tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    results = run(grid(toy_folder, task="toy-typing,toy-relations", method="none"), place)
    strict = next(r for r in results if r.spec.task == "toy-typing").metrics["strict"]
    table = ["table", "--out", str(place.out), "--metric"]
    status, out, _ = call(capsys, *table, "strict", "--json")
    (row,) = map(json.loads, out.splitlines())
    assert (status, row["metric"], row["task"]) == (0, "strict", "toy-typing")
    assert row["score"]["value"] == strict.value
    status, _, err = call(capsys, *table, "strikt")
    assert status == 2
    assert "no stored result has a metric 'strikt'" in err
    assert "strict" in err


@pytest.mark.usefixtures("toy_tasks")
def test_published_figures_stand_beside_ours_and_are_not_compared(
    toy_folder: Path,
    tmp_path: Path,
    made: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = next(f for f in published.figures() if f.method == "ernie" and f.task == "open-entity")
    twin = replace(known, task="toy-typing", value=0.123)
    other = replace(twin, method="[b]luke", variant="micro-by-another-rule", value=0.987)
    elsewhere = replace(twin, task="another-task", value=0.456)
    monkeypatch.setattr("kbench.cli.published.figures", lambda: (twin, other, elsewhere))
    monkeypatch.setenv("COLUMNS", "200")
    place = Place(tmp_path / "out", made, "cpu")
    run(grid(toy_folder, task="toy-typing,toy-relations", method="none"), place)

    table = ["table", "--out", str(place.out)]
    _, without, _ = call(capsys, *table)
    status, out, _ = call(capsys, *table, "--published")
    assert status == 0
    assert out.startswith(without)  # our rows are what they were
    beside = out.removeprefix(without)
    assert "12.3" in beside
    assert "P19-1139, readme; test" in beside
    assert "another metric: micro-by-another-rule, ours is loose-micro-f1" in beside
    assert "[b]luke" in beside  # a name is text, not markup
    assert "45.6" not in out
    _, out, _ = call(capsys, *table, "--published", "--method", "none,ernie", "--json")
    marked = [value for line in out.splitlines() if (value := json.loads(line)).get("published")]
    assert [(value["method"], value["value"]) for value in marked] == [("ernie", 0.123)]
    assert marked[0]["source"]["citation"] == "P19-1139"
    _, out, _ = call(capsys, *table, "--published", "--task", "toy-relations")
    assert "nothing is known" in out


@pytest.mark.usefixtures("toy_tasks")
def test_json_goes_to_stdout_and_everything_else_to_stderr(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capsys, *_toy(toy_folder, "--out", str(tmp_path / "o"), "--json"))
    results = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [result["spec"]["method"] for result in results] == ["none", "map-tuning"]
    status, out, _ = call(capsys, "table", "--out", str(tmp_path / "o"), "--json")
    assert [json.loads(line)["method"] for line in out.splitlines()].count("none") == 1


@pytest.mark.usefixtures("toy_tasks")
def test_a_dry_run_plans_and_leaves_nothing(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capsys, *_toy(toy_folder, "--out", str(tmp_path / "out"), "--dry-run"))
    assert status == 0
    assert "2 runs: 0 stored, 2 to run; to train: 1 downstream models, 1 plugs" in out
    assert "GPU hours on one GPU" in out
    assert "19.5 TFLOP/s (--tflops), 40 % of it used" in out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_needs_neither_data_nor_backbone_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["run", "--task", "wiki80", "--data", "nowhere", "--backbone", "bert-base-uncased"]
    asked += ["--method", "none,map-tuning,ra", "--setting", "task-specific", "--dry-run"]
    asked += ["--knowledge", "kb"]
    status, out, _ = call(capsys, *asked, "--tflops", "100", "--json")
    *cells, last = map(json.loads, out.splitlines())
    assert status == 0
    plans = [(cell["spec"]["method"], cell["plan"]) for cell in cells]
    assert plans[:2] == [("none", "not yet"), ("map-tuning", "not yet")]
    assert plans[-1] == ("ra", "cannot run")
    assert last["estimate"]["assumed"]["flops_per_second"] == 100e12
    status, out, _ = call(capsys, *asked)
    for said in ("nowhere: does not exist", "bert-base-uncased is not downloaded yet", "'kb'"):
        assert f"not there yet: {said}" in out or said in out
    assert "estimate: at least" in out
    status, _, err = call(capsys, *asked, "--set", "tuning.full.epoch=1")
    assert (status, "did you mean epochs" in err) == (2, True)
    status, _, err = call(capsys, *asked, "--set", "method.map-tuning.task-specific.epoch=1")
    assert (status, "did you mean epochs" in err) == (2, True)


@pytest.mark.parametrize(
    ("backbone", "tuning"),
    [
        ("meta-llama/Llama-3.2-1B", "prompted"),
        ("openai-community/gpt2@main", "prompted"),
        ("here/own.gguf", "prompted"),
        ("google-bert/bert-base-uncased", "full"),
        ("someone/unheard-of", "full"),
    ],
)
def test_a_dry_run_knows_by_its_name_how_a_backbone_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], backbone: str, tuning: str
) -> None:
    asked = ["run", "--task", "atlas-qa", "--backbone", backbone, "--method", "none"]
    status, out, _ = call(capsys, *asked, "--out", str(tmp_path), "--dry-run", "--json")
    *cells, last = map(json.loads, out.splitlines())
    assert (status, [cell["spec"]["tuning"] for cell in cells]) == (0, [tuning])
    assert ("downstream models" in last["estimate"]["stages"]) == (tuning == "full")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _lead_out(path: Path) -> None:
    index = {"weight_map": {"x": "../elsewhere.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    (path / "model.safetensors").unlink()


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize(
    ("part", "damage", "said"),
    [
        ("kb", lambda path: _flip(path / "vectors.npy"), "does not have the content"),
        ("kb", lambda path: (path / "card.json").write_text("{"), "card.json"),
        ("kb", lambda path: (path / "vectors.npy").unlink(), "vectors.npy"),
        ("kb", lambda path: (path / "card.json").unlink(), "card.json"),
        ("bert", _lead_out, "no file of the folder"),
        ("bert", lambda path: (path / "config.json").write_text("{"), "config.json"),
        ("bert", lambda path: (path / "config.json").unlink(), "config.json"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    part: str,
    damage: Callable[[Path], object],
    said: str,
) -> None:
    folder = tmp_path / "toy"
    shutil.copytree(toy_folder, folder)
    damage(folder / part)
    asked = _toy(folder, "--out", str(tmp_path / "out"))
    status, _, refused = call(capsys, *asked)
    assert (status, said in refused) == (2, True), refused
    status, out, err = call(capsys, *asked, "--dry-run")
    assert (status, said in out + err, "not there yet" in out) == (2, True, False), out + err
    # What is gone altogether may yet come.
    shutil.rmtree(folder / part)
    status, out, _ = call(capsys, *asked, "--dry-run")
    assert (status, "not there yet" in out) == (0, True), out


@pytest.mark.usefixtures("toy_tasks")
def test_options_that_choose_nothing_are_an_error(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert call(capsys, *_toy(toy_folder, *out))[0] == 0
    for verb in (["table"], ["table", "--json"], ["score"], ["plot", "seeds", "x.svg"]):
        status, said, err = call(capsys, *verb, *out, "--task", "[", "--method", "none")
        assert (status, said) == (2, "")
        assert err.startswith("error: no stored result fits --task '[' --method 'none'; ")


@pytest.mark.usefixtures("toy_tasks")
def test_a_failed_run_gives_exit_status_one_and_its_reason(
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kbench_baselines.map_tuning import MapTuning

    def fit(*_: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(MapTuning, "fit", fit)
    status, out, err = call(capsys, *_toy(toy_folder, "--out", str(tmp_path / "out")))
    assert status == 1
    assert "FAILED" in err
    assert "no luck" in err
    assert "failed" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum"], "did you mean run?"),
        (["run", "--task", "atlas-qq", "--method", "none"], "did you mean atlas-qa"),
        (["run", "--task", "atlas-qa"], "--method is missing"),
        (["run", "--task", "atlas-qa", "--method", "none", "--seed", "x"], "seed"),
        (["run", "--task", "atlas-qa", "--method", "none", "--seed", "-1"], "seed.0 is '-1'"),
        (["run", "--task", "z*", "--method", "none"], "no task matches 'z*'"),
        (["run", "--task", "atlas-qa", "--method", "none", "--backbone", "no/such"], "no/such"),
        (
            ["run", "--task", "atlas-qa", "--method", "map-tuning", "--knowledge", "atlsa"],
            "did you mean atlas?",
        ),
        (
            ["run", "--task", "atlas-qa", "--method", "none", "--set", "tuning.full.epoch=1"],
            "did you mean epochs",
        ),
        (["run", "--task", "atlas-qa", "--method", "none", "--set", "epochs=1"], "KIND.PART.KEY"),
        (
            ["run", "--task", "atlas-qa", "--method", "ra", "--set", "method.ra.room=-5"],
            "method ra: room is -5; expected a whole number of at least 1",
        ),
        (["run", "no.yaml"], "no.yaml"),
        (["run", "--lmit", "3"], "--limit"),
        (["ls", "taks"], "did you mean tasks"),
        (["show", "atlas-qaa"], "did you mean atlas-qa"),
        (["table", "--out", "nowhere"], "no folder nowhere"),
        (["knowledge", "info", "nowhere"], "nowhere"),
    ],
)
def test_a_usage_error_is_one_line_with_status_two(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_an_option_can_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KBENCH_RUN_SEED", "7")
    monkeypatch.setenv("KBENCH_RUN_TASK", "atlas-qa")
    out = str(tmp_path / "out")
    status, out, _ = call(capsys, "run", "--method", "none", "--dry-run", "--out", out)
    assert status == 0
    assert "seed 7" in out


def test_the_demo_is_eighteen_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, _ = call(capsys, "run", "--dry-run", "--out", str(tmp_path / "out"))
    assert status == 0
    # Three models; two general plugs for all tasks, two task-specific ones for each.
    assert "18 runs: 0 stored, 18 to run; to train: 3 downstream models, 11 plugs" in out


def test_the_decoder_demo_trains_nothing_but_plugs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ("run", "--demo", "decoder", "--dry-run", "--out", str(tmp_path / "out"))
    status, out, _ = call(capsys, *arguments)
    assert status == 0
    assert "kbench-tiny-lm" in out
    # The empty plugs of ra among them: one for each control.
    assert "13 to run; to train: 0 downstream models, 8 plugs" in out
    status, out, _ = call(capsys, *arguments, "--task", "atlas-relations", "--seed", "0,1")
    assert status == 0
    assert "12 runs: 0 stored, 12 to run" in out


def test_the_first_demo_can_be_asked_for_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    plain = call(capsys, "run", "--dry-run", "--out", out)
    assert call(capsys, "run", "--demo", "encoder", "--dry-run", "--out", out) == plain
    assert call(capsys, "run", "--demo", "--dry-run", "--out", out) == plain


def test_a_demo_and_a_grid_exclude_each_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("task: atlas-qa\n")
    status, out, err = call(capsys, "run", str(grid), "--demo", "decoder")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "give one of them" in err


@pytest.mark.parametrize(
    "name",
    [
        "atlas-qa",
        "atlas",
        "map-tuning",
        "kbench-tiny",
        "kbench-tiny-lm",
        "full",
        "codex",
        "local",
        "leaderboard",
        "kbench",
    ],
)
def test_every_kind_of_part_can_be_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "show", name, "-n", "1")
    assert status == 0
    assert name in out


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_examples_of_each_split_can_be_shown(
    split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "show", "atlas-qa", "-n", "1", "--split", split)
    assert (status, err) == (0, "")
    assert f"qa-{split}-0" in out


def test_methods_are_listed_with_year_settings_and_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    status, out, _ = call(capsys, "ls", "methods")
    assert status == 0
    assert out.split("\n")[0].split() == ["name", "year", "settings", "needs", "from"]
    line = next(line for line in out.splitlines() if line.startswith("map-tuning "))
    for word in ("2023", "general, task-specific, fine-tuning", "entity vectors"):
        assert word in line
    status, out, _ = call(capsys, "ls", "methods", "--json")
    found = {value["name"]: value for value in map(json.loads, out.splitlines())}
    assert found["map-tuning"]["settings"] == ["general", "task-specific", "fine-tuning"]
    assert found["map-tuning"]["defaults"] == {
        "start": "general", "max_length": 64, "choose": None, "slots": 1
    }  # fmt: skip
    assert found["none"]["settings"] == []


def test_the_schema_is_that_of_results(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "schema")
    assert status == 0
    assert {"schema", "id", "status", "spec", "metrics"} <= set(json.loads(out)["properties"])


def test_the_doctor_finds_this_installation_well(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "doctor")
    assert status == 0, out
    assert "no problems" in out


@pytest.mark.parametrize(
    "asked",
    [
        ["run", "--task", "atlas-qa", "--method", "none", "--dry-run", "--tflops"],
        ["cache", "prune", "--days"],
    ],
)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_that_is_none_is_refused(
    capsys: pytest.CaptureFixture[str], asked: list[str], value: str
) -> None:
    status, out, err = call(capsys, *asked, value)
    assert (status, out) == (2, "")
    assert f"{asked[-1]}': '{value}' is not a finite number" in err


@pytest.mark.usefixtures("toy_tasks")
def test_the_cache_is_listed_verified_and_pruned(
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(capsys, *_toy(toy_folder, "--out", str(tmp_path / "out")))
    status, out, _ = call(capsys, "cache", "ls")
    assert status == 0
    assert "toy-relations" in out
    assert call(capsys, "cache", "verify")[:2] == (0, "2 good, 0 damaged\n")
    weights = next((tmp_path / "cache" / "artifacts" / "plug").glob("*/weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    status, out, err = call(capsys, "cache", "verify")
    assert status == 1
    assert "checksum" in err
    status, out, _ = call(capsys, "cache", "prune")
    assert "removed plug" in out
    assert call(capsys, "cache", "verify")[:2] == (0, "1 good, 0 damaged\n")
    call(capsys, "table", "--out", str(tmp_path / "out"))
    (tmp_path / "cache" / "digests").mkdir(exist_ok=True)
    before = {*(tmp_path / "cache").rglob("*")}
    status, out, _ = call(capsys, "cache", "prune", "--all", "--dry-run")
    assert (status, "would remove model" in out) == (0, True)
    assert {*(tmp_path / "cache").rglob("*")} == before
    assert call(capsys, "cache", "prune", "--all")[0] == 0
    assert [*(tmp_path / "cache").rglob("*")] == [tmp_path / "cache" / "artifacts"]


@pytest.mark.usefixtures("toy_tasks")
def test_hidden_states_are_listed_verified_and_pruned_too(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(
        capsys,
        *("run", "--task", "toy-relations", "--method", "none", "--tuning", "head"),
        *("--backbone", str(toy_folder / "bert"), "--out", str(tmp_path / "out")),
        *("--set", "tuning.head.epochs=1"),
    )
    _, out, _ = call(capsys, "cache", "ls", "--json")
    listed = [json.loads(line) for line in out.splitlines()]
    assert [item["kind"] for item in listed] == ["model", "hidden", "hidden"]
    assert listed[1]["of"] == "last hidden states"
    assert listed[1]["bytes"] > 32 * 4 * 96
    assert call(capsys, "cache", "verify")[:2] == (0, "3 good, 0 damaged\n")
    states = tmp_path / "cache" / "hidden" / listed[1]["address"] / "state-0.npy"
    states.write_bytes(states.read_bytes()[:-1])
    status, _, err = call(capsys, "cache", "verify")
    assert (status, "hidden states" in err, "checksum" in err) == (1, True, True)
    _, out, _ = call(capsys, "cache", "prune")
    assert f"removed hidden {listed[1]['address']}" in out
    assert call(capsys, "cache", "verify")[:2] == (0, "2 good, 0 damaged\n")


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_table_fits_the_terminal(
    width: int, toy_folder: Path, tmp_path: Path, made: Path
) -> None:
    place = Place(tmp_path / "out", made, "cpu")
    results = run(grid(toy_folder, control="none,shuffled"), place)
    console = Console(record=True, width=width, file=StringIO())
    print_table(rows(results, Results(place.out)), console)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for word in ("map-tuning", "task-specific", "shuffled", "288"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "seconds"), [(["--help"], 0.3), (["ls"], 0.3), (["ls", "tasks"], 0.3)]
)
def test_help_and_listings_are_quick(arguments: list[str], seconds: float) -> None:
    # Ratios to a bare interpreter, of processor time: a busy machine must not fail the test,
    # heavy imports must.
    command = [sys.executable, "-c", "import sys; from kbench.cli import main; main(sys.argv[1:])"]
    ours, bare = [], []
    for _ in range(5):
        bare.append(_seconds([sys.executable, "-c", "import rich.table, click"]))
        ours.append(_seconds([*command, *arguments]))
    assert min(ours) < max(seconds, 4 * statistics.median(bare))


def _seconds(command: list[str]) -> float:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(
    ("text", "start", "end", "blank", "shown"),
    [
        ("Ada was born in  .", 0, 3, 16, "[Ada](target: Q1) was born in [MASK] ."),
        (" is where Ada was born .", 10, 13, 0, "[MASK] is where [Ada](target: Q1) was born ."),
        ("Where is Ada? ", 9, 12, 14, "Where is [Ada](target: Q1)? [MASK]"),
        ("Where is Ada?", 9, 12, None, "Where is [Ada](target: Q1)?"),
    ],
)
def test_the_mask_is_shown_in_its_place(
    text: str, start: int, end: int, blank: int | None, shown: str
) -> None:
    mention = Mention(start, end, "Q1", Role.TARGET)
    lines = marked(Example("a", text, (mention,), "x", blank)).plain.splitlines()
    assert lines == ["a", f"  {shown}"]


def test_a_setting_that_no_run_has_a_use_for_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["run", "--task", "atlas-qa", "--method", "none", "--dry-run", "--out", str(tmp_path)]
    status, _, err = call(capsys, *words, "--set", "tuning.lora.rank=8")
    assert status == 0
    assert "changes nothing: no run has tuning lora; there is full" in err
    _, _, err = call(capsys, *words, "--set", "tuning.full.epochs=2")
    assert "changes nothing" not in err


def test_options_of_a_grid_file_that_no_run_has_a_use_for_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "task: [atlas-qa]\nmethod: [none, ra]\ntuning: [head]\n"
        "options: {method: {ra: {room: 64}, ra-vm: {room: 64}}, tuning: {full: {epochs: 2}}}\n"
    )
    words = ["run", str(grid), "--dry-run", "--out", str(tmp_path / "out")]
    status, _, err = call(capsys, *words)
    assert status == 0
    assert "options.method.ra-vm changes nothing: no run has method ra-vm; there is none, ra" in err
    assert "options.tuning.full changes nothing" in err
    assert err.count("changes nothing") == 2
    # What the command line leaves out of a file is meant to be left out.
    _, _, err = call(capsys, *words, "--method", "none", "--tuning", "head")
    assert "changes nothing" not in err
