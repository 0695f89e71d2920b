"""What a reader must know of a data set, before it is there and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kbench.data.examples import Split

__all__ = ["Size", "TaskCard"]


@dataclass(frozen=True)
class Size:
    """How large a split is as published, for plans made before the data are there.

    Attributes:
        examples: those that are read, with the task's default options.
        tokens: of a text, on average, in wordpieces of bert-base-uncased, markers and specials
            included; None where it is not known.
        texts: that are read for an example, on average: pairs, where it is compared.
    """

    examples: int
    tokens: float | None = None
    texts: float = 1

    def __str__(self) -> str:
        texts = f"{self.texts:g} texts of " if self.texts != 1 else ""
        return f"{self.examples:,}" + (f" of {texts}{self.tokens:g} tokens" if self.tokens else "")


@dataclass(frozen=True)
class TaskCard:
    """What a reader must know of a data set.

    Attributes:
        title: its name in print.
        revision: of the data as loaded here; part of every address.
        licence: of the data.
        citation: paper that introduced it.
        source: where it comes from.
        obtain: how to get it and what ``--data`` must point to; empty for embedded tasks.
        sizes: of its splits as published, where that is known.
        name: short, of data of one's own that make the task: it is called ``TASK:NAME`` then.
    """

    title: str
    revision: str
    licence: str
    citation: str
    source: str
    obtain: str = ""
    sizes: Mapping[Split, Size] = field(default_factory=dict)
    name: str = ""
