"""Probes of the frozen backbone: what runs, what is skipped and why, and what they score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kbench.data import Split
from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.knowledge import Bundle
from kbench.model import DownstreamModel, digest
from kbench.model.huggingface import load_folder
from kbench.parts.run_parts import Parts
from kbench.pipeline.addresses import addresses
from kbench.store import Artifacts, Result, Results, Status
from kbench.testing.toys import write_backbone, write_world
from kbench_tasks.lama import Lama
from tests.grid.toygrid import OPTIONS, grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")

TEMPLATES = {"P1": "[X] is a [Y] thing .", "P2": "[Y] is the color of [X] .", "P3": "[X] looks [Y]"}
GENERAL = {"learning_rate": 1e-2, "epochs": 1, "batch_size": 32, "dropout": None}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_world(tmp_path_factory.mktemp("world"), entities=60, full=True)


def lama(folder: Path, facts: Sequence[tuple[str, str, str, str]]) -> str:
    """Writes LAMA of facts: relation, id and name of the subject, object."""
    (folder / "TREx").mkdir(parents=True)
    relations = [{"relation": name, "template": text} for name, text in TEMPLATES.items()]
    write_lines(folder / "relations.jsonl", relations)
    for relation in {fact[0] for fact in facts}:
        rows = [
            {"sub_uri": entity, "sub_label": name, "obj_label": label}
            for kind, entity, name, label in facts
            if kind == relation
        ]
        write_lines(folder / "TREx" / f"{relation}.jsonl", rows)
    return str(folder)


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path, world: Bundle) -> str:
    """A fact on the color of every entity of the world, in two relations."""
    entities = [world.entity(row) for row in range(len(world))]
    named = [entity for entity in entities if entity.id.startswith("toy:")]
    colors = ("red", "green", "blue", "white")
    facts = [
        (f"P{1 + number % 2}", entity.id, entity.label, colors[number % 4])
        for number, entity in enumerate(named)
    ]
    return lama(tmp_path / "lama", facts)


@pytest.fixture
def always_red(tmp_path: Path, toy_folder: Path) -> str:
    """The toy BERT, rigged: of all tokens "today" is the best everywhere, and "red" the next."""
    lm = load_folder(toy_folder / "bert")
    numbers = lm.tokenizer.get_vocab()
    with torch.no_grad():
        bias = lm.network.cls.predictions.decoder.bias  # type: ignore[union-attr]
        bias[numbers["red"]], bias[numbers["today"]] = 500.0, 1000.0
    lm.network.save_pretrained(tmp_path / "red")
    lm.tokenizer.save_pretrained(tmp_path / "red")
    return str(tmp_path / "red")


FACTS = [
    ("P1", "Q1", "it", "red"),
    ("P1", "Q2", "there", "red"),
    ("P2", "Q1", "it", "red"),
    ("P2", "Q2", "there", "blue"),
    ("P2", "Q3", "rained", "green"),
    ("P2", "Q4", "near", "white"),
    ("P3", "Q5", "thing", "blue"),
]


def values(result: Result) -> dict[str, tuple[float, int]]:
    assert result.status == Status.OK, result.reason
    return {name: (score.value, score.n) for name, score in result.metrics.items()}


@pytest.mark.parametrize(
    ("words", "p1", "accuracy", "tokens"),
    [
        # Over the four objects "red" is the answer to all: (2/2 + 1/4 + 0/1) / 3, and 3 of 7.
        (None, ((1 + 0.25 + 0) / 3, 7), (3 / 7, 7), 4),
        # A word that is two tokens, or is unknown, is no answer; white is none, nor asked for.
        ("red\nblue\ngreen\nred thing\n北\n", ((1 + 1 / 3 + 0) / 3, 6), (3 / 6, 6), 3),
        # P3 has no query left, and P@1 is the mean over the others.
        ("red\ngreen\n", ((1 + 0.5) / 2, 4), (3 / 4, 4), 2),
        ("Today\nred\nblue\ngreen\nwhite\n", (0.0, 7), (0.0, 7), 5),
    ],
)
def test_p1_is_the_mean_over_relations_over_the_vocabulary(
    words: str | None,
    p1: tuple[float, int],
    accuracy: tuple[float, int],
    tokens: int,
    tmp_path: Path,
    always_red: str,
    place: Place,
) -> None:
    folder = lama(tmp_path / "lama", FACTS)
    if words:
        (tmp_path / "lama" / "common_vocab_cased.txt").write_text(words, encoding="utf-8")
    options = {"task": {"lama": {"dev_share": 0}}}
    (result,) = run(
        grid(Path(), task="lama", data=folder, method="none", backbone=always_red, options=options),
        place,
    )
    assert result.spec.tuning == "frozen"
    assert result.main_metric == "p1"
    assert values(result)["p1"] == (pytest.approx(p1[0]), p1[1])
    assert values(result)["accuracy"] == (pytest.approx(accuracy[0]), accuracy[1])
    assert result.metrics["p1"].variant == ("lama-p1" if words else "lama-p1:objects")
    assert result.counts["vocabulary_tokens"] == tokens
    assert result.counts["test_total"] == 7
    assert result.counts["test_kept"] == p1[1]


def test_general_plugs_are_plugged_into_the_backbone_as_it_is(
    data: str, world: Bundle, toy_folder: Path, place: Place
) -> None:
    methods = "none,map-tuning,pelt,ra"
    options = {"method": {"map-tuning": {"general": GENERAL}}}
    chosen = {"task": "lama", "data": data, "method": methods, "setting": "general"}
    chosen |= {"knowledge": str(world.folder), "options": options}
    results = run(grid(toy_folder, **chosen), place)
    assert [result.status for result in results] == [Status.OK] * 7, [r.reason for r in results]
    assert {result.spec.tuning for result in results} == {"frozen"}
    # No weight of the backbone is another in any of them, and nothing was tuned or stored.
    plain = DownstreamModel(load_folder(toy_folder / "bert"), Lama(data).head(32))
    assert {(r.frozen.before, r.frozen.after) for r in results if r.frozen} == {
        (digest(plain),) * 2
    }
    assert {result.cost["tuned_parameters"] for result in results} == {0}
    assert {path.parent.name for path in Artifacts(place.artifacts).all()} == {"plug"}
    mapped = next(r for r in results if r.spec.method == "map-tuning")
    assert mapped.coverage is not None
    assert mapped.coverage.examples > 0.8
    pelt = next(r for r in results if r.spec.method == "pelt")
    assert len(pelt.training["choice"]["dev"]) == len(pelt.training["choice"]["values"]) > 1
    stored = Results(place.out).predictions(mapped)
    assert stored is not None
    assert {*stored.strata} == {"P1", "P2"}
    # What is stored gives the score again, counted by hand.
    right = {name: [0, 0] for name in ("P1", "P2")}
    told = zip(stored.labels, stored.predictions, stored.strata, strict=True)
    for label, guess, relation in told:
        right[relation][0] += label[0] == guess
        right[relation][1] += 1
    by_hand = sum(hits / total for hits, total in right.values()) / 2
    assert mapped.metrics["p1"].value == pytest.approx(by_hand)
    # A second time nothing is to be done.
    cells = runner.plan(runner.resolve(grid(toy_folder, **chosen)), place)
    assert all(cell.done and cell.model is None for cell in cells)


def test_dev_and_test_share_no_subject_and_hold_all_questions(data: str) -> None:
    task = Lama(data)
    dev, test = task.examples(Split.DEV), task.examples(Split.TEST)
    ids = [{example.mentions[0].entity for example in part} for part in (dev, test)]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]
    assert len(dev) + len(test) == 60
    assert task.examples(Split.TRAIN) == ()
    everything = Lama(data, {"dev_share": 0})
    assert len(everything.examples(Split.TEST)) == 60
    # Who is held out does not depend on who else is there.
    more = {e.id for e in Lama(data, {"dev_share": 0.3}).examples(Split.DEV)}
    assert {e.id for e in dev} < more


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tuning": "full"}, "is a probe and has no training split, which tuning full needs"),
        ({"setting": "task-specific"}, "no training split, which the task-specific setting needs"),
        ({"setting": "fine-tuning"}, "no training split, which the fine-tuning setting needs"),
        ({"tuning": "lora", "setting": "fine-tuning"}, "which tuning lora needs"),
        ({"method": "pelt", "dev_share": 0}, "pelt chooses between values on dev, and task lama"),
    ],
)
def test_what_a_probe_cannot_be_asked_is_skipped(
    changes: dict[str, Any],
    reason: str,
    data: str,
    world: Bundle,
    toy_folder: Path,
    place: Place,
) -> None:
    share = changes.get("dev_share", 0.1)
    changes = {name: value for name, value in changes.items() if name != "dev_share"}
    chosen = {"task": "lama", "data": data, "method": "map-tuning", "setting": "general"}
    chosen |= {"knowledge": str(world.folder), "control": "none", **changes}
    options = {"task": {"lama": {"dev_share": share}}}
    (result,) = run(grid(toy_folder, **chosen, options=options), place)
    assert (result.status, reason in result.reason) == (Status.SKIPPED, True), result.reason
    assert "\n" not in result.reason


def test_no_tuning_for_tasks_that_are_answered_at_the_blank_alone(
    toy_folder: Path, place: Place
) -> None:
    chosen = grid(
        toy_folder,
        task="toy-qa,toy-typing,toy-relations",
        tuning="frozen",
        setting="general,task-specific,fine-tuning",
        control="none",
        options={"method": OPTIONS["method"]},
    )
    results = run(chosen, place)
    said = {
        (r.spec.task, r.spec.method, str(r.spec.setting)): (r.status, r.reason) for r in results
    }
    assert len(said) == 12
    for (task, method, setting), (status, reason) in said.items():
        if task != "toy-qa" and setting != "fine-tuning":
            assert "an untrained head says nothing" in reason
        elif setting == "fine-tuning":
            assert "trains nothing, so no model is tuned with the plug in place" in reason
        else:
            assert (status, reason) == (Status.OK, ""), (method, setting)


def test_without_a_tuning_asked_for_every_task_has_its_own(toy_folder: Path) -> None:
    both = {"task": "toy-qa,lama", "method": "none"}
    assert [spec.tuning for spec in runner.resolve(grid(toy_folder, **both))] == ["full", "frozen"]
    asked = runner.resolve(grid(toy_folder, **both, tuning="lora,frozen"))
    assert [spec.tuning for spec in asked] == ["lora", "frozen"] * 2


def test_a_decoder_is_prompted_where_no_tuning_is_asked_for(
    toy_folder: Path, tmp_path: Path
) -> None:
    decoder = str(write_backbone(tmp_path / "llama", layers=2, left_to_right=True))
    backbones = [str(toy_folder / "bert"), decoder, str(tmp_path / "nothing")]
    chosen = grid(toy_folder, task="toy-qa,lama", method="none", backbone=",".join(backbones))
    specs = runner.resolve(chosen, offline=True)
    assert [(s.task, s.backbone) for s in specs] == [
        (task, backbone) for task in ("toy-qa", "lama") for backbone in backbones
    ]
    assert [s.tuning for s in specs] == ["full", "prompted", "full", "frozen", "prompted", "frozen"]


def test_a_tuning_that_trains_nothing_has_no_option(
    toy_folder: Path, data: str, place: Place
) -> None:
    options = {"tuning": {"frozen": {"epochs": 3}}}
    chosen = grid(toy_folder, task="lama", data=data, method="none", options=options)
    with pytest.raises(Exception, match="tuning frozen has no option 'epochs'"):
        run(chosen, place)


def test_the_model_of_a_probe_does_not_depend_on_its_questions(
    toy_folder: Path, data: str, world: Bundle, tmp_path: Path, place: Place
) -> None:
    (tmp_path / "words.txt").write_text("red\ngreen\nblue\nwhite\n", encoding="utf-8")
    other = lama(tmp_path / "other", FACTS)
    models, plugs = set(), set()
    for folder in (data, other):
        options = {"task": {"lama": {"vocabulary": str(tmp_path / "words.txt")}}}
        chosen = grid(
            toy_folder,
            task="lama",
            data=folder,
            setting="general",
            control="none",
            knowledge=str(world.folder),
            options=options,
        )
        for spec in runner.resolve(chosen):
            found = addresses(Parts(spec))
            models.add(found["model"])
            plugs.add(found["plug"])
    assert len(models) == 1
    assert len(plugs) == 2  # that of map-tuning, and none's
