"""Comparisons of stored results: which belong together, what is refused, what the figures are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kbench.errors import UsageError
from kbench.results.comparison import Comparison, compare
from kbench.results.selection import Group, Selection, grouped, partners
from kbench.store import Result, Results
from tests.stored import predictions, spec, store

pytestmark = pytest.mark.usefixtures("toy_tasks")

GOLD = ["red", "green", "blue", "white"] * 10


def right(*wrong: int) -> list[str]:
    """Predictions that miss the examples of these numbers."""
    return ["black" if n in wrong else label for n, label in enumerate(GOLD)]


def pairs(folder: Path, one: str, two: str) -> list[tuple[Group, Group]]:
    results = list(Results(folder))
    first, second = Selection.parse(one, results), Selection.parse(two, results)
    return partners(grouped(r for r in results if r in first), second, results)


def compared(folder: Path, one: str, two: str, **options: Any) -> list[Comparison]:
    return compare(pairs(folder, one, two), Results(folder), **options)


def specs(found: Sequence[tuple[Group, Group]]) -> list[tuple[str, ...]]:
    def words(result: Result) -> str:
        s = result.spec
        return " ".join([s.tuning, s.method, s.setting, s.control])

    return sorted(tuple(words(side[0]) for side in pair) for pair in found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tunings; map-tuning in two settings with its control, pelt in one, and none."""
    found = predictions(GOLD, right())
    for tuning in ("full", "lora"):
        for setting in ("general", "task-specific"):
            for control in ("none", "foreign"):
                store(tmp_path, found, tuning=tuning, setting=setting, control=control)
        store(tmp_path, found, tuning=tuning, method="pelt")
        store(tmp_path, found, tuning=tuning, method="none")
    return tmp_path


def test_what_the_second_does_not_name_is_as_in_the_first(folder: Path) -> None:
    assert specs(pairs(folder, "map-tuning,tuning=lora", "none")) == [
        ("lora map-tuning general none", "lora none general none"),
        ("lora map-tuning task-specific none", "lora none general none"),
    ]
    assert specs(pairs(folder, "map-tuning,setting=general", "control=foreign")) == [
        (f"{t} map-tuning general none", f"{t} map-tuning general foreign")
        for t in ("full", "lora")
    ]
    assert specs(pairs(folder, "map-tuning", "pelt")) == [
        (f"{t} map-tuning general none", f"{t} pelt general none") for t in ("full", "lora")
    ]
    assert specs(pairs(folder, "map-tuning,tuning=full", "setting=general")) == [
        ("full map-tuning task-specific none", "full map-tuning general none")
    ]
    assert specs(pairs(folder, "none,tuning=full", "tuning=lora")) == [
        ("full none general none", "lora none general none")
    ]


def test_nothing_is_set_beside_itself_or_twice(folder: Path) -> None:
    assert pairs(folder, "pelt", "pelt") == []
    # none beside pelt and either setting of map-tuning, and pelt beside map-tuning.
    assert len(pairs(folder, "tuning=full,setting=general", "method=*")) == 4


def test_ids_mean_one_result_each_whatever_they_differ_in(folder: Path) -> None:
    one, two = list(Results(folder))[:2]
    found = pairs(folder, one.id[:10], two.id)
    assert [tuple(side[0].id for side in pair) for pair in found] == [(one.id, two.id)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mapp-tuning", "did you mean map-tuning?"),
        ("method=none,colour=red", "no field 'colour'"),
        ("pelt,lora", "no stored method 'lora'"),
        ("abc", "nothing stored is called 'abc'"),
    ],
)
def test_what_nobody_is_called_is_refused(folder: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Selection.parse(text, list(Results(folder)))


def test_too_little_of_an_id_is_refused() -> None:
    results = [
        Result(id=f"abcd{digit * 28}", status="ok", spec=spec(seed=int(digit))) for digit in "01"
    ]
    with pytest.raises(UsageError, match="2 ids begin with 'abcd'"):
        Selection.parse("abcd", results)
    assert Selection.parse("abcd1", results).id == results[1].id


def test_a_knowledge_base_goes_by_the_name_of_its_folder() -> None:
    result = Result(id="0" * 32, status="ok", spec=spec(knowledge="/some/where/codex-m"))
    assert result in Selection("", {"knowledge": "codex-m"})
    assert result in Selection("", {"knowledge": "/some/*"})
    assert result not in Selection("", {"knowledge": "where"})
    assert result in Selection("", {"limit": "none"})


def test_a_comparison_by_hand(tmp_path: Path) -> None:
    # 6 gained, 1 lost of 40: 2 * (1 + 7) / 2**7 = 0.125.
    store(tmp_path, predictions(GOLD, right(0, 7)))
    store(tmp_path, predictions(GOLD, right(1, 2, 3, 4, 5, 6, 7)), method="none")
    (found,) = compared(tmp_path, "map-tuning", "none")
    assert found.scores == pytest.approx((38 / 40, 33 / 40))
    assert found.contrast.difference.value == pytest.approx(5 / 40)
    assert found.contrast.p == pytest.approx(0.125)
    assert found.adjusted == found.contrast.p
    assert found.warnings == ()
    value = found.as_json()
    assert value["ours"]["method"] == "map-tuning"
    assert value["by_seed"] == {"0": pytest.approx(5 / 40)}
    assert value["test"] == "McNemar's exact test"


def test_examples_are_paired_by_their_id(tmp_path: Path) -> None:
    store(tmp_path, predictions(GOLD, right(0)))
    ids = [f"e{n}" for n in reversed(range(40))]
    store(tmp_path, predictions(GOLD[::-1], right(0)[::-1], ids), method="none")
    with pytest.raises(UsageError, match="test examples"):
        compared(tmp_path, "map-tuning", "none")
    (found,) = compared(tmp_path, "map-tuning", "none", force=True)
    assert found.contrast.difference.low == found.contrast.difference.high == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digest": "d2"}, "data digest d1 against d2"),
        ({"limit": 7}, "limit None against 7"),
        ({"task": "atlas-relations"}, ""),
        ({"task": "toy-qa"}, "metric accuracy against accuracy:any-answer"),
        ({"task": "toy-typing", "gold": "sets"}, "metric accuracy against None"),
        ({"gold": "others"}, "gold labels of the same examples"),
        ({"ids": "others"}, "test examples 40 against 40, 20 shared"),
    ],
)
def test_what_differs_is_named_and_only_force_compares_it(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    store(tmp_path, predictions(GOLD, right(1)))
    gold: list[Any] = list(GOLD)
    ids = [f"e{n + 20}" for n in range(40)] if changes.pop("ids", None) else None
    match changes.pop("gold", None):
        case "sets":
            gold = [(label,) for label in GOLD]
        case "others":
            gold = GOLD[1:] + GOLD[:1]
    store(tmp_path, predictions(gold, gold, ids), method="none", **changes)
    if not said:  # the metric and all else is the same: nothing forbids it
        assert compared(tmp_path, "map-tuning", "none")[0].warnings == ()
        return
    with pytest.raises(UsageError, match=said) as refused:
        compared(tmp_path, "map-tuning", "none")
    assert "--force" in str(refused.value)
    (found,) = compared(tmp_path, "map-tuning", "none", force=True)
    assert any(said in warning for warning in found.warnings)


def test_holm_corrects_over_the_family(tmp_path: Path) -> None:
    for task in ("toy-relations", "toy-qa"):
        store(tmp_path, predictions(GOLD, right(0, 7)), task=task)
        store(tmp_path, predictions(GOLD, right()), task=task, method="pelt")
        store(tmp_path, predictions(GOLD, right(*range(1, 8))), task=task, method="none")
    results = list(Results(tmp_path))
    ours = grouped(r for r in results if r.spec.knowledge)
    found = partners(ours, Selection.parse("none", results), results)
    by_task = compare(found, Results(tmp_path), family="task")
    together = compare(found, Results(tmp_path))
    for one, all_ in zip(by_task, together, strict=True):
        # pelt: 7 gained of 7, p = 2 / 2**7; map-tuning: p = 0.125.
        pelt = one.ours[0].spec.method == "pelt"
        assert one.contrast.p == pytest.approx(2 / 2**7 if pelt else 0.125)
        assert one.adjusted == pytest.approx(4 / 2**7 if pelt else 0.125)
        assert all_.adjusted == pytest.approx(8 / 2**7 if pelt else 0.25)
        assert one.family == one.ours[0].spec.task


def test_seeds_are_paired_and_what_one_lacks_is_left_out(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        store(tmp_path, predictions(GOLD, right(*range(seed))), seed=seed)
    for seed in (1, 2, 3):
        store(tmp_path, predictions(GOLD, right(*range(10))), seed=seed, method="none")
    (found,) = compared(tmp_path, "map-tuning", "none")
    assert [r.spec.seed for r in found.ours] == [r.spec.seed for r in found.theirs] == [1, 2]
    assert found.contrast.by_seed == pytest.approx((9 / 40, 8 / 40))
    assert found.contrast.difference.value == pytest.approx(8.5 / 40)
    assert found.warnings == ("left out: seed 0, 3 of one of them",)
    assert found.contrast.test == "permutation test"
    with pytest.raises(UsageError, match="share no seed"):
        compared(tmp_path, "map-tuning,seed=0", "none,seed=[12]")
    (apart,) = compared(tmp_path, "map-tuning,seed=0", "none,seed=3")
    assert apart.warnings == ("of two seeds: 0 against 3",)


def test_of_a_run_made_twice_the_latest_counts(tmp_path: Path) -> None:
    store(tmp_path, predictions(GOLD, right()))
    old = Results(tmp_path).__iter__().__next__()
    assert old.provenance is not None
    again = old.model_copy(
        update={
            "id": "f" * 32,
            "provenance": old.provenance.model_copy(update={"started": "2026-02-01"}),
        }
    )
    assert [g[0].id for g in grouped([again, old])] == ["f" * 32]
    elsewhere = again.model_copy(
        update={
            "provenance": old.provenance.model_copy(update={"digests": {"data": "d2"}}),
        }
    )
    assert len(grouped([old, elsewhere])) == 2
