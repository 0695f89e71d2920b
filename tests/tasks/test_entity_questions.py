from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError, UsageError
from kbench_tasks.entity_questions import EntityQuestions

Write = Callable[[str, Any], Path]

TEMPLATES = {
    "P17": "Which country is [X] located in?",
    "P40": "Who is [X]'s child?",
    "P40_similar": "Who is the child of [X]?",
}
COUNTRY = [
    {"question": "Which country is Grímsstaðir located in?", "answers": ["Iceland"]},
    {"question": "In which country is Detroit?", "answers": ["United States of America"]},
    {"question": "Which country is Painblanc located in?", "answers": ["France", "Gaul"]},
]
CHILD = [{"question": "Who is Agatha Christie's child?", "answers": ["Rosalind Hicks"]}]


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> str:
    write("relation_query_templates.json", TEMPLATES)
    for split in Split:
        write(f"{split}/P17.{split}.json", COUNTRY)
        write(f"{split}/P40.{split}.json", CHILD)
    return str(tmp_path)


def test_an_example(folder: str) -> None:
    task = EntityQuestions(folder)
    examples = task.examples(Split.TEST)
    # Relations take turns; record 1 does not fit its template.
    assert [e.id for e in examples] == ["P17/test/0", "P40/test/0", "P17/test/2"]
    first, _, last = examples
    assert first.text == "Which country is Grímsstaðir located in? "
    assert first.blank == len(first.text)
    assert first.mentions == (Mention(17, 28, None, Role.TARGET),)
    assert first.text[17:28] == "Grímsstaðir"
    assert last.label == ("France", "Gaul")
    assert task.linking == "title"
    assert task.counts == {"test_total": 4, "test_template_mismatch": 1}


@pytest.mark.parametrize(
    ("question", "fits"),
    [
        ("Who is O's child?", True),
        ("Who is 's child?", False),
        ("Who is  's child?", False),
        ("Who is  Ann's child?", False),
        ("who is Ann's child?", False),
        ("Who is Ann's child? ", False),
        ("", False),
        ("Who is Who is Ann's child?'s child?", True),
    ],
)
def test_what_fits_a_template(write: Write, folder: str, question: str, fits: bool) -> None:
    write("train/P40.train.json", [{"question": question, "answers": ["Bob"]}])
    task = EntityQuestions(folder, {"relations": "P40"})
    assert len(task.examples(Split.TRAIN)) == fits
    assert task.counts == {"train_total": 1, "train_template_mismatch": 1 - fits}


def test_relations_can_be_chosen(folder: str) -> None:
    task = EntityQuestions(folder, {"relations": " P40, "})
    assert [e.id for e in task.examples(Split.DEV)] == ["P40/dev/0"]
    for wrong, problem in {"P4O": r"'P4O'; did you mean P40", ",": "','"}.items():
        with pytest.raises(UsageError, match=f"has no relation {problem}"):
            EntityQuestions(folder, {"relations": wrong}).examples(Split.DEV)


def test_the_published_templates_stand_in(folder: str) -> None:
    (Path(folder) / "relation_query_templates.json").unlink()
    assert len(EntityQuestions(folder).examples(Split.DEV)) == 3


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1]", r"templates\.json: is not a JSON object"),
        ('{"P17": "Which country?"}', r"P17 is 'Which country\?'; expected"),
        ('{"P17": 17}', "P17 is 17; expected"),
        ('{"P17": "[X] [X]"}', "P17 is .* with one"),
        ('{"P17": "W', r"templates\.json, line 1: is not JSON, or is cut off"),
        ("{}", "has questions of relation P17, which has no template"),
    ],
)
def test_malformed_templates(write: Write, folder: str, content: str, problem: str) -> None:
    write("relation_query_templates.json", content)
    with pytest.raises(DataError, match=problem):
        EntityQuestions(folder).examples(Split.DEV)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"question": "Which country?"}, "has no key 'answers'"),
        ({"question": "Which country?", "answers": "France"}, "answers is text, not list"),
        ({"question": "Which country?", "answers": []}, "has an empty answer, or none"),
        ({"question": "Which country?", "answers": [" "]}, "has an empty answer, or none"),
        ({"question": None, "answers": ["France"]}, "question is null, not text"),
    ],
)
def test_a_malformed_record(write: Write, folder: str, row: dict[str, Any], problem: str) -> None:
    write("dev/P17.dev.json", [*COUNTRY, row])
    with pytest.raises(DataError, match=rf"P17\.dev\.json, record 3: {problem}; expected"):
        EntityQuestions(folder).examples(Split.DEV)


def test_a_relation_must_have_all_its_splits(folder: str, tmp_path: Path) -> None:
    (Path(folder) / "test" / "P40.test.json").unlink()
    with pytest.raises(DataError, match=r"P40\.test\.json: does not exist; expected"):
        EntityQuestions(folder).examples(Split.TEST)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no question file; expected .*P17\.train\.json"):
        EntityQuestions(str(tmp_path / "empty")).examples(Split.TEST)


def test_json_lines_read_alike(write: Write, folder: str, tmp_path: Path) -> None:
    for split in Split:
        for relation, rows in (("P17", COUNTRY), ("P40", CHILD)):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write(f"lines/{split}/{relation}.{split}.jsonl", text)
    assert EntityQuestions(str(tmp_path / "lines")).digest == EntityQuestions(folder).digest


@pytest.mark.usefixtures("hub")
def test_the_hub_gives_the_same(write: Write, folder: str, tmp_path: Path) -> None:
    rows = [{**row, "relation": "P17"} for row in COUNTRY]
    rows += [{**row, "relation": "P40"} for row in CHILD]
    for split in ("train", "validation", "test"):
        write(f"hub/{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    address = f"hf:{tmp_path / 'hub'}"
    assert EntityQuestions(address).digest == EntityQuestions(folder).digest
    with pytest.raises(DataError, match="has no dev question of P19"):
        EntityQuestions(address, {"relations": "P17,P19"}).examples(Split.DEV)


def test_the_real_files(real_data: Callable[[str], str]) -> None:
    task = EntityQuestions(real_data("entityquestions"))
    assert [len(task.load(split)) for split in (Split.DEV, Split.TEST)] == [22_068, 22_075]
    counts = Counter(example.id.split("/")[0] for example in task.examples(Split.TEST))
    fewer = {"P112": 510, "P170": 870, "P36": 886, "P407": 646, "P740": 942, "P800": 221}
    assert len(counts) == 24
    assert counts == dict.fromkeys(counts, 1000) | fewer
    assert task.counts["test_template_mismatch"] == task.counts["dev_template_mismatch"] == 0


def test_the_real_training_file_of_one_relation(real_data: Callable[[str], str]) -> None:
    task = EntityQuestions(real_data("entityquestions"), {"relations": "P800"})
    assert len(task.examples(Split.TRAIN)) == 1763
