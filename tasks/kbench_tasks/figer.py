"""FIGER with Wikidata links, in the split and layout of the ERNIE release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from kbench.data import Size, Split, TaskCard
from kbench.metrics import LooseMacroF1, LooseMicroF1, Metric, StrictAccuracy
from kbench.spec import OptionType
from kbench_tasks.typing_records import ErnieTyping

__all__ = ["Figer"]

_FALLBACKS = {"argmax": True, "none": False}


def _metrics(fallback: bool) -> tuple[Metric, ...]:
    return StrictAccuracy(fallback), LooseMacroF1(fallback), LooseMicroF1(fallback)


class Figer(ErnieTyping):
    """FIGER: fine types of a marked mention in a sentence, with TAGME links (ERNIE's split).

    ``train.json`` (2,000,000 distantly labelled examples), ``dev.json`` (10,000) and
    ``test.json`` (563, labelled by hand) are lists of
    ``{sent, start, end, labels, ents: [[QID, start, end, confidence], …]}`` with labels such as
    ``/person/artist``. How links are read is said by
    :class:`~kbench_tasks.typing_records.ErnieTyping`.

    The option ``fallback`` says what is predicted where no logit is above 0: ``argmax``, the best
    type (ERNIE), or ``none``, nothing (K-Adapter). It is part of the metrics' variants. Strict
    accuracy is the main metric, as in ERNIE's table.
    """

    card = TaskCard(
        title="FIGER (ERNIE's split)",
        revision="1",
        licence="not stated by its publishers",
        citation="Xiao Ling and Daniel S. Weld: Fine-Grained Entity Recognition, AAAI 2012; "
        "split of Zhengyan Zhang, Xu Han, Zhiyuan Liu, Xin Jiang, Maosong Sun and Qun "
        "Liu: ERNIE: Enhanced Language Representation with Informative Entities, ACL "
        "2019",
        source="https://github.com/thunlp/ERNIE (Wikidata links by TAGME)",
        obtain="the FIGER folder of the ERNIE release (https://github.com/thunlp/ERNIE) with "
        "train.json, dev.json and test.json",
        sizes={Split.TRAIN: Size(2_000_000), Split.DEV: Size(10_000), Split.TEST: Size(563)},
    )
    name = "figer"
    max_length = 256
    fallback = True
    metrics = _metrics(fallback)
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        **ErnieTyping.defaults,
        "fallback": "argmax",
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        **ErnieTyping.option_types,
        "fallback": OptionType("text", words=("argmax", "none")),
    }
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # ERNIE's setting (32 steps of 64 accumulated); light tunings take its batches and epochs,
        # at rates of their own.
        "full": {"learning_rate": 2e-5, "batch_size": 2048, "epochs": 3, "warmup": 0.2},
        "lora": {"batch_size": 2048, "epochs": 3},
        "adapter": {"batch_size": 2048, "epochs": 3},
        "bitfit": {"batch_size": 2048, "epochs": 3},
        "head": {"batch_size": 2048},
    }

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        super().__init__(data, options)
        self.fallback = _FALLBACKS[str(self.options["fallback"])]
        self.metrics = _metrics(self.fallback)
