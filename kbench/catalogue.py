"""What is installed: the parts that distributions offer through entry points, unimported.

Built-in parts come through the same groups as a third party's. A listing reads the metadata of
the distributions and, for the one-line summaries, the *text* of the modules; it runs nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = [
    "Entry",
    "Kind",
    "constant",
    "declared",
    "defaults",
    "entries",
    "override",
    "settings",
    "summary",
]

_SETTINGS = ("GENERAL", "TASK_SPECIFIC", "FINE_TUNING")


class Kind(StrEnum):
    """The kinds of part, each an entry-point group ``kbench.<kind>``."""

    TASKS = "tasks"
    METHODS = "methods"
    BACKBONES = "backbones"
    TUNINGS = "tunings"
    KNOWLEDGE = "knowledge"
    IMPORTERS = "importers"

    @property
    def one(self) -> str:
        """What one part of the kind is called."""
        return "knowledge base" if self == Kind.KNOWLEDGE else self.removesuffix("s")


@dataclass(frozen=True, order=True)
class Entry:
    """An installed part.

    Attributes:
        name: what the user types.
        target: ``module:Class``.
        distribution: name and version of the distribution that offers it.
        kind: what it is.
    """

    name: str
    target: str
    distribution: str
    kind: Kind


_found: dict[Kind, tuple[Entry, ...]] = {}


def entries(kind: Kind) -> tuple[Entry, ...]:
    """Returns the installed parts of a kind, by name; one name may occur more than once."""
    if kind not in _found:
        # Of all kinds together: to read what is installed costs more than to sort it.
        for other, parts in _installed().items():
            _found.setdefault(other, parts)
    return _found[kind]


def override(kind: Kind, parts: tuple[Entry, ...]) -> None:
    """Replaces what is taken for installed, until replaced again (see :mod:`kbench.testing`)."""
    _found[kind] = parts


def _installed() -> dict[Kind, tuple[Entry, ...]]:
    every = entry_points()
    return {kind: tuple(sorted(_offered(every, kind))) for kind in Kind}


def _offered(every: Any, kind: Kind) -> set[Entry]:
    return {
        Entry(
            name=point.name,
            target=point.value,
            distribution=f"{point.dist.name} {point.dist.version}" if point.dist else "unknown",
            kind=kind,
        )
        for point in every.select(group=f"kbench.{kind}")
    }


def summary(entry: Entry) -> str:
    """Returns the first line of the class's docstring, read from the source; empty if unknown."""
    definition = next(_definitions(entry.target), None)
    text = ast.get_docstring(definition) if definition else None
    return text.splitlines()[0] if text else ""


def declared(entry: Entry) -> dict[str, Any]:
    """Returns the literal fields of the class's ``card``, read from the source.

    A card built by a call with literal keywords is found, in a base class too; anything computed
    is left out.
    """
    call = _assigned(entry, "card")
    return dict(_literals(call)) if isinstance(call, ast.Call) else {}


def settings(entry: Entry) -> tuple[str, ...]:
    """Returns the settings a method declares, read from the source; empty if it has none.

    ``frozenset(Setting)`` is all of them; else the members named in the assignment.
    """
    value = _assigned(entry, "settings")
    return tuple(_members(value)) if value else ()


def defaults(entry: Entry) -> dict[str, Any]:
    """Returns the options of a part with their defaults, read from the source if literal there."""
    value = _assigned(entry, "defaults")
    try:
        found = ast.literal_eval(value) if value else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def constant(entry: Entry, name: str) -> str | int | bool | None:
    """Returns what the class gives to a name, read from the source; None if not a plain value."""
    value = _assigned(entry, name)
    found = value.value if isinstance(value, ast.Constant) else None
    return found if isinstance(found, str | int | bool) else None


def _members(value: ast.expr) -> list[str]:
    """Names of ``Setting``: those spelled out in a value, or all where it is called upon whole."""
    inside = list(ast.walk(value))
    named = [n.attr for n in inside if isinstance(n, ast.Attribute) and _is_setting(n.value)]
    whole = any(isinstance(n, ast.Call) and any(map(_is_setting, n.args)) for n in inside)
    chosen = _SETTINGS if whole else [name for name in _SETTINGS if name in named]
    return [name.lower().replace("_", "-") for name in chosen]


def _is_setting(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "Setting"


def _assigns(statement: ast.Assign | ast.AnnAssign, name: str) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _literals(call: ast.Call) -> list[tuple[str, Any]]:
    found = []
    for keyword in call.keywords:
        try:
            found.append((keyword.arg or "", ast.literal_eval(keyword.value)))
        except ValueError:
            continue
    return found


def _assigned(entry: Entry, name: str) -> ast.expr | None:
    """The value that a class, or the nearest base class that has one, gives to a name."""
    for definition in _definitions(entry.target):
        for statement in definition.body:
            if isinstance(statement, ast.Assign | ast.AnnAssign) and _assigns(statement, name):
                value: ast.expr | None = statement.value
                if value is not None:
                    return value
    return None


def _definitions(target: str) -> Iterator[ast.ClassDef]:
    """Yields a class and its base classes, nearest first, as far as sources show them."""
    ahead: list[str] = [target]
    seen: set[str] = set()
    while ahead:
        target = ahead.pop(0)
        module, _, name = target.partition(":")
        tree = _parsed(module)
        if tree is None or target in seen:
            continue
        seen.add(target)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                yield node
                own = [base.id for base in node.bases if isinstance(base, ast.Name)]
                ahead += [f"{module}:{base}" for base in own]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                ahead += [
                    f"{node.module}:{n.name}" for n in node.names if (n.asname or n.name) == name
                ]


def _parsed(module: str) -> ast.Module | None:
    source = _source(module)
    try:
        return _parse(source) if source else None
    except (OSError, SyntaxError, ValueError):
        return None


@cache
def _parse(path: Path) -> ast.Module:
    text = path.read_text(encoding="utf-8")
    try:
        return ast.parse(_outline(text))
    except SyntaxError:  # laid out in some other way: all of it, then
        return ast.parse(text)


def _outline(text: str) -> str:
    """Returns a module's imports and classes without their methods, a fraction of the whole.

    A listing asks for docstrings and class attributes alone, and parsing is most of its time.
    """
    kept: list[str] = []
    outer = inner = False
    for line in text.splitlines():
        if line[:1].strip() and line[0] not in "#)]}":
            outer = line.startswith(("class ", "from ", "import "))
            inner = outer
        elif line.startswith("    ") and line[4:5].strip() and line[4] not in "#)]}":
            inner = not line.startswith(("    def ", "    async def ", "    @"))
        if outer and inner:
            kept.append(line)
    return "\n".join(kept)


def _source(module: str) -> Path | None:
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)  # finds a top-level module without running it
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest and spec.origin and not spec.submodule_search_locations:
        return Path(spec.origin)
    for location in spec.submodule_search_locations or ():
        base = Path(location).joinpath(*rest)
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
