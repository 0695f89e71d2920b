"""The parts of a run, resolved from the names in its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar, cast

from kbench.data import Example, Split
from kbench.data.demonstrations import drawn
from kbench.data.files import canonical_digest
from kbench.errors import InputError, KbenchError, Unsupported, UsageError
from kbench.knowledge import KnowledgeBase
from kbench.knowledge.controls import controlled
from kbench.knowledge.documents import DOCUMENTS, Answers, answers_by_entity
from kbench.knowledge.gold import Gold
from kbench.knowledge.linking import revised
from kbench.method import InjectionMethod
from kbench.model import Backbone, BackboneForm, Head, LanguageModel
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.find import find_backbone, find_knowledge, find_task
from kbench.spec import Control, OptionKind, RunSpec, Setting, check_options, check_values
from kbench.task import ProbeTask, Task
from kbench.training import Recipe, Tuning
from kbench.training.tuning import PROMPT_TYPES

__all__ = ["PartLoader", "Parts", "headed", "impossible", "loaded", "task_key"]

T = TypeVar("T")
_RECIPE = frozenset(Recipe.types)


def task_key(spec: RunSpec, *more: object) -> str:
    """Returns what tells the task of a run from others, and what of it is asked."""
    return repr((spec.task, spec.data, spec.options_of("task"), *more))


class PartLoader:
    """Loads tasks, backbones and knowledge bases, each once for all runs that name it alike.

    Args:
        download: whether a backbone that is not on disk may be downloaded.
    """

    def __init__(self, download: bool = True) -> None:
        self._download = download
        self._loaded: dict[tuple[str, str], Any] = {}

    def task(self, spec: RunSpec) -> Task:
        """Returns the task of a run with its options."""
        options = spec.options_of("task")
        return self.once("task", task_key(spec), lambda: find_task(spec.task, spec.data, options))

    def backbone(self, name: str) -> Backbone:
        """Returns a backbone by name, folder or hub id."""
        return self.once("backbone", name, lambda: find_backbone(name, self._download))

    def knowledge(self, name: str) -> KnowledgeBase:
        """Returns a knowledge base by name or folder."""
        return self.once("knowledge", name, lambda: find_knowledge(name))

    def once(self, kind: str, key: str, load: Callable[[], T]) -> T:
        """Returns what is loaded of a kind under a key, loaded if it is not."""
        if (kind, key) not in self._loaded:
            self._loaded[kind, key] = load()
        return cast("T", self._loaded[kind, key])


@dataclass(frozen=True)
class Parts:
    """The parts of one run; each is made when first asked for.

    Attributes:
        spec: the run.
        loader: of what runs share.
    """

    spec: RunSpec
    loader: PartLoader = field(default_factory=PartLoader, repr=False, compare=False)

    @cached_property
    def task(self) -> Task:
        """The task with its options."""
        return self.loader.task(self.spec)

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone."""
        return self.loader.backbone(self.spec.backbone)

    @cached_property
    def tuning(self) -> Tuning:
        """The tuning."""
        return cast("type[Tuning]", registry.get(Kind.TUNINGS, self.spec.tuning))()

    @cached_property
    def method(self) -> InjectionMethod:
        """The method with its options; those of a setting's recipe lie under its name."""
        kind = cast("type[InjectionMethod]", registry.get(Kind.METHODS, self.spec.method))
        options = self.spec.options_of("method")
        settings = {str(setting) for setting in Setting}
        check_options(options, {*kind.defaults, *settings}, f"method {self.spec.method}")
        trained = kind.settings if kind.trains else ()
        for setting in settings & options.keys():
            if setting not in trained:
                there = ", ".join(sorted(trained)) or "none: it trains nothing"
                raise UsageError(
                    f"method {self.spec.method} trains nothing in the setting {setting}, for which "
                    f"options are given; settings in which it trains: {there}"
                )
            what = f"method {self.spec.method}, {setting}"
            _check_recipe(options[setting], what, kind.recipe_fields)
        own = {k: v for k, v in options.items() if k not in settings}
        own = check_values(own, kind.defaults, kind.option_types, f"method {self.spec.method}")
        return kind(own)

    @cached_property
    def base_knowledge(self) -> KnowledgeBase | None:
        """The true knowledge base; None for methods that use none."""
        return None if self.spec.knowledge is None else self.loader.knowledge(self.spec.knowledge)

    @cached_property
    def knowledge(self) -> KnowledgeBase | None:
        """The knowledge base seen through the control, on the grounds of whom the method covers."""
        base = self.base_knowledge
        return None if base is None else self.control_of(base)

    def knowledge_of(self, setting: Setting) -> KnowledgeBase:
        """Returns what a plug is trained on: a task-specific one sees what its run sees.

        One for all tasks sees none of them, and no gold label by which a control may choose.
        """
        assert self.knowledge is not None
        return self.knowledge if setting == Setting.TASK_SPECIFIC else self._without_task

    @cached_property
    def _without_task(self) -> KnowledgeBase:
        assert self.base_knowledge is not None
        assert self.knowledge is not None
        if self.spec.control in DOCUMENTS and self.method.reads_text:
            return self.base_knowledge  # which text is shown hangs on the examples of a task
        if self.spec.control != Control.FOREIGN:
            return self.knowledge
        return self.control_of(self.base_knowledge, of_task=False)

    @property
    def grounds(self) -> Any:
        """What tells methods apart that cover different entities, so that others are swapped.

        By name: whom a method covers may take long to find out, and a plan need not know it.
        """
        own = type(self.method).covers is not InjectionMethod.covers
        named = [self.spec.method, self.method.revision, self.method.addressed_options]
        return named if own else "vector"

    def control_of(
        self, base: KnowledgeBase, control: Control | None = None, *, of_task: bool = True
    ) -> KnowledgeBase:
        """Returns a knowledge base as the run's method sees it, through a control.

        Args:
            base: the true one.
            control: default: the run's.
            of_task: whether the control may look at the gold labels of the task.
        """
        spec, grounds, control = self.spec, self.grounds, control or self.spec.control
        covers = partial(self.method.covers, base)
        of_texts = control == Control.ANSWER_REMOVED and self.method.reads_text
        if not of_task or not (control == Control.FOREIGN or of_texts):
            return controlled(base, control, spec.seed, covers, grounds)
        labels = [self.task.digest, self.linker_revised, sorted(self.task.null_labels)]
        if of_texts:
            answers = partial(self._answers_of, base)
            return controlled(base, control, spec.seed, labels=labels, answers=answers)
        gold = partial(self.gold_of, base)
        return controlled(base, control, spec.seed, covers, grounds, gold, labels)

    def _answers_of(self, base: KnowledgeBase) -> Mapping[int, Answers]:
        """The answers to all examples of the task by the entities that they ask about."""
        return answers_by_entity(self._examples, base, self.linker)

    @property
    def _examples(self) -> list[Example]:
        """The task's examples, of all splits."""
        return [example for split in Split for example in self.task.examples(split)]

    def gold_of(self, base: KnowledgeBase) -> Gold:
        """Returns the gold labels of the task, in all its splits, by the entities of a base."""
        task = self.task
        return self.loader.once(
            "gold",
            canonical_digest(
                [base.digest, task.digest, self.linker_revised, sorted(task.null_labels)]
            ),
            lambda: Gold(base, self._examples, self.linker, task.null_labels),
        )

    @cached_property
    def prompting(self) -> dict[str, Any] | None:
        """How a model that reads from left to right is asked by a prompt; None if none is.

        Raises:
            UsageError: it is said for a model that is asked by none.
            Unsupported: a chat template is asked for, and there is none.
        """
        options, own = self.spec.options_of("tuning"), self.tuning.prompts
        given = {name: value for name, value in options.items() if name in own}
        if own and self.backbone.left_to_right:
            return {**own, **given, **self._chat()}
        if self.spec.chat:
            raise Unsupported(
                f"--chat puts prompts as messages, and tuning {self.spec.tuning} asks backbone "
                f"{self.spec.backbone} by no prompt; take prompted, and a model that reads from "
                "left to right"
            )
        if given:
            raise UsageError(
                f"tuning {self.spec.tuning}: {', '.join(given)} is of prompts, by which models are "
                f"asked that read from left to right; backbone {self.spec.backbone} reads both ways"
            )
        return None

    def _chat(self) -> dict[str, str]:
        """What a chat template adds to how a model is asked.

        Raises:
            Unsupported: the backbone has none.
        """
        if not self.spec.chat:
            return {}
        template = self.backbone.chat_template()
        if template is None:
            raise Unsupported(
                f"backbone {self.spec.backbone} has no chat template, which --chat asks for; take "
                "one that was tuned to talk, or leave --chat out"
            )
        return {"chat": canonical_digest(template)}

    @cached_property
    def demonstrations(self) -> tuple[tuple[Example, str], ...]:
        """The examples that stand before every text, each with its answer; empty where none do.

        They are of train, or of dev where there is no train, and of no text that is tested.

        Raises:
            UsageError: the task has none to show, or fewer than asked for.
        """
        shots, task = (self.prompting or {}).get("shots", 0), self.task
        if not shots or task.asked is None:
            return ()
        if self.spec.chat:
            raise UsageError(
                f"tuning {self.spec.tuning}: shots is {shots}, and --chat puts one prompt as one "
                "message; expected 0, or a run without --chat"
            )
        split = Split.TRAIN if task.examples(Split.TRAIN) else Split.DEV
        if any(example.candidates for example in task.examples(split)[:1]):
            raise UsageError(
                f"tuning {self.spec.tuning}: shots is {shots}, and every example of task "
                f"{self.spec.task} brings demonstrations of its own; expected 0"
            )
        tested = {example.text for example in task.examples(Split.TEST)}
        pool = [
            example
            for example in task.examples(split)
            if example.text not in tested and task.asked.put(example) is not None
        ]
        found = drawn(pool, shots, self.spec.seed, task.shows)
        if len(found) < shots:
            raise UsageError(
                f"tuning {self.spec.tuning}: shots is {shots}, and task {self.spec.task} has "
                f"{len(found)} examples in {split} to show; expected as many at most"
            )
        return tuple(found)

    @cached_property
    def tuning_options(self) -> dict[str, Any]:
        """The tuning's options without those of its recipe."""
        options = self.spec.options_of("tuning")
        of_prompts = self.tuning.prompts
        known = {*self.tuning.defaults, *(_RECIPE if self._family_recipe else ()), *of_prompts}
        check_options(options, known, f"tuning {self.spec.tuning}")
        what = f"tuning {self.spec.tuning}"
        check_values({k: v for k, v in options.items() if k in of_prompts}, {}, PROMPT_TYPES, what)
        chosen = {k: v for k, v in options.items() if k not in {*_RECIPE, *of_prompts}}
        defaults = self.tuning.defaults_for(self.task.family)
        chosen = check_values(chosen, defaults, self.tuning.option_types, what)
        _check_recipe({k: v for k, v in options.items() if k in _RECIPE}, what)
        return {**defaults, **chosen}

    @cached_property
    def tuning_recipe(self) -> Recipe | None:
        """The tuning's for the family, then the task's, the backbone's and the user's.

        None if nothing trains.
        """
        own = self.spec.options_of("tuning").items()
        _check_recipe({k: v for k, v in own if k in _RECIPE}, f"tuning {self.spec.tuning}")
        return self._family_recipe and self._family_recipe.updated(
            _stated(self.task.recipes, self.spec.tuning, f"task {self.spec.task}"),
            self._stated_by_backbone(self.spec.tuning),
            self.spec.options_of("tuning"),
        )

    @cached_property
    def _family_recipe(self) -> Recipe | None:
        return self.tuning.recipe(self.task.family)

    def _stated_by_backbone(self, key: str) -> Mapping[str, Any]:
        return _stated(self.backbone.recipes, key, f"backbone {self.spec.backbone}")

    @property
    def linker(self) -> str:
        """The linker asked for, or the task's own."""
        return self.spec.linker or self.task.linking

    @property
    def linker_revised(self) -> str:
        """The linker as it stands in addresses."""
        return revised(self.linker)

    @property
    def plug_is_fixed(self) -> bool:
        """Whether the model is tuned with the plug in place."""
        return self.spec.knowledge is not None and self.spec.setting == Setting.FINE_TUNING

    def plug_recipe(self, setting: Setting) -> Recipe:
        """Published settings, then the backbone's, then the user's.

        Only the task-specific recipe may depend on the task.
        """
        of_task = setting == Setting.TASK_SPECIFIC
        family, name = (self.task.family, self.spec.task) if of_task else (None, None)
        method = self.method
        if type(method).recipe_on is InjectionMethod.recipe_on:
            own = method.recipe(setting, family, name)  # without looking at the backbone
        else:
            own = method.recipe_on(self._form, setting, family, name)
        return own.updated(
            self._stated_by_backbone(f"{self.spec.method} {setting}"),
            self.spec.options_of("method").get(str(setting), {}),
        )

    @cached_property
    def _form(self) -> BackboneForm:
        return self.loader.once("form", self.spec.backbone, self.backbone.form)

    @property
    def defaults(self) -> dict[str, Any]:
        """What each option that the spec sets would be otherwise, by its path as of ``--set``.

        An option without a default, as of a part that cannot be read, is left out.
        """
        plain = replace(self, spec=self.spec.model_copy(update={"options": {}}))
        kinds: tuple[tuple[OptionKind, Callable[[], Mapping[str, Any]]], ...] = (
            ("task", lambda: plain.task.defaults),
            ("tuning", lambda: plain.tuning_options),
            ("tuning", lambda: plain.tuning_recipe.as_dict() if plain.tuning_recipe else {}),
            ("method", lambda: plain.method.defaults),
        )
        known: dict[str, Any] = {}
        for kind, read in kinds:
            with suppress(KbenchError):
                owner = f"{kind}.{getattr(self.spec, kind)}"
                known |= {f"{owner}.{name}": value for name, value in read().items()}
        for setting in Setting if self.spec.knowledge is not None else ():
            with suppress(KbenchError):
                owner = f"method.{self.spec.method}.{setting}"
                recipe = plain.plug_recipe(setting).as_dict()
                known |= {f"{owner}.{name}": value for name, value in recipe.items()}
        return {path: known[path] for path, _ in self.spec.settings if path in known}


def _stated(recipes: Mapping[str, Mapping[str, Any]], key: str, whose: str) -> Mapping[str, Any]:
    """Returns the fields that a part states for a tuning, or for a method's setting.

    Raises:
        UsageError: a recipe has no such field; the nearest are named.
    """
    fields = recipes.get(key, {})
    _check_recipe(fields, f"the recipe {key!r} of {whose}")
    return fields


def _check_recipe(fields: Any, what: str, known: frozenset[str] = _RECIPE) -> None:
    """Refuses what is none of the known fields of a recipe, or not allowed for it.

    Raises:
        UsageError: it is; what is expected is said.
    """
    if not isinstance(fields, Mapping):
        raise UsageError(f"{what} is {fields!r}; expected a mapping such as {{epochs: 3}}")
    check_options(fields, known, what)
    check_values(fields, {}, Recipe.types, what)


def _moves_what_is_held(parts: Parts) -> str:
    """Why weights that are not held in float32 do not go with a tuning; empty if they do."""
    spec, tuning = parts.spec, parts.tuning
    if spec.weights == "float32" or parts.tuning_recipe is None:
        return ""
    # A new head is in float32, and is all that trains; what is packed cannot be stored with it.
    if tuning.reads_once and spec.weights == "bfloat16":
        return ""
    return (
        f"weights held in {spec.weights} stay as they are, and tuning {spec.tuning} trains "
        "weights; take --weights float32, or a tuning that trains none (prompted, frozen)"
    )


def loaded(parts: Parts, device: str = "cpu", *, spread: bool = False) -> LanguageModel:
    """Loads the backbone of a run.

    Args:
        parts: of the run.
        device: where it will compute: weights of fewer bits are packed there.
        spread: whether it is parted among all GPUs.

    Raises:
        InputError: it cannot be loaded; that is no experiment that failed.
    """
    try:
        if parts.spec.weights == "float32" and not spread:
            return parts.backbone.load()
        return parts.backbone.load_held(parts.spec.weights, device, spread=spread)
    except (InputError, Unsupported):
        raise
    except KbenchError as error:
        raise InputError(str(error)) from error


def headed(parts: Parts, lm: LanguageModel) -> Head:
    """Returns a new head of a run's task, for its backbone.

    Raises:
        Unsupported: it reads a masked-LM head that the backbone lacks, the task has no prompt, or
            is to ask by one where none does.
    """
    if parts.prompting is not None:
        asked = parts.task.prompted_head(parts.prompting["scorer"])
        if asked is None:
            raise Unsupported(
                f"task {parts.spec.task} has no prompt, by which backbone {parts.spec.backbone} "
                "would be asked; tuning head puts a new head on its last state"
            )
        if parts.spec.chat and not asked.chats:
            raise Unsupported(
                f"--chat puts one prompt as one message, and task {parts.spec.task} asks by what "
                "stands behind it (statements, letters, yes or no), or by an episode of examples; "
                "take a run without --chat"
            )
        asked.chat = parts.spec.chat
        return asked
    way, usual = (options.get("ask") for options in (parts.task.options, parts.task.defaults))
    if way != usual:
        raise Unsupported(
            f"ask={way} says how a model is asked by a prompt, and tuning {parts.spec.tuning} of "
            f"backbone {parts.spec.backbone} puts a head on it; leave it out, or take a model that "
            "reads from left to right (tuning prompted, full, lora or bitfit)"
        )
    head = parts.task.head(lm.width)
    if head.needs_lm_head and lm.left_to_right:
        raise Unsupported(
            f"task {parts.spec.task} is answered by the backbone's own head, and tuning "
            f"{parts.spec.tuning} asks a model that reads from left to right by no prompt; take "
            "prompted, which trains nothing, or full"
        )
    if head.needs_lm_head and not lm.has_lm_head:
        raise Unsupported(
            f"task {parts.spec.task} is answered at [MASK], and backbone "
            f"{parts.spec.backbone} has no masked-LM head"
        )
    return head


def _pointless(control: Control, parts: Parts) -> str:
    """Returns why a control says nothing of a run's method; else empty."""
    method = parts.method
    if control == Control.VALUE_SWAPPED and not method.reads_facts:
        return "reads no fact of an entity whose value could be swapped; foreign swaps the entity"
    if control == Control.CONSTANT and not method.trains:
        return "trains nothing, so there is no slot to learn; random and zero need no training"
    if control in DOCUMENTS and method.text != "appended":
        if not method.reads_text:
            return "puts no document into the input and reads none; this control chooses one"
        if control == Control.ORACLE:
            return "reads each entity's text once; which one holds an answer hangs on the example"
    return ""


def impossible(parts: Parts) -> str:
    """Returns why a run cannot be by design, as far as that is seen from its parts; else empty."""
    method, spec = parts.method, parts.spec
    if method.settings and spec.setting not in method.settings:
        known = ", ".join(sorted(method.settings))
        return f"{spec.method} has no {spec.setting} setting (it has {known})"
    if spec.knowledge is not None and (pointless := _pointless(spec.control, parts)):
        return f"control {spec.control}: {spec.method} {pointless}"
    try:
        task = parts.task
    except KbenchError:
        return ""  # told where the task is read
    trains, general = parts.tuning_recipe is not None, spec.setting == Setting.GENERAL
    if isinstance(task, ProbeTask) and (trains or not general):
        wants = f"tuning {spec.tuning}" if trains else f"the {spec.setting} setting"
        return (
            f"task {spec.task} is a probe and has no training split, which {wants} needs; probes "
            f"have tuning {task.tuning} and the general setting"
        )
    if problem := _moves_what_is_held(parts):
        return problem
    if parts.plug_is_fixed and not trains:
        return f"tuning {spec.tuning} trains nothing, so no model is tuned with the plug in place"
    return ""
