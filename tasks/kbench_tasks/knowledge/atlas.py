"""The embedded knowledge base: places, people and other named things of the world."""

from __future__ import annotations

from pathlib import Path
from typing import final

from kbench.knowledge import KnowledgeSource

__all__ = ["Atlas"]


@final
class Atlas(KnowledgeSource):
    """Facts about cities, rivers, people and more, from open sources; ships with kbench."""

    def folder(self) -> Path:
        return Path(__file__).parent.parent / "atlas" / "bundle"
