"""Knowledge as text: descriptions after the input, or facts at the mentions (K-BERT).

**Retrieval augmentation**, the text baseline of Zhang et al., "Plug-and-Play Knowledge Injection
for Pre-trained Language Models". Each distinct linked entity, in the order of the mentions, adds
``name : description`` as a second segment::

    [CLS] x [SEP] d_1 d_2 ... [SEP]

``x`` is never cut. The descriptions share equally what is left of the room, each cut at the end
of a sentence; what one does not need goes to the others.

**The visible matrix** of Liu et al., "K-BERT: Enabling Language Representation with Knowledge
Graph" (sections 3.2 and 3.3), needs no training either. Facts of an entity, ``relation tail``,
hang as branches at each of its mentions, of the second segment. Attention gets ``M``, and tokens
get soft positions::

    M_ij = 0 if i sees j else -inf,    softmax((Q K' + M) / sqrt(d_k)) V

A token of the sentence sees the sentence, and a branch if it belongs to its mention; a token of a
branch sees its own branch and its mention. A branch counts its positions on from the end of its
mention, as the sentence does, so that hanging something there moves nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.data import Example
from kbench.encoding import Batch, Layout, encode
from kbench.errors import Unsupported, first_line
from kbench.knowledge import KnowledgeBase, Rows, begins_with
from kbench.method import Fit, MethodCard, NoPlug, Plug
from kbench.model import LanguageModel, dropout
from kbench.spec import OptionType
from kbench.training import History
from kbench_baselines.untrained import Untrained

__all__ = ["RetrievalAugmentation", "Told", "VisibleMatrix", "facts_in_order"]

_PROBE = 256
"""Tokens of the text that shows what an attention goes by: longer than usual sliding windows."""


class _TextMethod(Untrained):
    """A method whose knowledge is text in the input: its plug is empty.

    Attributes:
        missing: what a knowledge base lacks that has nothing to tell.
    """

    reads_facts = True
    missing: ClassVar[str] = "no description, and no fact between two entities with names"

    def fit(self, plug: Plug, fit: Fit) -> History:
        """Counts, and tells, what has no name and so is not told."""
        true = fit.knowledge.unbroken
        entities, facts = true.unnamed()
        if not entities:
            return History()
        warnings.warn(
            f"knowledge base {true.name}: {entities:,} of {len(true):,} "
            "entities have no name (no label, no alias, an id that is no words), so that "
            f"{facts:,} of {len(true.triples):,} facts are not told",
            UserWarning,
            stacklevel=2,
        )
        return History(counts={"entities_without_name": entities, "facts_not_told": facts})

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an empty plug.

        Raises:
            Unsupported: there is nothing to tell of any entity.
        """
        true = knowledge.unbroken
        if not self.covers(true, np.arange(len(true), dtype=np.int64)).any():
            raise Unsupported(f"knowledge base {true.name} has nothing to tell: {self.missing}")
        return NoPlug()


def _check_attention(lm: LanguageModel) -> None:
    """Looks whether a backbone bears branches, whose tokens lie apart from their positions.

    Two things must hold, which relative positions counted by place (MPNet, DeBERTa) or sliding
    windows (ModernBERT) break: to see everything is the same as to have no visible matrix, and
    tokens in another order, with their own positions, have the same states.
    """
    batch = _probe(lm)
    order = torch.randperm(batch.ids.shape[1], generator=torch.Generator().manual_seed(0))
    name = type(lm.base).__name__
    with dropout(lm, None), torch.inference_mode():
        try:
            plain, whole, moved = (
                lm(b.to(lm.word_embeddings.weight.device))[0]
                for b in (replace(batch, visible=None), batch, _moved(batch, order))
            )
        except Unsupported:
            raise
        except Exception as cause:  # whatever a stranger's network raises at what it never saw
            reason = f"{name} does not take a visible matrix ({first_line(cause)})"
            raise Unsupported(reason) from cause
    if not _same(plain, whole):
        raise Unsupported(
            f"{name} attends through windows or another mask of its own, which a visible matrix "
            "would undo"
        )
    if not _same(plain[order.to(plain.device)], moved):
        raise Unsupported(f"{name} attends by the place of tokens, not by position ids")


def _probe(lm: LanguageModel) -> Batch:
    """A text of any tokens, all of which see all."""
    length = min(_PROBE, lm.max_length)
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(lm.word_embeddings.num_embeddings, (1, length), generator=drawn)
    empty = Example("probe", "", (), "")
    return replace(
        encode(lm.tokenizer, [empty], [()], Layout({})).collate(np.array([0])),
        ids=ids,
        mask=torch.ones_like(ids),
        positions=torch.arange(length)[None],
        visible=torch.ones(1, length, length, dtype=torch.bool),
    )


def _moved(batch: Batch, order: Tensor) -> Batch:
    assert batch.positions is not None
    return replace(batch, ids=batch.ids[:, order], positions=batch.positions[:, order])


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-2 * one.abs().max())


class Told(_TextMethod):
    """A method that tells what is known of an entity.

    The option ``text`` says what is told: ``description``, that of the entity, or its facts where
    it has none; ``facts``, a line ``head relation tail .`` each, those of the commonest relation of
    the knowledge base first; or ``both``, the facts after the description.

    A description that begins with
    the name goes without ``name :``, and so does that of an entity without a name; where the true
    description begins so, another's in its place (the shuffled control) goes without it as well,
    so that the form is the same.
    """

    option_types: ClassVar[Mapping[str, OptionType]] = {
        "room": OptionType("whole number", least=1),
        "text": OptionType("text", words=("description", "facts", "both")),
    }

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        only_facts = self.options["text"] == "facts"
        return knowledge.has_facts(rows) if only_facts else knowledge.described(rows)

    def passages(self, knowledge: KnowledgeBase, row: int) -> Sequence[str]:
        told, described = self.options["text"], bool(knowledge.entity(row).description.strip())
        facts = facts_in_order(knowledge, row) if told != "description" else []
        texts = self._described(knowledge, row) if told == "description" or described else []
        return (*(() if told == "facts" else texts), *(["\n".join(facts)] if facts else []))

    def _described(self, knowledge: KnowledgeBase, row: int) -> Sequence[str]:
        name, text = knowledge.name_of(row), knowledge.describe(row)
        if not text:
            return ()
        true = knowledge.unbroken.describe(row)
        named = not name or begins_with(text, name) or begins_with(true, name)
        return (text if named else f"{name} : {text}",)


@final
class RetrievalAugmentation(Told):
    """Retrieval augmentation: what is known of an entity, after the input.

    Options: ``text``, and ``room``, the tokens of an input with its texts at most.
    """

    card = MethodCard(
        title="RA",
        paper="Plug-and-Play Knowledge Injection for Pre-trained Language Models (ACL 2023), "
        "its baseline of retrieval augmentation",
        year=2023,
        needs="descriptions or facts; room for longer inputs",
        citation="2023.acl-long.594",
        authors="Zhengyan Zhang, Zhiyuan Zeng, Yankai Lin, Huadong Wang, Deming Ye, Chaojun "
        "Xiao, Xu Han, Zhiyuan Liu, Peng Li, Maosong Sun and Jie Zhou",
        trains="0",
    )
    revision = "2"
    text = "appended"
    defaults: ClassVar[Mapping[str, Any]] = {"room": 256, "text": "description"}
    later_options = frozenset({"text"})


def facts_in_order(knowledge: KnowledgeBase, row: int) -> list[str]:
    """Returns the facts of an entity, a line each, those of the commonest relation first."""
    often = knowledge.facts_by_relation
    facts = sorted(knowledge.facts(row), key=lambda fact: -often.get(fact[0], 0))
    return knowledge.lines(row, facts)


@final
class VisibleMatrix(_TextMethod):
    """RA-VM: facts of an entity as branches that only its mention sees (K-BERT).

    Of an entity's facts the first ``facts`` count, in the order of the triples: K-BERT cuts a set
    to two, so that its choice changes with the seed of Python's hashes.
    """

    card = MethodCard(
        title="RA-VM (K-BERT)",
        paper="K-BERT: Enabling Language Representation with Knowledge Graph (AAAI 2020)",
        year=2020,
        needs="triples; a backbone that attends by position ids and mask alone",
        citation="arXiv:1909.07606",
        authors="Weijie Liu, Peng Zhou, Zhe Zhao, Zhiruo Wang, Qi Ju, Haotang Deng and Ping Wang",
        trains="0",
    )
    revision = "2"
    text = "hung"
    missing = "no fact between two entities with names"
    defaults: ClassVar[Mapping[str, Any]] = {"room": 256, "facts": 2}
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "room": OptionType("whole number", least=1),
        "facts": OptionType("whole number", least=0),
    }

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        return knowledge.has_facts(rows) & (int(self.options["facts"]) > 0)

    def passages(self, knowledge: KnowledgeBase, row: int) -> Sequence[str]:
        chosen = knowledge.facts(row)[: int(self.options["facts"])]
        return [f"{relation} {tail}" for relation, tail in chosen]

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        if lm.left_to_right:
            raise Unsupported(
                "facts that hang at a mention stand behind it and are hidden from the text that "
                "goes on there; it needs a backbone that reads both ways (ra tells a decoder facts)"
            )
        _check_attention(lm)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an empty plug.

        Raises:
            Unsupported: the backbone reads from left to right, or attends by anything but
                position ids and mask; or there is nothing to tell of any entity.
        """
        self.check(lm, knowledge)
        return super().build(lm, knowledge)
