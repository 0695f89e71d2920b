"""`kbench new`: what it writes, which runs as it stands, and what it refuses."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from kbench import __version__
from kbench.parts import catalogue
from kbench.parts.catalogue import Entry, Kind
from kbench.parts.source_text import declared, settings
from kbench.testing import registered
from tests.calling import call


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    return call(capsys, "new", *arguments)


def test_a_distribution_is_written_and_the_next_commands_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = _call(capsys, "method", "Warm-2-map", "--out", str(tmp_path / "new here"))
    folder = tmp_path / "new here" / "Warm-2-map"
    assert (status, err) == (0, "")
    assert f"pip install -e '{folder}'" in out
    assert "kbench check Warm-2-map" in out
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "pyproject.toml",
        "test_warm_2_map.py",
        "warm_2_map.py",
    ]
    assert list(folder.parent.iterdir()) == [folder]  # no scratch, no lock
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    target = project["project"]["entry-points"]["kbench.methods"]["Warm-2-map"]
    assert target == "warm_2_map:Warm2MapInjection"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    assert "$" not in text
    monkeypatch.syspath_prepend(folder)
    entry = Entry("Warm-2-map", target, "", Kind.METHODS)
    assert declared(entry)["title"] == "Warm-2-map"
    assert settings(entry) == ("task-specific",)


@pytest.mark.parametrize("name", ["injection", "plug", "setting", "tensor", "x", "kbench-map"])
def test_no_name_collides_with_what_the_module_imports(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(capsys, "method", name, "--out", str(tmp_path))[0] == 0
    module = name.replace("-", "_")
    tree = ast.parse((tmp_path / name / f"{module}.py").read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert len(classes) == 2
    assert not imported & classes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a b", "cannot be the name of a method"),
        ("2-maps", "cannot be the name of a method"),
        ("map--tuning", "cannot be the name of a method"),
        ("-map", "No such option"),
        ("../map", "cannot be the name of a method"),
        ("", "cannot be the name of a method"),
        ("map\n", "cannot be the name of a method"),
        ("map_tuning", "cannot be the name of a method"),
        ("Ünder", "cannot be the name of a method"),
        ("none", "is offered by knowledge-bench 0.1.0 already"),
        ("map-tuning", "is offered by knowledge-bench 0.1.0 already"),
        ("class", "which Python has already; give another name, such as class-injection"),
        ("json", "which Python has already"),
        ("kbench", "which Python has already"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_one_line(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = _call(capsys, "method", "--out", str(tmp_path), name)
    assert status == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_there_is_never_overwritten(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "warm-map"
    if kind == "folder":
        target.mkdir()
        (target / "mine.py").write_text("mine")
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    status, _, err = _call(capsys, "method", "warm-map", "--out", str(tmp_path))
    assert status == 2
    assert f"{target} exists already" in err
    assert list(tmp_path.iterdir()) == [target]
    if kind == "folder":
        assert [path.read_text() for path in target.iterdir()] == ["mine"]


def test_a_folder_that_comes_in_between_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "warm-map"
    exists = Path.exists

    def late(self: Path, **options: bool) -> bool:
        if self != target:
            return exists(self, **options)
        target.mkdir()
        (target / "mine.py").write_text("mine")
        return False

    monkeypatch.setattr(Path, "exists", late)
    status, _, err = _call(capsys, "method", "warm-map", "--out", str(tmp_path))
    assert status == 2
    assert "cannot be written" in err
    assert [path.name for path in target.iterdir()] == ["mine.py"]
    assert [path.name for path in tmp_path.iterdir()] == ["warm-map"]


def test_a_failed_write_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    status, _, err = _call(capsys, "method", "warm-map", "--out", str(tmp_path))
    assert status == 2
    assert "cannot be written (No space left on device)" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["backbone", "x"],
            "kbench new cannot make 'backbone'; known: importer, method, task, tuning",
        ),
        (["metod", "x"], "did you mean method?"),
        (["method"], "Missing argument 'NAME'"),
        (["method", "warm-map", "--out", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_a_command_that_cannot_be_understood_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = _call(capsys, *arguments)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("one", "files"),
    [
        ("task", ["dev.jsonl", "test.jsonl", "train.jsonl"]),
        ("tuning", []),
        ("importer", ["facts.txt"]),
    ],
)
def test_other_parts_pass_their_own_tests_as_they_are_written(
    one: str,
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"Warm-{one}"
    status, out, err = _call(capsys, one, name, "--out", str(tmp_path))
    assert (status, err) == (0, "")
    assert f"kbench check {name}" in out
    folder, module = tmp_path / name, f"warm_{one}"
    assert sorted(path.name for path in folder.glob("data/*")) == files
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if "$" in path.read_text(encoding="utf-8")]
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dependencies"] == [f"knowledge-bench[run]>={__version__}"]
    ((group, offered),) = project["entry-points"].items()
    assert offered == {name: f"{module}:Warm{one.capitalize()}{one.capitalize()}"}
    kind = Kind(group.removeprefix("kbench."))
    assert kind.one == one
    monkeypatch.syspath_prepend(folder)
    try:
        with registered(kind, **offered):
            own = vars(import_module(f"test_{module}"))
            tests = [test for key, test in own.items() if key.startswith("test_")]
            assert tests
            for test in tests:
                test(**({"tmp_path": tmp_path} if "tmp_path" in signature(test).parameters else {}))
    finally:
        sys.modules.pop(module, None)
        sys.modules.pop(f"test_{module}", None)


def test_the_catalogue_is_unchanged_by_all_this() -> None:
    assert "warm-map" not in {entry.name for entry in catalogue.entries(Kind.METHODS)}
