"""The options of every installed part have a type, and what is not of it is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from kbench.data.files import canonical_digest
from kbench.errors import UsageError
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.find import find_task
from kbench.parts.run_parts import Parts
from kbench.parts.source_text import option_types
from kbench.spec import Control, OptionType, RunSpec, Setting, check_options, check_values

OPEN = {("methods", "map-tuning", "choose"), ("methods", "map-tuning-mlp", "choose")}
"""Options of a form of their own, which the part checks when it is made."""
OPTIONS = [
    (str(kind), name, option)
    for kind in (Kind.TASKS, Kind.TUNINGS, Kind.METHODS)
    for name in registry.names(kind)
    if registry.find(kind, name).target.startswith(("kbench.", "kbench_"))
    for option in registry.get(kind, name).defaults
]


def parts(kind: str, name: str, options: Any) -> Parts:
    """The parts of a run with an option."""
    spec = RunSpec(
        task="atlas-typing",
        backbone="a-model-that-is-nowhere",
        tuning=name if kind == "tunings" else "full",
        method=name if kind == "methods" else "none",
        setting=Setting.GENERAL,
        knowledge=None,
        control=Control.NONE,
        seed=0,
        options={kind.removesuffix("s"): {name: options}},
    )
    return Parts(spec)


def checked(kind: str, name: str, options: dict[str, Any]) -> None:
    """Asks for a part with options, as a plan does."""
    if kind == "tasks":
        find_task(name, None, options)
    elif kind == "tunings":
        _ = parts(kind, name, options).tuning_options
    else:
        _ = parts(kind, name, options).method


def test_the_options_are_those_of_all_parts() -> None:
    assert {kind for kind, *_ in OPTIONS} == {"tasks", "tunings", "methods"}
    assert len(OPTIONS) > 30


@pytest.mark.parametrize(("kind", "name", "option"), OPTIONS)
def test_what_an_option_may_be_is_read_from_the_source(kind: str, name: str, option: str) -> None:
    """As `kbench show` does, which runs no code of a part: so defaults and types are literal."""
    part = registry.get(kind, name)
    declared = part.option_types.get(option) or OptionType.of(part.defaults[option])
    told = option_types(registry.find(Kind(kind), name))
    assert told.get(option) == (declared and declared.expected)


@pytest.mark.parametrize(("kind", "name", "option"), OPTIONS)
def test_a_default_is_of_its_type_and_no_mapping_is(kind: str, name: str, option: str) -> None:
    part = registry.get(kind, name)
    default = part.defaults[option]
    check_values({option: default}, part.defaults, part.option_types, name)
    declared = part.option_types.get(option) or OptionType.of(default)
    assert (declared is None) == ((kind, name, option) in OPEN)
    with pytest.raises(UsageError) as caught:
        checked(kind, name, {option: {"no": "option is a mapping"}})
    assert "\n" not in str(caught.value)
    assert option in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "option", "value", "expected"),
    [
        ("tunings", "full", "train_embeddings", "nope", "true or false"),
        ("tunings", "full", "train_embeddings", 0, "true or false"),
        ("tunings", "lora", "rank", 2.0, "a whole number of at least 1"),
        ("tunings", "lora", "rank", "4", "a whole number of at least 1"),
        ("tunings", "lora", "rank", 0, "a whole number of at least 1"),
        ("tunings", "lora", "alpha", float("nan"), "a number above 0"),
        ("tunings", "lora", "alpha", 0, "a number above 0"),
        ("tunings", "adapter", "rank", True, "a whole number of at least 1"),
        ("methods", "ra", "room", -5, "a whole number of at least 1"),
        ("methods", "ra", "room", "abc", "a whole number of at least 1"),
        ("methods", "ra-vm", "facts", 1.5, "a whole number of at least 0"),
        ("methods", "map-tuning", "start", "generel", "general or scratch"),
        ("methods", "map-tuning-mlp", "max_length", 0, "a whole number of at least 1"),
        ("methods", "pelt", "descriptions", "no", "true or false"),
        ("methods", "pelt", "scale", "big", "null or a number"),
        ("methods", "k-adapter", "without", "P31", "a list of text"),
        ("methods", "kar", "init", "ones", "zero or inverse"),
        ("methods", "adapter-no-knowledge", "parameters", 0, "null or a whole number of at least"),
        ("tasks", "open-entity", "link_threshold", 1.5, "a number of at least 0 and of at most 1"),
        ("tasks", "figer", "link_threshold", "0.5", "a number of at least 0 and of at most 1"),
        ("tasks", "fewrel", "queries", 0, "a whole number of at least 1"),
        ("tasks", "lama", "dev_share", True, "a number of at least 0 and below 1"),
        ("tasks", "wiki80", "split_seed", 0.5, "a whole number"),
        ("tasks", "lama", "corpus", 3, "trex or google-re"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_loaded(
    kind: str, name: str, option: str, value: Any, expected: str
) -> None:
    with pytest.raises(UsageError) as caught:
        checked(kind, name, {option: value})
    said = f"{kind.removesuffix('s')} {name}: {option} is {value!r}; expected {expected}"
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fine-tuning": 3}, "map-tuning, fine-tuning is 3; expected a mapping"),
        ({"general": {"epochs": "three"}}, "map-tuning, general: epochs is 'three'; expected a wh"),
        ({"task-specific": {"clip": -1}}, "map-tuning, task-specific: clip is -1; expected a n"),
        ({"general": 3}, "map-tuning, general is 3; expected a mapping such as"),
        ({"general": {"types": 3}}, "map-tuning, general has no option 'types'"),
    ],
)
def test_a_wrong_recipe_of_a_setting_is_refused(options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=f"^method {said}"):
        _ = parts("methods", "map-tuning", options).method


def test_what_a_method_does_not_read_of_a_recipe_is_refused() -> None:
    said = r"^method prag, general has no option 'share'; .*batch_size, epochs, learning_rate$"
    with pytest.raises(UsageError, match=said):
        _ = parts("methods", "prag", {"general": {"epochs": 2, "share": 0.5}}).method
    _ = parts("methods", "prag", {"general": {"epochs": 2}}).method


def test_a_recipe_of_the_user_is_refused_where_it_stands() -> None:
    with pytest.raises(UsageError, match=r"^tuning full: epochs is 1\.5; expected a whole number"):
        _ = parts("tunings", "full", {"epochs": 1.5}).tuning_recipe


@pytest.mark.parametrize(
    ("name", "setting"),
    [("ra", "general"), ("e-bert", "fine-tuning"), ("pelt", "general"), ("none", "general"),
     ("adapter-no-knowledge", "general"), ("map-tuning-mlp", "task-specific")],
)  # fmt: skip
def test_options_of_a_training_that_is_never_done_are_refused(name: str, setting: str) -> None:
    kind = registry.get("methods", name)
    if kind.trains and setting in kind.settings:
        checked("methods", name, {setting: {"epochs": 2}})
        return
    with pytest.raises(UsageError, match=f"method {name} trains nothing in the setting {setting}"):
        checked("methods", name, {setting: {"epochs": 2}})


@pytest.mark.parametrize("spelled", [1, 1.0])
def test_a_default_that_is_set_is_the_same_run_however_it_is_spelled(spelled: float) -> None:
    plain = parts("tunings", "lora", {})
    given = parts("tunings", "lora", {"alpha": spelled, "weight_decay": 0 * spelled})
    assert given.tuning_recipe is not None
    assert plain.tuning_recipe is not None
    for one, other in (
        (plain.tuning_options, given.tuning_options),
        (plain.tuning_recipe.as_dict(), given.tuning_recipe.as_dict()),
        (find_task("wiki80", "x").options, find_task("wiki80", "x", {"split_seed": 0}).options),
        (find_task("lama", "x", {"dev_share": 0}), find_task("lama", "x", {"dev_share": 0.0})),
    ):
        values = [getattr(value, "options", value) for value in (one, other)]
        assert canonical_digest(values[0]) == canonical_digest(values[1])


def test_a_part_without_options_says_so() -> None:
    with pytest.raises(UsageError, match=r"^tuning prompted has no option 'x'; it has none$"):
        check_options({"x": 1}, (), "tuning prompted")
