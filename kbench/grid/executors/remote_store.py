"""A store of artifacts at a URL that all machines reach: whatever fsspec opens.

An artifact there is a folder of two files::

    KIND/ADDRESS/SHA256.safetensors     the weights, named by their content
    KIND/ADDRESS/artifact.json          written last; names the weights that belong to it

Each is uploaded under a temporary name and then moved. So whoever finds ``artifact.json`` finds
whole weights, and two machines that upload the same artifact do each other no harm.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from kbench.data.files import atomic_folder, load_json
from kbench.errors import ArtifactError, UsageError, one_line
from kbench.store import Artifact, Artifacts
from kbench.store.artifacts import ABOUT, WEIGHTS
from kbench.store.folder import address

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RemoteArtifacts", "is_url", "open_url"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_WAITS = (1.0, 4.0)
"""Seconds before a further try, where the network fails."""

T = TypeVar("T")


def is_url(text: str) -> bool:
    """Whether a text is a URL, not a path."""
    return "://" in text


def open_url(where: str) -> tuple[Any, str]:
    """Returns the fsspec file system of a URL or path, and the path in it.

    Raises:
        UsageError: the URL cannot be understood, or needs a package that is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        system, root = url_to_fs(where)
    except (ImportError, ValueError, OSError) as cause:
        raise UsageError(
            f"store {where!r} cannot be opened ({one_line(cause)}); expected a path or a URL that "
            "fsspec opens, such as s3://bucket/folder with s3fs installed"
        ) from None
    return system, str(root).rstrip("/")


class RemoteArtifacts(Artifacts):
    """Artifacts at a URL; each is copied to a folder of this machine when it is first read.

    Args:
        folder: of this machine.
        url: of the store.
    """

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.url = url
        self._system, self._root = open_url(url)

    def __contains__(self, item: tuple[str, str]) -> bool:
        return self._has(self._there(*item, ABOUT))

    def offer(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Uploads what this machine has of the artifacts wanted and the store has not."""
        for kind, key in wanted:
            if super().__contains__((kind, key)) and (kind, key) not in self:
                with suppress(ArtifactError):  # what is damaged here is made again elsewhere
                    self.check(self.path(kind, key))
                    self._push(kind, key)

    def load(self, kind: str, key: str) -> Artifact | None:
        """Returns an artifact, of this machine or else of the store; None if it is at neither.

        Raises:
            ArtifactError: the store cannot be read.
        """
        artifact = super().load(kind, key)
        if artifact is not None:
            if not self._has(self._there(kind, key, ABOUT)):
                self._push(kind, key)
            return artifact
        return super().load(kind, key) if self._pull(kind, key) else None

    def save(
        self, kind: str, inputs: Mapping[str, Any], tensors: Mapping[str, Tensor], **about: Any
    ) -> None:
        """Writes an artifact here and to the store.

        Raises:
            ArtifactError: it cannot be written.
        """
        super().save(kind, inputs, tensors, **about)
        self._push(kind, address(kind, inputs))

    def _there(self, kind: str, key: str, name: str) -> str:
        return f"{self._root}/{kind}/{key}/{name}"

    def _has(self, path: str) -> bool:
        self._system.invalidate_cache()  # another machine may just have written it
        return bool(self._tried(lambda: self._system.exists(path)))

    def _push(self, kind: str, key: str) -> None:
        folder = self.path(kind, key)
        weights = self._there(kind, key, f"{load_json(folder / ABOUT)['sha256']}.safetensors")
        if not self._has(weights):
            self._put(folder / WEIGHTS, weights)
        self._put(folder / ABOUT, self._there(kind, key, ABOUT))

    def _put(self, source: Path, target: str) -> None:
        parent, _, _ = target.rpartition("/")

        def put() -> None:
            scratch = f"{parent}/.{uuid4().hex}.tmp"
            self._system.makedirs(parent, exist_ok=True)
            try:
                self._system.put_file(str(source), scratch)
                self._system.mv(scratch, target)
            except BaseException:
                with suppress(Exception):
                    self._system.rm_file(scratch)
                raise

        self._tried(put)

    def _pull(self, kind: str, key: str) -> bool:
        """Copies an artifact to this machine; False if the store has none that is whole."""
        try:
            text = self._tried(lambda: self._system.cat_file(self._there(kind, key, ABOUT)))
            digest = str(json.loads(text)["sha256"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
        if not _SHA256.fullmatch(digest):  # becomes part of a path
            return False
        weights = self._there(kind, key, f"{digest}.safetensors")
        try:
            with atomic_folder(self.path(kind, key)) as scratch:
                self._tried(lambda: self._system.get_file(weights, str(scratch / WEIGHTS)))
                (scratch / ABOUT).write_bytes(text)
        except FileNotFoundError:
            return False
        return True

    def _tried(self, call: Callable[[], T]) -> T:
        """Calls something that a network may fail, up to three times.

        Raises:
            FileNotFoundError: what is asked for is not there.
            ArtifactError: the store fails every time.
        """
        for wait in (*_WAITS, None):
            try:
                return call()
            except FileNotFoundError:
                raise
            except Exception as cause:  # every kind of store has errors of its own
                if wait is None:
                    reason = one_line(cause)
                    raise ArtifactError(f"store {self.url} cannot be used ({reason})") from cause
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")
