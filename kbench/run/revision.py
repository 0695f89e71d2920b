"""The revision of the engine, for what reads results and computes none."""

from __future__ import annotations

__all__ = ["ENGINE_REVISION"]

ENGINE_REVISION = 5
"""Changes whenever the engine would make other weights or predictions from the same inputs."""
