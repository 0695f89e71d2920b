"""The modules of ``evaluate`` give what the metrics give, from a file and without network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kbench import metrics
from kbench.errors import UsageError
from kbench.metrics import (
    Accuracy,
    ChanceMatch,
    Contains,
    ExactMatch,
    HasAnswer,
    Hits,
    LamaPrecision,
    LooseMacroF1,
    LooseMicroF1,
    MacroF1,
    Metric,
    MicroF1WithoutNull,
    PopqaMatch,
    ReciprocalRank,
    StrictAccuracy,
    TokenF1,
)
from kbench.metrics.evaluate import module, variants
from kbench.metrics.spoken import ranked_metrics, spoken_metrics

ONES: tuple[list[Any], list[Any]] = (
    ["born", "no_relation", "died", "born"],
    ["born", "born", "no_relation", "died"],
)
SETS: tuple[list[Any], list[Any]] = (
    [["city", "place"], ["person"], ["river"], []],
    [["city"], ["person", "group"], [], []],
)
METRICS = [
    kind()
    for kind in (Accuracy, MacroF1, MicroF1WithoutNull, LooseMacroF1, LooseMicroF1, StrictAccuracy)
]
every = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.variant)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Returns ``evaluate.load``, with caches of the test's own and no network."""
    import evaluate
    from evaluate import config
    from evaluate.utils import file_utils

    home = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "HF_EVALUATE_OFFLINE", True)
        patch.setattr(config, "HF_METRICS_CACHE", str(home / "metrics"))
        patch.setattr(file_utils.config, "HF_MODULES_CACHE", str(home / "modules"))
        patch.setattr(sys, "path", [*sys.path])
        yield evaluate.load


@every
def test_a_module_gives_what_its_metric_gives(load: Any, metric: Metric) -> None:
    loaded = load(module(metric.variant))
    single = isinstance(metric, Accuracy | MacroF1 | MicroF1WithoutNull)
    references, predictions = ONES if single else SETS
    found = loaded.compute(predictions=predictions, references=references)
    assert found == {metric.name: metric.score(references, predictions)}
    assert 0 < found[metric.name] < 1
    assert loaded.description.startswith(str(type(metric).__doc__).splitlines()[0])


SPOKEN = (["a St. Louis", "oslo", "Rome"], [["St. Louis"], ["Oslo", "Christiania"], ["Lima"]])


@pytest.mark.parametrize(
    "metric",
    [kind() for kind in (HasAnswer, ExactMatch, TokenF1, PopqaMatch, Contains, ChanceMatch)],
    ids=lambda m: m.variant,
)
def test_spoken_answers(load: Any, metric: Metric) -> None:
    predictions, references = SPOKEN
    found = load(module(metric.variant)).compute(predictions=predictions, references=references)
    assert found == {metric.name: metric.score(references, predictions)}


@pytest.mark.parametrize("metric", [Hits(), ReciprocalRank("8-of-train")], ids=lambda m: m.variant)
def test_rankings(load: Any, metric: Metric) -> None:
    predictions = [["Rome", "Oslo"], ["Oslo"], ["Bern", "Rome", "Lima"]]
    references = SPOKEN[1]
    found = load(module(metric.variant)).compute(predictions=predictions, references=references)
    assert found == {metric.name: metric.score(references, predictions)}
    assert 0 < found[metric.name] < 1


def test_labels_may_come_one_by_one(load: Any) -> None:
    loaded = load(module("loose-micro-f1"))
    for gold, guess in zip(*SETS, strict=True):
        loaded.add(reference=gold, prediction=guess)
    assert loaded.compute() == {"micro_f1": metrics.LooseMicroF1().score(*SETS)}


def test_the_null_label_is_an_option_of_compute(load: Any) -> None:
    metric = MicroF1WithoutNull("born")
    loaded = load(module(metric.variant))
    references, predictions = ONES
    found = loaded.compute(predictions=predictions, references=references, null="born")
    assert found == {"micro_f1": metric.score(references, predictions)}


def test_p1_of_lama_wants_the_relation_of_each_query(load: Any) -> None:
    found = load(module("lama-p1")).compute(
        predictions=["red", "red", "red", "red", "red"],
        references=["red", "red", "red", "blue", "green"],
        relations=["P1", "P1", "P2", "P2", "P3"],
    )
    assert found == {"p1": pytest.approx((1 + 0.5 + 0) / 3)}


def test_a_reference_may_be_a_list_of_acceptable_answers(load: Any) -> None:
    predictions, references = ["red", "blue", "sad"], [["green", "red"], ["blue"], ["red"]]
    found = load(module("accuracy:any-answer")).compute(
        predictions=predictions, references=references
    )
    assert found == {"accuracy": pytest.approx(2 / 3)}
    # LAMA's release has the object of the query alone, the first.
    found = load(module("lama-p1")).compute(
        predictions=predictions, references=references, relations=["P1"] * 3
    )
    assert found == {"p1": pytest.approx(1 / 3)}


def test_few_shot_accuracy_is_told_for_each_setting(load: Any) -> None:
    found = load(module("n-way-k-shot-accuracy")).compute(
        predictions=["a", "b", "b", "a"],
        references=["a", "b", "a", "a"],
        settings=["5w1s", "5w1s", "5w1s", "10w5s"],
    )
    assert found == {"accuracy_10w5s": 1.0, "accuracy_5w1s": pytest.approx(2 / 3)}


def test_every_metric_has_its_module_and_no_other_is_there() -> None:
    asked = (*spoken_metrics(), *ranked_metrics("8-of-train"))
    known = {metric.variant.partition(":")[0] for metric in (*METRICS, LamaPrecision(), *asked)}
    assert variants() == tuple(sorted(known | {"n-way-k-shot-accuracy"}))
    for variant in variants():
        assert Path(module(variant)).is_file()
    assert module("loose-micro-f1:argmax-fallback") == module("loose-micro-f1")
    assert module("lama-p1:objects") == module("lama-p1")
    assert module("accuracy@5w1s") == module("n-way-k-shot-accuracy")
    assert module("accuracy@pop_1e3") == module("accuracy")
    assert module("accuracy:any-answer@pop_1e3") == module("accuracy")
    with pytest.raises(UsageError, match=r"the variant 'micro-f1'; did you mean loose-micro-f1"):
        module("micro-f1")


def test_naming_a_module_imports_nothing_heavy() -> None:
    code = (
        "import sys; from kbench.metrics.evaluate import module; module('accuracy'); "
        "print(*{'evaluate', 'datasets', 'torch', 'pyarrow'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
