"""docs/api.md: every public name of the engine with its one line, read from the sources.

python -m scripts.api
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["PAGE", "PUBLIC", "listed", "page"]

_ROOT = Path(__file__).resolve().parents[1]
PAGE = _ROOT / "docs" / "api.md"

_PURPOSES = {
    "a program or notebook ([python.md](python.md))": ("kbench",),
    "a method": (
        "kbench.method",
        "kbench.corpus",
        "kbench.knowledge",
        "kbench.model",
        "kbench.encoding",
        "kbench.training",
        "kbench.spec",
        "kbench.task",
        "kbench.store",
    ),
    "a task": (
        "kbench.task",
        "kbench.data",
        "kbench.data.sources",
        "kbench.data.records",
        "kbench.data.files",
        "kbench.metrics",
        "kbench.model.heads",
    ),
    "a knowledge base or an importer": ("kbench.knowledge", "kbench.knowledge.importing"),
    "a backbone or a tuning": ("kbench.model", "kbench.training"),
    "an executor": ("kbench.grid.executor", "kbench.grid.plan", "kbench.store"),
    "a tracker": ("kbench.grid.tracker", "kbench.grid.plan", "kbench.store"),
    "a page of results": (
        "kbench.store",
        "kbench.data.plain_text",
        "kbench.results.identity",
        "kbench.results.selection",
        "kbench.results.tables",
        "kbench.results.comparison",
        "kbench.results.choice",
        "kbench.results.ranking",
        "kbench.results.example_diff",
        "kbench.results.rescoring",
        "kbench.results.remaking",
        "kbench.results.rereading",
        "kbench.pipeline.revision",
        "kbench.results.published",
        "kbench.results.notes",
        "kbench.parts.registry",
        "kbench.parts.find",
        "kbench.parts.source_text",
        "kbench.metrics",
        "kbench.grid.asked",
    ),
    "what works in processes of its own": ("kbench.grid.pool",),
    "scores outside kbench": ("kbench.metrics.evaluate",),
    "a verb of the command": ("kbench.cli.messages",),
    "any of them, and its test": ("kbench.errors", "kbench.testing"),
}
"""What to import from, for what. All that is named here is public, and nothing else."""

PUBLIC = sorted({module for several in _PURPOSES.values() for module in several})
"""The interface, ``kbench``, the doors, ``kbench.X``, and rooms behind doors, ``kbench.X.Y``."""

_HEAD = """<!-- Made by `python -m scripts.api` from the sources: change it there. -->

# The public interface

Public is what this page lists: what `kbench` itself has, the names in the `__all__` of {doors}
*doors* (`kbench.X`) and of {rooms} *rooms* behind doors (`kbench.X.Y`). Import a name from where it
is listed. All else, modules and names alike, may move or change without notice. kbench's own tasks,
methods and leaderboard keep to this page, and a test sees to it.

"""
_SENTENCE = re.compile(r".+?[.?!](?=\s+[^a-z\s]|$)", re.DOTALL)
_ROLE = re.compile(r":\w+:`~?([^`]+)`")


def page() -> str:
    """Returns the page.

    Raises:
        ValueError: a public name is not defined, or nothing says what it is.
    """
    doors, rooms = (sum(module.count(".") == n for module in PUBLIC) for n in (1, 2))
    wanted = (
        (what, ", ".join(f"[`{module}`](#{module.replace('.', '')})" for module in modules))
        for what, modules in _PURPOSES.items()
    )
    parts = [
        _HEAD.format(doors=doors, rooms=rooms),
        _table("to write", "import from", wanted),
    ]
    for module in PUBLIC:
        names = ((f"`{name}`", _line(module, name)) for name in listed(module))
        about = _first(ast.get_docstring(_tree(module)))
        parts.append(f"\n## {module}\n\n{about}\n\n{_table('name', 'what it is', names)}")
    return "".join(parts)


def listed(module: str) -> list[str]:
    """Returns the ``__all__`` of a module of the engine."""
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and "__all__" in _targets(node):
            return [*ast.literal_eval(node.value)]
    raise ValueError(f"{module} has no __all__")


@cache
def _tree(module: str) -> ast.Module:
    path = _ROOT.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text(encoding="utf-8"))


def _line(module: str, name: str) -> str:
    """The first sentence on a name, wherever it is defined."""
    body = _statements(_tree(module))
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _line(node.module, alias.name)
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return _first(ast.get_docstring(node), f"{module}.{name}")
        if name in _targets(node):
            return _first(_text(after), f"{module}.{name}")
    raise ValueError(f"{module} does not define {name}")


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """The statements of a module, with those that only a reader of types runs."""
    found: list[ast.stmt] = []
    for node in tree.body:
        found += node.body if isinstance(node, ast.If) else [node]
    return found


def _targets(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _text(node: ast.stmt | None) -> str | None:
    """The text of a statement that is nothing but text: what says what a constant is."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return node.value.value if isinstance(node.value.value, str) else None
    return None


def _first(text: str | None, what: str = "a module") -> str:
    """The first sentence of a docstring, as Markdown in one line."""
    found = _SENTENCE.match((text or "").partition("\n\n")[0])
    if found is None:
        raise ValueError(f"{what} has no docstring that begins with a sentence")
    sentence = _ROLE.sub(lambda role: f"`{role[1].rpartition('.')[2]}`", found[0])
    return " ".join(sentence.split()).replace("``", "`").replace("|", r"\|")


def _table(left: str, right: str, rows: Iterator[tuple[str, str]]) -> str:
    lines = [f"| {left} | {right} |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
