"""What `kbench show` and `ls` tell of parts, and that no name is cut in any terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kbench.knowledge import KnowledgeBase
from kbench.method import InjectionMethod, MethodCard, Plug
from kbench.model import Backbone, BackboneForm, LanguageModel
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.spec import Setting
from kbench.task import Family
from kbench.testing import registered
from kbench.training import Recipe
from tests.architectures import write, write_decoder
from tests.calling import call

OWN = sorted(
    name
    for kind in Kind
    for name in registry.names(kind)
    if registry.find(kind, name).target.startswith(("kbench.", "kbench_"))
)


class BySize(InjectionMethod):
    """Wants another rate on wide backbones."""

    card = MethodCard("by size", "", 0, "")
    revision = "1"
    settings = frozenset({Setting.GENERAL})

    def recipe(self, setting: Setting, family: Family | None, task: str | None) -> Recipe:
        raise AssertionError("the backbone is asked for")

    def recipe_on(
        self, backbone: BackboneForm, setting: Setting, family: Family | None, task: str | None
    ) -> Recipe:
        return Recipe(0.5 if backbone.width < 1000 else 0.25, 8, 1)

    def build(self, lm: LanguageModel, knowledge: KnowledgeBase) -> Plug:
        raise AssertionError("nothing is built here")


class Stating(Backbone):
    """States recipes."""

    name = "stating"
    digest = "unread"
    licence = "MIT"
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "lora": {"epochs": 77},
        "map-tuning general": {"epochs": 78},
    }

    def load(self) -> LanguageModel:
        raise AssertionError("what is only told needs no weights")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    status, out, err = call(capsys, "show", *words, "-n", "0")
    assert (status, err) == (0, "")
    return out


def line_of(out: str, name: str) -> str:
    found = [line for line in out.splitlines() if line.startswith(f"{name} ")]
    assert len(found) == 1, (name, found)
    return found[0]


def test_a_method_is_shown_with_settings_options_and_recipes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with registered(Kind.BACKBONES, stating=f"{__name__}:Stating"):
        out = shown(capsys, "map-tuning")
    assert out.startswith("map-tuning\nMap-tuning: an affine map")
    assert "settings  general, task-specific, fine-tuning" in out
    assert line_of(out, "start").split() == ["start", "general", "general", "or", "scratch"]
    assert "64      a whole number of at least 1" in line_of(out, "max_length")
    assert "a number above 0" in line_of(out, "learning_rate")
    method = registry.get(Kind.METHODS, "map-tuning")()
    general = method.recipe(Setting.GENERAL, None, None)
    told = f"learning_rate {general.learning_rate:g}, batch_size {general.batch_size}, epochs"
    assert told in line_of(out, "general  ")
    typing = method.recipe(Setting.TASK_SPECIFIC, Family.TYPING, "open-entity")
    assert f"batch_size {typing.batch_size}" in line_of(out, "task-specific, entity typing")
    episodes = method.recipe(Setting.TASK_SPECIFIC, Family.RELATION, "fewrel")
    assert f"batch_size {episodes.batch_size}" in line_of(out, "task-specific, task fewrel;")
    assert "epochs 78" in line_of(out, "general, on stating")
    assert "learning_rate 0.01, epochs 1" in line_of(out, "general, on kbench-tiny")


def test_of_a_recipe_what_a_method_reads_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "prag")
    assert line_of(out, "general  ").rstrip().endswith("0.0003, batch_size 16, epochs 20")
    assert line_of(out, "general, on kbench-tiny-lm").rstrip().endswith("learning_rate 0.003")
    assert line_of(out, "epochs")
    assert "weight_decay" not in out


def test_a_recipe_that_goes_with_the_size_is_shown_by_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with registered(Kind.METHODS, by_size=f"{__name__}:BySize"):
        out = shown(capsys, "by-size")
    wide, narrow = (line_of(out, f"general, on bert of width {n}") for n in (1024, 768))
    assert "llama of width 4096" in wide
    assert "learning_rate 0.25" in wide
    assert "learning_rate 0.5" in narrow


def test_what_trains_nothing_has_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ra", "prompted", "none"):
        out = shown(capsys, name)
        assert "learning_rate" not in out
    assert "what it may be" in shown(capsys, "ra")


def test_a_tuning_is_shown_with_what_families_tasks_and_backbones_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with registered(Kind.BACKBONES, stating=f"{__name__}:Stating"):
        out = shown(capsys, "lora")
    assert "a whole number of at least 1" in line_of(out, "rank  ")
    assert "rank 32" in line_of(out, "relation classification  rank")
    assert "or pmi" in line_of(out, "scorer")
    assert "epochs 77" in line_of(out, "on stating")
    stated = registry.get(Kind.TASKS, "figer").recipes["lora"]["batch_size"]
    assert f"batch_size {stated}" in line_of(out, "task figer")


@pytest.mark.parametrize("name", registry.names(Kind.BACKBONES))
def test_a_backbone_is_shown_with_its_size_and_licence(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(capsys, name)
    backbone = registry.get(Kind.BACKBONES, name)()
    counted = Backbone.size(backbone)  # of what is loaded, not of what the files say
    assert line_of(out, "parameters").split()[1] == f"{counted.parameters:,}"
    assert backbone.size().parameters == counted.parameters
    # In float32 or half of that, with a head of names before the numbers.
    of_each = backbone.size().bytes / counted.parameters
    assert any(width < of_each < 1.01 * width for width in (2, 4))
    assert "WordNet" in line_of(out, "licence")


@pytest.mark.parametrize("left_to_right", [False, True])
def test_a_folder_with_a_model_is_shown(
    left_to_right: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_decoder(tmp_path, "llama") if left_to_right else write(tmp_path, "bert")
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n\n# A model\n")
    out = shown(capsys, str(folder))
    way = "from left to right" if left_to_right else "both ways"
    assert way in line_of(out, "reads")
    assert line_of(out, "licence").split()[1] == "cc-by-4.0"
    bytes_there = (folder / "model.safetensors").stat().st_size
    assert f"{bytes_there:,} bytes" in out
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    assert "not stated" in line_of(shown(capsys, str(folder)), "licence")
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "cannot be read" in line_of(shown(capsys, str(folder)), "size")


@pytest.mark.parametrize("name", registry.names(Kind.IMPORTERS))
def test_an_importer_is_shown_with_its_options(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(capsys, name).split("options of `kbench knowledge import`")[1]
    importer = registry.get(Kind.IMPORTERS, name)
    assert importer.options
    for key, option in importer.options.items():
        assert option.help.split("\n")[0] in line_of(out, key)
        assert all(choice in line_of(out, key) for choice in option.choices)


def test_a_task_is_shown_with_family_metrics_and_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = shown(capsys, "lama")
    assert "question answering" in line_of(out, "family")
    assert "lama-p1, accuracy:any-answer" in line_of(out, "metrics")
    assert "trex or google-re" in line_of(out, "corpus")
    assert "batch_size 16" in line_of(shown(capsys, "open-entity"), "full")


def test_an_executor_is_shown_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "ray")
    assert "executor of knowledge-bench" in out
    assert line_of(out, "retries").split() == ["retries", "3"]


def test_what_does_not_load_is_told_as_far_as_it_is_known(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_here.py").write_text(
        '"""A module."""\n\nimport not_there\n\n\nclass Broken:\n    """It says this."""\n\n'
        '    defaults = {"depth": 3}\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with registered(Kind.METHODS, broken="broken_here:Broken"):
        out = shown(capsys, "broken")
    assert "It says this." in out
    assert "a whole number" in line_of(out, "depth")
    assert re.search(r"more is not known here: the method 'broken' .* does not load", out)


def words(out: str) -> set[str]:
    return {*re.sub(r"[\u2500-\u257f]", " ", out).split()}


@pytest.mark.parametrize("columns", ["60", "80"])
def test_no_name_and_no_word_is_cut(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for paths, addresses and the like, which are longer than a column."""
    calls = [["ls", kind] for kind in Kind if kind != Kind.TRACKERS]
    calls += [["show", name, "-n", "0"] for name in OWN]
    for arguments in calls:
        monkeypatch.setenv("COLUMNS", "500")
        whole = call(capsys, *arguments)[1]
        monkeypatch.setenv("COLUMNS", columns)
        out = call(capsys, *arguments)[1]
        cut = (
            words(out) - words(whole) - words("Left out for want of room: from (a wider terminal)")
        )
        long = "".join(word for word in words(whole) if len(word) > 24)
        assert {word for word in cut if word not in long} == set(), arguments
        if arguments[0] == "show":
            assert out.splitlines()[0] == arguments[1]
        assert max(map(len, out.splitlines())) <= int(columns), arguments


def test_a_name_longer_than_the_terminal_is_printed_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "by_size_" + "x" * 80
    monkeypatch.setenv("COLUMNS", "60")
    with registered(Kind.METHODS, **{name: f"{__name__}:BySize"}):
        spelled = name.replace("_", "-")
        assert shown(capsys, spelled).splitlines()[0] == spelled
        assert spelled in call(capsys, "ls", "methods")[1].split()
        told = call(capsys, "ls", "methods", "--json")[1].splitlines()
        assert spelled in {json.loads(line)["name"] for line in told}
