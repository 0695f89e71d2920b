"""Every task from files says in one line what is wrong with a file, and where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Split
from kbench.errors import DataError
from kbench.task import Task
from kbench_tasks.fewrel_80way import FewRel80Way
from kbench_tasks.figer import Figer
from kbench_tasks.open_entity import OpenEntity
from kbench_tasks.tacred import Tacred
from kbench_tasks.wiki80 import Wiki80
from kbench_tasks.wiki_et import WikiET
from tests.tasks import test_fewrel_80way, test_figer, test_tacred, test_wiki80, test_wiki_et

Write = Callable[[str, Any], Path]
Rows = list[dict[str, Any]]

LAYOUTS: dict[str, tuple[type[Task], str, Rows, bool]] = {
    "open-entity": (OpenEntity, "{}.json", [test_figer.ROW], False),
    "figer": (Figer, "{}.json", [test_figer.ROW, test_figer.PLACE], False),
    "wiki-et": (WikiET, "{}.json", [test_wiki_et.ADA, test_wiki_et.LONDON], True),
    "wiki80": (Wiki80, "wiki80_{}.txt", test_wiki80.TRAIN, True),
    "fewrel-80way": (
        FewRel80Way,
        "{}.json",
        [test_fewrel_80way.ROW, test_fewrel_80way.BORN],
        False,
    ),
    "tacred": (Tacred, "{}.json", [test_tacred.ROW, test_tacred.NONE], False),
}
"""Class, names of the files, records, and whether they are JSON Lines."""


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, write: Write) -> tuple[type[Task], str, Rows, bool]:
    kind, names, rows, in_lines = LAYOUTS[request.param]
    for split in Split:
        write(names.format(split), text(rows, in_lines))
    return kind, names, rows, in_lines


def text(rows: Rows, in_lines: bool) -> str:
    if in_lines:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return json.dumps(rows, ensure_ascii=False)


def error(kind: type[Task], folder: Path, split: Split) -> str:
    with pytest.raises(DataError) as caught:
        kind(str(folder)).examples(split)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert "; expected " in message
    return message


def test_a_sound_layout_loads(layout: Any, tmp_path: Path) -> None:
    kind, _, rows, _ = layout
    task = kind(str(tmp_path))
    assert [len(task.examples(split)) for split in Split] == [len(rows)] * 3
    assert task.counts["test_total"] == len(rows)


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
def test_a_file_that_is_none(layout: Any, write: Write, tmp_path: Path, split: Split) -> None:
    kind, names, rows, in_lines = layout
    path = tmp_path / names.format(split)
    sound = text(rows, in_lines)
    for content, problem in [
        (sound[:-5], "is not JSON, or is cut off"),
        ("", "is empty"),
        ("relation\tsentence\n", "is not JSON, or is cut off"),
        (sound.replace("e", "\xe9").encode("latin-1"), "is not UTF-8 (byte 0xe9)"),
        (sound.encode("utf-16"), "is not UTF-8 (byte 0xff)"),
    ]:
        write(path.name, content)
        assert problem in error(kind, tmp_path, split)
    path.unlink()
    path.mkdir()
    assert f"{path}: is a folder" in error(kind, tmp_path, split)


def test_every_key_is_missed(layout: Any, write: Write, tmp_path: Path) -> None:
    kind, names, rows, in_lines = layout
    unread = {"docid", "subj_type", "obj_type", "stanford_pos"}
    for key in rows[-1].keys() - unread:
        short = {name: value for name, value in rows[-1].items() if name != key}
        write(names.format("train"), text([*rows, short], in_lines))
        place = f"line {len(rows) + 1}" if in_lines else f"record {len(rows)}"
        assert f"{place}: has no key {key!r}" in error(kind, tmp_path, Split.TRAIN)


@pytest.mark.parametrize("split", [Split.DEV, Split.TEST])
def test_a_label_that_train_does_not_have(
    layout: Any, write: Write, tmp_path: Path, split: Split
) -> None:
    kind, names, rows, in_lines = layout
    key = next(key for key in ("relation", "label", "labels") if key in rows[0])
    wrong = {key: ["alien"] if key == "labels" else "alien"}
    write(names.format(split), text([*rows, {**rows[0], **wrong}], in_lines))
    assert "'alien' is none of those in train (" in error(kind, tmp_path, split)
