"""What `kbench leaderboard verify` and `merge` make of good results, broken ones and lies."""

from __future__ import annotations

import json
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kbench.cli import main
from kbench.data.files import file_digest
from kbench.errors import DataError
from kbench.grid.plan import Place
from kbench.metrics.spoken import spoken_metrics as spoken
from kbench.pipeline.buckets import estimate
from kbench.store import Result, Results, Status
from kbench.store.result import read_result
from kbench_leaderboard import submission
from kbench_leaderboard.merge import merge
from kbench_leaderboard.submission import Entry, opened, read
from kbench_leaderboard.verify import verify
from tests import stored
from tests.calling import call
from tests.conftest import registered_toys
from tests.grid.toygrid import QUICK, grid, run
from tests.recipe_world import write_data
from tests.submission_world import without_scores

pytestmark = pytest.mark.usefixtures("toy_tasks")
Json = dict[str, Any]


@pytest.fixture(scope="module")
def made(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two seeds of none, map-tuning and its foreign control on two tasks."""
    folder = tmp_path_factory.mktemp("made")
    place = Place(folder / "out", folder / "artifacts", "cpu")
    chosen = grid(toy_folder, task="toy-relations,toy-typing", seed="0,1", options=QUICK)
    with registered_toys():
        results = run(chosen, place)
    assert {result.status for result in results} == {Status.OK}
    return place.out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def problems(folder: Path) -> list[str]:
    return [problem.text for problem in verify(read(folder))]


def chosen(folder: Path, **wanted: object) -> Path:
    """The folder of the first result with these values in its spec."""
    return next(
        folder / result.id
        for result in Results(folder)
        if all(getattr(result.spec, name) == value for name, value in wanted.items())
    )


def edit(folder: Path, change: Callable[[Json], None]) -> None:
    """Changes the JSON of a result as its text editor would."""
    path = folder / "result.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def predict(folder: Path, change: Callable[[Json], None], *, cover_up: bool = True) -> None:
    """Changes predictions and, to cover that up, their digest."""
    path = folder / "predictions.parquet"
    table = pq.ParquetFile(path).read()
    columns = table.to_pydict()
    change(columns)
    pq.write_table(pa.table(columns, schema=table.schema), path)
    if cover_up:
        edit(folder, lambda v: v["provenance"]["digests"].update(predictions=file_digest(path)))


def test_what_kbench_run_wrote_is_good(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert problems(out) == []
    with pytest.raises(SystemExit) as left:
        main(["leaderboard", "verify", str(out)])
    assert left.value.code == 0
    assert "good, 12 of 12 results" in capsys.readouterr().out


def test_metrics_that_a_task_has_by_its_data_are_good_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path / "data")
    arguments = ["--task", "lama", "--method", "none", "--data", str(tmp_path / "data")]
    arguments += ["--set", "task.lama.dev_share=0.5", "--device", "cpu"]
    status, *_ = call(capsys, "run", *arguments, "--out", str(tmp_path / "out"))
    (result,) = Results(tmp_path / "out")
    assert (status, result.metrics["p1"].variant) == (0, "lama-p1:objects")
    assert problems(tmp_path / "out") == []


def test_options_say_which_metrics_a_task_has(tmp_path: Path) -> None:
    given = stored.predictions([("a",), ("b",)], ["a", "a"])
    for options, missing in (({"atlas-qa": {"answers": "open"}}, False), ({}, True)):
        spec = stored.spec(task="atlas-qa", method="none", options={"task": options})
        scores = {metric.name: estimate(metric, metric.measure(given)) for metric in spoken()}
        result = Result(
            id="0" * 32,
            status=Status.OK,
            spec=spec,
            metrics=scores,
            main_metric=next(iter(scores)),
            provenance=stored.provenance(),
        )
        texts = [problem.text for problem in verify([Entry("x", tmp_path, result, given)])]
        assert any("is missing" in text for text in texts) == missing, texts


def test_an_archive_of_it_is_good_too(out: Path, tmp_path: Path) -> None:
    (out / ".lock").touch()  # as the store leaves them; no result, and no harm
    path = shutil.make_archive(str(tmp_path / "results"), "zip", out)
    with opened(Path(path)) as folder:
        assert verify(read(folder)) == []
        assert len([*read(folder)]) == 12


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: v["metrics"]["accuracy"].update(value=0.999), "accuracy is stated as 0.999"),
        (lambda v: v["metrics"]["accuracy"].update(n=7), "of 7, its predictions give"),
        (lambda v: v["metrics"]["accuracy"].update(low=0.0), "the interval of accuracy"),
        (lambda v: v["metrics"].pop("accuracy"), "metric accuracy is missing"),
        (lambda v: v["metrics"]["accuracy"].update(variant="x"), "is none of task"),
        (lambda v: v["metrics"]["accuracy"].update(value=float("nan")), "NaN is no number"),
        (lambda v: v["metrics"]["accuracy"].update(high=float("inf")), "Infinity is no number"),
        (lambda v: v["cost"].update(train_seconds=float("inf")), "Infinity is no number"),
        (lambda v: v["provenance"]["digests"].update(data="0" * 64), "its id does not follow"),
        (lambda v: v["provenance"]["addresses"].update(model="0" * 32), "its id does not follow"),
        (lambda v: v["provenance"].update(revision=1), "its id does not follow"),
        (lambda v: v["spec"].update(setting="general"), "its id does not follow"),
        (lambda v: v["spec"].update(method="kar"), "its id does not follow"),
        (lambda v: v["spec"].update(method="nobodys"), "nobodys"),
        (lambda v: v["spec"].update(task="nobodys"), "nobodys"),
        (lambda v: v["spec"].update(limit=10), "--limit 10"),
        (lambda v: v["frozen"].update(after="0" * 64), "changed the frozen weights"),
        (lambda v: v.update(frozen=None), "does not say that the frozen weights"),
        (lambda v: v.update(provenance=None), "has no provenance"),
        (lambda v: v.update(metrics={}), "has no score"),
        (lambda v: v.update(status="failed"), "is failed without a reason"),
        (lambda v: v.update(schema=2), "has schema 2"),
        (lambda v: v.update(id="0" * 32), "says it is 000"),
        (lambda v: v.update(surprise=1), "surprise"),
        (lambda v: v["coverage"].update(examples=0.1), "coverage is stated as 0.1"),
        (lambda v: v["provenance"]["digests"].pop("predictions"), "does not state the digest"),
        (lambda v: v.update(counts={**v["counts"], "test_kept": 3}), "of 3 examples"),
    ],
)  # fmt: skip
def test_an_edited_result_is_found_out(
    out: Path, change: Callable[[Json], None], text: str
) -> None:
    edit(chosen(out, task="toy-relations", method="map-tuning", control="none", seed=0), change)
    assert any(text in problem for problem in problems(out)), problems(out)


def _texts(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, str):
        return [place]
    if not isinstance(value, dict | list):
        return []
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [found for key, item in inner for found in _texts(item, (*place, key))]


def test_markup_is_refused_in_every_text(out: Path) -> None:
    folder = chosen(out, task="toy-relations", method="map-tuning", control="none", seed=0)
    value = json.loads((folder / "result.json").read_text())
    places = _texts(value)
    assert len(places) > 20
    for place in places:
        changed = json.loads(json.dumps(value))
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = "<script>alert(1)</script>"
        (folder / "result.json").write_text(json.dumps(changed))
        found = verify(read(folder))
        assert found, place
        refused = [problem for problem in found if problem.where == folder.name]
        assert refused, place


def _swap(columns: Json) -> None:
    labels = columns["prediction"]
    at = next(n for n, (g, p) in enumerate(zip(columns["label"], labels, strict=True)) if g == p)
    labels[at] = "is-nothing"


def test_an_edited_prediction_is_found_out(out: Path) -> None:
    folder = chosen(out, task="toy-relations", method="map-tuning", control="none", seed=0)
    predict(folder, _swap, cover_up=False)
    assert any("digest is stated" in problem for problem in problems(out))
    predict(folder, lambda columns: None)  # the digest is right again
    assert any("metric accuracy is stated" in problem for problem in problems(out))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c["score"].__setitem__(0, float("nan")), "no probabilities"),
        (lambda c: c["score"].__setitem__(0, 7.0), "no probabilities"),
        (lambda c: c["id"].__setitem__(0, c["id"][1]), "not one for each example"),
        (lambda c: c["id"].__setitem__(0, None), "column id lacks a value"),
        (lambda c: c["label"].__setitem__(0, None), "column label lacks a value"),
        (lambda c: c["linked"].__setitem__(slice(None), [False] * len(c["id"])), "coverage is"),
    ],
)
def test_predictions_that_are_none(out: Path, change: Callable[[Json], None], text: str) -> None:
    folder = chosen(out, task="toy-relations", method="map-tuning", control="none", seed=0)
    predict(folder, change)
    found = problems(out)
    assert found
    assert any(text in problem for problem in found), found


def test_a_truncated_table_is_found_out(out: Path) -> None:
    path = chosen(out, task="toy-typing", method="none", seed=0) / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert any("cannot be read" in problem for problem in problems(out))
    path.unlink()
    assert any("has no predictions" in problem for problem in problems(out))


@pytest.mark.parametrize("name", ["result.json", "predictions.parquet"])
def test_a_gigabyte_of_zeros_is_not_read(out: Path, name: str) -> None:
    path = chosen(out, task="toy-typing", method="none", seed=0) / name
    with path.open("wb") as file:
        file.truncate(1 << 30)  # a hole: no byte of it is on the disk
    assert any("has 1,073,741,824 bytes" in problem for problem in problems(out))


def test_a_table_that_unpacks_to_too_much_is_not_read(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = chosen(out, task="toy-relations", method="none", seed=0) / "predictions.parquet"
    schema = pq.ParquetFile(path).schema_arrow
    rows = 200_000
    text = ["x" * 50] * rows
    columns = [text, text, text, [0.5] * rows, [True] * rows, [0] * rows, [""] * rows]
    table = pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(submission, "_UNPACKED", 1 << 20)
    assert any("would unpack to 200,000 rows" in problem for problem in problems(out))


@pytest.mark.parametrize("several", [False, True])
def test_one_long_text_many_times_is_not_read(out: Path, several: bool) -> None:
    """50 kB that would unpack to four gigabytes: the text is in the file once."""
    path = chosen(out, task="toy-relations", method="none", seed=0) / "predictions.parquet"
    rows = 20_000
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 200_000])
    label = pa.ListArray.from_arrays(range(rows + 1), text) if several else text
    columns = {"id": [str(n) for n in range(rows)], "label": label, "prediction": label}
    columns |= {"score": [0.5] * rows, "linked": [False] * rows, "degree": [-1] * rows}
    pq.write_table(pa.table({**columns, "stratum": [""] * rows}), path, compression="zstd")
    assert path.stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert any("would unpack to 20,000 rows" in problem for problem in problems(out))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kB


def test_lists_of_nothing_are_not_read(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chosen(out, task="toy-relations", method="none", seed=0) / "predictions.parquet"
    nothing = pa.ListArray.from_arrays([0, 3_000_000], pa.nulls(3_000_000, pa.string()))
    columns = {"id": ["a"], "label": nothing, "prediction": nothing, "score": [0.5]}
    columns |= {"linked": [False], "degree": [-1], "stratum": [""]}
    pq.write_table(pa.table(columns), path, compression="zstd")
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(submission, "_VALUES", 1_000_000)
    assert any("would unpack to 6,000,0" in problem for problem in problems(out))


def test_links_are_not_followed(out: Path, tmp_path: Path) -> None:
    folder = chosen(out, task="toy-relations", method="none", seed=0)
    for name in ("result.json", "predictions.parquet"):
        secret = tmp_path / name
        shutil.move(folder / name, secret)
        (folder / name).symlink_to(secret)
        assert any("is a link" in problem for problem in problems(out))
        (folder / name).unlink()
        shutil.move(secret, folder / name)
    moved = Path(shutil.move(folder, tmp_path / "elsewhere"))
    folder.symlink_to(moved)
    assert any("is a link" in problem for problem in problems(out))


@pytest.mark.parametrize(
    "name",
    [
        "../../evil/result.json",
        "/etc/result.json",
        "0" * 32 + "/../../x",
        "../" + "0" * 32 + "/result.json",
        "0" * 32 + "/run.py",
        "result.json",
        "..\\" + "0" * 32 + "/result.json",
    ],
)
def test_an_archive_with_other_paths_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "{}")
    before = {*tmp_path.rglob("*")}
    with pytest.raises(DataError, match=r"evil\.zip"), opened(path):
        pass
    assert {*tmp_path.rglob("*")} == before


def test_an_archive_whose_file_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0" * 32 + "/result.json", b"\0" * (64 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="is larger"), opened(path):
        pass


def test_an_archive_has_a_budget_as_a_whole(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "results"), "zip", out))
    for name, most, problem in (("_ENTRIES", 5, "files"), ("_WHOLE", 9999, "unpacks to too much")):
        with monkeypatch.context() as patch:
            patch.setattr(submission, name, most)
            with pytest.raises(DataError, match=problem), opened(path):
                pass


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_in_another_form_is_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("0" * 32 + "/result.json", "{}")
    with pytest.raises(DataError, match="in a form of its own"), opened(path):
        pass


def test_a_damaged_archive_is_refused_in_a_line(out: Path, tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "results"), "zip", out))
    content = bytearray(path.read_bytes())
    for at in range(40, 4000, 7):
        content[at] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"results\.zip"), opened(path):
        pass


def test_what_is_left_out_is_named(out: Path) -> None:
    shutil.rmtree(chosen(out, task="toy-relations", method="map-tuning", control="none", seed=1))
    assert any("without seed 1" in problem for problem in problems(out))


def test_a_control_and_a_yardstick_belong_to_a_result(out: Path) -> None:
    for seed in (0, 1):
        shutil.rmtree(chosen(out, task="toy-relations", control="foreign", seed=seed))
        shutil.rmtree(chosen(out, task="toy-typing", method="none", seed=seed))
    found = problems(out)
    assert sum("without its foreign control" in problem for problem in found) == 2
    assert sum("without the model without knowledge" in problem for problem in found) == 2


def test_nothing_and_no_folder_are_no_submission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problems(tmp_path) == ["holds no result"]
    with pytest.raises(SystemExit) as left:
        main(["leaderboard", "verify", str(tmp_path / "nowhere")])
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "is no submission" in err


def test_findings_as_json(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = chosen(out, task="toy-typing", method="none", seed=0)
    edit(folder, lambda value: value["spec"].update(limit=3))
    with pytest.raises(SystemExit) as left:
        main(["leaderboard", "verify", str(folder), "--json"])
    assert left.value.code == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["where"] for one in found} == {folder.name}
    assert any("--limit 3" in one["text"] for one in found)


def test_merging_loses_nothing_and_doubles_nothing(made: Path, tmp_path: Path) -> None:
    one, two, target = tmp_path / "one", tmp_path / "two", tmp_path / "all"
    keys = sorted(path.name for path in made.iterdir() if not path.name.startswith("."))
    for place, several in ((one, keys[:8]), (two, keys[4:])):
        for key in several:
            shutil.copytree(made / key, place / key)
    done = merge([one, two], target)
    assert (sorted(done.added), sorted(done.same)) == (keys, keys[4:8])
    assert not done.conflicts
    assert verify(read(target)) == []
    assert [r.as_json() for r in Results(target)] == [r.as_json() for r in Results(made)]
    again = merge([one, two], target)
    assert (again.added, len(again.same)) == ([], 16)


def test_a_good_end_replaces_a_bad_one_and_not_the_other_way_round(
    out: Path, tmp_path: Path
) -> None:
    folder = chosen(out, task="toy-typing", method="none", seed=0)
    bad = Path(shutil.copytree(folder, tmp_path / "bad" / folder.name))
    without_scores(bad, "failed")
    target = tmp_path / "all"
    assert merge([bad], target).added == [folder.name]
    assert merge([out], target).replaced == [folder.name]
    assert merge([bad], target).same == [folder.name]
    assert read_result(target / folder.name / "result.json").status == Status.OK


def test_two_outcomes_of_one_run_are_a_conflict(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = chosen(out, task="toy-relations", method="none", seed=0)
    other = Path(shutil.copytree(folder, tmp_path / "other" / folder.name))
    edit(other, lambda value: value.update(dev=0.5, training={}))
    with pytest.raises(SystemExit) as left:
        main(["leaderboard", "merge", str(out), str(other), "--out", str(tmp_path / "all")])
    assert left.value.code == 1
    assert f"conflict: {folder.name}" in capsys.readouterr().out
    assert not (tmp_path / "all").exists()


def test_a_source_that_cannot_be_read_stops_a_merge_before_it_begins(
    out: Path, tmp_path: Path
) -> None:
    folder = chosen(out, task="toy-relations", method="none", seed=0)
    (folder / "result.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        merge([out], tmp_path / "all")
    assert not (tmp_path / "all").exists()
