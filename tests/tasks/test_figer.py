from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError, UsageError
from kbench.metrics import LooseMicroF1
from kbench.parts.run_parts import Parts
from kbench.pipeline.addresses import model_inputs
from kbench.spec import Control, RunSpec, Setting
from kbench_tasks.figer import Figer
from kbench_tasks.open_entity import OpenEntity

Write = Callable[[str, Any], Path]

TEXT = "Its author , Ada Lovelace , lived in London ."
ROW: dict[str, Any] = {
    "sent": TEXT,
    "start": 13,
    "end": 25,
    "labels": ["/person", "/person/author"],
    "ents": [["Q7259", 13, 25, 0.64], ["Q84", 37, 43, 0.41], ["Q1", 0, 3, 0.12]],
}
PLACE = {**ROW, "start": 37, "end": 43, "labels": ["/location", "/location/city"]}


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> str:
    write("FIGER/train.json", [ROW, PLACE])
    write("FIGER/dev.json", [PLACE])
    write("FIGER/test.json", [ROW])
    return str(tmp_path)


def test_an_example(folder: str) -> None:
    task = Figer(folder)
    (example,) = task.examples(Split.TEST)
    assert example.id == "figer/test/0"
    assert example.text == TEXT
    assert example.label == ("/person", "/person/author")
    assert example.mentions == (
        Mention(13, 25, "Q7259", Role.TARGET, 0.64),
        Mention(37, 43, "Q84", Role.CONTEXT, 0.41),
    )
    assert task.labels == ("/location", "/location/city", "/person", "/person/author")
    assert task.counts["test_links_below_threshold"] == 1
    assert task.counts["train_total"] == task.counts["train_target_linked"] == 2


def test_the_metrics_are_those_of_ernies_table(folder: str) -> None:
    names = [metric.name for metric in Figer(folder).metrics]
    assert names == ["strict", "macro_f1", "micro_f1"]


def test_the_fallback_is_an_option_and_in_every_variant(folder: str) -> None:
    for given, fallback in {"argmax": True, "none": False}.items():
        task = Figer(folder, {"fallback": given})
        assert task.head(4).fallback is fallback  # type: ignore[attr-defined]
        assert [m.variant.endswith(":argmax-fallback") for m in task.metrics] == [fallback] * 3
    assert Figer(folder).fallback
    assert [m.variant for m in Figer.metrics] == [m.variant for m in Figer(folder).metrics]
    with pytest.raises(UsageError, match="fallback is 'argmin'; expected argmax or none; did"):
        Figer(folder, {"fallback": "argmin"})


def test_a_model_is_found_by_its_fallback_too(folder: str) -> None:
    def inputs(fallback: str) -> dict[str, Any]:
        options = {"task": {"figer": {"fallback": fallback}}}
        spec = RunSpec(
            task="figer",
            backbone="kbench-tiny",
            tuning="full",
            method="none",
            setting=Setting.GENERAL,
            knowledge=None,
            control=Control.NONE,
            seed=0,
            data=folder,
            options=options,
        )
        return model_inputs(Parts(spec))

    # The best epoch on dev hangs on it.
    one, other = inputs("argmax"), inputs("none")
    data, form = one["task"]
    assert other == {**one, "task": [data, {**form, "fallback": False}]}


def test_typing_without_a_fallback_stays_as_it_was(folder: str) -> None:
    assert not OpenEntity(folder).fallback
    assert OpenEntity.metrics[0].variant == LooseMicroF1().variant == "loose-micro-f1"


def test_equal_names_are_held_once(write: Write, folder: str) -> None:
    write("FIGER/train.json", json.dumps([ROW, ROW]))
    one, two = Figer(folder).examples(Split.TRAIN)
    assert one.label[0] is two.label[0]
    assert one.mentions[0].entity is two.mentions[0].entity


def test_many_unknown_labels_are_not_all_listed(write: Write, folder: str) -> None:
    write("FIGER/train.json", [{**ROW, "labels": [f"/{n:02}"]} for n in range(20)])
    with pytest.raises(DataError, match=r"'/location' is none of those in train .*/11, …\)"):
        Figer(folder).examples(Split.DEV)


@pytest.mark.usefixtures("hub")
def test_the_hub_gives_the_same(write: Write, folder: str, tmp_path: Path) -> None:
    for split, rows in (("train", [ROW, PLACE]), ("validation", [PLACE]), ("test", [ROW])):
        write(f"hub/{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert Figer(f"hf:{tmp_path / 'hub'}").digest == Figer(folder).digest
