"""Examples that are shown to a model before it is asked: which, and in which order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from kbench.data.examples import Example

__all__ = ["drawn"]


def drawn(
    examples: Iterable[Example],
    shots: int,
    seed: int,
    shows: Callable[[Example], Mapping[str, str]],
) -> list[tuple[Example, str]]:
    """Draws examples to show, of as many classes as there are before one is shown again.

    They come in an order by digest, the same everywhere: no generator of random numbers has a
    say in it.

    Args:
        examples: to draw from.
        shots: how many, if there are as many.
        seed: other seeds draw others.
        shows: the classes that an example is of, and the answer that each of them is.

    Returns:
        the examples and their answers.
    """
    ordered = sorted(examples, key=lambda example: _digest(f"{seed}/{example.id}"))
    found: list[tuple[Example, str]] = []
    shown: Counter[str] = Counter()
    taken: set[str] = set()
    for times in range(shots):
        before = len(found)
        for example in ordered:
            if len(found) == shots:
                return found
            classes = {} if example.id in taken else shows(example)
            rare = next((name for name in sorted(classes) if shown[name] <= times), None)
            if rare is not None:
                found.append((example, classes[rare]))
                shown[rare] += 1
                taken.add(example.id)
        if len(found) == before:
            break
    return found


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
