"""What kbench leaves on disk by content address: artifacts, hidden states, results."""

from kbench.store.artifacts import Artifacts
from kbench.store.result import Predictions, Result, Score, Status
from kbench.store.results import Results

__all__ = ["Artifacts", "Predictions", "Result", "Results", "Score", "Status"]
