"""Knowledge bases by name, as a run sees them. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from kbench import registry
from kbench.bundle import Bundle
from kbench.catalogue import Kind
from kbench.controls import Random, Shuffled, Zero
from kbench.errors import UsageError, nearest
from kbench.files import is_folder
from kbench.knowledge import KnowledgeBase, KnowledgeSource
from kbench.spec import Control

__all__ = ["find_knowledge", "under"]


def find_knowledge(name: str) -> Bundle:
    """Returns a knowledge base by registered name or by folder.

    Raises:
        UsageError: it is neither.
    """
    if name in registry.names(Kind.KNOWLEDGE):
        source = cast("type[KnowledgeSource]", registry.get(Kind.KNOWLEDGE, name))
        return Bundle(source().folder())
    folder = Path(name).expanduser()
    if is_folder(folder):
        return Bundle(folder)
    hint = nearest(name, registry.names(Kind.KNOWLEDGE))
    raise UsageError(f"no knowledge base is called {name!r} and no folder is there{hint}")


def under(base: KnowledgeBase, control: Control, seed: int) -> KnowledgeBase:
    """Returns a knowledge base seen through a control."""
    if control == Control.SHUFFLED:
        return Shuffled(base, seed)
    if control == Control.RANDOM:
        return Random(base, seed)
    return Zero(base) if control == Control.ZERO else base
