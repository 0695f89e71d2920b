"""From text to batches on a device."""

from kbench.encoding.batch import Batch, ragged
from kbench.encoding.computing import sent
from kbench.encoding.inputs import Encoded, Inputs, TokenKind
from kbench.encoding.layout import Layout, encode
from kbench.encoding.micro_batches import targets_in
from kbench.encoding.tokens import affixes, bare_tokens
from kbench.encoding.training_data import Data, Examples

__all__ = [
    "Batch",
    "Data",
    "Encoded",
    "Examples",
    "Inputs",
    "Layout",
    "TokenKind",
    "affixes",
    "bare_tokens",
    "encode",
    "ragged",
    "sent",
    "targets_in",
]
