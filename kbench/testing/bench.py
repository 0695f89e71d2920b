"""A method on the tiny parts: fitted in each of its settings, with the inputs to try it on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from kbench.errors import KbenchError, Unsupported
from kbench.method import InjectionMethod, Plug
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.run_parts import Parts
from kbench.pipeline.evaluation import Evaluation
from kbench.pipeline.session import Session
from kbench.pipeline.stages import evaluate
from kbench.spec import Control, RunSpec, Setting
from kbench.testing.contracts import Unchecked
from kbench.testing.tiny import BACKBONE, TASKS, tiny
from kbench.testing.trial import QUICK, Trial, new_session, try_out

__all__ = ["Bench", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: an evaluation, or the reason why there is none.

    Attributes:
        name: of the run, for people.
        evaluation: of a run that went through.
        error: of one that did not.
    """

    name: str
    evaluation: Evaluation | None = None
    error: Exception | None = None

    @property
    def skipped(self) -> bool:
        """Whether the combination was refused as unsupported."""
        return isinstance(self.error, Unsupported)

    @property
    def sound(self) -> bool:
        """Whether it ran, or was skipped with a reason in one line."""
        told = str(self.error).strip()
        return self.evaluation is not None or (self.skipped and bool(told) and "\n" not in told)

    @property
    def problem(self) -> str:
        """The run and what became of it."""
        kind = type(self.error).__name__
        return f"{self.name}: {kind}: {str(self.error).strip() or 'no reason given'}"


class Bench:
    """A method, tried on tiny parts.

    Args:
        name: of the method.

    Attributes:
        entry: what the catalogue knows of it.
        method: its class.
    """

    def __init__(self, name: str) -> None:
        self.entry = registry.find(Kind.METHODS, name)
        self.method = cast("type[InjectionMethod]", registry.load(self.entry))
        self._runs, self._session = new_session(), new_session()
        self._tried: dict[tuple[Setting, Control, Path], Trial | Exception] = {}

    def parts(self, setting: Setting, **changes: Any) -> Parts:
        """Returns the parts of a run with quick recipes.

        Args:
            setting: of the run.
            changes: fields of its spec; ``tuned``: options of its tuning.
        """
        tuning = {**QUICK, **changes.pop("tuned", {})}
        named = {
            "task": TASKS[0],
            "backbone": BACKBONE,
            "knowledge": str(tiny().knowledge) if self.declared else None,
            "tuning": "full",
            "control": Control.NONE,
            "seed": 0,
            **changes,
        }
        options = {"tuning": {named["tuning"]: tuning}}
        if self.declared and self.method.trains:
            options["method"] = {self.entry.name: {str(s): QUICK for s in self.declared}}
        return Parts(RunSpec(method=self.entry.name, setting=setting, options=options, **named))

    @cached_property
    def declared(self) -> list[Setting]:
        """The settings of the method, in their usual order."""
        return [setting for setting in Setting if setting in self.method.settings]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """Runs of every declared setting on a task of each family; of the yardstick, as it is."""
        return [
            self.outcome(setting, task=task)
            for task in TASKS
            for setting in self.declared or [Setting.GENERAL]
        ]

    def outcome(self, setting: Setting, **changes: Any) -> Outcome:
        """Runs a method to its end and tells how that went."""
        parts = self.parts(setting, **changes)
        name = f"{setting} on {parts.spec.task}" if self.declared else parts.spec.task
        try:
            return Outcome(name, evaluate(self._runs, parts))
        except Exception as error:  # whatever a stranger's method raises
            return Outcome(name, error=error)

    @cached_property
    def settings(self) -> list[Setting]:
        """The declared settings that run on a tiny task.

        Raises:
            Unchecked: the method declares none.
            KbenchError: there are settings, but none runs.
        """
        if not self.declared:
            raise Unchecked("it injects nothing")
        settings, reasons = [], []
        for setting in self.declared:
            try:
                self.tried(setting)
                settings.append(setting)
            except Unsupported as error:
                reasons.append(f"{setting}: {error}")
        if reasons and not settings:
            raise KbenchError(f"no setting runs on the tiny parts ({'; '.join(reasons)})")
        return settings

    @property
    def fitted(self) -> list[Trial]:
        """The method fitted in each setting that runs."""
        return [self.tried(setting) for setting in self.settings]

    def tried(
        self,
        setting: Setting,
        control: Control = Control.NONE,
        knowledge: Path | None = None,
    ) -> Trial:
        """Returns the method fitted in a setting, on the first task that it supports; once.

        Args:
            setting: in which.
            control: that the knowledge is seen through.
            knowledge: another than the tiny knowledge base that has everything.

        Raises:
            Exception: whatever it raised; the same each time.
        """
        key = (setting, control, knowledge or tiny().knowledge)
        if key not in self._tried:
            self._tried[key] = self._try(*key)
        outcome = self._tried[key]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _try(self, setting: Setting, control: Control, knowledge: Path) -> Trial | Exception:
        refused: Exception = Unsupported("there is no task")
        for task in TASKS:
            try:
                named = {"control": control, "task": task, "knowledge": str(knowledge)}
                return try_out(self.parts(setting, **named), self._session)
            except Unsupported as error:
                refused = error
            except Exception as error:  # whatever a stranger's method raises
                return error
        return refused

    @property
    def fits(self) -> list[Setting]:
        """The settings whose fits differ: that of fine-tuning is a general one."""
        known = Setting.GENERAL in self.settings
        return [s for s in self.settings if not (known and s == Setting.FINE_TUNING)]

    def stored(self) -> Session:
        """Returns a session that remembers nothing but what the trials have stored."""
        return new_session(self._session.artifacts)

    def again(self, setting: Setting, **changes: Any) -> Trial:
        """Returns the method fitted anew, from nothing but its inputs."""
        return try_out(self.parts(setting, **changes), new_session())

    def untrained(self, setting: Setting) -> Plug:
        """Returns the plug as a fit finds it: as built, or as the general plug it starts from."""
        tried = self.tried(setting)
        lm, knowledge = tried.parts.backbone.load(), tried.parts.knowledge
        assert knowledge is not None
        torch.manual_seed(tried.parts.spec.seed)
        plug = tried.parts.method.build(lm, knowledge)
        if tried.record.start:
            plug.load_state_dict(self.tried(Setting.GENERAL).plug.state_dict())
        return plug.eval()
