"""What must be read beside a score: on how many examples, read how well, and whether it says much.

A question whose answers no token spells is left out, and coverage is then a share of the rest. A
model that could read next to nothing, or gives one answer to everything, has a score too. All of
it is in the counts of a result; here it is put in words for whoever shows it.
"""

from __future__ import annotations

from collections.abc import Sequence

from kbench.data import Split
from kbench.spec import Control
from kbench.store import Result, Status

__all__ = [
    "follows",
    "kept",
    "left_out",
    "notes",
    "respelled",
    "silent",
    "undemonstrated",
    "unknown_words",
]

_MOST = 0.5
"""Share of unknown tokens from which on it is said."""


def kept(result: Result) -> dict[str, tuple[int, int]]:
    """Returns how many examples of each split were kept, and of how many, where it is known."""
    counts = result.counts
    return {
        str(split): (counts[f"{split}_kept"], counts[f"{split}_total"])
        for split in Split
        if f"{split}_kept" in counts and f"{split}_total" in counts
    }


def left_out(result: Result) -> str:
    """Returns on how many examples a score is, if some were left out; else nothing."""
    shares = {split: of for split, of in kept(result).items() if of[0] < of[1]}
    told = [f"{one:,} of {all_:,} {split} examples" for split, (one, all_) in shares.items()]
    # What is tested comes first.
    return ", ".join(sorted(told, key=lambda text: " test " not in text))


def silent(result: Result) -> str:
    """Returns that a model predicts nothing, or one thing alone, if it does; else nothing."""
    counts = result.counts
    tested = counts.get("test_kept", 0)
    if tested and counts.get("test_without_prediction") == tested:
        return f"nothing is predicted for any of the {tested:,} test examples"
    alike = counts.get("test_distinct_predictions") == 1
    if alike and counts.get("test_distinct_labels", 0) > 1:
        return f"one and the same is predicted for all {tested:,} test examples"
    return ""


def unknown_words(result: Result) -> str:
    """Returns that most of a run's test texts, or of its passages, are ``[UNK]``; else nothing."""
    told = []
    for kind, name in (("text", "texts"), ("passage", "passages")):
        of = result.counts.get(f"test_{kind}_tokens", 0)
        unknown = result.counts.get(f"test_unknown_{kind}_tokens", 0)
        if of and unknown >= _MOST * of:
            told.append(f"{unknown:,} of {of:,} tokens of its test {name}")
    return f"the backbone's vocabulary does not know {' and '.join(told)}" if told else ""


def follows(result: Result) -> str:
    """Returns why swapped values have no follow rate, if so; else nothing."""
    swapped = result.spec.control == Control.VALUE_SWAPPED and result.status == Status.OK
    if not swapped or "follow_rate" in result.metrics:
        return ""
    known = result.counts.get("test_false_known", 0)
    why = "the head can say none of the false values" if known else "no false answer is known"
    return f"no follow rate: {why} of its test examples"


def undemonstrated(result: Result) -> str:
    """Returns that demonstrations had no room in the window, if some had none; else nothing."""
    lost = result.counts.get("test_demonstrations_without_room", 0)
    tested = result.counts.get("test_kept", 0)
    if not lost or not tested:
        return ""
    return f"{lost / tested:.1f} demonstrations a test example have no room in the window"


def respelled(result: Result) -> str:
    """Returns of how many answers prompt and answer are other tokens as one text; else nothing."""
    other = result.counts.get("test_answers_spelled_otherwise", 0)
    tested = result.counts.get("test_kept", 0)
    if not other:
        return ""
    return f"{other:,} of {tested:,} answers are other tokens in one text with their prompt"


def notes(results: Sequence[Result]) -> list[str]:
    """Returns what must be read beside the scores of some runs, a line each."""
    lines = [f"Kept: {text}." for result in results if (text := left_out(result))]
    for result in results:
        said = (
            unknown_words(result),
            silent(result),
            follows(result),
            undemonstrated(result),
            respelled(result),
        )
        lines += [f"{result.spec.title}: {text}." for text in said if text]
    return list(dict.fromkeys(lines))
