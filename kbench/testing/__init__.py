"""Toy parts and contract suites for the authors of plugins.

The tests of a plugin take three lines::

    from kbench.testing import assert_contracts

    def test_contracts():
        assert_contracts("methods", "gated-map")
"""

from kbench.testing.contracts import Finding, assert_contracts, check, findings
from kbench.testing.planted import planted_scores
from kbench.testing.registration import registered

__all__ = [
    "Finding",
    "assert_contracts",
    "check",
    "findings",
    "planted_scores",
    "registered",
]
