"""Files are the old ones or the new ones, never half; digests follow content."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kbench.data import files
from kbench.data.files import (
    atomic_folder,
    cache_home,
    canonical_digest,
    dump_yaml,
    file_digest,
    front_matter,
    load_json,
    parse_yaml,
    read_front_matter,
    read_yaml,
    write_bytes,
    write_json,
)
from kbench.errors import DataError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(value=json_values)
def test_a_digest_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    assert canonical_digest(value) == canonical_digest(reordered(value))


def test_a_digest_sees_values_types_and_nesting() -> None:
    values: list[Any] = [{}, [], None, 0, 0.0, "0", "", False, [0], [[0]], {"a": 0}, {"a": [0]}]
    values += [{"a": {"b": 0}}, {"b": 0, "a": 0}, [1, 2], [2, 1]]
    assert len({canonical_digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")], {1, 2}, b"x"])
def test_what_is_no_json_has_no_digest(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_digest(value)


@given(value=json_values)
def test_any_json_value_comes_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert load_json(path) == value


def test_half_a_surrogate_pair_does_not_stop_a_result_from_being_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"reason": "no file \udcff\U0001f600"})
    assert load_json(tmp_path / "a") == {"reason": "no file \udcff\U0001f600"}


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"old")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    for step in ("fsync", "replace", "chmod"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, fail)
            with pytest.raises(OSError, match="disk full"):
                write_bytes(path, b"new")
        assert path.read_bytes() == b"old"
        assert inside(path.parent) == ["file"]
    with pytest.raises(ValueError):
        write_json(path, float("nan"))
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [False, True])
def test_a_folder_whose_making_fails_stays_as_it_was(
    tmp_path: Path, error: type[BaseException], before: bool
) -> None:
    target = tmp_path / "target"
    if before:
        target.mkdir()
        (target / "old").write_text("old")

    def make() -> None:
        with atomic_folder(target) as scratch:
            (scratch / "new").write_text("half")
            raise error

    with pytest.raises(error):
        make()
    left = [name for name in inside(tmp_path) if not name.endswith(".lock")]
    assert left == (["target"] if before else [])
    assert not before or (target / "old").read_text() == "old"


def test_a_folder_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for content in ("one", "two"):
        with atomic_folder(target) as scratch:
            (scratch / content).write_text(content)
            (scratch / "inner").mkdir()
            (scratch / "inner" / "file").write_text(content)
            assert not (target / content).exists()
        assert inside(target) == sorted(["inner", content])
        assert (target / "inner" / "file").read_text() == content
    assert [n for n in inside(tmp_path) if not n.endswith(".lock")] == ["target"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_put_in_place_gives_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    with atomic_folder(target) as scratch:
        (scratch / "old").write_text("old")
    plain = os.replace

    def replace(source: Any, to: Any) -> None:
        if ".tmp-" in str(source):
            raise OSError("no")
        plain(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(OSError, match="no"), atomic_folder(target) as scratch:
            (scratch / "new").write_text("new")
    assert inside(target) == ["old"]
    assert [n for n in inside(tmp_path) if not n.endswith(".lock")] == ["target"]


def test_writers_of_one_folder_take_turns(tmp_path: Path) -> None:
    target, inside_now, most = tmp_path / "target", [], []

    def write(number: int) -> None:
        with atomic_folder(target) as scratch:
            inside_now.append(number)
            most.append(len(inside_now))
            (scratch / "number").write_text(str(number))
            inside_now.remove(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert int((target / "number").read_text()) in range(6)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_small_file_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"a", b"b"):
        path.write_bytes(content)
        assert file_digest(path) == sha256(content)
    assert not cache_home().exists()


def test_a_large_file_is_read_once_until_it_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_BLOCK", 1)
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100)
    assert file_digest(path) == sha256(b"a" * 100)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_sha256", lambda path: "read again")
        assert file_digest(path) == sha256(b"a" * 100)
    stamp = path.stat()
    path.write_bytes(b"b" * 100)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # a clock set back
    assert file_digest(path) == sha256(b"b" * 100)


@pytest.mark.parametrize("memo", ["", "{", "[]", '{"sha": 1}'])
def test_a_damaged_memory_of_a_digest_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memo: str
) -> None:
    monkeypatch.setattr(files, "_BLOCK", 1)
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100)
    file_digest(path)
    (stored,) = (cache_home() / "digests").iterdir()
    stored.write_text(memo)
    assert file_digest(path) == sha256(b"a" * 100)
    assert json.loads(stored.read_text())["sha256"] == sha256(b"a" * 100)


def test_a_cache_that_cannot_be_written_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_BLOCK", 1)
    (tmp_path / "wall").write_text("a file where the cache should be")
    monkeypatch.setenv("KBENCH_CACHE", str(tmp_path / "wall"))
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100)
    assert file_digest(path) == sha256(b"a" * 100)


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KBENCH_CACHE", "~/x")
    assert cache_home() == Path.home() / "x"
    monkeypatch.delenv("KBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_home() == tmp_path / "kbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_home() == Path.home() / ".cache" / "kbench"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("task: a\nmethod: b\ntask: c\n", 3),
        ("task: a\n'task': a\n", 2),
        ("options:\n  x:\n    a: 1\n    b: 2\n    a: 1\n", 5),
        ("a: {b: 1, c: 2, b: 3}\n", 1),
        ("- {1: a, 0x1: b}\n", 1),
        ("base: &base {a: 1}\nown:\n  <<: *base\n  <<: *base\n", 4),
        ("base: &base\n  a: 1\n  a: 2\nown:\n  <<: *base\n", 3),
        ("true: a\nTRUE: b\n", 2),
    ],
)
def test_a_key_twice_in_a_yaml_mapping_is_an_error_with_its_line(
    text: str, line: int, tmp_path: Path
) -> None:
    with pytest.raises(yaml.YAMLError, match="is there twice, first in line"):
        parse_yaml(text)
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=f"grid.yaml, line {line}: key .* is there twice"):
        read_yaml(path, "a grid")


def test_what_a_merge_brings_in_may_be_said_otherwise() -> None:
    text = "z: &z {a: 1, b: 1}\ny: &y {<<: *z, b: 2, c: 2}\nx: {<<: [*y, *z], c: 3}\nw: {<<: *y}\n"
    assert parse_yaml(text) == {
        "z": {"a": 1, "b": 1},
        "y": {"a": 1, "b": 2, "c": 2},
        "x": {"a": 1, "b": 2, "c": 3},
        "w": {"a": 1, "b": 2, "c": 2},
    }
    assert parse_yaml("[{a: 1}, {a: 2}]") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2.e+3", -2e3),
        (".5e1", 5.0),
        ("[1e-3, '1e-3']", [1e-3, "1e-3"]),
        ("'1e-4'", "1e-4"),
        ("1e-4x", "1e-4x"),
        ("e5", "e5"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("007.5", 7.5),
        ("-.inf", float("-inf")),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("no", "no"),
        ("True", True),
        ("~", None),
        ("'010'", "010"),
        ("'yes'", "yes"),
    ],
)
def test_plain_words_are_read_by_the_core_schema(text: str, value: Any) -> None:
    found = parse_yaml(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)
    assert parse_yaml(dump_yaml([value])) == [value]


@pytest.mark.parametrize("text", ["", "# A page\n\n---\n\nMore of it.\n"])
def test_what_stands_before_a_page_is_read_again(text: str, tmp_path: Path) -> None:
    head = {"title": "A: b\n---\n", "tags": ["x", "y"], "number": 3, "default": False}
    path = tmp_path / "README.md"
    path.write_text(front_matter(head, text), encoding="utf-8")
    assert read_front_matter(path) == head
    assert path.read_text(encoding="utf-8").endswith(text or "---\n")


@pytest.mark.parametrize(
    "content", [b"", b"---", b"# A page", b"---\n[\n---\n", b"---\n- a\n---\n", b"---\n\xff\n---\n"]
)
def test_a_page_with_nothing_before_it_says_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    assert read_front_matter(path) == {}
    path.write_bytes(content)
    assert read_front_matter(path) == {}
