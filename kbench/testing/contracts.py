"""Contracts: what holds for every part of a kind, each one small function with its figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import TypeAlias, TypeVar

from kbench.errors import PluginError, UsageError, one_line, with_type
from kbench.parts import registry
from kbench.parts.catalogue import Kind

__all__ = [
    "TOLERANCE",
    "Finding",
    "Unchecked",
    "Verdict",
    "assert_contracts",
    "check",
    "contract",
    "findings",
    "names",
]

TOLERANCE = 1e-5
"""Between outputs that are the same but for the order of sums."""

T = TypeVar("T")
Verdict: TypeAlias = tuple[bool, str]
"""Whether a contract holds, and the figures in words."""


@dataclass(frozen=True)
class Finding:
    """What a contract's check found.

    Attributes:
        contract: its name.
        held: whether it holds.
        figure: what was measured, or what went wrong, in one line.
        says: the contract in words.
        checked: False where there was nothing to check; it then counts as held.
    """

    contract: str
    held: bool
    figure: str
    says: str = ""
    checked: bool = True


class Unchecked(Exception):
    """Raised by a contract that has nothing to check; the message says why."""


def contract(judge: Callable[[T], Verdict]) -> Callable[[T], Finding]:
    """Makes a contract of a function from a subject to a verdict.

    Its name is that of the function, its wording the first line of the docstring. An exception
    other than :class:`Unchecked` counts as a contract that does not hold. The tiny tasks can be
    asked for by name meanwhile.
    """
    name = _name(judge)
    says = (judge.__doc__ or "").splitlines()[0]

    @wraps(judge)
    def judged(subject: T) -> Finding:
        from kbench.testing.tiny import offered

        checked = True
        with offered(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                held, figure = judge(subject)
            except Unchecked as reason:
                held, figure, checked = True, str(reason), False
            except Exception as cause:  # a plugin may fail in any way it likes
                held, figure = False, with_type(cause)
        return Finding(name, bool(held), one_line(figure), says, checked)

    return judged


def findings(kind: Kind | str, name: str, data: str | None = None) -> Iterator[Finding]:
    """Checks a part, contract by contract.

    A part that cannot be imported, or of which no object can be made, is one finding.

    Args:
        kind: of the part.
        name: of the part.
        data: of a task, where its files lie: as of ``kbench run --data``. A task whose data do
            not come with it is checked in full where they are given.

    Raises:
        UsageError: no part has this name, there are no contracts for its kind, or data are given
            that no part of the kind reads.
    """
    kind = Kind(kind)
    if not kind.has_contracts:
        raise UsageError(f"the {kind.one} {name!r} has no contracts to check")
    if data is not None and kind != Kind.TASKS:
        raise UsageError(f"the {kind.one} {name!r} reads no data; only tasks do")
    module = import_module(f"kbench.testing.contracts_{kind}")
    try:
        made = registry.get(kind, name)
    except PluginError as error:
        yield Finding("loads", False, str(error), "the part can be imported")
        return
    try:
        made() if data is None else made(data)
    except Exception as cause:  # as in a contract
        says = "an object of the class can be made, without an argument"
        yield Finding("builds", False, one_line(with_type(cause)), says)
        return
    subject = module.subject(name) if data is None else module.subject(name, data)
    for each in module.CONTRACTS:
        yield each(subject)


def names(kind: Kind | str) -> list[str]:
    """Returns what the contracts of a kind of part are called, in their order.

    Args:
        kind: of the part.
    """
    module = import_module(f"kbench.testing.contracts_{Kind(kind)}")
    return [_name(each) for each in module.CONTRACTS]


def _name(judge: Callable[..., object]) -> str:
    return judge.__name__.replace("_", " ")


def check(kind: Kind | str, name: str, data: str | None = None) -> list[Finding]:
    """Returns all that :func:`findings` finds, as a list."""
    return list(findings(kind, name, data))


def assert_contracts(kind: Kind | str, name: str, data: str | None = None) -> None:
    """Fails with every contract that a part breaks, and its figures; for pytest.

    Args:
        kind: of the part.
        name: of the part.
        data: of a task, where its files lie.

    Raises:
        AssertionError: a contract does not hold.
    """
    broken = [finding for finding in findings(kind, name, data) if not finding.held]
    lines = [f"{finding.contract} ({finding.says}): {finding.figure}" for finding in broken]
    assert not broken, f"{name} breaks {len(broken)} contracts:\n  " + "\n  ".join(lines)
