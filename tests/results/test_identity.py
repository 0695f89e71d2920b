"""What a run is by content, what its parts are called, and what is said of runs that differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kbench.results.comparison import titles
from kbench.results.identity import Names, differences, fits, key, options, told_apart
from kbench.results.selection import Selection, grouped, partners
from kbench.results.tables import Row, rows
from kbench.store import Result, Results
from tests.calling import call
from tests.stored import predictions, store

pytestmark = pytest.mark.usefixtures("toy_tasks")

GOLD = ["red", "green", "blue", "white"] * 10


def right(count: int) -> list[str]:
    return [*GOLD[:count], *["black"] * (len(GOLD) - count)]


def write(folder: Path, count: int, **about: Any) -> Result:
    return store(folder, predictions(GOLD, right(count)), **about)


def told(folder: Path) -> dict[str, Row]:
    found = Results(folder)
    return {row.first.id: row for row in rows(list(found), found)}


SPELLED = ["kb/", "./kb", "elsewhere/kb", "/home/me/kb", "linked"]


@pytest.mark.parametrize("spelling", SPELLED)
def test_a_knowledge_base_is_its_content_however_it_is_spelled(
    tmp_path: Path, spelling: str
) -> None:
    ours = write(tmp_path, 30, knowledge="k" * 64)
    theirs = write(tmp_path, 20, control="foreign", knowledge="k" * 64, made={}, backbone="bert")
    path = tmp_path / theirs.id / "result.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["spec"]["knowledge"] = spelling
    path.write_text(json.dumps(value), encoding="utf-8")
    gain = told(tmp_path)[ours.id].gain
    assert gain is not None
    assert gain.value == pytest.approx(0.25)


def test_one_backbone_on_two_machines_is_one_row(tmp_path: Path) -> None:
    made = {"digests": {"backbone": "b" * 64}}
    write(tmp_path, 30, seed=0, backbone="m1/bert", made=made)
    write(tmp_path, 20, seed=1, backbone="/data/m2/bert/", made=made)
    (row,) = told(tmp_path).values()
    assert row.seeds == [0, 1]
    assert row.name("backbone") == "bert"
    other = {"digests": {"backbone": "c" * 64}}
    write(tmp_path, 20, seed=1, backbone="m3/x/bert", made=other)
    names = {row.name("backbone") for row in told(tmp_path).values()}
    assert names == {"bert@bbbbbb", "bert@cccccc"}


def test_a_repository_of_a_hub_keeps_its_owner(tmp_path: Path) -> None:
    result = write(tmp_path, 30, backbone="owner/bert", made={"digests": {"backbone": "b" * 64}})
    assert Names([result]).of(result, "backbone") == "owner/bert"


def test_two_data_sets_of_one_task_are_two_rows_with_a_yardstick_each(tmp_path: Path) -> None:
    for number, name in enumerate(("rivers", "roads")):
        about = {"digest": name[:3] * 10, "data": f"/tmp/{name}"}
        made = {"names": {"task": f"toy-relations:{name}"}}
        write(tmp_path, 30 + number, made=made, **about)
        write(tmp_path, 20, method="none", made=made, **about)
    found = {(r.name("task"), r.first.spec.method): r for r in told(tmp_path).values()}
    assert len(found) == 4
    for number, name in enumerate(("rivers", "roads")):
        delta = found[f"toy-relations:{name}", "map-tuning"].delta
        assert delta is not None
        assert delta.value == pytest.approx((10 + number) / 40)
    (rivers, *_), roads = (found[f"toy-relations:{n}", "none"].results for n in ("rivers", "roads"))
    assert fits(rivers, "task", "rivers")
    assert fits(rivers, "data", "riv*")
    assert not fits(roads[0], "data", "rivers")
    assert fits(rivers, "task", "toy-relations")


def test_data_of_one_name_are_told_apart_by_their_digest(tmp_path: Path) -> None:
    for digest in ("a" * 64, "b" * 64):
        write(tmp_path, 30, digest=digest, data="rivers")
    names = Names(Results(tmp_path))
    assert {names.data(result) for result in Results(tmp_path)} == {
        "rivers@aaaaaa",
        "rivers@bbbbbb",
    }
    (one,) = (r for r in Results(tmp_path) if fits(r, "data", "rivers@aaaaaa"))
    assert fits(one, "data", "aaaaaaaa")


@pytest.mark.parametrize(
    "other",
    [
        {"options": {"tuning": {"full": {"epochs": 2}}}},
        {"options": {"task": {"toy-relations": {"x": 2}}}},
        {"dtype": "bfloat16"},
        {"limit": 7},
        {"digest": "d2"},
        {"made": {"digests": {"backbone": "other"}}},
        {"made": {"addresses": {"model": "another"}}},
    ],
)
def test_what_is_not_of_the_same_model_is_no_yardstick(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    ours = write(tmp_path, 30, made={"addresses": {"model": "one"}})
    write(tmp_path, 20, **{"made": {"addresses": {"model": "one"}}, **other, "method": "none"})
    assert told(tmp_path)[ours.id].delta is None
    write(tmp_path, 20, **{"made": {"addresses": {"model": "one"}}, **other, "control": "foreign"})
    assert told(tmp_path)[ours.id].gain is None


def test_a_control_with_another_linker_or_other_options_is_no_control(tmp_path: Path) -> None:
    ours = write(tmp_path, 30)
    write(tmp_path, 20, control="foreign", options={"method": {"map-tuning": {"x": 1}}})
    assert told(tmp_path)[ours.id].gain is None
    write(tmp_path, 20, control="foreign", options={"tuning": {"lora": {"rank": 1}}})
    gain = told(tmp_path)[ours.id].gain  # an option of a part that the run has not
    assert gain is not None


def test_an_option_that_says_the_default_changes_nothing(tmp_path: Path) -> None:
    set_to = {"tuning": {"full": {"epochs": 10, "micro_batch": 4}}}
    set_to["method"] = {"map-tuning": {"task-specific": {"epochs": 3}}}  # of another setting
    made = {"defaults": {"tuning.full.epochs": 10.0}}
    one = write(tmp_path, 30, options=set_to, made=made)
    two = write(tmp_path, 30, seed=1)
    assert options(one) == {}
    assert key(one) == key(two)
    assert fits(one, "epochs", "10")
    assert fits(one, "tuning.full.epochs", "default")
    assert not fits(one, "epochs", "2")


def test_a_general_recipe_is_told_of_what_starts_from_a_general_plug(tmp_path: Path) -> None:
    made = {"defaults": {"method.map-tuning.general.dropout": 0.1}}
    texts = {}
    for setting, of in (
        ("general", {"general": {"dropout": 0}}),
        ("task-specific", {}),
        ("task-specific", {"start": "scratch"}),
        ("task-specific", {"start": "scratch", "general": {"dropout": 0.5}}),
    ):
        chosen = {"method": {"map-tuning": of}}
        texts[setting, str(of)] = write(tmp_path, 30, setting=setting, options=chosen, made=made)
    _, own = told_apart([*texts.values()], Names(texts.values()))
    assert own == ["dropout=0", "dropout=0.1", "start=scratch", "start=scratch"]
    *_, one, two = texts.values()
    assert key(one) == key(two)
    assert differences(one, two) == []


def test_what_differs_stands_in_the_row_and_what_does_not_above(tmp_path: Path) -> None:
    made = {"defaults": {"tuning.full.epochs": 10}}
    for epochs, linker in ((2, "alias"), (3, "alias"), (None, "gold")):
        full = {"learning_rate": 0.1, **({"epochs": epochs} if epochs else {})}
        write(
            tmp_path, 30, made=made, linker=linker, options={"tuning": {"full": full}}
        )  # fmt: skip
    write(tmp_path, 30, method="none", options={"tuning": {"full": {"learning_rate": 0.1}}})
    found = sorted(Results(tmp_path), key=lambda r: (r.spec.linker or "", str(r.spec.options)))
    shared, own = told_apart(found, Names(found))
    assert shared == ["learning_rate=0.1"]
    # What a run does not set is its default, where another run says what that is.
    assert own[0] == "epochs=10"
    assert {*own[1:]} == {
        "epochs=2, linker=alias",
        "epochs=3, linker=alias",
        "epochs=10, linker=gold",
    }


def test_the_default_of_another_backbone_is_not_told_and_null_is(tmp_path: Path) -> None:
    def put(backbone: str, epochs: int | None, made: dict[str, Any], **more: Any) -> Result:
        chosen = {"tuning": {"full": {"epochs": epochs, **more}}} if epochs else {}
        made |= {"digests": {"backbone": backbone * 64}}
        return write(tmp_path, 30, backbone=backbone, made=made, options=chosen)

    three = put("a", 3, {"defaults": {"tuning.full.epochs": 10}})
    plain = put("b", None, {})
    (ours, theirs), _ = titles(three, plain, Names([three, plain]))
    assert ("epochs=3" in ours, "epochs" in theirs) == (True, False)
    null = put("a", 3, {"defaults": {"tuning.full.clip": 1.0}}, clip=None)
    _, own = told_apart([three, null], Names([three, null]))
    assert own == ["clip=1.0", "clip=null"]


def test_all_that_equal_parts_were_typed_as_selects_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, spelled in enumerate(("/data/bert", "/home/x/bert-base/")):
        made = {"digests": {"backbone": "b" * 64}}
        write(tmp_path, 30, seed=seed, backbone=spelled, made=made)
        write(tmp_path, 20, seed=seed, backbone=spelled, made=made, method="none")
    # The shown name (bert) is that of one of two; each selects both.
    for name in ("bert", "bert-base", "/data/bert", "bbbbbbbb"):
        filters = ("--backbone", name, "--out", str(tmp_path), "--json")
        _, out, _ = call(capsys, "table", *filters)
        assert [json.loads(line)["seeds"] for line in out.splitlines()] == [[0, 1], [0, 1]]
        asked = (f"map-tuning,backbone={name}", "none")
        _, out, err = call(capsys, "compare", *asked, "--out", str(tmp_path), "--json")
        assert (len(json.loads(out)["ours"]["ids"]), err) == (2, "")
        _, out, _ = call(capsys, "score", *filters)
        assert len(out.splitlines()) == 4


def test_tasks_of_one_name_are_chosen_as_they_are_shown(tmp_path: Path) -> None:
    for digest in ("a" * 64, "b" * 64):
        write(tmp_path, 30, digest=digest, made={"names": {"task": "toy-relations:rivers"}})
    found = list(Results(tmp_path))
    for result in found:
        shown = Names(found).task(result)
        assert "@" in shown
        assert [r for r in found if r in Selection.parse(f"task={shown}", found)] == [result]


def test_what_is_stored_is_read_against_though_it_is_not_shown(tmp_path: Path) -> None:
    ours = write(tmp_path, 30)
    write(tmp_path, 20, method="none")
    write(tmp_path, 10, control="foreign")
    (row,) = rows([ours], Results(tmp_path), beside=Results(tmp_path))
    assert row.delta is not None
    assert row.gain is not None
    assert (row.delta.value, row.gain.value) == (pytest.approx(0.25), pytest.approx(0.5))


def test_terms_choose_by_options_and_by_what_tables_show(tmp_path: Path) -> None:
    for epochs in (1, 2):
        chosen = {"tuning": {"full": {"epochs": epochs}}}
        write(tmp_path, 20 + epochs, options=chosen)
        write(tmp_path, 20, method="none", options=chosen)
    results = list(Results(tmp_path))
    for text in (
        "map-tuning,tuning.full.epochs=2",
        "map-tuning,epochs=2.0",
        "map-tuning,full.epochs=2",
    ):
        (group,) = grouped(r for r in results if r in Selection.parse(text, results))
        assert options(group[0]) == {"tuning.full.epochs": 2}
    none = Selection.parse("none", results)
    for one, two in partners(grouped(r for r in results if r.spec.knowledge), none, results):
        assert options(one[0]) == options(two[0])
    apart = Selection.parse("none,epochs=1", results)
    ours = grouped(r for r in results if r in Selection.parse("map-tuning,epochs=2", results))
    ((one, two),) = partners(ours, apart, results)
    assert differences(one[0], two[0]) == ["method", "tuning.full.epochs"]


def test_errors_say_what_would_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, epochs in (("rivers", 1), ("rivers", 2), ("roads", 1)):
        about: dict[str, Any] = {"digest": name * 5, "data": name}
        about["options"] = {"tuning": {"full": {"epochs": epochs}}}
        about["made"] = {"names": {"task": f"toy-relations:{name}"}}
        write(tmp_path, 20, **about)
        write(tmp_path, 10, **about, method="none")
    status, _, err = call(capsys, "diff", "map-tuning", "--out", str(tmp_path))
    assert status == 2
    assert "task=toy-relations:rivers or task=toy-relations:roads" in err
    assert "tuning.full.epochs=1 or tuning.full.epochs=2" in err
    ask = ("map-tuning,data=roads", "none,epochs=2")
    status, _, err = call(capsys, "compare", *ask, "--out", str(tmp_path))
    assert status == 2
    assert "toy-relations:roads, epochs=1 and none, toy-relations:rivers, epochs=2" in err
    for name in ("rivers", "roads"):
        write(tmp_path, 20, method="pelt", dtype="bfloat16", digest=name * 5, data=name)
    ask = ("map-tuning,epochs=1", "pelt")
    status, _, err = call(capsys, "compare", *ask, "--out", str(tmp_path))
    assert status == 2
    assert "nearest differ in dtype (float32 against bfloat16), tuning.full.epochs (1 aga" in err
    status, _, err = call(capsys, "compare", "map-tuning", "pelt,linker=x", "--out", str(tmp_path))
    assert "no run that ended well is 'pelt,linker=x'" in err
    status, out, err = call(capsys, "compare", "map-tuning", "none", "--out", str(tmp_path))
    assert status == 0
    assert out.count("− none") == 1
    assert err.startswith("warning: left out: 2 variants of which dev chose none")
    assert "toy-relations:roads  ·  bert  ·  full  ·  epochs=1" in out
    for form in ("csv", "markdown", "latex", "json"):
        status, out, _ = call(capsys, "table", "--out", str(tmp_path), "--format", form)
        assert status == 0
        assert ("epochs=2" in out) or ('epochs": 2' in out)
        assert "toy-relations:roads" in out
    _, out, _ = call(capsys, "table", "--out", str(tmp_path), "--task", "roads", "--format", "csv")
    assert len(out.splitlines()) == 4  # pelt's too, whose data are the same to the bit
