"""The addresses of a run made again of what its result states, without weights or knowledge.

An address hangs on digests, and a result says those of its data, backbone and knowledge base. So
whoever has the code of its parts can make its addresses again, and nothing that it names is opened.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NoReturn, cast

from kbench.errors import InputError
from kbench.knowledge import KnowledgeBase
from kbench.knowledge.linking import revised
from kbench.metrics import is_beside
from kbench.model import Backbone, LanguageModel
from kbench.parts.find import find_backbone, find_task, task_kind
from kbench.parts.registry import Kind, names
from kbench.parts.run_parts import PartLoader, Parts
from kbench.pipeline.addresses import addresses, result_id
from kbench.spec import RunSpec
from kbench.store import Result, result_address
from kbench.task import ProbeTask, Task

__all__ = ["NotHereError", "Stated", "check_options_of", "stated_id"]


class NotHereError(InputError):
    """What is asked for hangs on files that a result only names."""


class Stated:
    """The parts of a run as its result states them.

    Args:
        result: says their digests.
        task: with its data, where these are at hand.
        left_to_right: whether a backbone that is not installed is taken for one that reads so.
    """

    def __init__(self, result: Result, task: Task | None, *, left_to_right: bool) -> None:
        loader = _Loader(result, task, left_to_right=left_to_right)
        self._parts = Parts(result.spec, loader)

    @property
    def addresses(self) -> dict[str, str | None]:
        """Those of the downstream model and the plug.

        Raises:
            NotHereError: they hang on files that are not here.
            KbenchError: such a run cannot be.
        """
        return addresses(self._parts)

    @property
    def result_id(self) -> str:
        """The id of the result; as :attr:`addresses` raises."""
        return result_id(self._parts)

    @property
    def defaults(self) -> dict[str, object]:
        """What each option that the spec sets would be otherwise, by its path."""
        return self._parts.defaults

    @property
    def task(self) -> Task:
        """The task, with its data or with the digests that are stated of them."""
        return self._parts.task

    @property
    def linker(self) -> str:
        """The linker asked for, or the task's own."""
        return self._parts.linker

    @property
    def recipes(self) -> dict[str, dict[str, object] | None]:
        """How its ``tuning`` and its ``plug`` were trained; None where nothing trains."""
        parts, spec = self._parts, self._parts.spec
        made: dict[str, dict[str, object] | None] = {"tuning": None}
        if parts.tuning_recipe is not None:
            made["tuning"] = parts.tuning_recipe.as_dict()
        if spec.knowledge is not None and parts.method.trains:
            made["plug"] = parts.plug_recipe(spec.setting).as_dict()
        return made

    def trains(self, linked: bool) -> bool:
        """Returns whether what the run predicts hangs on its seed.

        Args:
            linked: whether any example has knowledge, so that a plug makes a difference.
        """
        family = task_kind(self._parts.spec.task).family
        return self._parts.tuning.recipe(family) is not None or (
            linked and self._parts.method.trains
        )


def check_options_of(spec: RunSpec) -> None:
    """Refuses a method that is not installed, and options that it does not have.

    Raises:
        KbenchError: such a run was never made.
    """
    _ = Parts(spec).method, Parts(spec).tuning


def stated_id(result: Result, method: str) -> str:
    """Returns the id of a result from what it says that the run was made of.

    Args:
        result: of a run that ended well, with its provenance.
        method: revision of its method.
    """
    made, task = result.provenance, task_kind(result.spec.task)
    assert made is not None
    return result_address(
        result.spec,
        engine=made.revision,
        task=(made.digests.get("data"), task.card.revision),
        # The result's own: a task may have others by its options, and its data, which are not here.
        # What it has beside its task's own is of no address.
        metrics=[s.variant for s in result.metrics.values() if not is_beside(s.variant)],
        method=method,
        linker=revised(
            result.coverage.linker if result.coverage else result.spec.linker or task.linking
        ),
        made={name: made.addresses.get(name) for name in ("model", "plug")},
    )


class _StatedBackbone(Backbone):
    """A backbone of which a result says the digest."""

    def __init__(self, name: str, digest: str, *, left_to_right: bool) -> None:
        self.name = name
        self.left_to_right = left_to_right
        self._digest = digest

    @property
    def digest(self) -> str:
        return self._digest

    def chat_template(self) -> NoReturn:
        raise NotHereError("what a chat template says is in its folder")

    def load(self) -> LanguageModel:
        raise NotHereError("it is known by its digest alone")


class _Loader(PartLoader):
    """Parts by what a result states of them: whatever it names is not opened.

    Args:
        result: says their digests.
        task: with its data, where these are at hand.
        left_to_right: whether the backbone is taken for one that reads so.
    """

    def __init__(self, result: Result, task: Task | None, *, left_to_right: bool) -> None:
        super().__init__(download=False)
        self._of = result.provenance.digests if result.provenance else {}
        self._task = task
        self._left_to_right = left_to_right

    def task(self, spec: RunSpec) -> Task:
        if self._task is not None:
            return self._task
        return self.once("task", "", lambda: self._without_data(spec))

    def _without_data(self, spec: RunSpec) -> Task:
        """The task with the digests that its data would have, as far as they are stated."""
        task = find_task(spec.task, None, spec.options_of("task"))
        stated = {"digest": self._of.get("data"), "training_digest": self._of.get("training")}
        if isinstance(task, ProbeTask):
            del stated["training_digest"]  # that of nothing, whatever the data
        if None in stated.values():
            raise NotHereError(f"the data of task {spec.task} are not at hand")
        vars(task).update(stated)
        return task

    def backbone(self, name: str) -> Backbone:
        if name in names(Kind.BACKBONES):
            return find_backbone(name)
        digest = self._of.get("backbone") or ""
        return _StatedBackbone(name, digest, left_to_right=self._left_to_right)

    def knowledge(self, name: str) -> KnowledgeBase:
        # All that views of a knowledge base ask for before anything is read of it.
        stated = SimpleNamespace(digest=self._of.get("knowledge"), name=name, dimension=0)
        return cast("KnowledgeBase", stated)
