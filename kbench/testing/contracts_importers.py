"""What holds for every importer of knowledge bases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

from kbench.errors import KbenchError
from kbench.knowledge.importing import Importer
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.source_text import summary
from kbench.testing.contracts import Finding, Verdict, contract

__all__ = ["CONTRACTS", "subject"]

_NOWHERE = Path("no folder has this name")


class Format:
    """An importer.

    Args:
        name: of the format.
    """

    def __init__(self, name: str) -> None:
        self.entry = registry.find(Kind.IMPORTERS, name)
        self.importer = cast("type[Importer]", registry.load(self.entry))


subject = Format


@contract
def card(form: Format) -> Verdict:
    """The card is complete, and every option says what it is."""
    missing = [
        name
        for name, value in asdict(form.importer.card).items()
        if not value and name != "citation"
    ]
    missing += [f"help of {name}" for name, o in form.importer.options.items() if not o.help]
    missing += [] if summary(form.entry) else ["the first line of the docstring"]
    figure = f"{form.importer.card.title}, options: {', '.join(form.importer.options) or 'none'}"
    return not missing, f"missing: {', '.join(missing)}" if missing else figure


@contract
def options(form: Format) -> Verdict:
    """Its defaults are values that it allows; an unknown option is refused in one line."""
    importer = form.importer
    wrong = [
        name
        for name, option in importer.options.items()
        if option.choices and option.default is not None and option.default not in option.choices
    ]
    told = _refusal(lambda: importer.check([("no-such-option", "1")]))
    return not wrong and told is not None, f"not allowed: {', '.join(wrong)}" if wrong else str(
        told
    )


@contract
def nowhere(form: Format) -> Verdict:
    """A source that is not there is refused in one line, and leaves nothing."""
    target = _NOWHERE / "target"
    told = _refusal(lambda: form.importer().run(_NOWHERE, target))
    return told is not None and not target.exists(), str(told)


def _refusal(call: Callable[[], object]) -> str | None:
    """The error of a call, if it is one line of kbench's own."""
    try:
        call()
    except KbenchError as error:
        return None if "\n" in str(error) else str(error)
    return None


CONTRACTS: tuple[Callable[[Format], Finding], ...] = (card, options, nowhere)
