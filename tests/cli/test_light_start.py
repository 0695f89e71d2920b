"""What is not computed with is not imported: who only looks waits for no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.stored import predictions, store

MODELS = {"torch", "transformers", "datasets", "evaluate", "peft", "pykeen", "scipy.stats"}
"""What takes seconds to import."""
SLOW = MODELS | {"numpy", "pydantic", "pyarrow", "pandas", "scipy"}
_CALL = """
import sys
from kbench.cli import main
try:
    main(sys.argv[1:])
except SystemExit as left:
    assert not left.code, left.code
print(*sys.modules)
"""


def loaded(program: str, *arguments: str) -> set[str]:
    """The modules that a process of its own has at its end; it prints them last."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {*done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("ls",), ("ls", "--json"), ("ls", "methods")],
)
def test_help_and_listings_load_nothing_slow(arguments: tuple[str, ...]) -> None:
    modules = loaded(_CALL, *arguments)
    assert "kbench.cli" in modules
    assert modules & (SLOW | {"kbench_tasks", "kbench_baselines"}) == set()


@pytest.mark.parametrize("verb", ["run", "knowledge", "cache", "export"])
def test_the_help_of_a_verb_loads_no_torch(verb: str) -> None:
    assert loaded(_CALL, verb, "--help") & MODELS == set()


@pytest.mark.parametrize(
    "verb",
    [
        ("table", "--out"),
        ("compare", "--all", "--out"),
        ("diff", "map-tuning", "--out"),
        ("score", "--out"),
        ("plot", "seeds", "seeds.svg", "--out"),
        ("export", "eee", "shared", "--out"),
        ("cite", "--out"),
        ("leaderboard", "build", "--out", "site", "--results"),
        ("leaderboard", "merge", "--out", "all"),
    ],
)
def test_results_are_read_without_what_runs_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    gold, ids = ["a", "b", "c"], ["x", "y", "z"]
    for method in ("none", "map-tuning"):
        found = predictions(gold, ["a", "b", method], ids)
        store(tmp_path / "results", found, task="atlas-relations", method=method)
    modules = loaded(_CALL, *verb, str(tmp_path / "results"))
    assert "kbench.store" in modules
    assert modules & MODELS == set()


def test_the_interface_loads_nothing_before_it_is_asked() -> None:
    modules = loaded("import sys, kbench\nkbench.__version__, dir(kbench)\nprint(*sys.modules)")
    assert {name for name in modules if name.startswith("kbench")} == {"kbench"}
    assert modules & {*SLOW, "typing", "click"} == set()


def test_results_are_read_in_a_program_without_what_runs_models(tmp_path: Path) -> None:
    found = predictions(["a", "b"], ["a", "c"], ["x", "y"])
    for method in ("none", "map-tuning"):
        store(tmp_path, found, task="atlas-relations", method=method)
    reads = "runs.runs, runs.table(), runs.scores(), runs.predictions(), runs.compare('map-tuning')"
    program = f"import sys, kbench\nruns = kbench.load(sys.argv[1])\n{reads}\nprint(*sys.modules)"
    modules = loaded(program, str(tmp_path))
    assert "kbench.interface.reading" in modules
    assert modules & MODELS == set()


_LIGHT = ("errors", "data", "data.sources", "data.records", "data.files", "cli.messages")
_LIGHT += ("parts.registry", "parts.source_text")
_WITHOUT_MODELS = ("spec", "task", "knowledge", "knowledge.importing", "metrics", "store")
_WITHOUT_MODELS += ("metrics.evaluate", "parts.find", "grid.plan", "grid.executor")


@pytest.mark.parametrize(
    ("rooms", "without"),
    [
        (_LIGHT, SLOW),
        (_WITHOUT_MODELS, MODELS),
        (("method", "model", "model.heads", "training"), MODELS - {"torch"}),
    ],
)
def test_doors_load_no_more_than_they_need(rooms: tuple[str, ...], without: set[str]) -> None:
    names = {f"kbench.{room}" for room in rooms}
    modules = loaded(f"import sys, {', '.join(sorted(names))}\nprint(*sys.modules)")
    assert names <= modules
    assert modules & without == set()
