"""From text to batches on a device."""

from kbench.encoding.batch import Batch, BatchStates, Choices, Entities, ragged
from kbench.encoding.chat import answer_tokens
from kbench.encoding.computing import sent
from kbench.encoding.demonstrations import Demonstrations
from kbench.encoding.inputs import Branches, Encoded, Inputs, TokenKind
from kbench.encoding.layout import Layout, encode, known_markers
from kbench.encoding.micro_batches import targets_in
from kbench.encoding.pairs import Pairs
from kbench.encoding.passages import Passage
from kbench.encoding.tokens import (
    Affixes,
    affixes,
    bare_tokens,
    inner_tokens,
    joined_tokens,
    known_words,
)
from kbench.encoding.training_data import Data, Examples
from kbench.encoding.trees import Continued, Ranked, Tree, Trees

__all__ = [
    "Affixes",
    "Batch",
    "BatchStates",
    "Branches",
    "Choices",
    "Continued",
    "Data",
    "Demonstrations",
    "Encoded",
    "Entities",
    "Examples",
    "Inputs",
    "Layout",
    "Pairs",
    "Passage",
    "Ranked",
    "TokenKind",
    "Tree",
    "Trees",
    "affixes",
    "answer_tokens",
    "bare_tokens",
    "encode",
    "inner_tokens",
    "joined_tokens",
    "known_markers",
    "known_words",
    "ragged",
    "sent",
    "targets_in",
]
