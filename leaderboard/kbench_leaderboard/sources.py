"""Texts and knowledge beside the predictions of strangers, where they are at hand.

A result names its data and knowledge by paths of the machine that it was made on. None of them is
followed: texts come from tasks that bring their data along or from a folder that the builder of a
site gives, knowledge from bundles that are installed or given, and both only where their digests
are those that the result states.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kbench.data import Example
from kbench.data.files import canonical_digest
from kbench.errors import KbenchError
from kbench.knowledge import Bundle
from kbench.parts.find import find_knowledge
from kbench.parts.registry import Kind, names
from kbench.results.example_diff import Injected, Texts, Views, injected
from kbench.store import Result

__all__ = ["PLACEHOLDER", "Sources", "leads_elsewhere", "without_paths"]

PLACEHOLDER = "DATA"
"""Stands for the folder of data in what a page shows, whatever the result says."""
_LARGE = 200_000
"""Entities above which neighbours are not looked for: every search reads all vectors."""


def without_paths(result: Result) -> Result:
    """Returns a result that names no folder of data: what is opened is not for it to say."""
    if result.spec.data is None:
        return result
    return result.model_copy(update={"spec": result.spec.model_copy(update={"data": None})})


class Sources:
    """What a site may show beside predictions.

    Args:
        data: folder of data sets, as for ``kbench run --data``.
        bundles: folders of knowledge bases.
    """

    def __init__(self, data: Path | None = None, bundles: Sequence[Path] = ()) -> None:
        self._data = str(data) if data else None
        self._given = {
            bundle.digest: bundle for bundle in (Bundle(path).checked() for path in bundles)
        }
        self._texts: dict[str, Texts] = {}
        self._injected: dict[str, list[list[Injected]]] = {}
        self._bundles: dict[str, Bundle | None] = {}
        self._views = Views()

    def examples(self, result: Result) -> Mapping[str, Example]:
        """Returns the test examples of a result by id; empty where they are not at hand."""
        options = result.spec.options.get("task", {})
        if result.provenance is None or leads_elsewhere(options):
            return {}
        digest = result.provenance.digests.get("data")
        key = canonical_digest([result.spec.task, options, digest])
        if key not in self._texts:
            self._texts[key] = Texts.of(without_paths(result), self._data)
        return self._texts[key].examples

    def knowledge(self, result: Result, examples: Sequence[Example]) -> list[list[Injected]]:
        """Returns what a run brought in for each mention of some examples; empty if unknown."""
        base = self._bundle(result)
        if base is None or not examples:
            return [[] for _ in examples]
        try:
            seen = self._views.of(result, base).digest
        except KbenchError:
            return [[] for _ in examples]
        linker = result.coverage.linker if result.coverage else result.spec.linker
        data = result.provenance.digests.get("data") if result.provenance else None
        of = [result.spec.task, result.spec.options.get("task"), data, linker]
        # By what was seen, not by who saw it: methods that cover the same entities share it.
        key = canonical_digest([seen, [e.id for e in examples], *of])
        if key not in self._injected:
            near = 3 if len(base) <= _LARGE else 0
            try:
                self._injected[key] = injected(result, base, examples, near, self._views)
            except KbenchError:  # whom nobody can answer for is found out late, and once
                self._injected[key] = [[] for _ in examples]
        return self._injected[key]

    def _bundle(self, result: Result) -> Bundle | None:
        name, made = result.spec.knowledge, result.provenance
        digest = made.digests.get("knowledge") if made else None
        if name is None or digest is None:
            return None
        if digest not in self._bundles:
            self._bundles[digest] = self._given.get(digest) or _installed(name, digest)
        return self._bundles[digest]


def _installed(name: str, digest: str) -> Bundle | None:
    if name not in names(Kind.KNOWLEDGE):
        return None
    try:
        bundle = find_knowledge(name)
    except KbenchError:
        return None
    return bundle if bundle.digest == digest else None


def leads_elsewhere(options: object) -> bool:
    """Returns whether an option could name a file outside the folder of data.

    Args:
        options: of a task, as a result states them.
    """
    if isinstance(options, Mapping):
        return any(map(leads_elsewhere, options.values()))
    if isinstance(options, str):
        return any(sign in options for sign in ("/", "\\", "..", "~"))
    return isinstance(options, Iterable) and any(map(leads_elsewhere, options))
