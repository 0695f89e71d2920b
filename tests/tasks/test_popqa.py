from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError
from kbench_tasks.popqa import STRATA, PopQA, stratum

Write = Callable[[str, Any], Path]

RANKIN: dict[str, str] = {
    "id": "4222362",
    "subj": "George Rankin",
    "prop": "occupation",
    "obj": "politician",
    "subj_id": "1850297",
    "prop_id": "22",
    "obj_id": "2834605",
    "s_aliases": '["George James Rankin"]',
    "o_aliases": '["political leader"]',
    "s_uri": "http://www.wikidata.org/entity/Q5543720",
    "o_uri": "http://www.wikidata.org/entity/Q82955",
    "s_wiki_title": "George Rankin",
    "o_wiki_title": "Politician",
    "s_pop": "142",
    "o_pop": "25692",
    "question": "What is George Rankin's occupation?",
    "possible_answers": '["politician", "political leader", "pol"]',
}
CAPITAL = {
    **RANKIN,
    "subj": "What",
    "s_uri": "http://www.wikidata.org/entity/Q2",
    "question": "What is What the capital of?",
    "s_pop": "123456",
    "possible_answers": '["Rome\\t"]',
}
LOOSE = {**RANKIN, "subj": "Up", "question": "Who directed Up?", "s_pop": "9"}
UNCLEAR = {**RANKIN, "subj": "is", "question": "What is this"}
ABSENT = {**RANKIN, "subj": "Rankin, George"}
BLANK = {**RANKIN, "subj": ""}
ALL = {"dev_share": 0}


def table(*rows: dict[str, str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*RANKIN], delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def test_an_example(write: Write, tmp_path: Path) -> None:
    write("PopQA/popQA.tsv", table(RANKIN, CAPITAL, LOOSE, UNCLEAR, ABSENT, BLANK))
    task = PopQA(str(tmp_path), ALL)
    rankin, capital, loose = task.examples(Split.TEST)
    assert rankin.id == "popqa/0"
    assert rankin.text == "What is George Rankin's occupation? "
    assert rankin.blank == len(rankin.text)
    assert rankin.mentions == (Mention(8, 21, "Q5543720", Role.TARGET),)
    assert rankin.label == ("politician", "political leader", "pol")
    assert [e.stratum for e in (rankin, capital, loose)] == ["pop_1e2", STRATA[4], STRATA[0]]
    # The template tells the subject from the question word; without one it must occur once.
    assert capital.mentions[0].start == 8
    assert capital.label == ("Rome\t",)
    assert loose.text[loose.mentions[0].start :] == "Up? "
    # What is left out counts among all of its split.
    assert task.counts == {
        "questions": 6,
        "questions_without_subject": 3,
        "dev_total": 0,
        "test_total": 6,
    }
    assert (task.tuning, task.linking) == ("frozen", "gold")


def test_popularity_is_told_in_powers_of_ten() -> None:
    bounds = {0: 0, 9: 0, 99: 0, 100: 1, 999: 1, 1000: 2, 9999: 2, 10_000: 3, 99_999: 3, 10**5: 4}
    assert {views: STRATA.index(stratum(views)) for views in bounds} == bounds
    assert stratum(10**8) == STRATA[4]
    names = [metric.name for metric in PopQA.metrics]
    assert names == ["accuracy", *(f"accuracy_{name}" for name in STRATA)]


def test_subjects_are_in_dev_or_in_test(write: Write, tmp_path: Path) -> None:
    entities = [f"http://www.wikidata.org/entity/Q{1 + n // 2}" for n in range(200)]
    write("popQA.tsv", table(*({**RANKIN, "s_uri": entity} for entity in entities)))
    task = PopQA(str(tmp_path))
    dev, test = (
        {e.mentions[0].entity for e in task.examples(split)} for split in (Split.DEV, Split.TEST)
    )
    assert not dev & test
    assert len(dev | test) == 100
    assert 3 <= len(dev) <= 20
    assert task.examples(Split.TRAIN) == ()


@pytest.mark.usefixtures("hub")
def test_the_hub_gives_the_same(write: Write, tmp_path: Path) -> None:
    write("files/test.tsv", table(RANKIN, CAPITAL, LOOSE))
    rows = [{**row, "s_pop": int(row["s_pop"])} for row in (RANKIN, CAPITAL, LOOSE)]
    write("hub/test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert PopQA(f"hf:{tmp_path / 'hub'}").digest == PopQA(str(tmp_path / "files")).digest


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is empty"),
        (table(), "has no row"),
        (table(RANKIN)[:-20], "is no table, or is cut off: unexpected end of data"),
        (table(RANKIN, LOOSE)[:-240], "line 3: has 6 cells, not 17"),
        (table(RANKIN).replace("possible_answers", "answers"), "has no key 'possible_answers'"),
        (table({**RANKIN, "possible_answers": '["a", "b'}), "possible_answers is no JSON list"),
        (table({**RANKIN, "possible_answers": "politician"}), "possible_answers is no JSON list"),
        (table({**RANKIN, "possible_answers": "[]"}), "is no JSON list with content"),
        (table({**RANKIN, "possible_answers": '{"a": 1}'}), "is no JSON list with content"),
        (table({**RANKIN, "possible_answers": "[1]"}), "has an item that is no text, or empty"),
        (table({**RANKIN, "possible_answers": '[" "]'}), "has an item that is no text, or empty"),
        (table({**RANKIN, "s_pop": "many"}), "line 2: s_pop is text, not integer"),
        (table({**RANKIN, "s_pop": "-4"}), "line 2: s_pop is -4, below 0"),
        (table({**RANKIN, "s_uri": "http://x/12"}), "which ends in no Wikidata id"),
        (table({**RANKIN, "subj": "Zo\xeb"}).encode("latin-1"), "line 2: is not UTF-8"),
        (table(RANKIN).encode("utf-16"), "line 1: is not UTF-8 .byte 0xff"),
    ],
)
def test_malformed_files(write: Write, tmp_path: Path, content: Any, problem: str) -> None:
    write("popQA.tsv", content)
    told(tmp_path, problem)


def test_a_folder_instead_of_a_file_and_no_file(tmp_path: Path) -> None:
    told(tmp_path, r"popQA\.tsv: does not exist")
    (tmp_path / "popQA.tsv").mkdir()
    told(tmp_path, r"popQA\.tsv: is a folder")


def told(folder: Path, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        PopQA(str(folder)).examples(Split.TEST)
    assert "\n" not in str(caught.value)
    assert "; expected " in str(caught.value)
