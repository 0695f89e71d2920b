"""What somebody meets who is new to kbench, comes from another tool, or sees no terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kbench.cli.telling import QUIET, USUAL, Beginnings, Teller
from kbench.parts.catalogue import Kind
from kbench.spec import RunSpec, limit_of
from kbench.testing import registered
from tests.calling import call
from tests.cli.test_commands import _toy


@pytest.mark.parametrize("group", [[], ["knowledge"], ["cache"], ["leaderboard"]])
def test_a_group_without_a_command_shows_its_help(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, *group)
    assert status == 0
    assert out.startswith(f"Usage: {' '.join(['kbench', *group])} [OPTIONS] COMMAND")
    assert "Commands:" in out
    assert err == ""


def test_the_help_names_what_is_read_from_the_environment_and_how_a_call_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out, _ = call(capsys, "-h")
    for name in ("KBENCH_OUT", "KBENCH_CACHE", "KBENCH_HIDDEN_BYTES", "NO_COLOR", "Exit status"):
        assert name in out


def test_python_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kbench", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"kbench, version \S+\n", done.stdout)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model", "it is `--backbone` here"),
        ("--log_samples", "predictions are always stored"),
        ("--output-path", "it is `--out` here"),
        ("--batch_size", "--evaluation-batch"),
        ("--trust_remote_code", "is never run here"),
        ("--resume", "goes on from what is stored"),
    ],
)
def test_options_of_other_tools_are_pointed_out(
    option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capsys, "run", option, "x")
    assert status == 2
    assert err.startswith(f"error: there is no option {option}: ")
    assert said in err
    assert err.count("\n") == 1


def test_an_option_of_nobody_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "run", "--sed", "1")
    assert status == 2
    assert "--seed" in err


@pytest.mark.usefixtures("toy_tasks")
def test_a_grid_may_be_given_by_an_option(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "grid.yaml"
    backbone = str(toy_folder / "bert")
    path.write_text(yaml.safe_dump({"task": ["toy-qa"], "method": ["none"], "backbone": backbone}))
    plan = ["run", "--dry-run", "--json", "--out", str(tmp_path)]
    for words in ([str(path)], ["--config", str(path)], ["-C", str(path)]):
        status, out, _ = call(capsys, *plan, *words)
        assert status == 0
        assert '"toy-qa"' in out
    status, _, err = call(capsys, *plan, str(path), "-C", str(path))
    assert status == 2
    assert "give one grid" in err
    status, short, _ = call(capsys, *plan, "-t", "toy-qa", "-m", "none", "--backbone", backbone)
    assert (status, short) == (0, out)


@pytest.mark.parametrize(
    ("limit", "examples", "taken"),
    [(None, 7, 7), (5, 7, 5), (9, 7, 7), (0.1, 100, 10), (0.1, 3, 1), (0.999, 10, 10), (0.5, 0, 0)],
)
def test_a_limit_is_a_number_or_a_share(limit: float | None, examples: int, taken: int) -> None:
    assert limit_of(limit, examples) == taken


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "0.0", "many", "1e3", "nan"])
def test_a_limit_that_is_neither_is_refused(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "run", "--limit", limit, "--dry-run")
    assert status == 2
    assert "such as 100, or which share of them, such as 0.1" in err


def test_a_share_is_stored_as_it_was_given() -> None:
    fields = {"task": "t", "backbone": "b", "tuning": "full", "method": "none", "seed": 0,
              "setting": "general", "knowledge": None, "control": "none"}  # fmt: skip
    for limit in (3, 0.25, None):
        spec = RunSpec.model_validate({**fields, "limit": limit})
        again = RunSpec.model_validate_json(spec.model_dump_json())
        assert again == spec
        assert type(again.limit) is type(limit)
    for wrong in (0, 1.0, True, "3"):
        with pytest.raises(ValueError, match="limit"):
            RunSpec.model_validate({**fields, "limit": wrong})


def test_one_variable_names_the_folder_of_results_for_all_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KBENCH_OUT", str(tmp_path / "all"))
    for verb in ("table", "compare", "diff", "results", "score"):
        words = ["a", "b"] if verb in ("compare", "diff") else []
        words = ["ls"] if verb == "results" else words
        status, _, err = call(capsys, verb, *words)
        assert status == 2
        assert str(tmp_path / "all") in err
    monkeypatch.setenv("KBENCH_TABLE_OUT", str(tmp_path / "own"))
    _, _, err = call(capsys, "table")
    assert str(tmp_path / "own") in err


@pytest.mark.usefixtures("toy_tasks")
def test_without_a_terminal_each_stage_is_told_and_the_log_has_all(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "kbench.log"
    words = _toy(toy_folder, "--out", str(tmp_path / "out"), "--log-file", str(log))
    status, _, err = call(capsys, *words)
    assert status == 0
    assert re.search(r"^\d\d:\d\d:\d\d tune toy-relations, \d+ steps$", err, re.MULTILINE)
    assert re.search(r"fit map-tuning on toy-relations \(none\), \d+ steps$", err, re.MULTILINE)
    told = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in err.splitlines() if line]
    logged = log.read_text("utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ", line) for line in logged)
    assert [line.split(" ", 1)[1].rstrip() for line in logged] == [line.rstrip() for line in told]
    # A second call adds to it, and says in quiet mode nothing but what went wrong.
    status, out, err = call(capsys, *words, "--quiet")
    assert (status, err) == (0, "")
    assert "toy-relations" in out
    assert len(log.read_text("utf-8").splitlines()) > len(logged)
    status, _, err = call(capsys, *words, "-q", "-v")
    assert status == 2
    assert "give one of them" in err


@pytest.mark.usefixtures("toy_tasks")
def test_a_run_that_fails_says_where_and_debug_prints_the_trace(
    toy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = _toy(toy_folder, "--out", str(out))
    words[words.index("--method") + 1] = "misshapen"
    words = [word.replace("method.map-tuning", "method.misshapen") for word in words]
    with registered(Kind.METHODS, misshapen="tests.grid.test_failures:Misshapen"):
        status, _, err = call(capsys, *words)
        assert status == 1
        assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in err
        assert "test_failures.py, line" in err
        found = re.search(r"where it failed: (\S+) \(--debug prints it\)", err)
        assert found
        assert "Traceback" in Path(found[1]).read_text("utf-8")
        assert "Traceback" not in err
        status, _, err = call(capsys, *words, "--debug")
    assert status == 1
    assert "return torch.nn.Linear(3, 4)" in err
    assert "where it failed" not in err


def test_a_log_that_cannot_be_written_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nowhere" / "kbench.log"
    status, _, err = call(capsys, "run", "-t", "atlas-qa", "-m", "none", "--log-file", str(path))
    assert status == 2
    assert err == f"error: --log-file {path}: cannot be written (No such file or directory)\n"


def test_a_log_that_is_lost_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    teller = Teller(QUIET, folder / "kbench.log")
    (folder / "kbench.log").unlink()
    folder.rmdir()
    teller.say("one", level=USUAL)
    teller.say("two", level=QUIET)
    err = capsys.readouterr().err.replace("\n", " ")
    assert "is written no more (No such file or directory)" in err
    assert err.rstrip().endswith("two")


def test_stages_that_go_on_at_once_are_told_once_each() -> None:
    told: list[str] = []
    beginnings = Beginnings(lambda stage, _: told.append(stage))
    # Process 0 is at a, then at b, then at a again, 1 all the time at a: seeds of one method, say.
    for process, stage, done in [
        (0, "a", 1), (1, "a", 1), (0, "a", 2), (1, "a", 2), (0, "b", 2), (1, "a", 3), (0, "a", 1),
        (0, "a", 2), (1, "a", 1),
    ]:  # fmt: skip
        beginnings.see(process, stage, done, 3)
    assert told == ["a", "a", "b", "a", "a"]
