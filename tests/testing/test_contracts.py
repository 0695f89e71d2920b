"""The contract suite: every part keeps its contracts, and every contract can be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from kbench.errors import UsageError
from kbench.knowledge import Bundle
from kbench.knowledge.controls import Shuffled
from kbench.parts.catalogue import Kind, entries
from kbench.testing import (
    Finding,
    assert_contracts,
    check,
    contracts_controls,
    contracts_methods,
    contracts_plugs,
    registered,
)
from kbench.testing.bench import Bench
from kbench.testing.tiny import tiny
from tests.testing import broken, broken_parts

CHECKED = {
    Kind.TASKS: {
        "atlas-qa",
        "atlas-relations",
        "atlas-typing",
        "custom",
        "entity-questions",
        "fewrel",
        "fewrel-80way",
        "fewrel-pubmed",
        "fewrel-supervised",
        "figer",
        "lama",
        "metaqa",
        "metaqa-2hop",
        "open-entity",
        "popqa",
        "tacred",
        "wiki-et",
        "wiki80",
    },
    Kind.METHODS: {
        "adapter-no-knowledge",
        "concept",
        "e-bert",
        "ernie",
        "k-adapter",
        "kar",
        "kblam",
        "knowla",
        "kv-text",
        "kv-train",
        "map-tuning",
        "map-tuning-mlp",
        "none",
        "pelt",
        "prag",
        "ra",
        "ra-vm",
        "xrag",
    },
    Kind.BACKBONES: {"kbench-tiny", "kbench-tiny-lm"},
    Kind.TUNINGS: {"adapter", "bitfit", "frozen", "full", "head", "lora", "prompted"},
    Kind.KNOWLEDGE: {"atlas"},
    Kind.IMPORTERS: {
        "codex",
        "fb15k-237",
        "ernie",
        "metaqa",
        "openke",
        "pykeen",
        "tsv",
        "wikidata5m",
        "wikipedia2vec",
    },
}
"""The parts whose contracts are tested here."""

Contract = Callable[[Any], Finding]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in CHECKED.items() for name in sorted(names)]
)
def test_every_part_keeps_its_contracts(kind: Kind, name: str) -> None:
    assert_contracts(kind, name)


def test_every_registered_part_has_a_contract_test() -> None:
    own = {
        kind: {e.name for e in entries(kind) if e.distribution.startswith("knowledge-bench")}
        for kind in Kind
        if kind.has_contracts
    }
    assert own == CHECKED, "a part was registered or removed: name it in CHECKED"


BREAKS: list[tuple[Contract, type[broken.Sound]]] = [
    (contracts_methods.card, broken.Nameless),
    (contracts_methods.card, broken.Computed),
    (contracts_methods.covers, broken.CoversNobody),
    (contracts_methods.runs, broken.Crashes),
    (contracts_methods.refuses, broken.Rambles),
    (contracts_methods.refuses, broken.Divides),
    (contracts_methods.frozen_weights, broken.TouchesInFit),
    (contracts_methods.frozen_weights, broken.TouchesInUse),
    (contracts_methods.fixed_plug, broken.Drifts),
    (contracts_methods.follows, broken.Lags),
    (contracts_methods.beside_lora, broken.Rigid),
    (contracts_controls.controls, broken.CoversTheUntold),
    (contracts_controls.controls, broken.CoversByWhatIsBroken),
    (contracts_controls.injects, broken.CoversVectorless),
    (contracts_controls.injects, broken.CoversForNothing),
    (contracts_controls.reads_facts, broken.TellsUndeclared),
    (contracts_controls.reads_text, broken.ReadsNothing),
    (contracts_plugs.leaves_nothing, broken.Stays),
    (contracts_plugs.leaves_nothing, broken.StaysAfterErrors),
    (contracts_plugs.unlinked, broken.Leaks),
    (contracts_plugs.unlinked, broken.LeaksByDesign),
    (contracts_plugs.reached, broken.Peeks),
    (contracts_plugs.reached, broken.PretendsNotToRead),
    (contracts_plugs.same_seed, broken.Gambles),
    (contracts_plugs.general, broken.Remembers),
    (contracts_plugs.round_trip, broken.Forgets),
    (contracts_plugs.owns, broken.Keeps),
    (contracts_plugs.trained, broken.Idles),
    (contracts_plugs.gradients, broken.Cut),
    (contracts_plugs.gradients, broken.Opens),
    (contracts_plugs.padding, broken.Averages),
    (contracts_plugs.bfloat16, broken.Widens),
    (contracts_plugs.read_once, broken.Misreads),
]


@pytest.fixture(params=BREAKS, ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}")
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Contract, Bench]]:
    contract, method = request.param
    with registered(Kind.METHODS, broken=f"{broken.__name__}:{method.__name__}"):
        yield contract, Bench("broken")


def test_a_method_that_breaks_a_contract_is_caught(pair: tuple[Contract, Bench]) -> None:
    contract, bench = pair
    found = contract(bench)
    assert not found.held, found.figure
    assert found.figure
    assert "\n" not in found.figure


@pytest.mark.parametrize("method", ["ra", "ra-vm"])
def test_a_control_on_other_grounds_than_the_method_is_caught(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    everyone = [np.arange(len(Bundle(tiny().uneven)))]
    monkeypatch.setattr(Shuffled, "_groups", lambda _: everyone)
    found = contracts_controls.controls(Bench(method))
    assert not found.held
    assert "entities more or fewer are covered" in found.figure


def test_in_the_uneven_world_no_two_things_go_together() -> None:
    base = Bundle(tiny().uneven)
    rows = np.arange(len(base), dtype=np.int64)
    mentioned = base.rows([m.entity for s in base.sentences for m in s.mentions])
    has = [
        base.has_vector(rows),
        base.has_description(rows),
        np.isin(rows, base.triples[:, 0]),
        np.isin(rows, mentioned),
    ]
    kinds = sum((2**bit * each.astype(int) for bit, each in enumerate(has)), np.zeros(len(rows)))
    assert len(np.unique(kinds)) == 16
    nameless = np.array([not label for label in base.labels])
    assert 0 < nameless.sum() < 10
    assert np.isin(np.flatnonzero(nameless), base.triples[:, 2]).any()


@pytest.mark.parametrize("method", [broken.Sound, broken.Switched])
def test_what_the_broken_methods_are_made_from_is_sound(method: type[broken.Sound]) -> None:
    with registered(Kind.METHODS, broken=f"{broken.__name__}:{method.__name__}"):
        assert [f"{f.contract}: {f.figure}" for f in check("methods", "broken") if not f.held] == []


def test_every_contract_is_broken_by_some_method() -> None:
    every = {contract.__name__ for contract in contracts_methods.CONTRACTS}
    assert every == {contract.__name__ for contract, _ in BREAKS}


def test_a_part_that_does_not_load_has_one_finding() -> None:
    with registered(Kind.METHODS, broken="a_module_that_nobody_has:Method"):
        found = check("methods", "broken")
    assert [(f.contract, f.held) for f in found] == [("loads", False)]
    assert "does not load" in found[0].figure


def test_an_unknown_part_is_an_error_and_no_finding() -> None:
    with pytest.raises(UsageError, match="no method is called"):
        check("methods", "nobody")


def test_the_assertion_names_every_broken_contract_with_its_figure() -> None:
    with (
        registered(Kind.IMPORTERS, broken=f"{broken_parts.__name__}:Sourceless"),
        pytest.raises(
            AssertionError, match=r"broken breaks 1 contracts:\n  card .*: missing: source"
        ),
    ):
        assert_contracts("importers", "broken")


SOUND = {
    Kind.TASKS: broken_parts.Typing,
    Kind.TUNINGS: broken_parts.Head,
    Kind.BACKBONES: broken_parts.Bert,
    Kind.KNOWLEDGE: broken_parts.World,
    Kind.IMPORTERS: broken_parts.Format,
}
BROKEN = [
    (Kind.TASKS, "card", broken_parts.Unlicensed),
    (Kind.TASKS, "card", broken_parts.Misspelt),
    (Kind.TASKS, "data", broken_parts.Empty),
    (Kind.TASKS, "data", broken_parts.Silent),
    (Kind.TASKS, "splits", broken_parts.Twice),
    (Kind.TASKS, "labels", broken_parts.Unheard),
    (Kind.TASKS, "mentions", broken_parts.Blank),
    (Kind.TASKS, "data", broken_parts.Trained),
    (Kind.TASKS, "splits", broken_parts.Overlaps),
    (Kind.TASKS, "mentions", broken_parts.Marked),
    (Kind.TASKS, "same data", broken_parts.Fickle),
    (Kind.TASKS, "perfect", broken_parts.Unfair),
    (Kind.TASKS, "head", broken_parts.Headless),
    (Kind.TASKS, "whole", broken_parts.Targetless),
    (Kind.TASKS, "whole", broken_parts.TwoTargets),
    (Kind.TASKS, "whole", broken_parts.Blankless),
    (Kind.TASKS, "several answers", broken_parts.OneAnswer),
    (Kind.TASKS, "spelled", broken_parts.LowerCased),
    (Kind.TUNINGS, "card", broken_parts.Recipeless),
    (Kind.TUNINGS, "starts as base", broken_parts.Jumps),
    (Kind.TUNINGS, "trains", broken_parts.ForgetsHead),
    (Kind.TUNINGS, "trains", broken_parts.MarksForNothing),
    (Kind.TUNINGS, "frozen words", broken_parts.TrainsWords),
    (Kind.TUNINGS, "same seed", broken_parts.Unseeded),
    (Kind.TUNINGS, "round trip", broken_parts.Unstored),
    (Kind.BACKBONES, "card", broken_parts.UnknownField),
    (Kind.BACKBONES, "loads", broken_parts.Training),
    (Kind.BACKBONES, "same weights", broken_parts.Shifting),
    (Kind.BACKBONES, "whole texts", broken_parts.Rewrites),
    (Kind.BACKBONES, "slots", broken_parts.NoSlots),
    (Kind.BACKBONES, "own words", broken_parts.Doubles),
    (Kind.BACKBONES, "padding", broken_parts.Padded),
    (Kind.BACKBONES, "padding", broken_parts.ReadsPadding),
    (Kind.BACKBONES, "both ways", broken_parts.LeftToRight),
    (Kind.BACKBONES, "both ways", broken_parts.Misdirected),
    (Kind.BACKBONES, "fitting", broken_parts.MoreTokens),
    (Kind.BACKBONES, "fitting", broken_parts.TooLong),
    (Kind.BACKBONES, "own outputs", broken_parts.OtherStates),
    (Kind.BACKBONES, "weights", broken_parts.NotFinite),
    (Kind.KNOWLEDGE, "files", broken_parts.Edited),
    (Kind.IMPORTERS, "card", broken_parts.Sourceless),
    (Kind.IMPORTERS, "options", broken_parts.Disallowed),
]


@pytest.mark.parametrize(("kind", "contract", "part"), BROKEN)
def test_a_part_of_another_kind_that_breaks_a_contract_is_caught(
    kind: Kind, contract: str, part: type
) -> None:
    with registered(kind, broken=f"{broken_parts.__name__}:{part.__name__}"):
        module = import_module(f"kbench.testing.contracts_{kind}")
        found = getattr(module, contract.replace(" ", "_"))(module.subject("broken"))
    assert not found.held, found.figure


@pytest.mark.parametrize("part", [broken_parts.Probe, broken_parts.Questions])
def test_sound_questions_pass(part: type) -> None:
    with registered(Kind.TASKS, broken=f"{broken_parts.__name__}:{part.__name__}"):
        assert_contracts(Kind.TASKS, "broken")


@pytest.mark.parametrize("kind", SOUND)
def test_parts_of_other_kinds_that_are_sound_pass(kind: Kind) -> None:
    with registered(kind, broken=f"{broken_parts.__name__}:{SOUND[kind].__name__}"):
        assert_contracts(kind, "broken")


def test_a_kind_without_contracts_says_so() -> None:
    with pytest.raises(UsageError, match="the executor 'local' has no contracts to check"):
        check("executors", "local")
