"""Published figures of link prediction, for the cards of graphs that have them."""

from __future__ import annotations

from typing import Any

__all__ = ["published"]

_CODEX = "Safavi and Koutra, EMNLP 2020 (LibKGE)"
_LIBKGE = "LibKGE, README, after Ruffinelli et al., ICLR 2020"
_NGUYEN = "Nguyen et al., NAACL 2018, as cited by Sun et al."
_SUN = "Sun et al., ICLR 2019"

_FIGURES: dict[str, tuple[tuple[str, float, float, str], ...]] = {
    "fb15k-237": (
        ("TransE", 0.294, 0.465, _NGUYEN),
        ("TransE", 0.313, 0.497, _LIBKGE),
        ("DistMult", 0.343, 0.531, _LIBKGE),
        ("ComplEx", 0.348, 0.536, _LIBKGE),
        ("RotatE", 0.338, 0.533, _SUN),
    ),
    "codex-s": (("TransE", 0.354, 0.634, _CODEX), ("ComplEx", 0.465, 0.646, _CODEX)),
    "codex-m": (("TransE", 0.303, 0.454, _CODEX), ("ComplEx", 0.337, 0.476, _CODEX)),
    "codex-l": (("TransE", 0.187, 0.317, _CODEX), ("ComplEx", 0.294, 0.400, _CODEX)),
}
"""By graph: model, MRR and Hits@10 on its test split, filtered, both sides; and who says so."""


def published(graph: str) -> list[dict[str, Any]]:
    """Returns the published figures of a graph, for ``published`` of the card of its bundle."""
    return [
        {"model": model, "mrr": mrr, "hits_at_10": hits, "source": source}
        for model, mrr, hits, source in _FIGURES[graph]
    ]
