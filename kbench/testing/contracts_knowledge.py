"""What holds for every knowledge base."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from kbench.knowledge import Bundle, KnowledgeBase, Rows
from kbench.knowledge.controls import Random, Shuffled, Zero
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.find import find_knowledge
from kbench.parts.source_text import summary
from kbench.testing.contracts import Finding, Unchecked, Verdict, contract

__all__ = ["CONTRACTS", "subject"]

_DRAWN = 500
"""Entities that are looked at."""


class Opened:
    """A knowledge base, opened when first asked for.

    Args:
        name: of the knowledge base.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry = registry.find(Kind.KNOWLEDGE, name)

    @cached_property
    def bundle(self) -> Bundle:
        """The knowledge base."""
        return find_knowledge(self.name)

    @cached_property
    def rows(self) -> Rows:
        """Some rows, spread over all. ``[rows]``."""
        count = len(self.bundle)
        return np.unique(np.linspace(0, count - 1, min(count, _DRAWN)).astype(np.int64))

    @property
    def covered(self) -> Rows:
        """Those of them that have a vector. ``[covered]``."""
        return self.rows[self.bundle.has_vector(self.rows)]

    @property
    def controls(self) -> dict[str, KnowledgeBase]:
        """The knowledge base seen through each control."""
        base = self.bundle
        return {"shuffled": Shuffled(base, 0), "random": Random(base, 0), "zero": Zero(base)}


subject = Opened


@contract
def card(opened: Opened) -> Verdict:
    """The card is complete."""
    wanted = ("name", "version", "licence", "source", "digest")
    missing = [name for name in wanted if not opened.bundle.card.get(name)]
    missing += [] if summary(opened.entry) else ["the first line of the docstring"]
    counts = ", ".join(f"{v} {k}" for k, v in opened.bundle.card["counts"].items())
    return not missing, f"missing: {', '.join(missing)}" if missing else counts


@contract
def files(opened: Opened) -> Verdict:
    """Every file has the content that the card states."""
    opened.bundle.verify()
    return True, f"{len(opened.bundle.card['files'])} files, digest {opened.bundle.digest[:8]}"


@contract
def ids(opened: Opened) -> Verdict:
    """Ids lead to their rows and back; an unknown id leads nowhere."""
    names = [opened.bundle.entity(row).id for row in opened.rows.tolist()]
    rows = opened.bundle.rows(names)
    lost = int((rows != opened.rows).sum())
    nobody = opened.bundle.rows(["nobody has this id", None, ""]).tolist()
    good = not lost and nobody == [-1, -1, -1] and len(set(names)) == len(names)
    return good, f"{len(names) - lost} of {len(names)} ids found again, unknown ones at {nobody}"


@contract
def facts(opened: Opened) -> Verdict:
    """Triples speak of entities and relations that there are; there is a label a row."""
    bundle, triples = opened.bundle, opened.bundle.triples
    figure = f"{len(triples)} triples of {len(bundle.relations)} relations"
    if len(bundle.labels) != len(bundle):
        return False, f"{len(bundle.labels)} labels for {len(bundle)} entities"
    if not len(triples):
        return True, figure
    bounds = np.array([len(bundle), len(bundle.relations), len(bundle)])
    good = bool(((triples >= 0) & (triples < bounds)).all())
    return good, figure if good else f"{figure}, some out of range"


@contract
def vectors(opened: Opened) -> Verdict:
    """Vectors are finite, of the stated dimension, and row -1 has none."""
    bundle, rows = opened.bundle, opened.covered
    if not bundle.dimension:
        raise Unchecked("it has no vectors yet: see `kbench knowledge train`")
    gathered = bundle.vectors(rows)
    good = gathered.shape == (len(rows), bundle.dimension) and bool(np.isfinite(gathered).all())
    nobody = bool(bundle.has_vector(np.array([-1]))[0])
    share = f"{len(rows)} of {len(opened.rows)} looked at have {bundle.dimension} numbers"
    return good and not nobody and len(rows) > 0, share


@contract
def mentions(opened: Opened) -> Verdict:
    """Mentions of the corpus lie inside their sentence."""
    corpus = opened.bundle.sentences
    chosen = np.unique(np.linspace(0, len(corpus) - 1, min(len(corpus), _DRAWN)).astype(int))
    pairs = [(corpus[at].text, m) for at in chosen.tolist() for m in corpus[at].mentions]
    wrong = [text for text, m in pairs if not 0 <= m.start < m.end <= len(text)]
    figure = f"{len(pairs)} mentions in {len(chosen)} of {len(corpus)} sentences"
    return not wrong, figure + (f", {len(wrong)} outside" if wrong else "")


@contract
def controls(opened: Opened) -> Verdict:
    """Each control changes the vectors, has a digest of its own, and the same coverage."""
    true, rows = opened.bundle, opened.covered
    if not len(rows):
        raise Unchecked("it has no vectors yet: see `kbench knowledge train`")
    if true.has_vector(np.arange(len(true), dtype=np.int64)).sum() < 2:
        raise Unchecked("one entity alone has a vector, and nobody to answer for it")
    digests = {control.digest for control in opened.controls.values()} | {true.digest}
    wrong = [] if len(digests) == 4 else ["some digests are the same"]
    shares = []
    for name, control in opened.controls.items():
        other = (control.vectors(rows) != true.vectors(rows)).any(1)
        shares.append(f"{name} {int(other.sum())}")
        if other.mean() < 0.5:
            wrong.append(f"{name} changes {int(other.sum())} of {len(rows)}")
        if not np.array_equal(control.has_vector(opened.rows), true.has_vector(opened.rows)):
            wrong.append(f"{name} covers others")
    return not wrong, "; ".join(wrong) or f"of {len(rows)} vectors changed: {', '.join(shares)}"


CONTRACTS: tuple[Callable[[Opened], Finding], ...] = (
    card,
    files,
    ids,
    facts,
    vectors,
    mentions,
    controls,
)
