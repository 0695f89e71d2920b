"""FIGER with Wikidata links, in the split and layout of the ERNIE release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from kbench.data import Size, Split, TaskCard
from kbench.errors import UsageError, nearest
from kbench.metrics import LooseMacroF1, LooseMicroF1, Metric, StrictAccuracy
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
        citation="Ling and Weld: Fine-Grained Entity Recognition, AAAI 2012; split of Zhang, "
        "Han, Liu, Jiang, Sun and Liu: ERNIE: Enhanced Language Representation with Informative "
        "Entities, ACL 2019",
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
        "link_threshold": 0.3,
        "fallback": "argmax",
    }

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        super().__init__(data, options)
        given = str(self.options["fallback"])
        if given not in _FALLBACKS:
            hint = nearest(given, _FALLBACKS)
            raise UsageError(f"fallback is {given!r}: expected argmax or none{hint}")
        self.fallback = _FALLBACKS[given]
        self.metrics = _metrics(self.fallback)
