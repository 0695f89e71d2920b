"""What determines a downstream model, a plug and a result: the inputs of their addresses.

Content only: digests of data, weights and knowledge, revisions of code, options and recipes.
Batch size of evaluation, device and hardware are recorded in a result, not part of its address.
The precision is part of it, and so is that of a training, and how a backbone's weights are held,
unless it is float32.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kbench.data import digest_examples
from kbench.parts.run_parts import Parts
from kbench.pipeline.revision import ENGINE_REVISION
from kbench.spec import Setting
from kbench.store import result_address
from kbench.store.folder import address

__all__ = [
    "ENGINE_REVISION",
    "addresses",
    "general_plug",
    "model_inputs",
    "plug_inputs",
    "result_id",
]


def model_inputs(parts: Parts) -> dict[str, Any]:
    """Returns all that determines a downstream model: no method, unless fixed in it."""
    spec = parts.spec
    inputs = {
        "engine": ENGINE_REVISION,
        "task": [parts.task.training_digest, parts.task.form],
        "limit": spec.limit,
        "backbone": parts.backbone.digest,
        "tuning": [spec.tuning, parts.tuning.revision, parts.tuning_options],
        "recipe": parts.tuning_recipe and parts.tuning_recipe.as_dict(),
        "seed": spec.seed,
    }
    if parts.prompting is not None:
        # As it was before there were demonstrations and statements.
        asked = {k: v for k, v in parts.prompting.items() if (k, v) != ("shots", 0)}
        form = parts.task.asked and asdict(parts.task.asked)
        if form and not form["statements"]:
            del form["statements"]
        # Answers behind a sign of a script without blanks once stood behind a blank.
        closed = parts.task.asked is not None and parts.task.asked.closed
        inputs["prompt"] = [asked, form, *(["joined"] if closed else [])]
    if parts.demonstrations:
        examples, answers = zip(*parts.demonstrations, strict=True)
        inputs["demonstrations"] = [digest_examples(examples), list(answers)]
    if parts.tuning_recipe is not None:
        inputs |= _precision(spec.dtype)
    inputs |= _held(spec.weights)
    if parts.plug_is_fixed:
        assert parts.knowledge is not None
        inputs["plug"] = address("plug", plug_inputs(parts, Setting.FINE_TUNING))
        inputs["knowledge"] = parts.knowledge.digest
        inputs["linker"] = parts.linker_revised
        inputs |= _bare(parts)
    return inputs


def plug_inputs(parts: Parts, setting: Setting) -> dict[str, Any]:
    """Returns all that determines a plug: no task, unless it is task-specific."""
    seen = parts.knowledge_of(setting)
    inputs = {
        "engine": ENGINE_REVISION,
        "method": [parts.spec.method, parts.method.revision, parts.method.addressed_options],
        "setting": str(setting),
        "recipe": parts.plug_recipe(setting).as_dict(),
        "knowledge": seen.digest,
        "backbone": parts.backbone.digest,
        "seed": parts.spec.seed,
        **_precision(parts.spec.dtype),
        **_held(parts.spec.weights),
    }
    if setting == Setting.TASK_SPECIFIC:
        inputs["model"] = address("model", model_inputs(parts))
        inputs["linker"] = parts.linker_revised
        inputs |= _bare(parts)
        if Setting.GENERAL in parts.method.settings:
            inputs["general"] = address("plug", plug_inputs(parts, Setting.GENERAL))
    return inputs


def _bare(parts: Parts) -> dict[str, str]:
    """What a plug that works on every token adds where statements are compared.

    It once took part in what they are worth after nothing, from which no other plug differs.
    """
    prompt = parts.task.asked if parts.prompting is not None else None
    if prompt is None or not prompt.statements or parts.method.switched or parts.knowledge is None:
        return {}
    return {"nothing": "without the plug"}


def _precision(dtype: str) -> dict[str, str]:
    """What a narrow precision adds to the inputs of a training."""
    return {} if dtype == "float32" else {"dtype": dtype}


def _held(weights: str) -> dict[str, str]:
    """What a backbone whose weights are not held in float32 adds: it says other things."""
    return {} if weights == "float32" else {"weights": weights}


def addresses(parts: Parts) -> dict[str, str | None]:
    """Returns the addresses of a run's downstream model and of its plug, if it has one."""
    plug = None
    if parts.knowledge is not None:
        plug = address("plug", plug_inputs(parts, parts.spec.setting))
    return {"model": address("model", model_inputs(parts)), "plug": plug}


def general_plug(parts: Parts) -> str | None:
    """Returns the address of the general plug that a run's task-specific one may start from."""
    if parts.knowledge is None or parts.spec.setting != Setting.TASK_SPECIFIC:
        return None
    general: str | None = plug_inputs(parts, Setting.TASK_SPECIFIC).get("general")
    return general


def result_id(parts: Parts) -> str:
    """Returns the address of a run's result."""
    task, spec = parts.task, parts.spec
    return result_address(
        spec,
        engine=ENGINE_REVISION,
        task=(task.digest, task.card.revision),
        metrics=[metric.variant for metric in task.metrics],
        method=parts.method.revision,
        linker=parts.linker_revised,
        made={**addresses(parts), **_bare(parts)},
    )
