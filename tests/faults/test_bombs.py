"""Small files that would take all memory, or all time: each reader has a budget, and says so."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbench.data.json_text import read_json
from kbench.errors import DataError, KbenchError, UsageError
from kbench.grid.grids import MOST_RUNS, make_grids, read_grid, set_option
from kbench.grid.runner import resolve
from kbench.metrics import LamaPrecision, MacroF1
from kbench.model.huggingface import HuggingFaceBackbone, load_folder
from kbench.store import Budget, Results, read_predictions, read_result
from kbench.store.folder import DamageWarning
from kbench.store.pages import unpacked
from tests import stored
from tests.calling import call
from tests.faults.limits import within

_BUDGET = Budget(bytes=1 << 20, rows=100_000, values=1_000_000)
_ROWS = 96


def _columns(number: int = _ROWS, **other: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("label", "prediction", "stratum"), ["a"] * number)
    told: dict[str, Any] = {"id": [str(at) for at in range(number)], **texts}
    told |= {"score": pa.array(np.zeros(number, np.float32)), "linked": [False] * number}
    return {**told, "degree": pa.array(np.full(number, -1, np.int32)), **other}


def _write(path: Path, columns: dict[str, Any], **how: Any) -> Path:
    pq.write_table(pa.table(columns), path / "predictions.parquet", **how)
    return path / "predictions.parquet"


def _number(value: int) -> bytes:
    """A number as Thrift writes it in its compact form."""
    value, content = value << 1, bytearray()
    while value > 127:
        content.append(value & 127 | 128)
        value >>= 7
    return bytes([*content, value])


def _lying(path: Path) -> Path:
    """A page of eight megabytes of one letter, and a footer that says a few bytes."""
    columns = _columns(label=["x" * 80_000] * _ROWS)
    how = {"use_dictionary": False, "write_statistics": False, "data_page_size": 1 << 30}
    file = _write(path, columns, compression="zstd", write_batch_size=_ROWS, **how)
    about = pq.ParquetFile(file).metadata.row_group(0)
    content = file.read_bytes()
    start = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    footer = content[start:]
    for size in (about.total_byte_size, about.column(1).total_uncompressed_size):
        large = _number(size)
        assert large in footer
        footer = footer.replace(large, b"\x82" + b"\x80" * (len(large) - 2) + b"\0")
    file.write_bytes(content[:start] + footer)
    assert pq.ParquetFile(file).metadata.row_group(0).total_byte_size == 1
    return file


def test_a_footer_that_lies_is_not_believed(tmp_path: Path) -> None:
    file = _lying(tmp_path)
    assert file.stat().st_size < 20_000
    assert unpacked(file).bytes > 7_000_000
    with within(), pytest.raises(DataError, match="would unpack to 96 rows and 7,"):
        read_predictions(file, _BUDGET)


def test_a_file_that_was_fine_is_looked_at_again_when_it_is_another(tmp_path: Path) -> None:
    """What is remembered of a file and what it unpacks to are of one content."""
    file = _write(tmp_path, _columns())
    before = file.stat()
    assert [len(read_predictions(file, _BUDGET).ids) for _ in range(2)] == [_ROWS, _ROWS]
    tight = Budget(bytes=1 << 20, rows=_ROWS - 1, values=1_000_000)
    with pytest.raises(DataError, match="would unpack to"):
        read_predictions(file, tight)  # of a budget, too
    assert _lying(tmp_path) == file
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with within(), pytest.raises(DataError, match="would unpack to 96 rows and 7,"):
        read_predictions(file, _BUDGET)


def test_what_does_not_follow_from_headers_is_refused(tmp_path: Path) -> None:
    """By common beginnings a page of a few bytes is as long as its first text, a million times."""
    plain = dict.fromkeys((*_columns(),), "PLAIN") | {"label": "DELTA_BYTE_ARRAY"}
    file = _write(tmp_path, _columns(), use_dictionary=False, column_encoding=plain)
    with within(), pytest.raises(DataError, match="a page in encoding 7"):
        read_predictions(file)


def test_pages_are_counted_as_arrow_counts_them(tmp_path: Path) -> None:
    for number in (0, 1, 5000):
        file = _write(tmp_path, _columns(number), row_group_size=1000, data_page_size=100)
        found = unpacked(file)
        with pq.ParquetFile(file) as opened:
            groups = [opened.metadata.row_group(at) for at in range(opened.num_row_groups)]
        parts = [group.column(at) for group in groups for at in range(group.num_columns)]
        assert found.values >= sum(part.num_values for part in parts)
        assert found.bytes <= sum(part.total_uncompressed_size for part in parts)
        assert len(read_predictions(file)) == number


@pytest.mark.parametrize("size", [12, 13, 40, 400])
@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_headers_that_are_none_are_refused(tmp_path: Path, size: int, data: st.DataObject) -> None:
    inner = data.draw(st.binary(min_size=size - 12, max_size=size - 12))
    length = data.draw(st.sampled_from([size - 12, 0, 1, 2**31, 2**32 - 1]))
    file = tmp_path / "predictions.parquet"
    file.write_bytes(b"PAR1" + inner + struct.pack("<I", length) + b"PAR1")
    with within(), pytest.raises(DataError):
        read_predictions(file)


@pytest.mark.parametrize(("first", "again"), [(b"\x19", b"\x19"), (b"\x1c", b"\x1c")])
def test_headers_in_headers_end_somewhere(tmp_path: Path, first: bytes, again: bytes) -> None:
    footer = first + again * 5000  # a list of one list of one list …; a struct in a struct …
    path = tmp_path / "deep.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match="nested too deep"):
        unpacked(path)


def test_a_list_for_whose_sake_all_would_be_as_long_is_refused(tmp_path: Path) -> None:
    lengths = [1] * (_ROWS - 1) + [3_000_000]
    bounds = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    lists = {
        name: pa.ListArray.from_arrays(bounds, pa.array(np.zeros(sum(lengths), kind)))
        for name, kind in (("said", np.float32), ("which", np.int32))
    }
    about = {"names": ["a"], "sizes": {}, "nothing": [0.0], "scorer": "sum", "thresholds": {}}
    table = pa.table(_columns(**lists)).replace_schema_metadata(
        {b"kbench candidates": json.dumps({**about, "fallback": False}).encode()}
    )
    pq.write_table(table, tmp_path / "predictions.parquet", compression="zstd")
    with within(), pytest.raises(DataError, match="96 lists, one of them of 3,000,000 candidates"):
        read_predictions(tmp_path / "predictions.parquet")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("score", ["x"] * _ROWS),
        ("id", [*range(_ROWS)]),
        ("id", pa.array([0] * _ROWS, pa.timestamp("ns"))),
        ("label", [{"a": 1}] * _ROWS),
        ("label", [[["a"]]] * _ROWS),
        ("label", [b"\xff"] * _ROWS),
        ("label", [None] * _ROWS),
        ("prediction", pa.array([[("a", 1)]] * _ROWS, pa.map_(pa.string(), pa.int32()))),
        ("linked", [2] * _ROWS),
        ("degree", [1.5] * _ROWS),
        ("stratum", [1] * _ROWS),
        ("stratum", [*["a"] * (_ROWS - 1), None]),
        ("relation", [1] * _ROWS),
        ("injected", ["x"] * _ROWS),
        ("injected", [None] * _ROWS),
        ("in_context", ["x"] * _ROWS),
    ],
)
def test_a_column_of_another_type_is_refused(tmp_path: Path, name: str, values: Any) -> None:
    file = _write(tmp_path, _columns(**{name: values}))
    with pytest.raises(DataError, match=rf"cannot be read \(.*{name}|cannot be read \(.*list"):
        read_predictions(file)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table(_columns()).append_column("id", pa.array(["a"] * _ROWS))
    pq.write_table(table, tmp_path / "predictions.parquet")
    with pytest.raises(DataError, match="column id is there 2 times"):
        read_predictions(tmp_path / "predictions.parquet")


@pytest.mark.parametrize("metric", [MacroF1(), LamaPrecision()], ids=["classes", "strata"])
def test_a_table_over_many_classes_or_strata_is_not_made(metric: Any) -> None:
    many = [str(number) for number in range(20_000)]
    answers = stored.predictions(many, many)
    answers = type(answers)(**{**vars(answers), "strata": many})
    with within(), pytest.raises(KbenchError, match="20,000 examples of 20,000 classes or strata"):
        metric.measure(answers)


_BASE = "task: atlas-qa\nmethod: none\n"
_TEN = ",".join(["*a{0}"] * 10)


def _laughs(first: str, line: str) -> str:
    lines = [f"      l0: &a0 {first}"]
    lines += [f"      l{n}: &a{n} {line.replace('_', _TEN.format(n - 1))}" for n in range(1, 9)]
    return _BASE + "options:\n  method:\n    none:\n" + "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        _laughs("[x, x, x, x, x, x, x, x, x, x]", "[_]"),
        _laughs("{a: 1}", "{<<: [_]}"),
        _laughs("{a: 1}", "{" + ", ".join(f"k{n}: [_]" for n in range(3)) + "}"),
        _BASE + f"data: '{'x' * (5 << 20)}'",
        _BASE + "seed: 0-99999",
        _BASE + f"seed: [{', '.join(['0-19999'] * 1000)}]",
        _BASE + f"backbone: [{', '.join(f'b{n}' for n in range(500))}]\nseed: 0-99",
        _BASE + f"grids: [{', '.join(['{seed: 1}'] * 2000)}]",
        "task: atlas-qa\nmethod: map-tuning\nseed: 0-9\noptions: {method: {map-tuning: {general: "
        f"{{epochs: [{', '.join(map(str, range(1, 5000)))}]}}}}}}}}",
    ],
    ids=["lists", "merges", "mappings", "long", "range", "ranges", "axes", "parts", "sweep"],
)
def test_a_grid_is_of_so_many_runs_at_most(text: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with within(), pytest.raises((DataError, UsageError)) as caught:
        resolve(*make_grids(read_grid(path), "grid.yaml"), offline=True)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def test_a_grid_of_as_many_runs_as_may_be_is_one() -> None:
    grids = make_grids({"task": "t", "method": "m", "seed": f"0-{MOST_RUNS - 1}"}, "g")
    assert len(grids[0].seed) == MOST_RUNS


def test_an_alias_may_be_used_and_a_circle_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("task: [a]\nmethod: &m [none]\noptions: {method: {x: {y: *m}}}\n")
    assert make_grids(read_grid(path), "g")[0].options == {"method": {"x": {"y": ["none"]}}}
    path.write_text("task: [a]\nmethod: none\noptions: &o {method: {x: *o}}\n")
    with pytest.raises((DataError, UsageError)):
        make_grids(read_grid(path), "g")
    with pytest.raises(UsageError, match="would unpack to more"):
        set_option({}, f"method.none.x=[&a [{', '.join(['1'] * 500)}], {', '.join(['*a'] * 500)}]")


def _config(change: Callable[[dict[str, Any]], object] | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / "config.json"
        if isinstance(change, bytes):
            path.write_bytes(change)
            return
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return write


_DEEP = b'{"a":' * 3000 + b"1" + b"}" * 3000


@pytest.mark.parametrize(
    "write",
    [
        _config(lambda value: value.update(num_hidden_layers=10_000_000)),
        _config(lambda value: value.update(hidden_size=10**6)),
        _config(lambda value: value.update(intermediate_size=10**9)),
        _config(lambda value: value.update(vocab_size=10**8)),
        _config(_DEEP),
        _config(b"[" * 100_000),
        _config(b'{"model_type": "\xff"}'),
        _config(b"[1]"),
        _config(b"\0" * 100),
        lambda folder: (folder / "tokenizer.json").write_bytes(_DEEP),
    ],
    ids=["layers", "hidden", "inner", "words", "deep", "deeper", "utf", "list", "nul", "tokenizer"],
)
def test_a_model_is_no_larger_than_its_weights(
    write: Callable[[Path], object], toy_folder: Path, tmp_path: Path
) -> None:
    import shutil

    folder = Path(shutil.copytree(toy_folder / "bert", tmp_path / "bert"))
    write(folder)
    with within():
        with pytest.raises(KbenchError) as caught:
            load_folder(folder)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [_DEEP, b'{"model_type": "\xff"}', b"[1]", b"\0"])
def test_a_configuration_that_is_none_is_an_error_in_a_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(KbenchError, match=r"config\.json: "):
        _ = HuggingFaceBackbone(str(tmp_path)).left_to_right


def _result(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    told = stored.predictions(["a", "b"], ["a", "a"])
    path = folder / stored.store(folder, told).id / "result.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return path


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["metrics"].update({"m" * 100_000: v["metrics"]["accuracy"]}),
        lambda v: v.update(main_metric="m" * 100_000),
        lambda v: v["spec"].update(method="m" * 100_000),
        lambda v: v["spec"].update(options={"method": {"x": {"o" * 100_000: 1}}}),
        lambda v: v["spec"].update(options={"method": {"x": {f"o{n}": n for n in range(20_000)}}}),
        lambda v: v["spec"].update(options={"method": {"x": {"a": [0] * 100_000}}}),
        lambda v: v["spec"].update(options={"method": {"x": {"a": "o" * 100_000}}}),
        lambda v: v.update(training={"x": [[]] * 1_300_000}),
    ],
)
def test_names_and_options_of_a_result_have_a_budget(
    change: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    path = _result(tmp_path, change)
    with within(), pytest.raises(DataError, match=r"has (a name (or an option )?of )?more than"):
        read_result(path)
    with within(), pytest.warns(DamageWarning, match="left out"):
        assert [*Results(tmp_path)] == []


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("kind", ["pipe", "folder", "nothing", "cut off", "link to itself"])
def test_one_bad_folder_ends_no_command(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = ["a", "b"] * 20
    for method, guess in (("none", "a"), ("map-tuning", "b")):
        stored.store(tmp_path, stored.predictions(gold, [guess] * 40), method=method)
    bad = tmp_path / ("0" * 32)
    bad.mkdir()
    if kind == "pipe":
        os.mkfifo(bad / "result.json")
    elif kind == "folder":
        (bad / "result.json").mkdir()
    elif kind == "cut off":
        (bad / "result.json").write_text('{"schema": 1, "id": ')
    elif kind == "link to itself":
        (bad / "result.json").symlink_to(bad / "result.json")
    said = {}
    for verb in ("table", "compare map-tuning none", "diff map-tuning none", "score", "results ls"):
        with within():
            code, out, err = call(capsys, *verb.split(), "--out", str(tmp_path))
        assert code == 0, (verb, err)
        said[verb] = out + err
    assert "0" * 12 in said["results ls"]
    assert "unreadable" in said["results ls"]
    assert "left out" in said["table"]


def test_a_pipe_is_no_file_to_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with within(5), pytest.raises(DataError, match="is no regular file"):
        read_json(tmp_path / "x.json", "anything")
