"""The rules of every method, and knowledge that only the knowledge base can tell."""

from kbench.testing import assert_contracts, planted_scores


def test_contracts() -> None:
    assert_contracts("methods", "gated-map")


def test_it_finds_planted_knowledge() -> None:
    true, shuffled = planted_scores("gated-map")
    assert true > 0.7
    assert shuffled < 0.45  # a guess is right in one of four
