"""Link prediction: how well vectors tell facts that they were not trained on.

A fact ``(head, relation, tail)`` is ranked among those with any other entity as its tail, and among
those with any other as its head; other facts that are true are left out of both (*filtered*), and
of equal scores the mean rank counts (*realistic*). All of it is PyKEEN's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kbench.knowledge.bundle import SPLITS, Bundle

__all__ = ["Facts", "HeldOut", "held_out", "ranked"]

_SHARE = 20
"""Of a graph without splits at most one fact of so many is held out."""
_SCORES = 1 << 27
"""Numbers that the scores of a batch are made of, at most: those of models are sums of as many."""
_BATCH = 32

Facts: TypeAlias = NDArray[np.int32]
"""Facts as rows: head, relation, tail. ``[n, 3]``."""


@dataclass(frozen=True)
class HeldOut:
    """Facts that vectors are trained on, and facts that are ranked.

    Attributes:
        train: whether each fact of the bundle may be trained on. ``[triples]``.
        ranked: facts that are ranked, none of which may be trained on. ``[n, 3]``.
        split: ``valid`` or ``test``, or ``seeded hold-out`` where the bundle knows no splits.
        size: how many facts the split has.
    """

    train: NDArray[np.bool_]
    ranked: Facts
    split: str
    size: int

    def about(self, facts: Facts) -> dict[str, Any]:
        """Returns what the card says of them.

        Args:
            facts: all of the bundle, ``[triples, 3]``.
        """
        known = facts[self.train]
        size = int(facts[:, [0, 2]].max()) + 1
        heads, tails = known[:, 0].astype(np.int64), known[:, 2].astype(np.int64)
        joined = np.concatenate([heads * size + tails, tails * size + heads])
        asked = self.ranked[:, 0].astype(np.int64) * size + self.ranked[:, 2]
        seen = np.isin(self.ranked[:, [0, 2]], known[:, [0, 2]]).all(axis=1)
        return {
            "split": self.split,
            "facts_of_the_split": self.size,
            "facts_ranked": len(self.ranked),
            "facts_trained_on": len(known),
            "ranked_pairs_in_training": int(np.isin(asked, joined).sum()),
            "ranked_with_an_entity_not_in_training": int((~seen).sum()),
        }


def held_out(bundle: Bundle, split: str, number: int, seed: int) -> HeldOut | None:
    """Returns facts to be ranked: of the bundle's own split, else such as are drawn by a seed.

    What is drawn leaves each entity and relation in a fact that is trained on.

    Args:
        bundle: whose facts.
        split: ``valid`` or ``test``; neither is trained on.
        number: how many are ranked at most, drawn by the seed from those of the split.
        seed: of what is drawn.

    Returns:
        The facts; None where none can be held out.
    """
    rng = np.random.default_rng(seed)
    facts, splits = np.asarray(bundle.triples), bundle.splits
    if splits is not None and (splits == 0).any():
        own = np.flatnonzero(splits == SPLITS.index(split))
        if len(own):
            chosen = np.sort(rng.choice(own, size=min(number, len(own)), replace=False))
            return HeldOut(np.asarray(splits == 0), facts[chosen], split, len(own))
    order = rng.permutation(len(facts))
    kept = np.zeros(len(facts), dtype=bool)
    for columns in ([0, 2], [1]):  # the first fact of each entity, of each relation
        first = np.unique(facts[order][:, columns].ravel(), return_index=True)[1]
        kept[order[first // len(columns)]] = True
    loose = order[~kept[order]][: min(number, max(1, len(facts) // _SHARE))]
    if not len(loose):
        return None
    train = np.ones(len(facts), dtype=bool)
    train[loose] = False
    return HeldOut(train, facts[np.sort(loose)], "seeded hold-out", len(loose))


def ranked(model: Any, facts: Facts, known: Facts, width: int) -> dict[str, float]:
    """Ranks facts among all entities, both sides, and returns MRR and Hits@10.

    Args:
        model: of PyKEEN.
        facts: to be ranked. ``[n, 3]``.
        known: all that are true, whether trained on or not. ``[triples, 3]``.
        width: numbers that a score is made of.
    """
    import torch
    from pykeen.evaluation import RankBasedEvaluator

    batch = max(1, min(_BATCH, _SCORES // max(1, width * model.num_entities)))
    with torch.no_grad():
        result = RankBasedEvaluator(filtered=True).evaluate(
            model,
            torch.from_numpy(np.array(facts, dtype=np.int64)),
            additional_filter_triples=torch.from_numpy(np.array(known, dtype=np.int64)),
            batch_size=batch,
            use_tqdm=False,
        )
    names = {"mrr": "inverse_harmonic_mean_rank", "hits_at_10": "hits_at_10"}
    return {
        name: round(float(result.get_metric(f"both.realistic.{metric}")), 4)
        for name, metric in names.items()
    }
