"""What stands against a run that only its parts together show: seen while a grid is planned.

A backbone without a masked-LM head for a task that is answered at [MASK], a tuning that finds
nothing to train, a knowledge base without what a method needs: nothing of it has to be trained to
be known. What a part does not say here is found when the run is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

from kbench.data.files import canonical_digest
from kbench.errors import InputError, Unsupported
from kbench.knowledge import KnowledgeBase
from kbench.model import DownstreamModel, LanguageModel
from kbench.parts.run_parts import Parts, headed, loaded
from kbench.spec import PACKED, Control

__all__ = ["Obstacles"]


class Obstacles:
    """Looks at the parts of runs, each combination once; one backbone is in memory at a time."""

    def __init__(self) -> None:
        self._lm: tuple[str, LanguageModel] | None = None
        self._failed: dict[str, BaseException] = {}
        self._known: dict[str, str] = {}

    def of(self, parts: Parts) -> str:
        """Returns why the parts of a run do not go together; empty if nothing is seen.

        Raises:
            InputError: the backbone cannot be loaded.
        """
        spec, base = parts.spec, parts.base_knowledge
        if spec.weights in PACKED:
            return ""  # loaded where it computes alone, which may be elsewhere
        # The data too: those of one's own say what family the task is of.
        tuned = [spec.task, spec.data, spec.options_of("task")]
        tuned += [spec.tuning, spec.options_of("tuning")]
        why = self._against(parts, tuned, lambda lm: _check_tuning(parts, lm))
        if why or base is None:
            return why
        informed = [spec.method, spec.options_of("method"), str(spec.setting), base.digest]
        why = self._against(parts, informed, lambda lm: _check_method(parts, lm, base))
        return why or _against_control(spec.control, base)

    def _against(
        self, parts: Parts, about: Sequence[Any], check: Callable[[LanguageModel], None]
    ) -> str:
        """What a check says against a part, which is asked once for all runs that are alike."""
        key = canonical_digest([parts.backbone.digest, parts.spec.weights, *about])
        if key not in self._known:
            try:
                check(self._loaded(parts))
                self._known[key] = ""
            except Unsupported as reason:
                self._known[key] = str(reason)
            except (InputError, KeyboardInterrupt):
                raise
            except BaseException:  # a plugin may fail in any way: told where its run is tried
                self._known[key] = ""
        return self._known[key]

    def _loaded(self, parts: Parts) -> LanguageModel:
        name = f"{parts.backbone.digest} {parts.spec.weights}"
        if name in self._failed:  # read once more, it would be no better
            raise self._failed[name]
        if self._lm is None or self._lm[0] != name:
            self._lm = None  # before the next one is loaded
            try:
                self._lm = name, loaded(parts)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._failed[name] = error
                raise
        return self._lm[1]


def _against_control(control: Control, base: KnowledgeBase) -> str:
    if control == Control.SAME_TYPE and not base.has_types:
        return f"control {control}: knowledge base {base.name} has no types; foreign needs none"
    return ""


def _check_method(parts: Parts, lm: LanguageModel, base: KnowledgeBase) -> None:
    parts.method.check(lm, base)
    parts.method.check_training(parts.spec.setting, lm, base)


def _check_tuning(parts: Parts, lm: LanguageModel) -> None:
    """Lets a tuning prepare a model whose weights are those of the network, and are not copied.

    Raises:
        Unsupported: it finds nothing to train, or the head nothing to read.
    """
    model = DownstreamModel(lm, headed(parts, lm))
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    parts.tuning.prepare(deepcopy(model, shared), parts.tuning_options)
    model.requires_grad_(False)
