"""Parts by the names that a user gives them. Free of torch until a part needs it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kbench.data.files import is_folder
from kbench.errors import AbsentError, KbenchError, PluginError, nearest
from kbench.knowledge import Bundle, KnowledgeSource
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.spec import Control, RunSpec, Setting, check_options, check_values
from kbench.task import Task

if TYPE_CHECKING:
    from kbench.method import InjectionMethod
    from kbench.model import Backbone

__all__ = [
    "default_tuning",
    "find_backbone",
    "find_knowledge",
    "find_task",
    "normalised",
    "offered",
    "revisions",
    "task_kind",
    "task_of",
]

_FIELDS = {
    "task": Kind.TASKS,
    "method": Kind.METHODS,
    "tuning": Kind.TUNINGS,
    "backbone": Kind.BACKBONES,
    "knowledge": Kind.KNOWLEDGE,
}
"""The fields of a run that name a part."""


_DECODERS = (
    "bloom",
    "distilgpt",
    "falcon",
    "gemma",
    "gpt",
    "llama",
    "meta-llama",
    "mistral",
    "mixtral",
    "olmo",
    "opt-",
    "phi-",
    "pythia",
    "qwen",
    "smollm",
    "starcoder",
    "tinyllama",
)
"""How names of decoders begin, for plans made before anything is downloaded."""


def find_knowledge(name: str) -> Bundle:
    """Returns a knowledge base by registered name or by folder, its content checked.

    Raises:
        AbsentError: it is neither.
        DataError: it is no bundle, or not what its card states.
    """
    if name in registry.names(Kind.KNOWLEDGE):
        source = cast("type[KnowledgeSource]", registry.get(Kind.KNOWLEDGE, name))
        return Bundle(source().folder()).checked()
    folder = Path(name).expanduser()
    if is_folder(folder):
        return Bundle(folder).checked()
    hint = nearest(name, registry.names(Kind.KNOWLEDGE))
    raise AbsentError(f"no knowledge base is called {name!r} and no folder is there{hint}")


def task_kind(name: str) -> type[Task]:
    """Returns the class of a task by its name.

    Raises:
        UsageError: no installed distribution offers it.
        PluginError: it does not load.
    """
    return cast("type[Task]", registry.get(Kind.TASKS, name))


def task_of(spec: RunSpec, data: str | None = None) -> Task:
    """Returns the task of a run that was made, with its options.

    Args:
        spec: the run.
        data: where its data are now, if elsewhere.

    Raises:
        UsageError: it is not installed, or refuses the options.
        PluginError: it does not load.
    """
    return task_kind(spec.task)(data or spec.data, spec.options_of("task"))


def find_task(name: str, data: str | None, options: dict[str, Any] | None = None) -> Task:
    """Returns a task by name, with its data location and checked options."""
    kind = task_kind(name)
    check_options(options or {}, kind.defaults, f"task {name}")
    check_values(options or {}, kind.defaults, kind.option_types, f"task {name}")
    return kind(data, options)


def default_tuning(task: str, backbone: str, download: bool = True) -> str:
    """Returns the tuning that a task is run with on a backbone where none is asked for.

    Args:
        task: its name.
        backbone: its name. One that is not on disk is known by its name where that begins as
            decoders' do; one that cannot be found is taken to read both ways, for its runs tell.
        download: whether a backbone that is not on disk may be downloaded.
    """
    own = (Task.tuning, Task.decoder_tuning)
    with suppress(PluginError):  # told by its runs, which fail
        kind = task_kind(task)
        own = (kind.tuning, kind.decoder_tuning)
    try:
        decoder = find_backbone(backbone, download).left_to_right
    except AbsentError:
        decoder = _named_as_decoder(backbone)
    except KbenchError:
        decoder = False
    return own[decoder]


def _named_as_decoder(backbone: str) -> bool:
    """Whether the name of a backbone that is not here says that it reads from left to right."""
    name = backbone.rpartition("/")[2].lower()
    return name.startswith(_DECODERS) or name.endswith(".gguf")


def find_backbone(name: str, download: bool = True) -> Backbone:
    """Returns a backbone by registered name, local folder or hub id."""
    if name in registry.names(Kind.BACKBONES):
        return cast("type[Backbone]", registry.get(Kind.BACKBONES, name))()
    from kbench.model.huggingface import HuggingFaceBackbone

    return HuggingFaceBackbone(name, download)


def normalised(spec: RunSpec) -> RunSpec:
    """Returns the spec of what really differs: a method without knowledge has one cell, not six."""
    method = cast("type[InjectionMethod]", registry.get(Kind.METHODS, spec.method))
    if method.settings and method.reads_knowledge:
        return spec
    if method.settings:
        return spec.model_copy(update={"control": Control.NONE})
    return spec.model_copy(
        update={
            "setting": Setting.GENERAL,
            "knowledge": None,
            "control": Control.NONE,
            "linker": None,
        }
    )


def revisions(task: str, tuning: str, method: str) -> dict[str, str]:
    """Returns the revisions of a task, a tuning and a method, as far as these are installed."""
    found = {}
    with suppress(KbenchError):
        found["task"] = str(task_kind(task).card.revision)
    for field, name in (("tuning", tuning), ("method", method)):
        with suppress(KbenchError):
            part = registry.get(_FIELDS[field], name)
            if (revision := getattr(part, "revision", None)) is not None:
                found[field] = str(revision)
    return found


def offered(spec: RunSpec) -> dict[str, str]:
    """Returns which distribution, in which version, offers each part of a run, by the field.

    A backbone or a knowledge base that is a folder, and what is not installed, is left out.

    Args:
        spec: the run.
    """
    found = {}
    for field, kind in _FIELDS.items():
        if (name := getattr(spec, field)) in registry.names(kind):
            with suppress(PluginError):  # offered twice: told where it is loaded
                found[field] = registry.find(kind, name).distribution
    return found
