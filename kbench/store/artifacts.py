"""Artifacts and results on disk: addressed, checksummed, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from kbench.data.files import atomic_folder, file_digest, write_json
from kbench.errors import ArtifactError
from kbench.store.folder import READ_ONLY, AddressedFolder, address, written

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


class Artifacts(AddressedFolder):
    """Downstream models and plugs in a folder, by kind and address."""

    about = ABOUT
    noun = "artifact"
    instead = "free space there, or set KBENCH_CACHE to a folder that can be written"

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
        return self.sound(folder, lambda about: self._read(folder, about))

    def _read(self, folder: Path, about: dict[str, Any]) -> Artifact:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return Artifact(load_file(folder / WEIGHTS), about)
        except (OSError, SafetensorError) as cause:
            raise self.damaged(folder, str(cause)) from None

    def shelves(self) -> Iterator[Path]:
        """Yields a folder for each kind."""
        yield from sorted(self.folder.glob("*"))

    def sums(self, about: Mapping[str, Any]) -> Mapping[str, str]:
        return {WEIGHTS: about["sha256"]}

    def named(self, about: Mapping[str, Any]) -> str:
        return address(about["kind"], about["inputs"])

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
