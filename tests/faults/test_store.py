"""A store that is full, read-only, damaged, shared or out of time: a clear word, and no harm."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kbench.errors import ArtifactError
from kbench.grid import runner, worker
from kbench.grid.plan import Place
from kbench.pipeline import record
from kbench.store import Artifacts, Result, Results, Status
from kbench.store.folder import DamageWarning
from tests.calling import call
from tests.faults.conftest import Script
from tests.grid.toygrid import grid, run

_FAST: dict[str, Any] = {
    "tuning": {"full": {"epochs": 1}},
    "method": {"map-tuning": {"start": "scratch", "task-specific": {"epochs": 1}}},
}

_RUN = """
import json, resource, subprocess, sys
from pathlib import Path
from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.errors import KbenchError
from tests.faults.test_store import chosen
from tests.grid.toygrid import run
folder, disk = Path(sys.argv[1]), Path(sys.argv[2])
place = Place(disk / "out", disk / "artifacts", "cpu", 1)
def tried():
    try:
        results = run(chosen(folder), place)
    except KbenchError as error:
        return {"refused": str(error)}
    return {"ended": [[r.status, r.reason, r.score and r.score.value] for r in results]}
def stored():
    return sorted(str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file() and p.stat().st_size)
"""  # noqa: E501


def chosen(toy_folder: Path, **changes: Any) -> Any:
    """A grid of two quick runs."""
    return grid(toy_folder, control="none", options=_FAST, **changes)


def _told(script: Script, text: str, *arguments: object, before: str = "") -> list[Any]:
    done = script(_RUN + text, *arguments, before=before)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- no room ---------------------------------------------------------------------------------------

# Too small for anything, for the model (ca. 120 kB), for the plug beside it; and large enough.
_FILL = """
for size in ("4k", "100k", "156k", "100m"):
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
    print(json.dumps({**tried(), "stored": stored()}))
"""


def test_a_full_disk_is_told_and_once_there_is_room_the_run_goes_on(
    toy_folder: Path, tmp_path: Path, script: Script
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=4k tmpfs {disk}"
    nothing, no_model, no_plug, whole = _told(script, _FILL, toy_folder, disk, before=mount)
    assert nothing["refused"].endswith(
        "cannot be written (No space left on device); free space there, or give another --out"
    )
    for tried in (no_model, no_plug):
        reasons = [reason for status, reason, _ in tried["ended"] if status == "failed"]
        assert reasons
        for reason in reasons:
            assert re.search(r"cannot be written \(.*No space left on device.*free space", reason)
    assert [status for status, *_ in no_plug["ended"]] == ["ok", "failed"]
    assert [status for status, *_ in whole["ended"]] == ["ok", "ok"]
    for tried in (no_model, no_plug, whole):
        # A score is told where it was computed and stored, and nowhere else.
        scores = sum(score is not None for *_, score in tried["ended"])
        assert scores == sum(name.endswith("predictions.parquet") for name in tried["stored"])


_LIMITED = """
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
print(json.dumps(tried()))
print(json.dumps(stored()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(json.dumps(tried()))
"""


@pytest.mark.faults
def test_a_file_that_may_not_grow_is_told_and_leaves_no_half(
    toy_folder: Path, tmp_path: Path, script: Script
) -> None:
    first, left, second = _told(script, _LIMITED, toy_folder, tmp_path / "disk")
    for status, reason, _ in first["ended"]:
        assert status == "failed"
        assert re.search(r"artifacts/model/\w+ cannot be written \(.*File too large", reason)
    assert not [name for name in left if "safetensors" in name]
    assert [status for status, *_ in second["ended"]] == ["ok", "ok"]


# -- no leave to write -----------------------------------------------------------------------------

_LOCKED = """
import warnings
warnings.simplefilter("error")
first = tried()
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
print(json.dumps(first == tried()))
for path in disk.glob("nothing"): raise AssertionError
place = Place(disk / "other", disk / "artifacts", "cpu", 1)
print(json.dumps(tried()))
place = Place(Path(sys.argv[3]), disk / "artifacts", "cpu", 1)
print(json.dumps(tried()))
place = Place(Path(sys.argv[3]) / "more", disk / "elsewhere", "cpu", 1)
print(json.dumps(tried()))
"""


def test_a_read_only_store_is_read_and_nothing_is_computed_for_it(
    toy_folder: Path, tmp_path: Path, script: Script
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=10m tmpfs {disk}"
    same, results, elsewhere, nothing = _told(
        script, _LOCKED, toy_folder, disk, tmp_path / "out", before=mount
    )
    assert same
    assert results["refused"] == (
        f"{disk}/other cannot be written (Read-only file system); free space there, or give "
        "another --out"
    )
    # Models and plugs of a store that others filled are used as they are.
    assert [status for status, *_ in elsewhere["ended"]] == ["ok", "ok"]
    assert "or set KBENCH_CACHE to a folder that can be written" in nothing["refused"]


def test_a_place_that_is_a_file_is_refused_before_anything_is_computed(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kbench.grid.worker.evaluate", None)
    (tmp_path / "file").write_text("")
    place = Place(tmp_path / "file" / "out", tmp_path / "artifacts", "cpu", 1)
    with pytest.raises(ArtifactError, match=r"out cannot be written \(Not a directory"):
        run(chosen(toy_folder, task="atlas-qa"), place)


# -- damage ----------------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # One digit of a result for another is a result too; a letter of a key is none.
    at = content.index(b"schema") if path.suffix == ".json" else len(content) // 2
    content[at] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("harm", [_cut, _flip, _empty, _folder, Path.unlink])
@pytest.mark.parametrize("name", ["result.json", "predictions.parquet"])
def test_a_result_that_is_damaged_in_any_file_is_found_and_repeated(
    harm: Callable[[Path], None], name: str, toy_folder: Path, place: Place
) -> None:
    (first,) = run(chosen(toy_folder, method="none"), place)
    path = place.out / first.id / name
    good = path.read_bytes()
    harm(path)
    if harm is Path.unlink and name == "result.json":
        (again,) = run(chosen(toy_folder, method="none"), place)
    else:
        with pytest.warns(DamageWarning, match=f"{path.parent}.*; the run is repeated"):
            (again,) = run(chosen(toy_folder, method="none"), place)
    assert again.metrics == first.metrics
    assert Results(place.out).load(first.id) == again
    if name == "predictions.parquet":
        assert path.read_bytes() == good


def _forget_results(place: Place) -> None:
    for path in place.out.glob("*/result.json"):
        path.unlink()


@pytest.mark.usefixtures("toy_tasks")
def test_an_artifact_with_the_right_checksum_and_the_wrong_content_is_made_again(
    toy_folder: Path, place: Place
) -> None:
    run(chosen(toy_folder), place)
    from kbench.data.files import file_digest

    weights = next(place.artifacts.glob("plug/*/weights.safetensors"))
    good = weights.read_bytes()
    _cut(weights)
    about = json.loads((weights.parent / "artifact.json").read_text())
    about["sha256"] = file_digest(weights)
    (weights.parent / "artifact.json").write_text(json.dumps(about))
    _forget_results(place)
    with pytest.warns(DamageWarning, match="is damaged .*; it is made again"):
        results = run(chosen(toy_folder), place)
    assert [result.status for result in results] == [Status.OK] * 2
    assert weights.read_bytes() == good


@pytest.mark.usefixtures("toy_tasks")
def test_a_plug_of_other_code_is_told_and_not_made_to_fit(toy_folder: Path, place: Place) -> None:
    import torch

    run(chosen(toy_folder), place)
    (plug,) = place.artifacts.glob("plug/[0-9a-f]*")
    inputs = json.loads((plug / "artifact.json").read_text())["inputs"]
    Artifacts(place.artifacts).save("plug", inputs, {"other": torch.zeros(2)})
    _forget_results(place)
    none, mapped = run(chosen(toy_folder), place)
    assert none.status == Status.OK
    assert f"the stored plug {plug} does not fit method map-tuning" in mapped.reason
    assert "raise its `revision`; else remove that folder" in mapped.reason


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("jump", [-(10**9), 10**9])
def test_a_clock_that_jumps_changes_nothing(
    jump: int, toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(chosen(toy_folder, method="none"), place)
    for path in (*place.out.rglob("*"), *place.artifacts.rglob("*")):
        os.utime(path, (time.time() - jump, time.time() - jump))
    now = time.time

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(now() + jump, tz)

    monkeypatch.setattr(time, "time", lambda: now() + jump)
    monkeypatch.setattr(record, "datetime", Jumped)
    none, mapped = run(chosen(toy_folder), place)
    assert [none] == before
    assert mapped.status == Status.OK
    assert mapped.provenance is not None
    assert 0 < mapped.provenance.seconds < 600
    assert all(value >= 0 for value in mapped.cost.values())
    year = datetime.fromtimestamp(now() + jump, UTC).year
    assert mapped.provenance.started.startswith(str(year))


def test_pruning_after_a_jump_takes_nothing_from_who_is_at_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from kbench.data.files import atomic_folder, cache_home

    target = cache_home() / "artifacts" / "plug" / ("a" * 32)
    monkeypatch.setattr(time, "time", lambda: 1e10)
    with atomic_folder(target) as scratch:
        code, out, _ = call(capsys, "cache", "prune")
        assert (code, out) == (0, "0.0 MB\n")
        assert scratch.is_dir()
    assert target.is_dir()


# -- several at once -------------------------------------------------------------------------------


@pytest.mark.usefixtures("toy_tasks")
def test_two_versions_on_one_store_leave_each_others_results_alone(
    toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(chosen(toy_folder), place)
    path = place.out / first[0].id / "result.json"
    newer = json.loads(path.read_text())
    newer |= {"calibration": {"error": 0.1}}
    newer["provenance"]["kbench"] = "7.1"
    path.write_text(json.dumps(newer))
    theirs = path.read_bytes()
    monkeypatch.setattr("kbench.grid.worker.evaluate", None)  # nothing is computed again
    none, mapped = run(chosen(toy_folder), place)
    assert mapped == first[1]
    assert none.status == Status.REFUSED
    assert none.metrics == {}
    assert f"{path}: was written by kbench 7.1 and has a field unknown here" in none.reason
    assert "install the version that wrote it, or give another --out" in none.reason
    assert path.read_bytes() == theirs


@pytest.mark.usefixtures("toy_tasks")
def test_what_another_process_has_done_meanwhile_is_not_done_again(
    toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = runner.plan(runner.resolve(chosen(toy_folder)), place)
    first = runner.run(cells, place)
    monkeypatch.setattr("kbench.grid.worker.evaluate", None)
    assert runner.run(cells, place) == first


@pytest.mark.usefixtures("toy_tasks")
def test_a_process_that_fails_takes_nothing_from_one_that_did_not(
    toy_folder: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell,) = runner.plan(runner.resolve(chosen(toy_folder, method="none")), place)
    evaluate = worker.evaluate

    def slow(*_: Any) -> Any:
        monkeypatch.setattr(worker, "evaluate", evaluate)
        runner.run([cell], place)  # another process is faster
        raise MemoryError

    monkeypatch.setattr(worker, "evaluate", slow)
    (result,) = runner.run([cell], place)
    assert result.status == Status.OK
    assert Results(place.out).load(cell.id) == result


# -- names -----------------------------------------------------------------------------------------

_NAMES = {
    "long": "n" * 5000,
    "as long as a file system allows": "n" * 255,
    "accents": "İstanbul ẞ e\u0301 北京 👩‍👩‍👧",
    "steering": "\x1b[31mred\u202edesrever\x07",
    "a line end": "two\nlines",
    "half a pair": "half\ud83d",
    "markup": "[bold]<b>{x}%s$(id)`id`",
    "up": "../../../../etc/passwd",
    "empty": "",
}


@pytest.mark.parametrize("name", _NAMES.values(), ids=_NAMES)
@pytest.mark.parametrize(
    "option", ["--task", "--method", "--backbone", "--knowledge", "--data", "--tuning", "--linker"]
)
def test_any_name_is_understood_or_refused_in_a_line(
    option: str, name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chosen = {"--task": "open-entity", "--method": "map-tuning", option: name}
    words = [word for pair in chosen.items() for word in pair]
    code, out, err = call(capsys, "run", *words, "--dry-run", "--out", str(tmp_path / "out"))
    assert code in (0, 2)
    assert "Traceback" not in err
    assert err.count("\n") <= 1
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", out + err)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("name", ["n" * 255, "İ👩‍👩‍👧北" * 9, "a b'c\"d", "-n", "x.tmp-y"])
def test_folders_may_be_called_anything(
    name: str, toy_folder: Path, tmp_path: Path, place: Place
) -> None:
    from kbench.testing.toys import write_world

    there = tmp_path / name
    there.mkdir()
    (tmp_path / name / "bert").symlink_to(toy_folder / "bert")
    write_world(there / name)
    place = Place(there / "out", there / "artifacts", "cpu", 1)
    names = {"backbone": str(there / "bert"), "knowledge": str(there / name)}
    results = run(chosen(toy_folder, method="map-tuning", **names), place)
    assert [result.status for result in results] == [Status.OK], results[0].reason
    assert [*Results(place.out)] == results


def test_texts_of_strangers_do_not_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.store.test_store import FAILED, HOSTILE

    odd = FAILED.spec.model_copy(update={"method": f"\x1b]0;title\x07{HOSTILE}"})
    result = Result(id="e" * 32, status=Status.FAILED, reason="\x1b[2J\x9b31m", spec=odd)
    Results(tmp_path).save(result)
    (tmp_path / ("f" * 32)).mkdir()
    (tmp_path / ("f" * 32) / "result.json").write_text('"\x1b[31m"')
    code, out, err = call(capsys, "table", "--out", str(tmp_path))
    assert code == 0
    assert "title" in out
    assert not re.search("[\x1b\x07\x9b\u202e]", out + err)
