"""A folder of things by content address: what can be written there, and what is damaged."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kbench.data.files import canonical_digest
from kbench.errors import ArtifactError, first_line

__all__ = ["READ_ONLY", "DamageWarning", "address", "check_writable", "written"]

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says of a folder that nobody may write to."""
_PROBE = 1 << 16
"""Bytes that are written to see whether a folder takes any."""


class DamageWarning(UserWarning):
    """A stored file is damaged and computed again, or cannot be read by this version."""


def address(kind: str, inputs: Mapping[str, Any]) -> str:
    """Returns the address of what ``inputs`` determine: a digest of their content."""
    return canonical_digest({"kind": kind, **inputs})[:32]


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
