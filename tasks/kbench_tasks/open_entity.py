"""OpenEntity with Wikidata links, in the layout of the ERNIE release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from kbench.data import Size, Split, TaskCard
from kbench_tasks.typing_records import ErnieTyping

__all__ = ["OpenEntity"]


class OpenEntity(ErnieTyping):
    """OpenEntity: coarse types of a marked mention in a sentence, with TAGME links.

    ``train.json``, ``dev.json`` and ``test.json`` are lists of
    ``{sent, start, end, labels, ents: [[QID, start, end, confidence], …]}``. About a fifth of
    the published examples have no label, since none of the nine coarse types applies. How links
    are read is said by :class:`~kbench_tasks.typing_records.ErnieTyping`.
    """

    card = TaskCard(
        title="OpenEntity",
        revision="1",
        licence="not stated by its publishers",
        citation="Eunsol Choi, Omer Levy, Yejin Choi and Luke Zettlemoyer: Ultra-Fine Entity "
        "Typing, ACL 2018",
        source="https://github.com/thunlp/ERNIE (nine coarse types; Wikidata links by TAGME)",
        obtain="the OpenEntity folder of the ERNIE release (https://github.com/thunlp/ERNIE) "
        "with train.json, dev.json and test.json",
        sizes=dict.fromkeys(Split, Size(1998, 37)),
    )
    name = "open-entity"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # ERNIE's setting; light tunings take its batches and epochs, at rates of their own.
        "full": {"learning_rate": 2e-5, "batch_size": 16, "epochs": 10, "warmup": 0.1},
        "lora": {"batch_size": 16, "epochs": 10},
        "adapter": {"batch_size": 16, "epochs": 10},
        "bitfit": {"batch_size": 16, "epochs": 10},
        "head": {"batch_size": 16},
    }
