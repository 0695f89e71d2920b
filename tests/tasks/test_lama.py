from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError, UsageError
from kbench.task import Task
from kbench_tasks.lama import Lama

Write = Callable[[str, Any], Path]

BORN = {"relation": "P19", "template": "[X] was born in [Y] .", "label": "place of birth"}
CAPITAL = {"relation": "P36", "template": "[Y] is the capital of [X] .", "type": "1-1"}
ABSENT = {"relation": "P99", "template": "[X] is [Y] ."}
RELATIONS = [BORN, CAPITAL, ABSENT]
ADA: dict[str, Any] = {
    "uuid": "0",
    "obj_uri": "Q84",
    "obj_label": "London",
    "sub_uri": "Q7259",
    "sub_label": "Ada Lovelace",
    "predicate_id": "P19",
    "evidences": [{"masked_sentence": "Ada Lovelace was born in [MASK]."}],
}
AGAIN = {**ADA, "uuid": "1", "evidences": []}
FRANCE = {**ADA, "sub_uri": "Q142", "sub_label": "France", "obj_label": "Paris"}
PAUL: dict[str, Any] = {
    "pred": "/people/person/place_of_birth",
    "sub_w": "Q1",
    "sub_label": "Paul",
    "obj_label": "Rome",
    "judgments": [{"rater": "1", "judgment": "yes"}, {"rater": "2", "judgment": "no"}],
}
UNKNOWN = {**PAUL, "sub_w": None, "sub_label": "Nobody", "judgments": []}
WRONG = {**PAUL, "sub_label": "Wrong", "judgments": [{"rater": "1", "judgment": "no"}]}
ALL = {"dev_share": 0}


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> str:
    write("relations.jsonl", RELATIONS)
    write("TREx/P19.jsonl", [ADA, AGAIN])
    write("TREx/P36.jsonl", [FRANCE])
    write("TREx_UHN/P36.jsonl", [FRANCE])
    write("Google_RE/place_of_birth_test.jsonl", [PAUL, UNKNOWN, WRONG])
    write("Google_RE/date_of_birth_test.jsonl", [{**PAUL, "obj_label": "1941"}])
    return str(tmp_path)


def read(folder: str, **options: Any) -> tuple[Lama, Any]:
    task = Lama(folder, {**ALL, **options})
    return task, task.examples(Split.TEST)


def test_an_example_is_its_template_with_a_gap_for_the_object(folder: str) -> None:
    task, (born, capital) = read(folder)
    assert born.id == "P19/0"
    assert born.text == "Ada Lovelace was born in  ."
    assert born.text[: born.blank] == "Ada Lovelace was born in "
    assert born.mentions == (Mention(0, 12, "Q7259", Role.TARGET),)
    assert (born.label, born.stratum) == (("London",), "P19")
    assert (capital.text, capital.blank) == (" is the capital of France .", 0)
    assert capital.mentions == (Mention(19, 25, "Q142", Role.TARGET),)
    assert capital.text[19:25] == "France"
    assert (task.tuning, task.linking, dict(task.markers)) == ("frozen", "gold", {})
    assert task.counts == {
        "facts_asked_before": 1,
        "facts_judged_wrong": 0,
        "relations": 2,
        "relations_without_file": 1,
    }


def test_signs_of_a_template_in_a_name_are_a_part_of_the_name(write: Write, folder: str) -> None:
    write("TREx/P36.jsonl", [{**FRANCE, "sub_label": "The [X] of [Y]"}])
    _, (_, capital) = read(folder)
    assert capital.text == " is the capital of The [X] of [Y] ."
    assert capital.text[capital.mentions[0].start : capital.mentions[0].end] == "The [X] of [Y]"


def test_google_re_has_templates_judges_and_subjects_without_an_id(folder: str) -> None:
    task, examples = read(folder, corpus="google-re")
    assert [e.text for e in examples] == [
        "Paul was born in  .",
        "Paul (born ).",
        "Nobody was born in  .",
    ]
    assert [e.mentions[0].entity for e in examples] == ["Q1", "Q1", None]
    assert [e.stratum for e in examples] == ["place_of_birth", "date_of_birth", "place_of_birth"]
    assert task.counts["facts_judged_wrong"] == 1
    assert task.counts["relations_without_file"] == 1


def test_the_corpus_is_an_option(folder: str) -> None:
    assert [e.id for e in read(folder, corpus="trex-uhn")[1]] == ["P36/0"]
    with pytest.raises(UsageError, match=r"corpus is 'terx'; expected trex or .* mean trex"):
        Lama(folder, {"corpus": "terx"})
    with pytest.raises(DataError, match=r"Google_RE_UHN: has no file of queries; expected place_"):
        read(folder, corpus="google-re-uhn")


def test_the_vocabulary_is_the_shared_one_if_it_is_there(write: Write, folder: str) -> None:
    task, _ = read(folder)
    assert task.vocabulary == ("London", "Paris")
    assert task.counts["object_vocabulary_words"] == 2
    assert [m.variant for m in task.metrics] == ["lama-p1:objects", "accuracy:any-answer"]
    write("common_vocab_cased.txt", "Paris\nRome\nBerlin\nRome\n\n")
    shared, _ = read(folder)
    assert shared.vocabulary == ("Berlin", "Paris", "Rome")
    assert shared.counts["shared_vocabulary_words"] == 3
    assert [m.variant for m in shared.metrics] == ["lama-p1", "accuracy:any-answer"]
    assert read(folder, vocabulary="objects")[0].vocabulary == task.vocabulary
    # Another vocabulary is another probe: other data, and another head on the same model.
    assert shared.digest != task.digest
    assert shared.form != task.form
    assert Lama.metrics[0].variant == "lama-p1"


@pytest.mark.parametrize("share", [-0.1, 1, "much", "nan"])
def test_a_share_that_is_none(folder: str, share: Any) -> None:
    with pytest.raises(UsageError, match=r"dev_share is .*; expected a number of at lea"):
        Lama(folder, {"dev_share": share})


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "relations.jsonl",
            [{**BORN, "template": "born in [Y] ."}],
            "the template 'born in",
        ),
        ("relations.jsonl", [{**BORN, "template": "[X] is ."}], "has not one .X. and one .Y."),
        ("relations.jsonl", [{**BORN, "template": "[X] [X] [Y]"}], "has not one .X. and one .Y."),
        ("relations.jsonl", [BORN, BORN], "record 1: has the relation P19, which another"),
        ("relations.jsonl", [{"relation": "P19"}], "record 0: has no key 'template'"),
        ("relations.jsonl", [ABSENT], "has no file of queries; expected P99.jsonl, …"),
        ("relations.jsonl", '{"relation": "P19", "templ', "line 1: is not JSON, or is cut off"),
        ("relations.jsonl", "", "is empty"),
        ("TREx/P19.jsonl", "", "is empty"),
        ("TREx/P19.jsonl", '{"sub_uri": "Q1",\n', "line 1: is not JSON, or is cut off"),
        ("TREx/P19.jsonl", [{**ADA, "obj_label": None}], "obj_label is null, not text"),
        ("TREx/P19.jsonl", [{**ADA, "obj_label": " "}], "has an empty subject or object"),
        ("TREx/P19.jsonl", [{**ADA, "sub_label": ""}], "has an empty subject or object"),
        ("TREx/P19.jsonl", [{**ADA, "judgments": 3}], "judgments is no list of"),
        ("TREx/P19.jsonl", '{"sub_label": "Zo\xeb"}'.encode("latin-1"), "is not UTF-8 .byte 0xeb"),
        ("TREx/P19.jsonl", "[]".encode("utf-16"), "is not UTF-8 .byte 0xff"),
        ("common_vocab_cased.txt", "\n", "is empty; expected one word a line"),
        ("common_vocab_cased.txt", b"Zo\xeb\n", "is not UTF-8"),
    ],
)
def test_malformed_files(write: Write, folder: str, name: str, content: Any, problem: str) -> None:
    write(name, content)
    assert_one_line(Lama(folder), problem)


@pytest.mark.parametrize("key", ["sub_uri", "sub_label", "obj_label"])
def test_every_key_is_missed(write: Write, folder: str, key: str) -> None:
    write("TREx/P19.jsonl", [{name: value for name, value in ADA.items() if name != key}])
    assert_one_line(Lama(folder), f"record 0: has no key '{key}'")


def test_an_id_of_google_re_is_text_or_null(write: Write, folder: str) -> None:
    write("Google_RE/place_of_birth_test.jsonl", [{**PAUL, "sub_w": 5}])
    assert_one_line(Lama(folder, {"corpus": "google-re"}), "sub_w is 5, neither text nor null")


@pytest.mark.parametrize("name", ["relations.jsonl", "TREx/P19.jsonl", "common_vocab_cased.txt"])
def test_a_folder_instead_of_a_file(folder: str, name: str) -> None:
    path = Path(folder) / name
    path.unlink(missing_ok=True)
    path.mkdir()
    assert_one_line(Lama(folder), f"{path.name}: is a folder")


@pytest.mark.parametrize("data", [None, "hf:facebook/lama"])
def test_it_is_read_from_a_folder_alone(data: str | None) -> None:
    with pytest.raises(UsageError, match="LAMA needs --data DIR, a folder in its own layout"):
        Lama(data).examples(Split.TEST)


def test_a_vocabulary_that_is_not_there(folder: str) -> None:
    assert_one_line(Lama(folder, {"vocabulary": "mine.txt"}), "mine.txt: does not exist")


def assert_one_line(task: Task, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        task.digest  # noqa: B018
    assert "\n" not in str(caught.value)
    assert "; expected " in str(caught.value)


def test_a_query_knows_the_other_objects_of_its_subject(write: Write, folder: str) -> None:
    other = {**ADA, "uuid": "2", "obj_label": "Marylebone"}
    write("TREx/P19.jsonl", [ADA, other, {**ADA, "sub_uri": "Q2", "obj_label": "Rome"}])
    task, examples = read(folder)
    labels = {example.id: example.label for example in examples}
    # Its own object is the first: P@1 of the release has no other.
    assert labels["P19/0"] == ("London", "Marylebone")
    assert labels["P19/1"] == ("Marylebone", "London")
    assert labels["P19/2"] == ("Rome",)
    said = ["London" if example.id.startswith("P19/") else "Paris" for example in examples]
    gold = [example.label for example in examples]
    p1, accuracy = (metric.score(gold, said) for metric in task.metrics)
    assert accuracy == pytest.approx(3 / 4)
    assert p1 < accuracy
    # The object of one template stands at the beginning, that of the other behind a blank.
    assert {example.before_blank for example in examples} == {"", " "}
