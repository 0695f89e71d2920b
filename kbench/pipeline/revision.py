"""The version and revision of the engine, for what reads results and computes none."""

from __future__ import annotations

from kbench import __version__

__all__ = ["ENGINE_REVISION", "VERSION"]

ENGINE_REVISION = 5
"""Changes whenever the engine would make other weights or predictions from the same inputs."""
VERSION = __version__
"""Of kbench, as results state it."""
