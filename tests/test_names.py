"""The engine names no task and no method: whoever adds one touches no file of it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import kbench
from kbench.parts.catalogue import Kind, entries

ENGINE = Path(kbench.__path__[0])
YARDSTICK = "none"
"""The method that injects nothing. As a word it is too common to be looked for inside of text."""

EXAMPLES = {
    # Messages that say by an example what to type.
    "cli/new.py": {"map-tuning"},
    "cli/results.py": {"atlas-qa", "map-tuning"},
    "grid/grids.py": {"atlas-qa", "map-tuning"},
    "results/pairing.py": {"map-tuning"},
    # A metric that has the name of the data that it was published with.
    "metrics/spoken.py": {"popqa"},
}
NONE = {
    # The yardstick: what results are compared with where nothing else is named.
    "cli/diff.py",
    "interface/reading.py",
    "results/pairing.py",
    # No knowledge in a figure or base, spelled; the control that breaks nothing; no options.
    "figures/drawing.py",
    "figures/points.py",
    "results/choice.py",
    "results/identity.py",
    "results/tables.py",
    "spec.py",
    "testing/contracts_importers.py",
}


def test_the_engine_names_no_task_and_no_method() -> None:
    installed = [*entries(Kind.TASKS), *entries(Kind.METHODS)]
    names = {e.name for e in installed if e.distribution.startswith("knowledge-bench")}
    assert {"atlas-qa", "fewrel", "map-tuning", YARDSTICK} <= names
    words = "|".join(re.escape(name) for name in names - {YARDSTICK})
    named = re.compile(rf"(?<![\w-])({words})(?![\w-])")
    found: dict[str, set[str]] = defaultdict(set)
    bare = set()
    for path in ENGINE.rglob("*.py"):
        place = path.relative_to(ENGINE).as_posix()
        for text in _texts(path):
            if text == YARDSTICK:
                bare.add(place)
            if said := named.findall(text):
                found[place].update(said)
    assert found == EXAMPLES, "let the task or method say what the engine is to know of it"
    assert bare == NONE, "let the task or method say what the engine is to know of it"


def _texts(path: Path) -> Iterator[str]:
    """Yields the texts of a module's code: no docstrings, no comments."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    told = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value
