"""A copy that somebody has, compared with what is recorded, or with what was once fetched."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kbench.data.files import is_file, is_folder
from kbench.errors import UsageError
from kbench.fetch.folder import is_called, place, remembered
from kbench.fetch.listing import Published
from kbench.fetch.transfer import Found, digest

__all__ = ["Checked", "Verdict", "check", "folder_of"]


class Verdict(StrEnum):
    """What is to be said of a file of a copy."""

    RIGHT = "as recorded"
    DIFFERS = "differs from the recorded"
    AS_FETCHED = "as it was fetched; nothing is recorded"
    CHANGED = "changed since it was fetched"
    UNKNOWN = "unknown: nothing is recorded"
    MISSING = "missing"

    @property
    def bad(self) -> bool:
        """Whether the copy is not what it should be."""
        return self in (Verdict.DIFFERS, Verdict.CHANGED)


@dataclass(frozen=True)
class Checked:
    """A file of a copy.

    Attributes:
        path: in the folder.
        verdict: on its content.
        found: what it is; None where it is missing.
    """

    path: str
    verdict: Verdict
    found: Found | None


def folder_of(root: Path, published: Published, alone: bool) -> Path | None:
    """Returns where a copy lies: in the data folder, or the folder itself.

    The folder itself if it is called so, or if the data set is asked for alone.

    Raises:
        UsageError: there is no such folder.
    """
    if not is_folder(root):
        raise UsageError(f"no folder {root}; --check takes a folder with data")
    folder = place(root, published)
    if is_folder(folder):
        return folder
    return root if alone or is_called(root.absolute(), published) else None


def check(folder: Path, published: Published) -> list[Checked]:
    """Compares a copy, file by file: those that are fetched, and others that are known."""
    known, memory = published.known, remembered(folder)
    fetched = [part.to for part in published.parts if part.to]
    targets = [target for part in published.parts for target in part.unpack.values()]
    fetched += [target for target in targets if target and not target.endswith("/")]
    folders = [target for target in targets if target.endswith("/")]
    archived = {path for path in known if path.startswith(tuple(folders))}
    lying = {path for target in folders for path in _files(folder, target)}
    paths = dict.fromkeys([*fetched, *sorted(archived | lying), *memory])
    others = [path for path in known if path not in paths and is_file(folder / path)]
    return [_checked(folder, path, published, memory.get(path)) for path in [*paths, *others]]


def _checked(folder: Path, path: str, published: Published, before: Found | None) -> Checked:
    if not is_file(folder / path):
        return Checked(path, Verdict.MISSING, None)
    found, known = digest(folder / path), published.known.get(path)
    if known:
        right = (found.bytes, found.sha256) == (known.bytes, known.sha256)
        return Checked(path, Verdict.RIGHT if right else Verdict.DIFFERS, found)
    if before:
        same = found == before
        return Checked(path, Verdict.AS_FETCHED if same else Verdict.CHANGED, found)
    return Checked(path, Verdict.UNKNOWN, found)


def _files(folder: Path, target: str) -> list[str]:
    """The files that lie in a folder where an archive was unpacked to."""
    return [
        path.relative_to(folder).as_posix()
        for path in (folder / target).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    ]
