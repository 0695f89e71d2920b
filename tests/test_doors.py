"""The public interface: our own packages keep to it, and the doors are what they say."""

from __future__ import annotations

import ast
from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from string import Template

import pytest

from scripts.api import PUBLIC, listed

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tasks/kbench_tasks", "baselines/kbench_baselines", "leaderboard/kbench_leaderboard")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TEMPLATES = sorted((ROOT / "kbench" / "cli" / "templates").rglob("*.py.txt"))
FACES = [door for door in PUBLIC if (ROOT.joinpath(*door.split(".")) / "__init__.py").is_file()]


def inner(source: str) -> list[str]:
    """What a source imports of the engine beside public names of public modules."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == "kbench"]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kbench":
            names = listed(str(node.module)) if node.module in PUBLIC else []
            found += [f"{node.module}.{a.name}" for a in node.names if a.name not in names]
    return found


def test_our_packages_and_templates_import_public_names_alone() -> None:
    assert len(MODULES) > 50
    assert len(TEMPLATES) > 1
    words = defaultdict(lambda: "Word")
    sources = {path: path.read_text(encoding="utf-8") for path in MODULES}
    for path in TEMPLATES:
        sources[path] = Template(path.read_text(encoding="utf-8")).substitute(words)
    found = {str(path.relative_to(ROOT)): inner(source) for path, source in sources.items()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from kbench.model import Encoder", []),
        ("from kbench.model import Encoder, compiling", ["kbench.model.compiling"]),
        ("from kbench.model.encoder import Encoder", ["kbench.model.encoder.Encoder"]),
        ("from kbench.parts import registry", ["kbench.parts.registry"]),
        ("def lazy():\n    from kbench.pipeline import stages", ["kbench.pipeline.stages"]),
        ("import kbench.grid.runner", ["kbench.grid.runner"]),
        ("import kbench_tasks.custom", []),
    ],
)
def test_an_import_of_an_inner_room_is_found(source: str, found: list[str]) -> None:
    assert inner(source) == found


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_has_the_names_it_lists(module: str) -> None:
    assert find_spec(module) is not None
    loaded = import_module(module)
    assert loaded.__all__ == listed(module)
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []
    assert len({*loaded.__all__}) == len(loaded.__all__)


@pytest.mark.parametrize("face", [face for face in FACES if face.count(".") == 1])
def test_a_face_imports_what_it_lists_and_does_nothing_else(face: str) -> None:
    text, *statements, last = ast.parse(
        ROOT.joinpath(*face.split("."), "__init__.py").read_text(encoding="utf-8")
    ).body
    assert isinstance(text, ast.Expr)
    assert isinstance(last, ast.Assign)
    imported = []
    for node in statements:
        assert isinstance(node, ast.ImportFrom), f"{face} does more than to hand names on"
        imported += [alias.asname or alias.name for alias in node.names]
    assert sorted(imported) == sorted(listed(face))
