"""Inputs with knowledge differ from those without in what is injected, whatever the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from kbench.data import Example, Mention, Role, Split, TaskCard
from kbench.encoding import Inputs, TokenKind
from kbench.errors import KbenchError
from kbench.knowledge import Bundle, Entity, write_bundle, write_vectors
from kbench.model import DownstreamModel
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.parts.run_parts import Parts
from kbench.pipeline.preparation import Prepared, prepare
from kbench.results.notes import unknown_words
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Result, Status
from kbench.task import RelationTask
from kbench.testing import registered
from tests.families import CORPUS, FAMILIES, family

CARD = TaskCard("towns", "1", "none", "none", "made up", "")
NAMES = ("Istanbul", "Tokyo", "Berlin", "river", "town")


class Towns(RelationTask):
    """Which of two names is which; other names are for a linker to find."""

    card: ClassVar[TaskCard] = CARD
    max_length = 160

    def load(self, split: Split) -> Sequence[Example]:
        made = []
        for number, text in enumerate((*CORPUS[:2], " ".join(CORPUS[:2] * 8))):
            found = [name for name in NAMES if name in text][:2]
            spans = [(text.index(name), text.index(name) + len(name)) for name in found]
            roles = (Role.HEAD, Role.TAIL)
            mentions = tuple(Mention(*s, f"Q{s}", r) for s, r in zip(spans, roles, strict=False))
            made.append(Example(f"{split}{number}", text, mentions, f"r{number % 2}"))
        return made


class Marked(Towns):
    """The same, and it states a marker that not every vocabulary has."""

    markers: ClassVar[Any] = {Role.HEAD: "|", Role.TAIL: "#"}


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("towns")
    entities = [Entity(f"Q{name}", name, (), (), f"{name} lies near it") for name in NAMES]
    facts = [(f"Q{one}", "near", f"Q{two}") for one in NAMES for two in NAMES if one != two]
    card = {"name": "towns", "version": "1", "licence": "none", "source": "test"}
    write_bundle(folder, card, entities, facts, {"near": "lies near"})
    return write_vectors(folder, np.eye(len(NAMES), dtype=np.float32), {"model": "none"})


@pytest.fixture(autouse=True)
def _tasks() -> Iterator[None]:
    with registered(Kind.TASKS, towns=f"{__name__}:Towns", marked=f"{__name__}:Marked"):
        yield


def parts_of(method: str, folder: Path, task: str = "towns", linker: str = "alias") -> Parts:
    none = method == "none"
    spec = RunSpec(
        task=task,
        method=method,
        backbone="kbench-tiny",
        knowledge=None if none else str(folder),
        tuning="head",
        setting=Setting.GENERAL,
        control=Control.NONE,
        seed=0,
        linker=None if none else linker,
    )
    return Parts(spec)


def prepared(parts: Parts, name: str, *, injected: bool) -> Prepared:
    """A split as a model with the tokenizer of a family reads it."""
    lm = SimpleNamespace(tokenizer=family(name), max_length=400, left_to_right=False)
    model = SimpleNamespace(lm=lm, head=parts.task.head(8))
    return prepare(parts, Split.TEST, cast("DownstreamModel", model), injected=injected)


def tokens(inputs: Inputs, number: int) -> tuple[list[int], np.ndarray]:
    part = slice(*inputs.bounds[number : number + 2])
    return inputs.ids[part].tolist(), inputs.kinds[part]


@pytest.mark.parametrize("name", FAMILIES)
def test_plugged_and_unplugged_inputs_differ_in_what_is_injected_alone(
    name: str, knowledge: Bundle
) -> None:
    methods = [m for m in registry.names(Kind.METHODS) if m != "none"]
    assert {"map-tuning", "ra", "ra-vm", "ernie", "e-bert", "pelt", "k-adapter"} <= {*methods}
    unplugged = prepared(parts_of("none", knowledge.folder), name, injected=False).inputs
    assert isinstance(unplugged, Inputs)
    for method in methods:
        parts = parts_of(method, knowledge.folder)
        inputs = prepared(parts, name, injected=True).inputs
        assert isinstance(inputs, Inputs)
        slotted = parts.method.template() is not None
        for number in range(2):  # these fit; what is cut makes room for slots
            ids, kinds = tokens(unplugged, number)
            got, more = tokens(inputs, number)
            if slotted:
                kept = (TokenKind.TEXT, TokenKind.BLANK, TokenKind.SPECIAL)
                words = [t for t, k in zip(got, more, strict=True) if k in kept]
                assert words == [t for t, k in zip(ids, kinds, strict=True) if k in kept], method
            else:
                told = parts.method.text is not None and len(got) > len(ids)
                assert got[: len(ids)] == ids if told else got == ids, method
        if not slotted:
            ids, got = tokens(unplugged, 2)[0], tokens(inputs, 2)[0]
            assert got[: len(ids) - 1] == ids[:-1], f"{method}, of a text that is cut"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_method_without_a_slot_or_text_reads_the_very_same(name: str, knowledge: Bundle) -> None:
    without = prepared(parts_of("none", knowledge.folder), name, injected=False)
    parts = parts_of("ernie", knowledge.folder)
    with_ = prepared(parts, name, injected=True)
    assert with_.links.mentions > without.links.mentions  # the linker found more
    assert with_.counts == without.counts


def test_a_marker_that_the_task_states_is_not_replaced(knowledge: Bundle) -> None:
    with pytest.raises(KbenchError, match=r"marker '\|' of head is unknown"):
        prepared(parts_of("none", knowledge.folder, "marked"), "wordpiece", injected=False)
    assert Marked().states_markers
    assert not Towns().states_markers


def test_unknown_words_stand_beside_the_tokens_and_are_told_where_they_are_most(
    knowledge: Bundle,
) -> None:
    parts = parts_of("ra", knowledge.folder)
    counts = prepared(parts, "whole words", injected=True).counts
    assert 0 < counts["test_unknown_text_tokens"] < counts["test_text_tokens"] / 2
    assert counts["test_text_tokens"] < counts["test_tokens"]
    assert counts["test_passage_tokens"]
    result = Result(id="0" * 32, status=Status.OK, spec=parts.spec, counts=counts)
    told = {"test_text_tokens": 60, "test_unknown_text_tokens": 59}
    mostly = result.model_copy(update={"counts": told})
    assert unknown_words(mostly) == (
        "the backbone's vocabulary does not know 59 of 60 tokens of its test texts"
    )
    few = {**told, "test_unknown_text_tokens": 29}
    assert not unknown_words(result.model_copy(update={"counts": few}))
