"""E-BERT (Poerner, Waltinger and Schütze, "E-BERT: Efficient-Yet-Effective Entity Embeddings").

Entities and words that share one vector space (Wikipedia2Vec's in the paper) come into the input
space of the frozen model by one linear map, fitted on the words that are wordpieces too
(section 3)::

    U* = argmin_U || X U - Y ||_F^2       X: [n, d] vectors of words in the entities' space
                                          Y: [n, H] vectors of the same words as wordpieces
    E(e) = k_e U*                         no bias, no weights

    concat:   ... E(e) "/" m_1 ... m_n ...        replace:   ... E(e) ...

Concat is map-tuning's input form with a map in closed form. Nothing is trained.

**Anchors** are the rows of ``X`` and ``Y``. With *words* they are the paper's: words of the space
that are spelled like one whole wordpiece, one each; specials and continuations are none. A bundle
whose space has no words (TransE) leaves *names*: entities whose name is a single wordpiece.
Names go through the control, so that broken vectors break the fit as well; words do not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kbench.encoding import inner_tokens
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Rows, Vectors
from kbench.method import Fit, MethodCard, Plug
from kbench.model import LanguageModel
from kbench.spec import OptionType
from kbench.training import History
from kbench_baselines.untrained import Untrained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["EBert", "LinearMap", "least_squares", "whole_wordpieces"]

_FORMS = {"concat": "{slot} / {mention}", "replace": "{slot}"}
_BLOCK = 1 << 16
_QUICK = 100_000
"""Names or words whose anchors are counted while a grid is planned."""
_SAMPLE = 1 << 14


@final
class LinearMap(Plug):
    """The map ``U``: a buffer of ``d * H`` numbers, no parameters.

    Args:
        knowledge: gives ``k_e``.
        width: ``H``, the size of a word embedding.
    """

    matrix: Tensor

    def __init__(self, knowledge: KnowledgeBase, width: int) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.register_buffer("matrix", torch.zeros(knowledge.dimension, width))

    def slot_vectors(self, rows: Tensor) -> Tensor:
        """Maps the vectors of entities. ``[slots] -> [slots, H]``."""
        return self.vectors_of(rows) @ self.matrix


def least_squares(x: Vectors, y: Tensor) -> Tensor:
    """Returns ``argmin_U ||x U - y||_F^2``, of the smallest norm where there are several.

    In float64 on the host. Shapes: ``[n, d]``, ``[n, H]`` to ``[d, H]``.
    """
    solved, *_ = np.linalg.lstsq(
        np.asarray(x, dtype=np.float64), y.cpu().double().numpy(), rcond=None
    )
    return torch.from_numpy(solved)


def whole_wordpieces(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, spelled_alike: bool = False
) -> NDArray[np.int64]:
    """Returns the token of each text that is one whole wordpiece, else -1. ``[texts]``.

    A text stands after a blank, as a word does: byte-level and SentencePiece tokenizers mark the
    beginning of a word by it, and what only continues a word is never found.

    Args:
        tokenizer: a fast tokenizer.
        texts: words or names.
        spelled_alike: leave out texts that the tokenizer spells otherwise (in lower case).
    """
    tokens = np.full(len(texts), -1, dtype=np.int64)
    unfit = set(tokenizer.all_special_ids)
    for start in range(0, len(texts), _BLOCK):
        block = texts[start : start + _BLOCK]
        pieces = inner_tokens(tokenizer, block)
        for at, ids in enumerate(pieces, start):
            if len(ids) == 1 and ids[0] not in unfit and texts[at].strip():
                tokens[at] = ids[0]
    if spelled_alike:
        chosen = np.flatnonzero(tokens >= 0).tolist()
        words = tokenizer.batch_decode([[token] for token in tokens[chosen].tolist()])
        other = [at for at, word in zip(chosen, words, strict=True) if word.strip() != texts[at]]
        tokens[other] = -1
    return tokens


def _covered(knowledge: KnowledgeBase) -> Rows:
    everyone = np.arange(len(knowledge), dtype=np.int64)
    return everyone[knowledge.has_vector(everyone)]


def _norms(plug: LinearMap, knowledge: KnowledgeBase, table: Tensor) -> dict[str, int]:
    """Mean norms of mapped entities (some thousands, evenly spaced) and of wordpieces.

    Far apart, they say that slots are louder or softer than words: nothing in the fit holds the
    norm of ``E(e)``.
    """
    covered = _covered(knowledge)
    some = covered[:: max(1, len(covered) // _SAMPLE)]
    means = {
        "norm_slots_thousandths": plug.slot_vectors(torch.from_numpy(some)),
        "norm_wordpieces_thousandths": table,
    }
    return {name: round(1000 * float(v.norm(dim=1).mean())) for name, v in means.items() if len(v)}


@final
class EBert(Untrained):
    """E-BERT: entity vectors in the wordpiece space, by least squares over shared words.

    Options: ``form`` (``concat`` or ``replace``) and ``anchors`` (``words``, ``names``, or
    ``auto``: words where there are any).
    """

    card = MethodCard(
        title="E-BERT",
        paper="E-BERT: Efficient-Yet-Effective Entity Embeddings for BERT (Findings of EMNLP 2020)",
        year=2020,
        needs="entity vectors, with words in their space or names that are wordpieces",
        citation="2020.findings-emnlp.71",
        authors="Nina Poerner, Ulli Waltinger and Hinrich Schütze",
        trains="0 (d H in closed form)",
    )
    revision = "2"
    defaults: ClassVar[Mapping[str, Any]] = {"form": "concat", "anchors": "auto"}
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "form": OptionType("text", words=("concat", "replace")),
        "anchors": OptionType("text", words=("auto", "words", "names")),
    }

    def template(self) -> str:
        return _FORMS[self.options["form"]]

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        """Counts the anchors, where there are not too many names or words to do so quickly."""
        super().check(lm, knowledge)
        words = knowledge.words
        if max(len(knowledge), len(words.words) if words else 0) <= _QUICK:
            self._anchored(lm, knowledge)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        return LinearMap(knowledge, lm.slot_width)

    def fit(self, plug: Plug, fit: Fit) -> History:
        """Solves for ``U``; counts anchors, and mean norms in thousandths.

        Raises:
            Unsupported: there are no anchors, or fewer than dimensions.
        """
        assert isinstance(plug, LinearMap)
        started = time.perf_counter()
        kind, vectors, tokens = self._anchored(fit.lm, fit.knowledge)
        table = fit.lm.word_vectors.detach()
        solved = least_squares(vectors, table[torch.from_numpy(tokens).to(table.device)])
        plug.matrix.copy_(solved)
        counts = {f"anchors_{kind}": len(tokens), **_norms(plug, fit.knowledge, table)}
        return History(seconds=time.perf_counter() - started, counts=counts)

    def _anchored(
        self, lm: LanguageModel, knowledge: KnowledgeBase
    ) -> tuple[str, Vectors, NDArray[np.int64]]:
        """Returns the anchors if there are enough of them."""
        kind, vectors, tokens = self._anchors(lm, knowledge)
        if len(tokens) < max(1, knowledge.dimension):
            raise Unsupported(
                f"E-BERT has {len(tokens)} anchors ({kind} that are single wordpieces) for "
                f"{knowledge.dimension} dimensions of {knowledge.name}"
            )
        return kind, vectors, tokens

    def _anchors(
        self, lm: LanguageModel, knowledge: KnowledgeBase
    ) -> tuple[str, Vectors, NDArray[np.int64]]:
        """Returns their kind, vectors ``[n, d]`` and tokens ``[n]``."""
        words, wanted = knowledge.words, self.options["anchors"]
        if wanted == "words" or (wanted == "auto" and words):
            if words is None:
                raise Unsupported(f"knowledge base {knowledge.name} has no words in its space")
            tokens = whole_wordpieces(lm.tokenizer, words.words, spelled_alike=True)
            vectors, tokens = words.vectors[tokens >= 0], tokens[tokens >= 0]
            known = np.isfinite(vectors).all(1)
            return "words", vectors[known], tokens[known]
        covered = _covered(knowledge)
        tokens = np.full(len(covered), -1, dtype=np.int64)
        for at in range(0, len(covered), _BLOCK):
            names = [knowledge.name_of(row) for row in covered[at : at + _BLOCK].tolist()]
            tokens[at : at + _BLOCK] = whole_wordpieces(lm.tokenizer, names)
        return "names", knowledge.vectors(covered[tokens >= 0]), tokens[tokens >= 0]
