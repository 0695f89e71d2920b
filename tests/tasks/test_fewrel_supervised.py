from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError, UsageError
from kbench_tasks.fewrel_supervised import FewRelSupervised

Write = Callable[[str, Any], Path]
Groups = dict[str, list[dict[str, Any]]]


def sentence(number: int) -> dict[str, Any]:
    return {
        "tokens": ["In", str(number), "the", "River", "Wye", "met", "\xa0", "Wilton", "."],
        "h": ["wilton", f"Q{number}", [[7]]],
        "t": ["river wye", "Q19", [[3, 4], [0]]],
    }


@pytest.fixture
def groups() -> Groups:
    return {
        "P206": [sentence(n) for n in range(20)],
        "P177": [sentence(n) for n in range(20, 30)],
    }


def ids(task: FewRelSupervised) -> list[list[str]]:
    return [[example.id for example in task.examples(split)] for split in Split]


def test_an_example(write: Write, tmp_path: Path, groups: Groups) -> None:
    write("val_wiki.json", groups)
    task = FewRelSupervised(str(tmp_path))
    found = {e.id: e for split in Split for e in task.examples(split)}
    example = found["val_wiki/P206/3"]
    assert example.text == "In 3 the River Wye met \xa0 Wilton ."
    assert example.label == "P206"
    assert example.mentions == (
        Mention(25, 31, "Q3", Role.HEAD),
        Mention(9, 18, "Q19", Role.TAIL),
    )
    assert [example.text[m.start : m.end] for m in example.mentions] == ["Wilton", "River Wye"]
    assert task.labels == ("P177", "P206")


def test_every_relation_is_split_by_itself(write: Write, tmp_path: Path, groups: Groups) -> None:
    write("val_wiki.json", groups)
    task = FewRelSupervised(str(tmp_path))
    train, dev, test = (Counter(e.label for e in task.examples(split)) for split in Split)
    assert train == {"P206": 14, "P177": 7}
    assert dev == {"P206": 2, "P177": 1}
    assert test == {"P206": 4, "P177": 2}
    assert task.counts == {"train_total": 21, "dev_total": 3, "test_total": 6}
    everything = [name for part in ids(task) for name in part]
    assert len(set(everything)) == 30


def test_the_split_hangs_on_the_seed_alone(write: Write, tmp_path: Path, groups: Groups) -> None:
    write("a/val_wiki.json", groups)
    write("b/val_wiki.json", dict(reversed(groups.items())))
    first = ids(FewRelSupervised(str(tmp_path / "a")))
    assert first == ids(FewRelSupervised(str(tmp_path / "b")))
    assert first != ids(FewRelSupervised(str(tmp_path / "a"), {"split_seed": 1}))
    # Written down, so that no change of Python or kbench moves a sentence unseen.
    assert first[1] == ["val_wiki/P177/7", "val_wiki/P206/7", "val_wiki/P206/6"]
    with pytest.raises(UsageError, match=r"split_seed is '1\.5'; expected a whole"):
        FewRelSupervised(str(tmp_path / "a"), {"split_seed": "1.5"})


def test_another_file(write: Write, tmp_path: Path, groups: Groups) -> None:
    write("val_pubmed.json", groups)
    task = FewRelSupervised(str(tmp_path), {"file": "val_pubmed.json"})
    assert task.examples(Split.DEV)[0].id.startswith("val_pubmed/")
    with pytest.raises(DataError, match=r"val_wiki\.json: does not exist; expected a JSON object"):
        FewRelSupervised(str(tmp_path)).examples(Split.DEV)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"h": ["wilton", "Q1", []]}, "the head names no token"),
        ({"t": ["wilton", "Q1", [[]]]}, "the tail names no token"),
        ({"h": ["wilton", "Q1", [[8, 9]]]}, "the head is tokens 8 to 9 of 9"),
        ({"h": ["wilton", "Q1", [[-1]]]}, "the head is tokens -1 to -1 of 9"),
        ({"h": ["wilton", "Q1"]}, "h has 2 items, not 3"),
        ({"h": ["wilton", None, [[1]]]}, r"h\[1\] is null, not text"),
        ({"h": ["wilton", "Q1", [7]]}, r"h\[2\]\[0\] is integer, not list"),
        ({"tokens": "In 1938"}, "tokens is text, not list"),
        ({"tokens": ["", "b"], "h": ["", "Q1", [[0]]]}, "the head is .*no span"),
    ],
)
def test_a_malformed_record(
    write: Write, tmp_path: Path, groups: Groups, change: dict[str, Any], problem: str
) -> None:
    groups["P177"][2] |= change
    write("val_wiki.json", groups)
    place = r"val_wiki\.json, P177 record 2"
    with pytest.raises(DataError, match=rf"{place}: {problem}.*; expected \{{tokens: "):
        FewRelSupervised(str(tmp_path)).examples(Split.TRAIN)


def test_too_few_sentences(write: Write, tmp_path: Path) -> None:
    write("val_wiki.json", {"P177": [sentence(1), sentence(2)]})
    with pytest.raises(DataError, match=r"nothing is left for dev, test; expected at least 10"):
        FewRelSupervised(str(tmp_path)).examples(Split.TRAIN)


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.usefixtures("hub")
def test_the_hub_gives_the_same(write: Write, tmp_path: Path, groups: Groups) -> None:
    def struct(entity: list[Any]) -> dict[str, Any]:
        return dict(zip(("text", "type", "indices"), entity, strict=True))

    flat = [{"relation": name, **row} for name, rows in groups.items() for row in rows]
    few_rel = [
        {
            "relation": row["relation"],
            "tokens": row["tokens"],
            "head": struct(row["h"]),
            "tail": struct(row["t"]),
            "names": ["", ""],
        }
        for row in flat
    ]
    write("folder/test.json", groups)
    write("flat/test.jsonl", lines(flat))
    write("few_rel/test.jsonl", lines(few_rel))
    option = {"file": "test.json"}
    digests = {
        FewRelSupervised(f"{prefix}{tmp_path / name}", option).digest
        for prefix, name in (("", "folder"), ("hf:", "flat"), ("hf:", "few_rel"))
    }
    assert len(digests) == 1


def test_the_real_file(real_data: Callable[[str], str]) -> None:
    task = FewRelSupervised(real_data("fewrel"))
    assert len(task.labels) == 16
    for split, each in zip(Split, (490, 70, 140), strict=True):
        counts = Counter(example.label for example in task.examples(split))
        assert counts == dict.fromkeys(task.labels, each)
    assert task.counts == {"train_total": 7840, "dev_total": 1120, "test_total": 2240}
