"""A folder of things by content address: what can be written there, and what is damaged."""

from __future__ import annotations

import errno
import os
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from kbench.data.files import abandoned, canonical_digest, file_digest, load_json
from kbench.errors import ArtifactError, KbenchError, first_line

__all__ = [
    "READ_ONLY",
    "AddressedFolder",
    "DamageWarning",
    "address",
    "check_writable",
    "written",
]

T = TypeVar("T")

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says of a folder that nobody may write to."""
_PROBE = 1 << 16
"""Bytes that are written to see whether a folder takes any."""


class DamageWarning(UserWarning):
    """A stored file is damaged and computed again, or cannot be read by this version."""


def address(kind: str, inputs: Mapping[str, Any]) -> str:
    """Returns the address of what ``inputs`` determine: a digest of their content."""
    return canonical_digest({"kind": kind, **inputs})[:32]


class AddressedFolder(ABC):
    """A folder of things by content address, each a folder that says itself what it holds.

    Attributes:
        about: the file of each that says so: ``inputs``, what the address is the digest of, and
            ``sha256`` of the other files.
        noun: what a thing is called in errors.
        several: whether that is a plural.
    """

    about: ClassVar[str]
    noun: ClassVar[str]
    several: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def shelves(self) -> Iterator[Path]:
        """Yields the folders that things lie in."""

    @abstractmethod
    def sums(self, about: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the SHA-256 of every file that must be there; what is no digest fits no file."""

    @abstractmethod
    def named(self, about: Mapping[str, Any]) -> str:
        """Returns the address at which such a thing belongs."""

    def read(self, folder: Path) -> dict[str, Any]:
        """Returns what a thing says of itself; ``of`` is what it belongs to.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no JSON.
            KbenchError: it is no such thing.
        """
        about: dict[str, Any] = load_json(folder / self.about)
        return about

    def all(self) -> Iterator[Path]:
        """Yields the folder of every thing."""
        for shelf in self.shelves():
            for path in sorted(shelf.glob("*")):
                if path.is_dir() and not path.name.startswith("."):
                    yield path

    def leftovers(self) -> Iterator[Path]:
        """Yields scratch folders that a killed process left; nobody is writing there any more."""
        for shelf in self.shelves():
            yield from abandoned(shelf)

    def check(self, folder: Path) -> dict[str, Any]:
        """Verifies the checksums and the address of a thing; returns what it says of itself.

        Raises:
            ArtifactError: a file is missing or damaged, or lies at a wrong address.
        """
        try:
            about = self.read(folder)
            sums = self.sums(about)
            right = all(file_digest(folder / name) == sha for name, sha in sums.items())
            named = self.named(about)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
            raise self.damaged(folder, str(cause)) from None
        except KbenchError as cause:
            raise self.damaged(folder, first_line(cause)) from None
        if not right:
            checksum = "a checksum" if self.several else "its checksum"
            raise self.damaged(folder, f"{checksum} does not match")
        if named != folder.name:
            place = "are not what their" if self.several else "is not what its"
            raise ArtifactError(f"{self.noun} {folder} {place} address says")
        return about

    def damaged(self, folder: Path, why: str) -> ArtifactError:
        """Returns the error that says that a thing is damaged."""
        are = "are" if self.several else "is"
        return ArtifactError(f"{self.noun} {folder} {are} damaged ({why})")

    def sound(self, folder: Path, read: Callable[[dict[str, Any]], T]) -> T | None:
        """Reads a thing that is checked; None if there is none, or (with a warning) if damaged.

        Args:
            folder: of the thing.
            read: makes something of it, given what it says of itself.
        """
        if not folder.is_dir():
            return None
        try:
            return read(self.check(folder))
        except ArtifactError as error:
            if folder.is_dir():  # else another process took it away while we looked
                again = "they are made again" if self.several else "it is made again"
                warnings.warn(f"{error}; {again}", DamageWarning, stacklevel=3)
            return None


def check_writable(folder: Path, instead: str) -> None:
    """Writes something into a folder and takes it away again, before hours are spent for nothing.

    Args:
        folder: made if it is not there.
        instead: what to do if it cannot be written, for the error.

    Raises:
        ArtifactError: it cannot be written.
    """
    with written(folder, instead):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(b"\0" * _PROBE)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def written(path: Path, instead: str) -> Iterator[None]:
    """Says in one line that a path cannot be written, why, and what to do instead."""
    try:
        yield
    except Exception as cause:
        # pyarrow and safetensors wrap the system's error in errors and texts of their own.
        if not isinstance(cause, OSError) and "os error" not in str(cause).lower():
            raise
        problem = f"cannot be written ({first_line(cause)})"
        raise ArtifactError(f"{path} {problem}; {instead}") from cause
