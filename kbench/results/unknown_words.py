"""Whether a backbone could read what it was given, or most of it was unknown to its tokenizer."""

from __future__ import annotations

from kbench.store import Result

__all__ = ["unknown_words"]

_MOST = 0.5


def unknown_words(result: Result) -> str:
    """Returns that most of a run's test texts, or of its passages, are ``[UNK]``; else nothing."""
    told = []
    for kind, name in (("text", "texts"), ("passage", "passages")):
        of = result.counts.get(f"test_{kind}_tokens", 0)
        unknown = result.counts.get(f"test_unknown_{kind}_tokens", 0)
        if of and unknown >= _MOST * of:
            told.append(f"{unknown:,} of {of:,} tokens of its test {name}")
    return f"the backbone's vocabulary does not know {' and '.join(told)}" if told else ""
