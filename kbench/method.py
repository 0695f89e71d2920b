"""Injection methods and the plugs they train."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kbench.encoding import Batch, Data, sent, targets_in
from kbench.errors import Unsupported
from kbench.knowledge import KnowledgeBase, Rows
from kbench.model import (
    BackboneForm,
    DownstreamModel,
    FixedData,
    FrozenReader,
    LanguageModel,
    Reading,
    dropout,
)
from kbench.model.compiling import compiled
from kbench.spec import OptionType, Setting, check_values
from kbench.task import Family
from kbench.training import History, Progress, Recipe, Weigh, train

__all__ = ["Fit", "InjectionMethod", "MethodCard", "NoPlug", "Plug"]


@dataclass(frozen=True)
class MethodCard:
    """What a reader must know of a method.

    Attributes:
        title: its name in print.
        paper: the paper that introduced it.
        year: of the paper.
        needs: what of a knowledge base or backbone it needs, in a few words.
        citation: where the paper is found: an ACL Anthology, arXiv or DOI id.
        trains: its trainable parameters, as a formula or in words.
        authors: of the paper: ``Given Surname, Given Surname and Given Surname``.
    """

    title: str
    paper: str
    year: int
    needs: str
    citation: str = ""
    trains: str = ""
    authors: str = ""


class Plug(nn.Module):
    """The trained artifact of a method: its parameters are all that the method trains.

    What is not trained but belongs to it (a closed-form solution) is a buffer. Of its parameters
    those count as trained that require gradients when :meth:`InjectionMethod.fit` is done.
    """

    def attach(self, lm: LanguageModel) -> AbstractContextManager[None]:
        """Hooks the plug into a network for the length of a block; nothing is left behind.

        As it stands it fills the entity slots from :meth:`slot_vectors`.
        """
        return lm.slots(self.slot_vectors)

    def slot_vectors(self, rows: Tensor) -> Tensor:
        """Returns the input vectors of entities.

        Args:
            rows: of the knowledge base, on the host. ``[n]``.

        Returns:
            ``[n, width]``, the width being :attr:`LanguageModel.slot_width`; ``[n, k, width]``
            where an entity has ``k`` slots (:meth:`InjectionMethod.slot_count`).
        """
        raise NotImplementedError(f"{type(self).__name__} has no slot vectors")

    def vectors_of(self, rows: Tensor, knowledge: KnowledgeBase | None = None) -> Tensor:
        """Returns the vectors of entities where the plug's weights are: ``[n] -> [n, dimension]``.

        As ``slot_vectors`` is asked for them: gathered in one go, and float32.

        Args:
            rows: of the knowledge base, on the host; each must have a vector.
            knowledge: whose they are; as it stands ``self.knowledge``, where a plug keeps the
                knowledge base that its method is given.
        """
        source = cast("KnowledgeBase", self.knowledge) if knowledge is None else knowledge
        weights = next(chain(self.parameters(), self.buffers()), None)
        vectors = torch.from_numpy(source.vectors(rows.numpy()))
        return vectors if weights is None else sent(vectors, weights.device)

    def reading(self, lm: LanguageModel) -> Reading | None:
        """Returns what this plug reads of a frozen network, where that is the same in every epoch.

        For a plug that neither fills slots nor changes what goes on inside the network: what
        comes before all that trains in it, and before what :meth:`choose` sets, is then read once
        for each input. Its hooks must take such states from ``batch.states``. As it stands None.
        """
        return None

    def choose(self, value: Any) -> None:
        """Takes one of the values that :meth:`InjectionMethod.choices` offers.

        It is no part of the plug's state: a general plug knows no task, and the value is chosen
        on the dev split of each.
        """
        raise NotImplementedError(f"{type(self).__name__} has nothing to choose")


@dataclass(frozen=True)
class Fit:
    """All that a method may look at while it trains a plug.

    Attributes:
        setting: ``general`` or ``task-specific``.
        lm: the backbone as pre-trained (general) or the downstream model's (task-specific);
            frozen either way.
        model: the frozen downstream model; None in the general setting.
        knowledge: the knowledge base, seen through the control.
        examples: the task's training data; None in the general setting.
        validate: the main metric on dev with the plug attached; None in the general setting.
        recipe: how to train.
        options: the method's options.
        seed: of everything random.
        device: where to train.
        progress: told of each step.
        dtype: the precision to compute in; weights are float32 in any case.
        compiled: whether the frozen network runs as compiled code.
    """

    setting: Setting
    lm: LanguageModel
    model: DownstreamModel | None
    knowledge: KnowledgeBase
    examples: Data | None
    validate: Callable[[], float] | None
    recipe: Recipe
    options: Mapping[str, Any]
    seed: int
    device: torch.device
    progress: Progress | None = None
    dtype: str = "float32"
    compiled: bool = False

    def train(
        self,
        plug: Plug,
        loss: Callable[[Batch], Tensor],
        data: Data,
        beside: nn.Module | None = None,
        reading: Reading | None = None,
        weigh: Weigh | None = targets_in,
    ) -> History:
        """Trains a plug, attached to the network, by the one training loop.

        The frozen network is in eval mode, or in train mode at the recipe's dropout rate.

        Args:
            plug: what is kept.
            loss: of a batch, a scalar; or its terms, which are added up.
            data: what to train on.
            beside: what trains along and is thrown away, such as the head of a pre-training.
            reading: what of the network the plug reads, if that is to be read once for each
                input; the data are then :class:`~kbench.model.frozen_reading.FixedData`. Dropout in
                the frozen network makes each reading another, and this is ignored.
            weigh: how many things of a batch each term is the mean over, as it stands its
                targets, so that a batch too large for the memory can be computed in parts;
                None for a loss that compares the examples of a batch with each other.
        """
        network = self.model or self.lm
        started, said = time.perf_counter(), ""
        # What a model says by itself it learns from texts with answers, and is read without.
        speaks = self.model is not None and self.model.head.speaks
        if reading is not None and self.recipe.dropout is None and not speaks:
            data, said = FrozenReader(self.lm, self.device).with_states(
                cast("FixedData", data), reading
            )
        with plug.attach(self.lm), compiled(self.lm, self.compiled):
            history = train(
                nn.ModuleList([plug, beside]) if beside else plug,
                loss,
                data,
                self.recipe,
                seed=self.seed,
                device=self.device,
                dtype=self.dtype,
                weigh=weigh,
                mode=lambda: dropout(network, self.recipe.dropout),
                validate=self.validate,
                progress=self.progress,
            )
        history.seconds, history.states = time.perf_counter() - started, said
        return history


class InjectionMethod(ABC):
    """A way to bring knowledge into a frozen model.

    Args:
        options: the method's options.

    Attributes:
        card: what a reader must know.
        revision: changes whenever the same inputs would give another plug; in every address.
        settings: those the method defines; empty for the yardstick, which injects nothing.
        slot: where an entity's vector goes: ``{slot} / {mention}``, ``{mention} ( {slot} )``, …;
            ``{slot}`` alone takes the mention's place; None for methods without an input slot.
        slots: input vectors of an entity: tokens that ``{slot}`` stands for.
        text: how an entity's text comes in: ``appended`` to the input, ``hung`` at its mention,
            which alone sees it, or None. The option ``room`` says how long an input may become.
        reads_text: whether the plug reads the texts of entities by itself, outside of the input, as
            :meth:`~kbench.knowledge.KnowledgeBase.shown` has them: so that a control can take what
            holds an answer out of them, or all (``answer-removed``, ``empty``).
        reads_knowledge: False for a method that ignores what is known of entities, and so needs
            no control.
        reads_facts: whether what it reads of an entity tells its facts, so that a false value can
            be put in the place of a true one (the control ``value-swapped``).
        trains: False for a method that has nothing to train, and so no recipe to change.
        recipe_fields: those of a recipe that its training reads, where that is not
            :meth:`Fit.train`, which reads all. Others are refused.
        switched: whether an example without a known entity is left as it is. False for a method
            that works on every token; its untrained plug, or one of its choices, must then leave
            the model as it is.
        defaults: options beside the recipes.
        option_types: what an option may be, where its default does not tell.
        later_options: names of options that came after the revision. At their defaults they
            change nothing, and are in no address.

    Raises:
        UsageError: an option is not of its type.
    """

    card: ClassVar[MethodCard]
    revision: ClassVar[str]
    settings: ClassVar[frozenset[Setting]]
    slot: ClassVar[str | None] = None
    slots: ClassVar[int] = 1
    text: ClassVar[Literal["appended", "hung"] | None] = None
    reads_text: ClassVar[bool] = False
    reads_knowledge: ClassVar[bool] = True
    reads_facts: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    recipe_fields: ClassVar[frozenset[str]] = frozenset(Recipe.types)
    switched: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {}
    option_types: ClassVar[Mapping[str, OptionType]] = {}
    later_options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        chosen = {**self.defaults, **(options or {})}
        self.options = check_values(chosen, self.defaults, self.option_types, self.card.title)

    @property
    def addressed_options(self) -> dict[str, Any]:
        """The options by which a plug of this method is told from others."""
        same = {n for n in self.later_options if self.options[n] == self.defaults[n]}
        return {name: value for name, value in self.options.items() if name not in same}

    def may_start_general(self) -> bool:
        """Whether a task-specific plug starts from the general one where that can be made.

        Asked before there is a backbone, for the estimate of what a grid costs; as it stands, no.
        """
        return False

    def starts_general(self, lm: LanguageModel, knowledge: KnowledgeBase) -> bool:
        """Whether a task-specific plug starts from the general one of the same knowledge."""
        return False

    def check_training(  # noqa: B027
        self, setting: Setting, lm: LanguageModel, knowledge: KnowledgeBase
    ) -> None:
        """Refuses what the training of a setting needs and does not find; asked like :meth:`check`.

        Raises:
            Unsupported: it says what is lacking.
        """

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        """Returns the published training settings; the general setting knows no task."""
        raise Unsupported(f"{self.card.title} trains nothing in the {setting} setting")

    def recipe_on(
        self, backbone: BackboneForm, setting: Setting, family: Family | None, task: str | None
    ) -> Recipe:
        """Returns the training settings on a backbone; as it stands :meth:`recipe`, on any.

        For a method whose settings go with the size of the backbone, or with how it reads. What the
        backbone itself says (:attr:`~kbench.model.Backbone.recipes`), and then the user, comes in
        their place.

        Args:
            backbone: of which kind it is, and how large.
            setting: of the plug.
            family: of the task; None where the plug knows no task.
            task: its name; None likewise.
        """
        return self.recipe(setting, family, task)

    def check(self, lm: LanguageModel, knowledge: KnowledgeBase) -> None:
        """Refuses a backbone or a knowledge base that lacks what the method needs.

        Asked when a grid is planned, so that its runs are not counted and the reason is told before
        anything is trained: it must be quick, and leave the network as it is. What it does not say
        is told when the run is tried. As it stands, where vectors say whom the method covers, a
        knowledge base without any is refused: nobody would be covered, and the run be one without
        knowledge.

        Raises:
            Unsupported: it says what is lacking.
        """
        by_vector = type(self).covers is InjectionMethod.covers and self.reads_knowledge
        if self.settings and by_vector and not knowledge.dimension:
            raise Unsupported(
                f"knowledge base {knowledge.name} has no entity vectors: see "
                "`kbench knowledge train`"
            )

    def template(self) -> str | None:
        """Returns the slot template; as it stands :attr:`slot`. Options may choose another."""
        return self.slot

    def slot_count(self) -> int:
        """Returns how many slots an entity has; as it stands :attr:`slots`; options may say.

        Those of a mention are kept or, where its text is full, dropped together.
        """
        return self.slots

    def covers(self, knowledge: KnowledgeBase, rows: Rows) -> NDArray[np.bool_]:
        """Returns whether the method has something to say of each entity; False for row -1.

        As it stands: whether it has a vector. Mentions of others count as unlinked.
        """
        return knowledge.has_vector(rows)

    def passages(self, knowledge: KnowledgeBase, row: int) -> Sequence[str]:
        """Returns the texts that an entity brings into the input, if :attr:`text` says it does."""
        return ()

    def corpus_readings(self) -> float | None:
        """Returns how often an epoch of the general setting reads a sentence of the corpus.

        Only for the estimate of what a grid costs. As it stands None: it cannot be said.
        """
        return None

    def choices(self) -> Sequence[Any]:
        """Returns values of which a general plug takes the best on the task's dev split.

        Numbers, or words. The first is taken where nothing is chosen (fine-tuning). As it stands
        there are none.
        """
        return ()

    @abstractmethod
    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        """Returns an untrained plug."""

    def fit(self, plug: Plug, fit: Fit) -> History:
        """Trains a plug; as it stands, on the task's loss.

        Closed-form methods and those with an objective of their own override this.
        """
        if fit.model is None or fit.examples is None:
            raise Unsupported(f"{self.card.title} defines no training without a task")
        return fit.train(plug, fit.model.loss, fit.examples)


class NoPlug(Plug):
    """A plug that does nothing; what the yardstick attaches."""

    def attach(self, lm: LanguageModel) -> AbstractContextManager[None]:
        return nullcontext()
