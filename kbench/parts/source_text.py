"""What the text of a part's module says of it: read, never run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kbench.parts.catalogue import Entry, Kind

if TYPE_CHECKING:
    from kbench.spec import OptionType

__all__ = [
    "constant",
    "declared",
    "defaults",
    "option_types",
    "recipe_types",
    "settings",
    "summary",
]

_Definition: TypeAlias = ast.ClassDef | ast.FunctionDef

_SETTINGS = ("GENERAL", "TASK_SPECIFIC", "FINE_TUNING")


def summary(entry: Entry) -> str:
    """Returns the first line of the part's docstring, read from the source; empty if unknown.

    Names in it stand without the marks of a docstring.
    """
    documented: ast.Module | _Definition | None
    if entry.kind in (Kind.PUBLISHED, Kind.DOWNLOADS):
        documented = _parsed(entry.target, whole=True)
    else:
        found = next(_definitions(entry.target, whole=entry.kind == Kind.VERBS), None)
        documented = found and found[1]
    text = ast.get_docstring(documented) if documented else None
    return text.splitlines()[0].replace("``", "") if text else ""


def declared(entry: Entry) -> dict[str, Any]:
    """Returns the literal fields of the class's ``card``, read from the source.

    A card built by a call with literal keywords is found, in a base class too; anything computed
    is left out.
    """
    call = _assigned(entry.target, "card")
    return dict(_literals(call)) if isinstance(call, ast.Call) else {}


def settings(entry: Entry) -> tuple[str, ...]:
    """Returns the settings a method declares, read from the source; empty if it has none.

    ``frozenset(Setting)`` is all of them; else the members named in the assignment.
    """
    value = _assigned(entry.target, "settings")
    return tuple(_members(value)) if value else ()


def defaults(entry: Entry) -> dict[str, Any]:
    """Returns the options of a part with their defaults, read from the source if literal there."""
    try:
        return {
            name: ast.literal_eval(value)
            for name, value in _items(entry.target, "defaults").items()
        }
    except ValueError:
        return {}


def option_types(entry: Entry) -> dict[str, str]:
    """Returns what each option of a part may be, in words, as far as its source says it."""
    from kbench.spec import OptionType  # takes time to import, which a listing has not

    kinds = {name: OptionType.of(default) for name, default in defaults(entry).items()}
    return _expected({**kinds, **_types(entry.target, "option_types")})


def recipe_types() -> dict[str, str]:
    """Returns what each option of a training's recipe may be, in words."""
    return _expected(_types("kbench.training.recipe:Recipe", "types"))


def _expected(kinds: Mapping[str, OptionType | None]) -> dict[str, str]:
    return {name: kind.expected for name, kind in kinds.items() if kind is not None}


def _types(target: str, name: str) -> dict[str, OptionType]:
    """The types that a class declares under a name, as far as they are literal there."""
    from kbench.spec import OptionType  # takes time to import, which a listing has not

    kinds = {}
    for key, call in _items(target, name).items():
        if isinstance(call, ast.Call):
            with suppress(ValueError, TypeError):  # computed, or no call of this type
                given = [ast.literal_eval(argument) for argument in call.args]
                kinds[key] = OptionType(*given, **dict(_literals(call)))
    return kinds


def _items(target: str, name: str, seen: frozenset[str] = frozenset()) -> dict[str, ast.expr]:
    """The items of a literal mapping that a class gives to a name.

    Those that it takes over from another class, ``{**Other.defaults, …}``, are among them.
    """
    module, value = _assigned_in(target, name)
    items: dict[str, ast.expr] = {}
    if isinstance(value, ast.Attribute):
        value = ast.Dict([None], [value])
    if not isinstance(value, ast.Dict) or target in seen:
        return items
    for key, item in zip(value.keys, value.values, strict=True):
        if isinstance(key, ast.Constant):
            items[str(key.value)] = item
        elif isinstance(item, ast.Attribute) and isinstance(item.value, ast.Name):
            items |= _items(f"{module}:{item.value.id}", item.attr, seen | {target})
    return items


def constant(entry: Entry, name: str) -> str | int | bool | None:
    """Returns what the class gives to a name, read from the source; None if not a plain value."""
    value = _assigned(entry.target, name)
    plain = value.value if isinstance(value, ast.Constant) else None
    return plain if isinstance(plain, str | int | bool) else None


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
    literals = []
    for keyword in call.keywords:
        try:
            literals.append((keyword.arg or "", ast.literal_eval(keyword.value)))
        except ValueError:
            continue
    return literals


def _assigned(target: str, name: str) -> ast.expr | None:
    """The value that a class, or the nearest base class that has one, gives to a name."""
    return _assigned_in(target, name)[1]


def _assigned_in(target: str, name: str) -> tuple[str, ast.expr | None]:
    """The same after the module that it stands in."""
    for module, definition in _definitions(target):
        for statement in definition.body:
            if isinstance(statement, ast.Assign | ast.AnnAssign) and _assigns(statement, name):
                value: ast.expr | None = statement.value
                if value is not None:
                    return module, value
    return "", None


def _definitions(target: str, whole: bool = False) -> Iterator[tuple[str, _Definition]]:
    """Yields a class and its base classes with their modules, nearest first.

    With ``whole``, what is looked for may be a function too.
    """
    ahead: list[str] = [target]
    seen: set[str] = set()
    while ahead:
        target = ahead.pop(0)
        module, _, name = target.partition(":")
        tree = _parsed(module, whole)
        if tree is None or target in seen:
            continue
        seen.add(target)
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                yield module, node
                bases = node.bases if isinstance(node, ast.ClassDef) else []
                own = [base.id for base in bases if isinstance(base, ast.Name)]
                ahead += [f"{module}:{base}" for base in own]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                ahead += [
                    f"{node.module}:{n.name}" for n in node.names if (n.asname or n.name) == name
                ]


def _parsed(module: str, whole: bool = False) -> ast.Module | None:
    source = _source(module)
    try:
        return _parse(source, whole) if source else None
    except (OSError, SyntaxError, ValueError):
        return None


@cache
def _parse(path: Path, whole: bool) -> ast.Module:
    text = path.read_text(encoding="utf-8")
    try:
        return ast.parse(text if whole else _outline(text))
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
    return _found(module, tuple(sys.path))


@cache
def _found(module: str, path: tuple[str, ...]) -> Path | None:
    """The source of a module where modules are looked for on a path."""
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
