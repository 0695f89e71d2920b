"""What kbench leaves on disk by content address: artifacts, hidden states, results."""

from kbench.store.artifacts import Artifact, Artifacts
from kbench.store.hidden_states import hidden_bytes
from kbench.store.packed import check_unmixed, check_unpacked, pack, packs, unpack
from kbench.store.pages import Budget
from kbench.store.result import (
    Coverage,
    Frozen,
    Predictions,
    Provenance,
    Result,
    Score,
    Status,
    read_predictions,
    read_result,
)
from kbench.store.results import Results, result_address

__all__ = [
    "Artifact",
    "Artifacts",
    "Budget",
    "Coverage",
    "Frozen",
    "Predictions",
    "Provenance",
    "Result",
    "Results",
    "Score",
    "Status",
    "check_unmixed",
    "check_unpacked",
    "hidden_bytes",
    "pack",
    "packs",
    "read_predictions",
    "read_result",
    "result_address",
    "unpack",
]
