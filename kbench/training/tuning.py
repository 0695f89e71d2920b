"""Tunings: how a backbone is adapted to a task without knowledge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kbench.data import SCORERS
from kbench.spec import OptionType
from kbench.task import Family

if TYPE_CHECKING:
    from kbench.model import DownstreamModel
    from kbench.training.recipe import Recipe

__all__ = ["PROMPT_TYPES", "Tuning"]

PROMPT_TYPES: Mapping[str, OptionType] = {
    "scorer": OptionType("text", words=SCORERS),
    "shots": OptionType("whole number", least=0),
}
"""What the options of a prompt may be."""


class Tuning(ABC):
    """Chooses what of a downstream model trains, and how.

    Attributes:
        revision: changes whenever the same inputs would give other weights; in every address.
        defaults: options beside those of the recipe.
        option_types: what an option may be, where its default does not tell.
        prompts: the options of how a model that reads from left to right is asked, by a prompt
            that it goes on with; none where it is not, but has a new head on its last state.
        light: whether the backbone's weight matrices stay frozen, which saves a third of the work.
        reads_once: whether nothing of the network trains. It then stays in eval mode while the
            head learns, and each text is read once, not once an epoch.
    """

    revision: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    option_types: ClassVar[Mapping[str, OptionType]] = {}
    prompts: ClassVar[Mapping[str, Any]] = {"scorer": "sum", "shots": 0}
    light: ClassVar[bool] = False
    reads_once: ClassVar[bool] = False

    def defaults_for(self, family: Family) -> Mapping[str, Any]:
        """Returns what the options are for a family where the user says nothing.

        As it stands: :attr:`defaults`.
        """
        return self.defaults

    @abstractmethod
    def recipe(self, family: Family) -> Recipe | None:
        """Returns the published settings for a family of tasks; None to train nothing.

        A tuning trains on all families or on none. What a task, a backbone and the user state
        otherwise takes the place of these, field by field and in this order
        (:attr:`kbench.task.Task.recipes`, :attr:`kbench.model.Backbone.recipes`).
        """

    @abstractmethod
    def prepare(self, model: DownstreamModel, options: Mapping[str, Any]) -> None:
        """Marks what trains by ``requires_grad`` and adds what the tuning adds.

        Called on every untrained model, before it is trained or before stored weights are loaded.
        """
