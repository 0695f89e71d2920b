"""Estimates against numbers worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Split
from kbench.grid import runner
from kbench.grid.estimate import (
    SHAPES,
    GpuHours,
    Machine,
    Memory,
    Pass,
    Shape,
    Work,
    WorkKind,
    flops,
    shape_of,
)
from kbench.grid.grids import make_grid
from kbench.grid.plan import Place
from kbench.grid.workload import works
from kbench.parts.run_parts import PartLoader, Parts
from kbench.store import Artifacts
from tests.grid.toygrid import QUICK, grid, run


def test_the_layers_of_known_backbones_have_their_parameters() -> None:
    # bert-base has 109,482,240: 23,837,184 in embeddings, 590,592 in the pooler.
    assert SHAPES["bert-base-uncased"].parameters == 109_482_240 - 23_837_184 - 590_592
    # bert-large has 335,141,888: 31,782,912 in embeddings, 1,049,600 in the pooler.
    assert SHAPES["roberta-large"].parameters == 335_141_888 - 31_782_912 - 1_049_600
    # Without the norm after the last layer.
    assert SHAPES["Llama-3.2-1B"].weights == 1_235_814_400 - 2048
    assert SHAPES["SmolLM2-135M"].weights == 134_515_008 - 576
    assert SHAPES["Llama-3.1-8B"].weights == 8_030_261_248 - 4096
    assert SHAPES["Qwen2.5-1.5B"].weights == pytest.approx(1_543_714_304, rel=1e-4)
    assert SHAPES["gpt2"].weights == 124_439_808 - 1024 * 768 - 2 * 768
    assert Shape(1, 2, 3).parameters == 4 * (4 + 2) + (6 + 3) + (6 + 2) + 8


GPT = Shape(2, 8, 32, vocabulary=9, causal=True)


def test_memory_counts_what_is_held_and_what_is_read() -> None:
    shape = Shape(2, 8, 16, 8, 4, True, 10, tied=False, causal=True)
    assert shape.weights == shape.parameters + 2 * 80
    wide = Memory.of(shape, "float32", texts=3, tokens=5, trees=0)
    assert wide.weights == 4 * shape.weights
    assert wide.activations == 4 * (15 * (32 + 8 + 48) + 3 * 10)
    assert wide.cache == 2 * 2 * 4 * 15 * 4
    narrow = Memory.of(shape, "bfloat16", texts=3, tokens=5, trees=2)
    assert narrow.weights == 2 * shape.weights
    assert narrow.activations == 2 * (21 * 88 + 3 * 49) + 4 * 3 * 3 * 10
    packed = Memory.of(shape, "4bit", texts=3, tokens=5, trees=0)
    assert packed.weights == shape.parameters * (0.5 + 1 / 16) + 2 * 2 * 80
    assert "2.5 GB weights in bfloat16" in Memory.of(
        SHAPES["Llama-3.2-1B"], "bfloat16", 1, 1, 0
    ).line("llama", "bfloat16")


@pytest.mark.parametrize(
    ("name", "config", "shape"),
    [
        ("bert-base-uncased", None, SHAPES["bert-base-uncased"]),
        ("google-bert/bert-base-uncased@86b5e09", None, SHAPES["bert-base-uncased"]),
        ("somewhere/else", None, None),
        (
            "bert-base-uncased",
            {"num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 16},
            Shape(2, 8, 16),
        ),
        ("distil", {"n_layers": 2, "dim": 8, "hidden_dim": 16}, Shape(2, 8, 16)),
        ("gpt", {"n_layer": 2, "n_embd": 8, "n_inner": None, "vocab_size": 9}, GPT),
        (
            "llama",
            {
                "num_hidden_layers": 2,
                "hidden_size": 8,
                "intermediate_size": 16,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "rms_norm_eps": 1e-6,
                "vocab_size": 9,
                "tie_word_embeddings": False,
            },
            Shape(2, 8, 16, 8, 4, True, 9, tied=False, causal=True),
        ),
        ("odd", {"num_hidden_layers": 2, "hidden_size": "8"}, None),
    ],
)
def test_a_shape_is_read_from_the_configuration_or_known_by_name(
    name: str, config: dict[str, object] | None, shape: Shape | None
) -> None:
    assert shape_of(name, config) == shape


def test_training_costs_two_or_three_times_what_reading_does() -> None:
    assert flops(100, (Pass.FORWARD, 7)) == 1400
    assert flops(100, (Pass.THROUGH, 7)) == 2800
    assert flops(100, (Pass.TRAIN, 7), (Pass.FORWARD, 3)) == 4200 + 600


def test_the_sum_says_what_is_not_in_it() -> None:
    machine = Machine(peak=1e12, used=0.5)
    hour = 0.5e12 * 3600
    found = GpuHours.of(
        [
            Work(WorkKind.TUNING, 2 * hour),
            Work(WorkKind.TUNING, hour / 2),
            Work(WorkKind.EVALUATION, None, unknown="how many"),
            Work(WorkKind.EVALUATION, None, unknown="how many"),
            Work(WorkKind.GENERAL, None, rate=3 * hour / 1e6, unknown="the corpus"),
        ],
        machine,
    )
    assert found.total == pytest.approx(2.5)
    assert found.counts == {"downstream models": 2, "evaluations": 2, "general plugs": 1}
    assert found.unknown == {"how many": 2, "the corpus": 1}
    assert found.hours_per_million == pytest.approx(3)
    value = found.as_json()
    assert (value["gpu_hours"], value["complete"]) == (pytest.approx(2.5), False)
    assert value["assumed"]["flops_per_second"] == 1e12
    text = "\n".join(found.lines())
    for said in ("at least 2.5 GPU hours", "how many (2)", "adds 3 GPU hours", "1 TFLOP/s", "50 %"):
        assert said in text
    whole = GpuHours.of([Work(WorkKind.TUNING, 20 * hour)], machine)
    assert whole.as_json()["complete"] is True
    assert whole.lines()[0] == "estimate: 20 GPU hours on one GPU"


def test_the_arithmetic_needs_no_torch() -> None:
    code = "import sys, kbench.grid.estimate; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


# -- what a plan takes -----------------------------------------------------------------------------


def _works(chosen: dict[str, object], place: Place) -> list[Work]:
    loader = PartLoader(download=False)
    specs = runner.resolve(make_grid(chosen, "here"))
    cells = runner.plan(specs, place, offline=True, loader=loader)
    return works(cells, loader, Artifacts(place.artifacts))


ABSENT = {"data": "nowhere", "backbone": "bert-base-uncased", "knowledge": "no-such"}
BERT = 85_054_464


def test_work_on_data_that_are_not_there_is_that_of_the_published_sizes(
    place: Place,
) -> None:
    chosen = {**ABSENT, "task": "wiki80", "method": "none,map-tuning", "control": "none,shuffled"}
    made = _works({**chosen, "setting": "task-specific"}, place)
    train, dev, test = 45_360 * 35, 5_040 * 35, 5_600 * 35
    (tuned,) = (w.flops for w in made if w.stage == WorkKind.TUNING)
    assert tuned == pytest.approx(15 * BERT * (6 * train + 2 * dev))
    fitted = [w.flops for w in made if w.stage == WorkKind.TASK]
    assert fitted == [pytest.approx(30 * BERT * (4 * train + 2 * dev))] * 2
    tested = [w.flops for w in made if w.stage == WorkKind.EVALUATION]
    assert tested == [pytest.approx(2 * BERT * test)] * 3
    # What a task-specific map starts from: three instances a sentence, five epochs.
    general = [w for w in made if w.stage == WorkKind.GENERAL]
    assert [(w.flops, w.rate) for w in general] == [
        (None, pytest.approx(4 * BERT * 3 * 5 * 35))
    ] * 2


def test_light_tunings_save_the_gradients_of_the_weights(place: Place) -> None:
    chosen = {**ABSENT, "task": "tacred", "method": "none", "tuning": "full,lora,bitfit,adapter"}
    made = _works({**chosen, "options": _same_recipe()}, place)
    train, dev = 68_124 * 49, 22_631 * 49
    found = [w.flops for w in made if w.stage == WorkKind.TUNING]
    light = pytest.approx(BERT * (4 * train + 2 * dev))
    assert found == [pytest.approx(BERT * (6 * train + 2 * dev)), light, light, light]


def test_a_head_alone_reads_everything_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {**ABSENT, "task": "tacred", "method": "none", "tuning": "head"}
    tokens = (68_124 + 22_631) * 49
    for bytes_allowed, times in ((str(68_124 * 768 * 4), 1), ("0", 7)):
        monkeypatch.setenv("KBENCH_HIDDEN_BYTES", bytes_allowed)
        made = _works({**chosen, "options": {"tuning": {"head": {"epochs": 7}}}}, place)
        found = [w.flops for w in made if w.stage == WorkKind.TUNING]
        assert found == [pytest.approx(2 * times * BERT * tokens)]


def _same_recipe() -> dict[str, object]:
    return {"tuning": {name: {"epochs": 1} for name in ("full", "lora", "bitfit", "adapter")}}


def test_a_share_of_a_pass_costs_as_much_less(place: Place) -> None:
    chosen = {**ABSENT, "task": "tacred", "method": "none,map-tuning", "tuning": "full"}
    chosen |= {"setting": "general", "control": "none"}
    rates = {}
    for share in (1.0, 0.25):
        own = {"epochs": 1, "share": share}
        options = {"tuning": {"full": own}, "method": {"map-tuning": {"general": own}}}
        made = {str(w.stage): w for w in _works({**chosen, "options": options}, place)}
        rates[share] = made["general plugs"].rate, made["downstream models"].flops
    dev = 2 * BERT * 22_631 * 49  # is read whole after each
    (whole, tuned), (part, less) = rates.values()
    assert part == pytest.approx(whole / 4)
    assert less - dev == pytest.approx((tuned - dev) / 4)


def test_a_limit_and_the_values_tried_on_dev_are_counted(place: Place) -> None:
    choose = {"dropout": [0.1, 0.2], "epoch": [1, 2, 3]}
    options = {"method": {"map-tuning": {"choose": choose}}, "tuning": {"full": {"epochs": 1}}}
    chosen = {**ABSENT, "task": "fewrel", "method": "map-tuning", "options": options}
    made = _works({**chosen, "setting": "general", "control": "none", "limit": 10}, place)
    found = {str(w.stage): w for w in made}
    assert found["evaluations"].flops == pytest.approx(2 * BERT * 10 * 69 * (22.5 + 6 * 5))
    assert found["downstream models"].flops == pytest.approx((6 + 2) * BERT * 10 * 69 * 5)
    # Two dropout rates double the corpus.
    assert found["general plugs"].rate == pytest.approx(4 * BERT * 2 * 3 * 5 * 35)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "wiki-et"}, "how many train examples wiki-et has"),
        ({"task": "figer"}, "how long the train texts of figer are"),
        ({"task": "wiki80", "backbone": "some/model"}, "the size of backbone some/model"),
    ],
)
def test_what_is_not_known_is_named(change: dict[str, str], said: str, place: Place) -> None:
    made = _works({**ABSENT, "method": "none", **change}, place)
    assert any(said in work.unknown for work in made)
    assert all(work.flops is None for work in made)


@pytest.mark.usefixtures("toy_tasks")
def test_work_on_data_at_hand_is_counted_and_shared_and_what_is_stored_is_not(
    toy_folder: Path, place: Place
) -> None:
    chosen = grid(toy_folder, setting="general,task-specific", options=QUICK)
    values = json.loads(chosen.model_dump_json())
    made = _works(values, place)
    stages = [str(work.stage) for work in made]
    # One model; general plugs are those that the task-specific ones start from, but for `scratch`.
    assert {stage: stages.count(stage) for stage in stages} == {
        "downstream models": 1,
        "evaluations": 5,
        "general plugs": 2,
        "task-specific plugs": 2,
    }
    task = Parts(runner.resolve(chosen)[0]).task
    words = [len(example.text.split()) for example in task.examples(Split.TEST)]
    tokens = sum(2 + 4 + 1.2 * count for count in words)
    config = json.loads((toy_folder / "bert" / "config.json").read_text())
    shape = shape_of("toy", config)
    assert shape is not None
    plain = next(w.flops for w in made if w.stage == WorkKind.EVALUATION)
    assert plain == pytest.approx(2 * shape.parameters * tokens)
    run(grid(toy_folder, options=QUICK), place)  # task-specific alone
    left = [str(work.stage) for work in _works(values, place)]
    assert sorted(left) == ["evaluations"] * 2 + ["general plugs"] * 2


def test_a_setting_that_a_method_has_not_is_no_work(place: Place) -> None:
    made = _works({**ABSENT, "task": "wiki80", "method": "ra", "setting": "task-specific"}, place)
    assert made == []


def test_texts_take_all_the_room_they_may(place: Place) -> None:
    chosen = {**ABSENT, "task": "wiki80", "method": "ra", "setting": "general", "control": "none"}
    made = _works({**chosen, "options": {"method": {"ra": {"room": 200}}}}, place)
    (tested,) = (work for work in made if work.stage == WorkKind.EVALUATION)
    assert tested.flops == pytest.approx(2 * BERT * 5_600 * 200)
    (plug,) = (work for work in made if work.stage == WorkKind.GENERAL)
    assert plug.flops == 0


def test_a_decoder_reads_what_it_says_and_what_it_is_shown(place: Place, tmp_path: Path) -> None:
    config = {"n_layer": 2, "n_embd": 8, "n_inner": 16, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    shape = shape_of("", config)
    assert shape is not None
    own = shape.parameters + shape.map_to_tokens
    chosen = {"task": "atlas-qa", "method": "none", "backbone": str(tmp_path), "limit": 10}

    def tested(**changes: Any) -> float:
        asked = changes.pop("task", {})
        options = {"task": {"atlas-qa": asked}, "tuning": {"prompted": changes.pop("prompted", {})}}
        made = _works({**chosen, "tuning": "prompted", "options": options, **changes}, place)
        (work,) = made
        assert work.flops is not None
        return work.flops

    long, short = ({"answers": "open", "tokens": number} for number in (15, 5))
    assert tested(task=long) - tested(task=short) == pytest.approx(2 * 10 * 10 * own)
    ranked = {"answers": "ranked", "candidates": 2}
    task = PartLoader().task(
        make_grid({**chosen, "options": {"task": {"atlas-qa": ranked}}}, "here").cells()[0]
    )
    trees = [
        sum(1.2 * len(name.split()) - 1 for names in several for name in names)
        for several in task.ranking.values()
    ]
    first = tested(task={"answers": "open", "tokens": 1})
    found = tested(task=ranked) - first
    assert found == pytest.approx(2 * 10 * own * sum(trees) / len(trees))
    # Demonstrations are read once for all texts, but in a narrow precision.
    assert tested(task=short, prompted={"shots": 3}) == tested(task=short)
    assert tested(task=short, prompted={"shots": 3}, dtype="bfloat16") > 2 * tested(task=short)


def test_a_decoder_reads_the_trees_of_its_candidates(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"n_layer": 2, "n_embd": 8, "n_inner": 16, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    chosen = {"task": "atlas-relations", "method": "none", "backbone": str(tmp_path), "limit": 10}
    monkeypatch.setattr("kbench.grid.workload._Cell._trees", lambda _: 0.0)
    (bare,) = _works({**chosen, "tuning": "prompted"}, place)
    monkeypatch.undo()
    (asked,) = _works({**chosen, "tuning": "prompted"}, place)
    shape = shape_of("", config)
    task = PartLoader().task(make_grid(chosen, "here").cells()[0])
    labels = [task.prompt.spelled(label).split() for label in task.labels]
    shared = {tuple(words[:n]) for words in labels for n in range(1, len(words))}
    trees = len(shared) + 0.2 * len({word for words in labels for word in words})
    assert shape is not None
    assert asked.flops is not None
    assert bare.flops is not None
    more = 2 * 10 * trees * (shape.parameters + shape.map_to_tokens)
    assert asked.flops - bare.flops == pytest.approx(more)
