"""Packed results: the same results in little room, for every command that reads any."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import kbench
from kbench.errors import ArtifactError, DataError, UsageError
from kbench.grid.plan import Place
from kbench.store import Results, Status, pack, packed, packs, unpack
from kbench_leaderboard.absent import absent
from kbench_leaderboard.merge import merge, pack_up
from kbench_leaderboard.rerun import rerun
from kbench_leaderboard.stale import stale
from kbench_leaderboard.submission import opened, places, read, read_entries
from kbench_leaderboard.verify import verify
from tests import stored
from tests.calling import call as called
from tests.faults.limits import within
from tests.grid.toygrid import QUICK, grid, run
from tests.submission_world import edit, installed, predict, rescore, without_scores


@pytest.fixture(scope="module")
def toys(toy_folder: Path) -> Iterator[Path]:
    with installed(toy_folder):
        yield toy_folder


@pytest.fixture(scope="module")
def made(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed of none, map-tuning and its foreign control on two tasks, from real runs."""
    folder = tmp_path_factory.mktemp("made")
    place = Place(folder / "out", folder / "artifacts", "cpu")
    asked = grid(
        toys,
        task="toy-relations,toy-typing",
        backbone="toy-bert",
        knowledge="toy-kb",
        options=QUICK,
    )
    assert {result.status for result in run(asked, place)} == {Status.OK}
    return place.out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit status of the command, and all that it said."""
    status, out, err = called(capsys, *arguments)
    return status, out + err


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of every result, by id and name."""
    files = (file for place in places(folder) for file in place.iterdir())
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}


def test_a_folder_comes_back_byte_for_byte(out: Path, tmp_path: Path) -> None:
    failed = next(r for r in Results(out) if r.spec.task == "toy-typing" and r.spec.knowledge)
    without_scores(out / failed.id, "failed")
    files = pack(out, tmp_path / "packed")
    assert [path.name for path in files] == ["toy-relations.parquet", "toy-typing.parquet"]
    with opened(tmp_path / "packed") as folder:
        assert contents(folder) == contents(out)
    with opened(files[0]) as folder:
        assert 0 < len(contents(folder)) < len(contents(out))
    again = pack(out, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]


def test_every_column_of_predictions_comes_back(toys: Path, tmp_path: Path) -> None:
    import numpy as np

    from kbench.data import Likelihoods, Predictions

    likelihoods = Likelihoods(
        names=("a", "b"),
        sizes={},
        nothing=np.array([[-1.5, -0.25], [-3, 0]], np.float32),
        said=np.array([[-1.0, -0.7], [-2.1, -np.inf]], np.float32),
        which=np.array([[0, 1], [1, -1]], np.int32),
        scorer="sum",
        thresholds={},
    )
    plain = stored.predictions(["a", ("b", "c")], ["b", ()])  # type: ignore[list-item]
    several = Predictions(
        **{
            **vars(plain),
            "labels": [("a",), ("b", "c")],
            "predictions": ["b", "b"],
            "relations": ["r", ""],
            "injected": [("x", "y"), ()],
            "in_context": [True, False],
            "likelihoods": likelihoods,
        }
    )
    for found, seed in ((several, 0), (stored.predictions([], []), 1)):
        stored.store(tmp_path / "out", found, seed=seed, task="toy-typing")
    pack(tmp_path / "out", tmp_path / "packed")
    (tmp_path / "back").mkdir()
    assert unpack(tmp_path / "packed", tmp_path / "back") == 2
    assert contents(tmp_path / "back") == contents(tmp_path / "out")


def test_another_pyarrow_writes_other_bytes_of_the_same_predictions(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pa, "__version__", "1.0")
        pack(made, tmp_path / "packed")

    def otherwise(table: pa.Table, path: Path) -> None:
        pq.write_table(table, path, compression="snappy")

    monkeypatch.setattr(packed, "write_table", otherwise)
    with opened(tmp_path / "packed") as folder:
        assert contents(folder).keys() == contents(made).keys()
        assert verify(read(folder)) == []
        for before, now in zip(Results(made), Results(folder), strict=True):
            assert before.as_json() != now.as_json()
            one, two = (value.as_json() for value in (before, now))
            for value in (one, two):
                del value["provenance"]["digests"]["predictions"]
            assert one == two


def test_what_is_packed_is_added_to_and_never_contradicted(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "packed"
    keys = [place.name for place in places(out)]
    parts = [tmp_path / "one", tmp_path / "two"]
    for part, several in zip(parts, (keys[:4], keys[2:]), strict=True):
        for key in several:
            shutil.copytree(out / key, part / key)
    assert sorted(pack_up(parts[:1], target).added) == keys[:4]
    done = pack_up(parts, target)
    assert (sorted(done.added), sorted(done.same)) == (keys[4:], sorted([*keys[:4], *keys[2:4]]))
    with opened(target) as folder:
        assert contents(folder) == contents(out)
        assert verify(read(folder)) == []
    before = [path.read_bytes() for path in packs(target)]
    predict(parts[1] / keys[-1], lambda columns: columns["score"].__setitem__(0, 0.123))
    rescore(parts[1] / keys[-1])
    assert pack_up(parts, target).conflicts == [keys[-1]]
    assert [path.read_bytes() for path in packs(target)] == before
    with pytest.raises(DataError, match="holds something else than packed results"):
        pack_up(parts, out)


def test_of_a_grid_that_still_runs_what_is_whole_is_packed(out: Path, tmp_path: Path) -> None:
    by = {(r.spec.task, r.spec.method, str(r.spec.control)): r.id for r in Results(out)}
    lone = by["toy-typing", "map-tuning", "none"]
    shutil.rmtree(out / by["toy-typing", "map-tuning", "foreign"])
    more = next(r for r in Results(out) if r.id == by["toy-relations", "none", "none"])
    second = more.model_copy(
        update={"id": "0" * 32, "spec": more.spec.model_copy(update={"seed": 1})}
    )
    Results(out).save(second, Results(out).predictions(more))
    done = pack_up([out], tmp_path / "packed", only_whole=True)
    assert sorted(done.left) == sorted([lone, second.id])
    with opened(tmp_path / "packed") as folder:
        assert verify(read(folder)) == []
        assert len(places(folder)) == 4


def test_what_is_packed_stays_though_another_seed_has_more(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "packed"
    every = list(Results(out))
    few = tmp_path / "few"
    first = [r for r in every if r.spec.method == "none"]
    for result in first:
        shutil.copytree(out / result.id, few / result.id)
    assert sorted(pack_up([few], target).added) == sorted(r.id for r in first)
    later = tmp_path / "later"
    for number, result in enumerate(every):
        spec = result.spec.model_copy(update={"seed": 1})
        again = result.model_copy(update={"id": f"{number:032x}", "spec": spec})
        Results(later).save(again, Results(out).predictions(result))
    done = pack_up([later], target, only_whole=True)
    assert len(done.added) == len(every)
    with opened(target) as folder:
        assert {r.id for r in first} < {place.name for place in places(folder)}


def test_all_commands_read_packed_results(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "packed"
    status, told = call(capsys, "leaderboard", "pack", str(made), "--out", str(target))
    assert status == 0, told
    assert "6 added" in told
    for command in (
        ("table", "--json", "--all"),
        ("compare", "map-tuning", "none", "--json"),
        ("score",),
        ("results", "ls", "--json"),
    ):
        plain = call(capsys, *command, "--out", str(made))
        assert call(capsys, *command, "--out", str(target)) == plain, command
        assert plain[0] == 0
    frame = kbench.load(target).table()
    assert frame.equals(kbench.load(made).table())
    verdict = call(capsys, "leaderboard", "verify", str(target))
    assert verdict[0] == 0, verdict
    assert "good, 6 of 6 results" in verdict[1]


def test_packed_results_are_not_written_into(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(made, tmp_path / "packed")
    result = next(iter(Results(made)))
    with pytest.raises(ArtifactError, match="holds packed results"):
        Results(tmp_path / "packed").save(result)
    status, told = call(capsys, "results", "rm", "none", "--yes", "--out", str(tmp_path / "packed"))
    assert (status, len(told.splitlines())) == (2, 1), told
    shutil.copytree(made / result.id, tmp_path / "packed" / result.id)
    for reads in (kbench.load, lambda folder: opened(folder).__enter__()):
        with pytest.raises(DataError, match="packed results and folders of runs"):
            reads(tmp_path / "packed")


def test_nothing_is_merged_into_packed_results(made: Path, tmp_path: Path) -> None:
    """Beside them nobody would read it."""
    pack(made, tmp_path / "packed")
    before = sorted(path.name for path in (tmp_path / "packed").iterdir())
    with pytest.raises(ArtifactError, match="holds packed results"):
        merge([made], tmp_path / "packed")
    assert sorted(path.name for path in (tmp_path / "packed").iterdir()) == before


def test_predictions_that_another_pyarrow_wrote_verify_when_packed(
    out: Path, tmp_path: Path
) -> None:
    for place in places(out):
        predict(place, lambda told: None, compression="snappy")
        rescore(place)
    assert verify(read(out)) == []
    pack_up([out], tmp_path / "packed")
    with opened(tmp_path / "packed") as folder:
        assert contents(folder).keys() == contents(out).keys()
        assert verify(read(folder)) == []


def test_predictions_of_other_numbers_are_not_packed(out: Path, tmp_path: Path) -> None:
    """As 32 bits they would be others, and nobody would know."""
    path = places(out)[0] / "predictions.parquet"
    with pq.ParquetFile(path) as file:
        table = file.read()
    at = table.schema.get_field_index("score")
    pq.write_table(table.set_column(at, "score", table["score"].cast(pa.float64())), path)
    with pytest.raises(DataError, match="column score is of double"):
        pack_up([out], tmp_path / "packed")


def test_two_tasks_are_never_one_file(tmp_path: Path) -> None:
    """Not even where one is called as the file of the other would be."""
    first = packed._file_name("Foo Task")
    assert packed._file_name(first) != first
    assert packed._file_name(first.replace(".", "-")) == first.replace(".", "-") != first
    assert packed._file_name("foo task") != first


def _changed(path: Path, change: Any) -> None:
    with pq.ParquetFile(path) as file:
        table = file.read()
    made = change(table)
    pq.write_table(made.replace_schema_metadata(table.schema.metadata), path, compression="zstd")


def _with(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, name, pa.array(values, table.schema.field(name).type))


HOSTILE = {
    "a run twice": lambda table: pa.concat_tables([table, table]),
    "a name that is a path": lambda t: _with(t, "run", ["../../x", *t["run"].to_pylist()[1:]]),
    "no result": lambda t: _with(t, "result", [None, *t["result"].to_pylist()[1:]]),
    "another column": lambda table: table.append_column("more", table["run"]),
    "a column less": lambda table: table.drop_columns(["score"]),
    "no text": lambda t: _with(t, "label", [[["a", "b"]], *t["label"].to_pylist()[1:]]),
    "columns of other lengths": lambda t: _with(t, "score", [[0.5], *t["score"].to_pylist()[1:]]),
    "a large result": lambda t: _with(
        t, "result", [b" " * (5 << 20), *t["result"].to_pylist()[1:]]
    ),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_in_a_line(made: Path, tmp_path: Path, change: Any) -> None:
    path = pack(made, tmp_path / "packed")[0]
    _changed(path, change)
    with pytest.raises(DataError) as told, opened(tmp_path / "packed"):
        pass
    assert len(str(told.value).splitlines()) == 1
    assert path.name in str(told.value)


def test_many_large_results_are_refused_before_they_are_made(made: Path, tmp_path: Path) -> None:
    path = pack(made, tmp_path / "packed")[0]
    with pq.ParquetFile(path) as file:
        row = file.read().slice(0, 1)
    several = pa.concat_tables([_with(row, "result", [b" " * (4 << 20)])] * 10)
    with pq.ParquetWriter(path, row.schema, compression="zstd") as writer:
        for _ in range(70):
            writer.write_table(several)
    assert path.stat().st_size < 8 << 20
    with within(), pytest.raises(DataError, match="would unpack to"), opened(tmp_path / "packed"):
        pass


def test_a_file_of_something_else_is_refused(made: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    for name in ("other", "damaged"):
        with pytest.raises(DataError, match="cannot be read"), opened(tmp_path / f"{name}.parquet"):
            pass


def test_results_of_earlier_revisions_are_named(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [*Results(out)]
    assert [*stale(results)] == []
    assert results[0].provenance is not None
    assert {*results[0].provenance.revisions} == {"task", "tuning", "method"}
    for key, value in (("method", "0"), ("task", "older"), ("tuning", "0")):
        folder = out / results[0].id
        edit(folder, lambda v, k=key, n=value: v["provenance"]["revisions"].update({k: n}))
    edit(out / results[1].id, lambda value: value["provenance"].update(revision=1))
    one, two = stale(Results(out))
    spec = results[0].spec
    assert [text.split(" of revision")[0] for text in one.revisions] == [
        f"task {spec.task}",
        f"tuning {spec.tuning}",
        f"method {spec.method}",
    ]
    assert two.revisions[0].startswith("engine of revision 1, here ")
    status, told = call(capsys, "leaderboard", "stale", str(out))
    assert status == 1
    assert spec.command() in told
    assert "2 of 6 results are of earlier revisions" in told
    findings = [problem.text for problem in verify(read(out))]
    assert any("was made by revision 0 of its method" in text for text in findings)


def test_it_is_said_why_a_result_is_no_ranked_row(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by = {(r.spec.task, r.spec.method, str(r.spec.control)): r.id for r in Results(out)}
    lines = dict(absent(read_entries(out)))
    controls = [key for of, key in by.items() if of[2] == "foreign"]
    assert lines == dict.fromkeys(controls, "shown under its control, and not ranked")
    without_scores(out / by["toy-relations", "none", "none"], "failed")
    shutil.rmtree(out / by["toy-typing", "map-tuning", "foreign"])
    lines = dict(absent(read_entries(out)))
    assert lines[by["toy-relations", "none", "none"]] == "listed as failed: it broke"
    plain, foreign = "the model without knowledge", "its foreign control"
    for task, what in (("toy-relations", plain), ("toy-typing", foreign)):
        assert what in lines[by[task, "map-tuning", "none"]]
    key = by["toy-typing", "none", "none"]
    edit(out / key, lambda value: value["spec"].update(limit=3))
    status, told = call(capsys, "leaderboard", "absent", str(out), "--id", key[:8])
    assert (status, told.strip()) == (0, f"{key}: left out: it was run with --limit 3")


def test_runs_are_made_again_and_compared(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = next(r for r in Results(out) if r.spec.method == "none" and "relations" in r.spec.task)
    (same,) = rerun([out / none.id])
    assert "the same predictions to the last bit" in same.line
    assert (same.differ, same.moved, same.outside) == (0, 0.0, False)

    def lie(columns: dict[str, list[Any]]) -> None:
        columns["prediction"] = list(columns["label"])

    predict(out / none.id, lie)
    rescore(out / none.id)
    (other,) = rerun([out / none.id])
    assert other.outside
    assert other.differ
    assert f"{other.differ} of {other.examples} predictions differ" in other.line
    strange = Path(shutil.copytree(out / none.id, tmp_path / "strange" / none.id))
    edit(strange, lambda value: value["spec"].update(backbone="/home/somebody/bert"))
    status, told = call(
        capsys, "leaderboard", "verify", str(strange), "--rerun", "3", "--draw", "7"
    )
    assert status == 1
    assert "run again: 1, drawn with --draw 7" in told
    assert "cannot be run again here: backbone /home/somebody/bert is not installed here" in told


def test_a_site_without_results_says_what_it_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbench_leaderboard import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "a" / "b" / "cli.py"))
    with pytest.raises(UsageError, match=r"no packed results in leaderboard/results"):
        cli.reference()
    stored.store(tmp_path / "out", stored.predictions(["a"], ["a"]))
    pack(tmp_path / "out", tmp_path / "leaderboard" / "results")
    assert cli.reference() == (Path("leaderboard/results"),)
    pack(tmp_path / "out", tmp_path / "leaderboard" / "submissions" / "theirs")
    (tmp_path / "leaderboard" / "submissions" / "empty").mkdir()
    own, theirs = Path("leaderboard/results"), Path("leaderboard/submissions/theirs")
    assert cli.reference() == (own, theirs)


@pytest.mark.usefixtures("toy_tasks")
def test_what_is_no_row_says_so_where_predictions_are_lost_or_contradict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = stored.predictions(["a", "b"], ["a", "b"])
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    kept, lost, broken = (stored.store(mine, told, method=name) for name in ("none", "ra", "kar"))
    stored.store(theirs, stored.predictions(["a", "b"], ["a", "a"]), method="none")
    (mine / lost.id / "predictions.parquet").unlink()
    (mine / broken.id / "predictions.parquet").write_bytes(b"PAR1")
    lines = dict(absent(entry for folder in (mine, theirs) for entry in read(folder)))
    assert "has no predictions, without which" in lines[lost.id]
    assert lines[broken.id].startswith("left out: ")
    assert lines[kept.id] == "left out: it is there twice, and says otherwise there"
    status, _, said = called(capsys, "leaderboard", "absent", str(mine), "--id", "00zz")
    assert status == 2
    assert "the id of no result here begins with '00zz'; there are 3" in said
    words = ["--results", str(mine), "--results", str(theirs), "--out", str(tmp_path / "site")]
    status, out, said = called(capsys, "leaderboard", "build", *words)
    assert status == 0
    assert "1 runs, 0 of them failed or skipped; left out 3 damaged" in out
    assert f"left out: {kept.id}: contradicts the same run, which is there" in said
    assert f"left out: {lost.id}: has no predictions" in said
    assert f"left out: {broken.id}: " in said


@pytest.mark.usefixtures("toy_tasks")
def test_a_front_page_says_what_of_its_grid_is_not_there(tmp_path: Path) -> None:
    from kbench_leaderboard.site import build

    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "{task: [toy-qa, toy-relations], backbone: bert, tuning: full, method: none, seed: [0, 1]}"
    )
    stored.store(tmp_path / "out", stored.predictions(["a"], ["a"]), method="none")
    built = build([tmp_path / "out"], tmp_path / "site", grid=grid)
    page = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert (built.asked, built.lacking) == (4, 3)
    assert "Of the 4 runs of the grid 3 are not there yet." in page


@pytest.mark.usefixtures("toy_tasks")
def test_an_extra_that_is_not_installed_is_no_fault_of_a_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored.store(tmp_path / "out", stored.predictions(["a"], ["a"]), task="atlas-qa")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setattr("kbench_leaderboard.verify.untrue", _needing)
    status, out, said = called(capsys, "leaderboard", "verify", str(tmp_path / "out"))
    assert status == 2
    assert "pip install 'knowledge-bench[run]'" in said
    assert "rejected" not in out


@pytest.mark.usefixtures("toy_tasks")
def test_a_package_of_a_stranger_that_is_not_installed_is_a_finding_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def foreign(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'theirs'", name="theirs")

    stored.store(tmp_path / "out", stored.predictions(["a"], ["a"]), task="atlas-qa")
    monkeypatch.setattr("kbench_leaderboard.together.Together.findings", foreign)
    status, out, _ = called(capsys, "leaderboard", "verify", str(tmp_path / "out"))
    assert status == 1
    assert "cannot be checked as a whole (ModuleNotFoundError: No module named 'theirs')" in out


def _needing(_: object) -> list[str]:
    import safetensors

    return [safetensors.__name__]
