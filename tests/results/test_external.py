"""Predictions made elsewhere: scored as a task scores its own, stored, and marked as external."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import kbench
from kbench.data import Split
from kbench.parts.find import find_task
from kbench.store import Results
from tests.calling import call
from tests.stored import predictions, store

pytestmark = pytest.mark.usefixtures("toy_tasks")


def written(path: Path, task: str, **changes: Any) -> Path:
    """A file of predictions that are right but for the first ten, and for what is changed by id."""
    lines = []
    for number, example in enumerate(find_task(task, None).examples(Split.TEST)):
        label = example.label
        if number < 10:
            label = "nothing" if isinstance(label, str) else ("nothing",)
        if task == "toy-qa":
            label = label if isinstance(label, str) else label[0]
        line = {"id": example.id, "prediction": label, **changes.get(f"n{number}", {})}
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def told(capsys: pytest.CaptureFixture[str], file: Path, task: str, *more: str) -> Any:
    words = ("score", "--external", str(file), "--task", task, "--name", "old-code", *more)
    status, out, err = call(capsys, *words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize("task", ["toy-relations", "toy-typing", "toy-qa"])
def test_they_are_scored_stored_and_scored_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    file = written(tmp_path / "made.jsonl", task, n11={"prediction": None}, n12={"score": 0.25})
    out = str(tmp_path / "results")
    result = told(capsys, file, task, "--out", out, "--backbone", "bert-large", "--seed", "3")
    n = len(find_task(task, None).examples(Split.TEST))
    right = (n - 11) / n
    main = result["metrics"][result["main_metric"]]
    if task == "toy-typing":
        assert result["metrics"]["strict"]["value"] == pytest.approx(right)
    else:
        assert main["value"] == pytest.approx(right)
    assert result["spec"]["method"] == "external:old-code"
    assert (result["spec"]["tuning"], result["spec"]["seed"]) == ("external", 3)
    assert (result["frozen"], result["cost"], result["coverage"]) == (None, {}, None)
    status, said, _ = call(capsys, "score", "--out", out)
    assert (status, said.splitlines()[-1].endswith("all as stored")) == (0, True)
    again = told(capsys, file, task, "--out", out, "--backbone", "bert-large", "--seed", "3")
    assert again["id"] == result["id"]
    found = kbench.load(out).predictions()
    assert found["score"].iloc[12] == pytest.approx(0.25)
    assert len(found) == n


def test_they_stand_beside_runs_and_are_compared_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = written(tmp_path / "made.jsonl", "toy-relations"), tmp_path / "results"
    told(capsys, file, "toy-relations", "--out", str(out))
    task = find_task("toy-relations", None)
    examples = task.examples(Split.TEST)
    labels = [example.label for example in examples]
    ours = ["nothing" if at < 30 else label for at, label in enumerate(labels)]
    found = predictions(labels, ours, [example.id for example in examples])
    store(out, found, method="none", digest=task.digest)
    runs = kbench.load(out)
    assert sorted(runs.table()["method"]) == ["external:old-code", "none"]
    one = runs.compare("external:old-code", "none").iloc[0]
    assert one["difference"] == pytest.approx(20 / len(examples))
    status, shown, _ = call(capsys, "table", "--out", str(out), "--format", "markdown")
    assert status == 0
    assert "toy-relations · external · external · accuracy" in shown
    assert "| external:old-code |" in shown


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        (
            "toy-relations",
            {"prediction": ["a"]},
            "line 3: prediction is \"['a']\"; expected one lab",
        ),
        ("toy-typing", {"prediction": "a"}, "line 3: prediction is 'a'; expected a list of labels"),
        ("toy-relations", {"id": "who"}, "line 3: id is 'who'; expected the id of a test example"),
        ("toy-relations", {"score": 2}, "line 3: score is 2; expected a number from 0 to 1"),
        ("toy-relations", {"more": 2}, "line 3: is another object; expected {"),
    ],
)
def test_a_bad_line_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    line: dict[str, Any],
    message: str,
) -> None:
    file = written(tmp_path / "made.jsonl", task, n2=line)
    words = ("--external", str(file), "--task", task, "--name", "old", "--out", str(tmp_path))
    status, _, err = call(capsys, "score", *words)
    assert status == 2
    assert message in err
    assert [*Results(tmp_path)] == []


def test_an_example_without_or_with_two_lines_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "made.jsonl", "toy-relations")
    lines = file.read_text(encoding="utf-8").splitlines()
    words = ("--external", str(file), "--task", "toy-relations", "--name", "old")
    file.write_text("\n".join(lines[1:]), encoding="utf-8")
    assert f"lacks 1 of {len(lines)} test examples" in call(capsys, "score", *words)[2]
    file.write_text("\n".join([*lines, lines[0]]), encoding="utf-8")
    assert "is there twice" in call(capsys, "score", *words)[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--external", "f", "--task", "toy-qa"), "needs --task, whose test split it is of, and"),
        (("--external", "f", "--task", "toy-qa", "--name", "a/b"), "--name 'a/b': expected up to"),
        (("--external", "f", "--method", "none"), "--method has no meaning with --external"),
        (("--name", "x"), "--name has no meaning with no --external"),
    ],
)
def test_words_that_do_not_belong_together(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    status, _, err = call(capsys, "score", *words)
    assert status == 2
    assert message in err


@pytest.mark.parametrize(
    ("more", "changes", "text"),
    [
        ((), {"n3": {"prediction": "\ud800"}}, "text that UTF-8 can write"),
        (("--backbone", "b" * 5000), {}, "expected up to 1000 letters"),
        (("--backbone", "bert\u200b"), {}, "each of them one that is seen"),
        (("--seed", "4294967296"), {}, "4294967296"),
    ],
)
def test_what_could_not_be_read_again_is_not_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: Any, changes: Any, text: str
) -> None:
    file = written(tmp_path / "made.jsonl", "toy-relations", **changes)
    words = ("score", "--external", str(file), "--task", "toy-relations", "--name", "old", *more)
    status, _, err = call(capsys, *words, "--out", str(tmp_path / "results"))
    assert (status, err.count("\n")) == (2, 1), err
    assert text in err
    assert not (tmp_path / "results").exists()
