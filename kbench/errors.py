"""The errors kbench raises on purpose: one line each, what was given, expected and to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

RUNNING = frozenset(
    (
        "ahocorasick",
        "datasets",
        "evaluate",
        "peft",
        "pykeen",
        "safetensors",
        "torch",
        "transformers",
    )
)
"""What the extra ``run`` brings, as it is imported: only who runs models needs it."""

__all__ = [
    "RUNNING",
    "AbsentError",
    "ArtifactError",
    "DataError",
    "FrozenError",
    "InputError",
    "InterruptedByUser",
    "KbenchError",
    "PluginError",
    "Unsupported",
    "UsageError",
    "VersionError",
    "first_line",
    "lacking",
    "nearest",
    "one_line",
    "with_type",
]


class KbenchError(Exception):
    """Base of every error with a message meant for the user; the command prints it bare."""


class InputError(KbenchError):
    """Something that was given cannot be used: no experiment was made, so no result is stored."""


class UsageError(InputError):
    """A name, option or grid that cannot be understood (exit status 2)."""


class AbsentError(UsageError):
    """A data set, backbone or knowledge base that is not on this machine, and may yet come."""


class PluginError(InputError):
    """An installed part that cannot be loaded; names the distribution and the cause."""


class ArtifactError(KbenchError):
    """A stored file that is damaged or does not belong where it lies."""


class FrozenError(KbenchError):
    """A weight that had to stay frozen has changed."""


class Unsupported(KbenchError):
    """A combination that cannot run by design; becomes a result with status ``skipped``."""


class DataError(InputError):
    """A file that is missing or malformed.

    Args:
        path: the file.
        problem: what was found.
        expected: what belongs there and what to do.
        line: 1-based line number or 0-based record index, where one is known.
    """

    def __init__(
        self, path: Path | str, problem: str, expected: str, line: int | str | None = None
    ) -> None:
        where = f"{path}" if line is None else f"{path}, {_place(line)}"
        message = f"{where}: {problem}; expected {expected}"
        # Names in a stranger's file may hold any line end that Unicode knows.
        super().__init__(" ".join(message.splitlines()))
        self.path = Path(path)
        self.problem = problem
        self.line = line
        self._given = (path, problem, expected, line)

    def __reduce__(self) -> tuple[type[DataError], tuple[object, ...]]:
        # An error is made again in another process from what it was made of, not from its text.
        return type(self), self._given


class VersionError(DataError):
    """A file of another version of kbench, which this one cannot read and must not replace."""


class InterruptedByUser(KeyboardInterrupt):
    """A Ctrl-C that the command was sent: any code may raise the plain kind."""


def _place(line: int | str) -> str:
    return f"line {line}" if isinstance(line, int) else line


def first_line(cause: BaseException) -> str:
    """Returns why something failed, for the text of another error.

    What the system says (``Permission denied``, without number and path), else the first line of
    the text that is not blank, else the name of the type: some errors have no text, and those of
    a plugin may even fail to give it.
    """
    reason = getattr(cause, "strerror", None) if isinstance(cause, OSError) else None
    lines = str(reason or _text(cause)).splitlines()
    return next((line.strip() for line in lines if line.strip()), type(cause).__name__)


def one_line(text: str | BaseException) -> str:
    """Returns a text on one line; of an exception all that it says, or else its type's name."""
    if isinstance(text, str):
        return " ".join(text.split())
    return one_line(_text(text)) or type(text).__name__


def with_type(cause: BaseException) -> str:
    """Returns what kind of exception it is and all that it says, on one line: ``KeyError: 'a'``."""
    text = one_line(_text(cause))
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _text(cause: BaseException) -> str:
    try:
        return str(cause)
    except Exception:  # what cannot even say what it is
        return ""


def lacking(cause: BaseException) -> str:
    """Returns what to install where an import failed for want of the extra ``run``, else nothing.

    Args:
        cause: why something could not be imported.
    """
    module = (cause.name or "") if isinstance(cause, ModuleNotFoundError) else ""
    name = module.partition(".")[0]
    if name not in RUNNING:
        return ""
    return f"{name} is not installed; what runs models needs: pip install 'knowledge-bench[run]'"


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint such as ``; did you mean map-tuning?``, or the whole list if none is near."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; known: {', '.join(names)}" if names else "; none is installed"
