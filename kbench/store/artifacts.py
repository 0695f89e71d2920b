"""Artifacts and results on disk: addressed, checksummed, written whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from kbench.data.files import abandoned, atomic_folder, file_digest, load_json, write_json
from kbench.errors import ArtifactError
from kbench.store.folder import READ_ONLY, DamageWarning, address, written

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ABOUT", "WEIGHTS", "Artifact", "Artifacts"]

WEIGHTS = "weights.safetensors"
ABOUT = "artifact.json"


@dataclass(frozen=True)
class Artifact:
    """Stored weights and what is known of them.

    Attributes:
        tensors: by name.
        about: ``kind``, ``address``, ``inputs`` (what the address is the digest of), ``sha256``
            of the weights file, and whatever the maker added.
    """

    tensors: dict[str, Tensor]
    about: dict[str, Any]


class Artifacts:
    """Downstream models and plugs in a folder, by kind and address."""

    about = ABOUT
    instead = "free space there, or set KBENCH_CACHE to a folder that can be written"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str, key: str) -> Path:
        """Returns the folder of an artifact."""
        return self.folder / kind / key

    def __contains__(self, item: tuple[str, str]) -> bool:
        return (self.path(*item) / ABOUT).is_file()

    @contextmanager
    def making(self, kind: str, key: str) -> Iterator[None]:
        """Holds the lock under which one process makes an artifact and others wait for it.

        Of a store that cannot be written, what is there is read without a lock.

        Raises:
            ArtifactError: there is nothing, and nothing can be written.
        """
        lock = FileLock(self.folder / kind / f".{key}.making")
        try:
            with written(self.folder, self.instead):
                (self.folder / kind).mkdir(parents=True, exist_ok=True)
                lock.acquire()
        except ArtifactError as error:
            cause = error.__cause__
            if getattr(cause, "errno", None) not in READ_ONLY or (kind, key) not in self:
                raise
        try:
            yield
        finally:
            lock.release()

    def load(self, kind: str, key: str) -> Artifact | None:
        """Returns an artifact; None if there is none, or (with a warning) if it is damaged."""
        folder = self.path(kind, key)
        if not folder.is_dir():
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            about = self.check(folder)
            try:
                return Artifact(load_file(folder / WEIGHTS), about)
            except (OSError, SafetensorError) as cause:
                raise ArtifactError(f"artifact {folder} is damaged ({cause})") from None
        except ArtifactError as error:
            warnings.warn(f"{error}; it is made again", DamageWarning, stacklevel=2)
            return None

    def check(self, folder: Path) -> dict[str, Any]:
        """Verifies an artifact's checksum and address.

        Raises:
            ArtifactError: a file is missing or damaged, or lies at a wrong address.
        """
        try:
            about: dict[str, Any] = load_json(folder / ABOUT)
            right = about["sha256"] == file_digest(folder / WEIGHTS)
            named = address(about["kind"], about["inputs"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as cause:
            raise ArtifactError(f"artifact {folder} is damaged ({cause})") from None
        if not right:
            raise ArtifactError(f"artifact {folder} is damaged (its checksum does not match)")
        if named != folder.name:
            raise ArtifactError(f"artifact {folder} is not what its address says")
        return about

    def save(
        self, kind: str, inputs: Mapping[str, Any], tensors: Mapping[str, Tensor], **about: Any
    ) -> None:
        """Writes an artifact at the address of its inputs.

        Raises:
            ArtifactError: it cannot be written; what was there is there still.
        """
        from safetensors.torch import save_file

        key = address(kind, inputs)
        path = self.path(kind, key)
        with written(path, self.instead), atomic_folder(path) as scratch:
            save_file({k: v.contiguous() for k, v in tensors.items()}, scratch / WEIGHTS)
            content = {"kind": kind, "address": key, "inputs": dict(inputs)}
            content |= {"sha256": file_digest(scratch / WEIGHTS), **about}
            write_json(scratch / ABOUT, content)

    def all(self) -> Iterator[Path]:
        """Yields the folder of every artifact."""
        for path in sorted(self.folder.glob("*/*")):
            if path.is_dir() and not path.name.startswith("."):
                yield path

    def leftovers(self) -> Iterator[Path]:
        """Yields scratch folders that a killed process left; nobody is writing there any more."""
        for folder in sorted(self.folder.glob("*")):
            yield from abandoned(folder)
