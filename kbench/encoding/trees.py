"""Candidates of an answer beside each other in one row: a text once, then a tree of their tokens.

``log p(c | x) = Σ_i log p(c_i | x, c_<i)`` of each of C candidates wants one pass over the text and
one over each token that another follows, not C passes over the text. The tokens of the candidates
that begin alike are shared, as the branches of a tree; each sees the text and those it follows, at
the positions that it would have in a text of its own. A candidate of one token costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from kbench.encoding.batch import Batch, TreeBatch
from kbench.encoding.demonstrations import Demonstrations
from kbench.encoding.inputs import Inputs

__all__ = ["ROW", "Continued", "Ranked", "Tree", "Trees", "behind_nothing"]

ROW = 2048
"""Tokens of candidates in a row at most: attention is to so many times as many."""
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Tree:
    """The tokens of candidates as a tree, whose root is the last token of a text.

    Attributes:
        tokens: of the nodes below the root, parents first: tokens that another follows. ``[N]``.
        depths: how many tokens each is after the text, from 1. ``[N]``.
        sees: whether a node (first) is another (second) or follows it. ``[N, N]``.
        places: the node after which each token of each candidate comes that is said of it, 0 for
            the root, else a node's number plus 1. ``[steps]``.
        targets: these tokens. ``[steps]``.
        owners: the candidate that each is of. ``[steps]``.
        candidates: how many.
    """

    tokens: NDArray[np.int64]
    depths: NDArray[np.int64]
    sees: NDArray[np.bool_]
    places: NDArray[np.int64]
    targets: NDArray[np.int64]
    owners: NDArray[np.int64]
    candidates: int

    @classmethod
    def of(cls, candidates: Sequence[Sequence[int]], asked: Sequence[int] = ()) -> Tree:
        """Returns the tree of candidates.

        Args:
            candidates: the token ids that each is spelled by.
            asked: how many of these a candidate begins with that are read and not said; none where
                nothing is given.

        Raises:
            ValueError: one has no token, or none that is said.
        """
        nodes: dict[tuple[int, ...], int] = {(): 0}
        places, targets, owners = list[int](), list[int](), list[int]()
        for number, spelled in enumerate(map(tuple, candidates)):
            read = asked[number] if asked else 0
            if len(spelled) <= read:
                raise ValueError(f"candidate {number} has no token")
            for at, token in enumerate(spelled):
                place = nodes.setdefault(spelled[:at], len(nodes))
                if at >= read:
                    places.append(place)
                    targets.append(token)
                    owners.append(number)
        below = list(nodes)[1:]
        sees = np.zeros((len(below), len(below)), dtype=bool)
        for number, path in enumerate(below):
            sees[number, [nodes[path[:at]] - 1 for at in range(1, len(path) + 1)]] = True
        return cls(
            tokens=np.array([path[-1] for path in below], dtype=np.int64),
            depths=np.array([len(path) for path in below], dtype=np.int64),
            sees=sees,
            places=np.array(places, dtype=np.int64),
            targets=np.array(targets, dtype=np.int64),
            owners=np.array(owners, dtype=np.int64),
            candidates=len(candidates),
        )

    def parted(self, most: int) -> list[Tree]:
        """Returns trees of some of the candidates each, in their order, that all together have.

        Args:
            most: nodes of each, but for one that a single candidate needs more of.
        """
        if len(self) <= most:
            return [self]
        order = np.argsort(self.owners, kind="stable")
        ends = np.flatnonzero(np.diff(self.owners[order])) + 1
        parts: list[tuple[set[int], list[NDArray[np.int64]]]] = []
        for steps in np.split(order, ends):
            after = self.places[steps] - 1
            needs = {*np.flatnonzero(self.sees[after[after >= 0]].any(0)).tolist()}
            if not parts or (parts[-1][0] and len(parts[-1][0] | needs) > most):
                parts.append((set(), []))
            parts[-1][0].update(needs)
            parts[-1][1].append(steps)
        return [self._of(sorted(nodes), np.concatenate(steps)) for nodes, steps in parts]

    def _of(self, nodes: Sequence[int], steps: NDArray[np.int64]) -> Tree:
        """A part: some nodes, and the steps that come after them."""
        kept = np.array(nodes, dtype=np.int64)
        return Tree(
            tokens=self.tokens[kept],
            depths=self.depths[kept],
            sees=self.sees[np.ix_(kept, kept)],
            places=np.append(-1, kept).searchsorted(self.places[steps] - 1),
            targets=self.targets[steps],
            owners=self.owners[steps],
            candidates=self.candidates,
        )

    @property
    def depth(self) -> int:
        """Tokens that may stand behind a text for it."""
        return int(self.depths.max(initial=0))

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Trees:
    """Texts to go on with, and the candidates of each, as trees.

    Attributes:
        inputs: the texts; the blank of each is its last token.
        trees: of candidates.
        which: the tree of each text. ``[examples]``.
    """

    inputs: Inputs
    trees: Sequence[Tree]
    which: NDArray[np.int64]

    @property
    def slot_rows(self) -> NDArray[np.int64]:
        """Those of the texts."""
        return self.inputs.slot_rows

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text and its tree. ``[examples]``."""
        sizes = np.array([len(tree) for tree in self.trees], dtype=np.int64)
        lengths: NDArray[np.int64] = self.inputs.lengths + sizes[self.which]
        return lengths

    @property
    def sequence_lengths(self) -> NDArray[np.int64]:
        """The same, as far as it stands in one row: each is one sequence. ``[examples]``."""
        sizes = self.lengths - self.inputs.lengths
        lengths: NDArray[np.int64] = self.inputs.lengths + np.minimum(sizes, ROW)
        return lengths

    @property
    def in_rows(self) -> bool:
        """Whether all candidates of each text stand in its row."""
        return bool((self.lengths == self.sequence_lengths).all())

    @property
    def beginnings(self) -> NDArray[np.int64] | None:
        """Those of the texts."""
        return self.inputs.beginnings

    @property
    def shortened(self) -> int:
        """That of the texts."""
        return self.inputs.shortened

    @property
    def unslotted(self) -> int:
        """That of the texts."""
        return self.inputs.unslotted

    @property
    def words(self) -> dict[str, int]:
        """Those of the texts."""
        return dict(self.inputs.words)

    @property
    def candidates(self) -> Sequence[tuple[str, ...]]:
        """None of their own."""
        return ()

    def behind(
        self, shown: Demonstrations, room: int, of: Sequence[Sequence[int]] | None = None
    ) -> Trees:
        """Returns the texts with what is shown before them, and their trees.

        Args:
            shown: demonstrations.
            room: tokens of a text and a branch of its tree at most.
            of: those of each text; None for all.
        """
        deepest = max(tree.depth for tree in self.trees)
        return replace(self, inputs=shown.before(self.inputs, room - deepest, of))

    def __len__(self) -> int:
        return len(self.inputs)

    def collate(
        self, chosen: NDArray[np.int64], targets: NDArray[np.generic] | None = None
    ) -> Batch:
        """Gathers texts into a padded batch, their trees after the padding.

        Args:
            chosen: some of the texts. ``[batch]``.
            targets: of all of them, if the batch is to have those of the chosen ones.

        Raises:
            ValueError: passages hang at mentions of the texts, which trees leave no room for.
        """
        batch = self.inputs.collate(chosen, targets)
        if batch.visible is not None:
            raise ValueError("passages that hang at a mention and trees are not read together")
        which = self.which[chosen].tolist()
        parted = {at: self.trees[at].parted(ROW) for at in {*which}}
        parts = [parted[at] for at in which]
        first, *more = (
            _grown(batch, [own[at] if at < len(own) else own[0]._of((), _NONE) for own in parts])
            for at in range(max(map(len, parts)))
        )
        return replace(first, more=tuple(more))

    def collate_sequences(self, chosen: NDArray[np.int64]) -> Batch:
        """Gathers texts likewise."""
        return self.collate(chosen)

    def choices(self, chosen: NDArray[np.int64]) -> None:
        """Nothing is decided between sequences."""
        return


@dataclass(frozen=True)
class Continued(Trees):
    """Texts whose answers a model says in its own words; the trees are what it is to learn.

    A batch to learn from has them, one to be answered has not.
    """

    @property
    def sequence_lengths(self) -> NDArray[np.int64]:
        """Tokens of each text. ``[examples]``."""
        return self.inputs.lengths

    def collate_sequences(self, chosen: NDArray[np.int64]) -> Batch:
        """Gathers texts without their trees."""
        return self.inputs.collate(chosen)


@dataclass(frozen=True)
class Ranked(Trees):
    """Texts whose candidates are told apart by name, each text having those of its tree.

    Attributes:
        names: of the candidates of each tree.
    """

    names: tuple[tuple[str, ...], ...] = ()

    @property
    def candidates(self) -> Sequence[tuple[str, ...]]:
        """The names of the candidates of each text, in their order."""
        return [self.names[tree] for tree in self.which.tolist()]


def _grown(batch: Batch, trees: Sequence[Tree]) -> Batch:
    """A batch of texts with their trees."""
    size, width = batch.ids.shape
    most = max(map(len, trees))
    lengths = batch.mask.sum(1).numpy()
    whole = width + most
    ids = np.zeros((size, whole), dtype=np.int64)
    mask = np.zeros((size, whole), dtype=np.int64)
    positions = np.zeros((size, whole), dtype=np.int64)
    ids[:, :width], mask[:, :width] = batch.ids.numpy(), batch.mask.numpy()
    positions[:, :width] = np.arange(width)
    for row, tree in enumerate(trees):
        own = slice(width, width + len(tree))
        ids[row, own], mask[row, own] = tree.tokens, 1
        positions[row, own] = lengths[row] + tree.depths - 1
    return replace(
        batch,
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask),
        positions=torch.from_numpy(positions),
        visible=torch.from_numpy(_visible(mask, width, trees)) if most else None,
        segments=None if batch.segments is None else functional.pad(batch.segments, (0, most)),
        tree=_steps(lengths, trees, width, whole),
        slot_index=_widened(batch.slot_index, width, whole),
        mentions=_widened(batch.mentions, width, whole),
        blank_index=_widened(batch.blank_index, width, whole),
        reach=int(positions.max()) + 1,
    )


def behind_nothing(batch: Batch, start: Sequence[int]) -> Batch:
    """Returns the trees of a batch without their texts: behind a few tokens, the same for all.

    Args:
        batch: of texts and their trees.
        start: the tokens, at least one.
    """
    tree = batch.tree
    assert tree is not None
    size, whole = batch.ids.shape
    own, before = tree.states // whole, tree.states % whole
    roots = torch.cat([torch.ones_like(own[:1], dtype=torch.bool), own[1:] != own[:-1]])
    # The trees of all rows begin in one column.
    width = whole if bool(roots.all()) else int(before[~roots].min())
    first, most = len(start), whole - width
    ids = torch.tensor(start, device=batch.ids.device).expand(size, first)
    depths = batch.positions[:, width:] if batch.positions is not None else batch.ids[:, width:]
    depths = (depths - batch.mask[:, :width].sum(1, keepdim=True) + first).clamp(min=0)
    visible = torch.ones(first, first, dtype=torch.bool, device=ids.device).tril()
    seen = torch.zeros(size, first + most, first + most, dtype=torch.bool, device=ids.device)
    seen[:, :first, :first] = visible
    seen[:, first:, :first] = True
    if batch.visible is not None:
        seen[:, first:, first:] = batch.visible[:, width:, width:]
    places = torch.arange(first, device=ids.device).expand(size, first)
    columns = torch.where(roots, first - 1, before - width + first)
    nothing = batch.slot_index[:0]
    return replace(
        batch,
        ids=torch.cat([ids, batch.ids[:, width:]], 1),
        mask=torch.cat([torch.ones_like(ids), batch.mask[:, width:]], 1),
        positions=torch.cat([places, depths], 1),
        visible=seen,
        slot_index=nothing,
        slot_rows=batch.slot_rows[:0],
        mentions=batch.mentions[:0],
        mention_rows=batch.mention_rows[:0],
        mention_owners=batch.mention_owners[:0],
        blank_index=nothing,
        targets=None,
        segments=None,
        states=None,
        tree=replace(tree, states=own * (first + most) + columns),
        shared=None,
        reach=None,
    )


def _widened(places: torch.Tensor, width: int, whole: int) -> torch.Tensor:
    """Places in rows of ``width`` tokens as places in wider ones."""
    return places // width * whole + places % width


def _visible(mask: NDArray[np.int64], width: int, trees: Sequence[Tree]) -> NDArray[np.bool_]:
    """Who sees whom: texts from left to right, a node its text and those it follows."""
    size, whole = mask.shape
    visible = np.zeros((size, whole, whole), dtype=bool)
    text = mask[:, None, :width] > 0
    visible[:, :width, :width] = np.tri(width, dtype=bool) & text
    visible[:, width:, :width] = text
    for row, tree in enumerate(trees):
        own = slice(width, width + len(tree))
        visible[row, own, own] = tree.sees
    return visible


def _steps(lengths: NDArray[np.int64], trees: Sequence[Tree], width: int, whole: int) -> TreeBatch:
    """Where each token of each candidate is predicted, and whose it is."""
    most = max(tree.candidates for tree in trees)
    states, places, targets, cells = [], [], [], []
    before = [0, *accumulate(len(tree) + 1 for tree in trees)]
    for row, tree in enumerate(trees):
        start = row * whole
        states.append(np.append(start + lengths[row] - 1, start + width + np.arange(len(tree))))
        places.append(before[row] + tree.places)
        targets.append(tree.targets)
        cells.append(row * most + tree.owners)
    # Not those after which nothing is said, but only read: logits are what is dear here.
    used, after = np.unique(np.concatenate(places), return_inverse=True)
    return TreeBatch(
        states=torch.from_numpy(np.concatenate(states)[used]),
        places=torch.from_numpy(after),
        targets=torch.from_numpy(np.concatenate(targets)),
        cells=torch.from_numpy(np.concatenate(cells)),
        examples=len(trees),
        candidates=most,
    )
