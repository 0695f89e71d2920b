"""Options that several verbs share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sized
from fnmatch import fnmatchcase
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import click
from click.shell_completion import CompletionItem

from kbench.data.files import is_folder
from kbench.errors import UsageError

__all__ = [
    "Duration",
    "Limit",
    "Named",
    "Number",
    "Size",
    "chosen",
    "examples",
    "filters",
    "opened",
    "out",
    "pair",
    "pairs",
]


if TYPE_CHECKING:
    from kbench.results.identity import Names

    _Float: TypeAlias = click.ParamType[float]
else:  # older versions of click have no such generic
    _Float = click.ParamType


_KINDS = {
    "task": "tasks",
    "method": "methods",
    "tuning": "tunings",
    "backbone": "backbones",
    "knowledge": "knowledge",
}
"""Fields of a run that are parts, and the kind of each."""


class _Measure(_Float):
    """A number above 0 with a unit."""

    option: ClassVar[str]
    units: ClassVar[Mapping[str, float]]
    example: ClassVar[str]

    def convert(self, value: object, param: object, ctx: object) -> float:
        """Returns it in the unit whose factor is 1."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(value))
        factor = self.units.get(match[2].lower()) if match else None
        if not match or factor is None or not (number := float(match[1]) * factor):
            raise UsageError(f"{self.option} {value!r}: expected {self.example}")
        return number


class Number(click.FloatRange):
    """A number in a range, which nan and infinity are not, though click takes them."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns it as a number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Named(click.ParamType):  # type: ignore[type-arg]
    """A comma list of names of parts, which a shell can complete.

    Args:
        kind: of the parts: ``tasks``, ``methods``, …
    """

    name = "text"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns what the last name of the list may become. Nothing is imported for it."""
        from kbench.parts import registry
        from kbench.parts.catalogue import Kind

        before, comma, begun = incomplete.rpartition(",")
        names = [name for name in registry.names(Kind(self.kind)) if name.startswith(begun)]
        return [CompletionItem(f"{before}{comma}{name}") for name in names]


class Limit(click.ParamType):  # type: ignore[type-arg]
    """A number of examples, or a share of them."""

    name = "NUMBER|SHARE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float:
        """Returns the one as a whole number, the other as a fraction."""
        text = str(value).strip()
        number = int(text) if re.fullmatch("[0-9]{1,18}", text) else 0
        share = float(text) if re.fullmatch(r"0?\.[0-9]{1,18}", text) else 0.0
        if not number and not share:
            expected = "how many examples, such as 100, or which share of them, such as 0.1"
            self.fail(f"{value!r}: expected {expected}", param, ctx)
        return number or share


class Duration(_Measure):
    """Seconds, minutes, hours or days, in seconds."""

    name = "DURATION"
    option = "--time-limit"
    units: ClassVar[Mapping[str, float]] = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
    example = "a duration above 0 such as 90s, 30m, 2h or 1d"


class Size(_Measure):
    """Bytes."""

    name = "SIZE"
    option = "--memory-limit"
    units: ClassVar[Mapping[str, float]] = {
        "mb": 1e6, "gb": 1e9, "tb": 1e12, "mib": 2**20, "gib": 2**30, "tib": 2**40
    }  # fmt: skip
    example = "a size above 0 such as 800MB, 8GB or 16GiB"


out = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kbench-results"),
    show_default=True,
    envvar="KBENCH_OUT",
    help="Folder of results.",
)


def examples(*lines: str) -> Callable[[click.Command], click.Command]:
    """Returns a decorator that shows calls of a command below its help, a line each."""

    def decorated(command: click.Command) -> click.Command:
        # What click takes for "leave these lines as they are".
        command.help = "\n".join([cleandoc(command.help or ""), "", "\b", *lines])
        return command

    return decorated


def filters(names: Iterable[str]) -> Callable[[click.Command], click.Command]:
    """Returns a decorator that gives a command an option for each field to choose results by."""

    def decorated(command: click.Command) -> click.Command:
        for name in reversed([*names]):
            option = click.Option(
                [f"--{name}"],
                type=Named(_KINDS[name]) if name in _KINDS else None,
                help=f"Only this {name}: a comma list of globs.",
            )
            command.params.insert(0, option)
        return command

    return decorated


def chosen(
    thing: object,
    given: Mapping[str, str | None],
    names: Iterable[str],
    parts: Names | None = None,
) -> bool:
    """Whether the fields of a result or figure fit the options given.

    Args:
        thing: the result or figure.
        given: globs by the name of a field.
        names: of the fields.
        parts: what the parts of all results that are looked at are called.
    """
    from kbench.results.identity import fits
    from kbench.store import Result

    def fitting(name: str, glob: str) -> bool:
        if isinstance(thing, Result):
            return fits(thing, name, glob, parts)
        return fnmatchcase(getattr(thing, name) or "", glob)

    return all(
        any(fitting(name, glob.strip()) for glob in wanted.split(","))
        for name in names
        if (wanted := given[name])
    )


def check_fitting(found: Sized, given: Mapping[str, str | None]) -> None:
    """Refuses options that choose nothing of what is stored.

    Args:
        found: what they choose.
        given: globs by the name of a field.

    Raises:
        UsageError: options are given, and nothing fits them.
    """
    asked = " ".join(f"--{name} {glob!r}" for name, glob in given.items() if glob)
    if asked and not len(found):
        raise UsageError(f"no stored result fits {asked}; `kbench results ls` lists all")


def opened(folder: Path) -> Path:
    """Returns a folder of results to read; of packed ones that of what they unpack to.

    Raises:
        UsageError: it is not there.
        DataError: it holds packed results that cannot be read.
    """
    from kbench.store.packed import results_folder

    if not is_folder(folder):
        raise UsageError(f"no folder {folder}; run `kbench run` first, or give --out")
    return results_folder(folder)


def pair(option: str) -> tuple[str, str]:
    """Splits a ``KEY=VALUE``.

    Raises:
        UsageError: it is none.
    """
    key, sign, value = option.partition("=")
    if not sign or not key:
        raise UsageError(f"--option {option!r} is not KEY=VALUE, such as size=m")
    return key.strip(), value


def pairs(options: Iterable[str]) -> dict[str, str]:
    """Splits several ``KEY=VALUE``.

    Raises:
        UsageError: one is none, or two give one key different values.
    """
    found: dict[str, str] = {}
    for option in options:
        key, value = pair(option)
        if found.setdefault(key, value) != value:
            raise UsageError(f"--option {key} is {found[key]!r} and {value!r}; give it once")
    return found
