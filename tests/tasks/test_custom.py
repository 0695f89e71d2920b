from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError, UsageError
from kbench.grid.plan import Place
from kbench.model.heads import BlankHead, RelationHead, TypingHead
from kbench.parts.find import find_task
from kbench.results.tables import rows
from kbench.store import Results, Status
from kbench_tasks.custom import Custom
from tests.grid.toygrid import grid, run

Write = Callable[[str, Any], Path]

CARD = "title: Rivers\nfamily: relation classification\nlicence: CC0-1.0\n"
RELATION: dict[str, Any] = {
    "text": "The Wye flows through Wales .",
    "mentions": [
        {"start": 4, "end": 7, "entity": "Q19", "role": "head"},
        {"start": 22, "end": 27, "role": "tail"},
    ],
    "label": "flows through",
}
TYPES = {
    "text": "The Wye .",
    "mentions": [{"start": 4, "end": 7, "role": "target"}],
    "label": ["river", "water"],
}
QUESTION = {
    "text": "Where is the Wye ?",
    "mentions": [{"start": 13, "end": 16, "role": "target"}],
    "answers": ["wales", "uk"],
}


def lines(*records: Any) -> str:
    return "\n".join(map(json.dumps, records))


def given(write: Write, tmp_path: Path, card: str, *records: Any) -> str:
    """Writes a card and the same records for every split; returns the folder."""
    write("card.yaml", card)
    for split in Split:
        write(f"{split}.jsonl", lines(*records))
    return str(tmp_path)


def test_relations(write: Write, tmp_path: Path) -> None:
    other = {**RELATION, "id": "mine", "label": "lies in", "mentions": []}
    task = find_task("custom", given(write, tmp_path, CARD, RELATION, other))
    first, second = task.examples(Split.TEST)
    assert (first.id, second.id) == ("test/0", "mine")
    assert first.text == RELATION["text"]
    assert first.mentions == (Mention(4, 7, "Q19", Role.HEAD), Mention(22, 27, None, Role.TAIL))
    assert first.label == "flows through"
    assert (task.card.title, task.card.licence, task.card.revision) == ("Rivers", "CC0-1.0", "1")
    assert task.labels == ("flows through", "lies in")  # type: ignore[attr-defined]
    assert isinstance(task.head(8), RelationHead)
    assert [metric.name for metric in task.metrics] == ["accuracy"]
    assert task.counts["test_total"] == 2
    assert task.counts["test_mentions"] == 2
    assert task.counts["test_mentions_with_entity"] == 1


def test_types(write: Write, tmp_path: Path) -> None:
    card = (
        "title: Waters\nfamily: entity typing\nlicence: none\nrevision: 2\nlinking: title\n"
        "max_length: 32\nmarkers: {target: '#'}\ncitation: me\nsource: here\n"
    )
    task = Custom(given(write, tmp_path, card, TYPES))
    (example,) = task.examples(Split.DEV)
    assert example.label == ("river", "water")
    assert isinstance(task.head(8), TypingHead)
    assert task.main_metric.name == "micro_f1"
    assert (task.max_length, task.linking, task.markers) == (32, "title", {Role.TARGET: "#"})
    assert (task.card.revision, task.card.citation, task.card.source) == ("2", "me", "here")


def test_questions(write: Write, tmp_path: Path) -> None:
    inside = {**QUESTION, "text": "the Wye lies in .", "mentions": [], "blank": 16}
    card = "title: Where\nfamily: question answering\nlicence: none\n"
    task = Custom(given(write, tmp_path, card, QUESTION, inside))
    first, second = task.examples(Split.TRAIN)
    assert (first.text, first.blank) == ("Where is the Wye ? ", 19)
    assert (second.text, second.blank) == ("the Wye lies in .", 16)
    assert first.label == ("wales", "uk")
    assert isinstance(task.head(8), BlankHead)


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("family: entity typing\nlicence: none\n", "title: Field required"),
        ("title: t\nfamily: typing\nlicence: none\n", "family: Input should be 'entity typing'"),
        (CARD + "titel: x\n", r"has an unknown key 'titel'; did you mean title\?"),
        (CARD + "max_length: 2\n", "max_length: Input should be greater than or equal to 8"),
        (CARD + "linking: gould\n", r"linking is 'gould'; did you mean gold\?"),
        (CARD + "markers: {hed: x}\n", "markers.hed"),
        ("- title", "holds list"),
        ("title: [", "expected"),
        ("!!python/object:os.system {}", "could not determine a constructor"),
        (b"title: \xff", "is not UTF-8"),
    ],
)
def test_a_card_that_is_not_understood(
    write: Write, tmp_path: Path, card: Any, problem: str
) -> None:
    write("card.yaml", card)
    with pytest.raises(DataError, match=problem) as error:
        Custom(str(tmp_path))
    assert "card.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_data_or_card(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="custom needs --data DIR"):
        Custom().examples(Split.TRAIN)
    with pytest.raises(UsageError, match="custom needs --data DIR"):
        Custom().head(8)
    with pytest.raises(DataError, match=r"card\.yaml: cannot be read"):
        Custom(str(tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        Custom(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="custom reads folders, not hf:a/b"):
        Custom("hf:a/b")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labl": "x"}, r"has an unknown key 'labl'; did you mean label\?"),
        ({"label": ["a"]}, "label is list, not text"),
        ({"label": ""}, "has an empty label"),
        ({"id": 7}, "id is 7, not text"),
        ({"text": "The"}, r"mentions\[0\] is \[4, 7\), which is no span"),
        ({"mentions": [{"start": 4}]}, r"mentions\[0\] has no key 'end'"),
        ({"mentions": [{"start": 4, "end": 7, "entitiy": "Q1"}]}, "has an unknown key 'entitiy'"),
        ({"mentions": [{"start": 4, "end": 7, "entity": 1}]}, r"\[0\].entity is 1, neither"),
        ({"mentions": [{"start": 4, "end": 7, "role": "hed"}]}, r"role is 'hed'; did you mean"),
    ],
)
def test_a_malformed_line(
    write: Write, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    folder = given(write, tmp_path, CARD, RELATION)
    write("train.jsonl", lines(RELATION, {**RELATION, **change}))
    with pytest.raises(DataError, match=rf"train\.jsonl, line 2: .*{problem}"):
        Custom(folder).examples(Split.TRAIN)


def test_questions_that_cannot_be_answered(write: Write, tmp_path: Path) -> None:
    card = "title: Where\nfamily: question answering\nlicence: none\n"
    for change, problem in (
        ({"answers": []}, "has an empty answer, or none"),
        ({"answers": [" "]}, "has an empty answer, or none"),
        ({"blank": 99}, "blank is 99, no offset in its text of 18 characters"),
        ({"blank": "end"}, "blank is 'end', no offset"),
    ):
        folder = given(write, tmp_path, card, {**QUESTION, **change})
        with pytest.raises(DataError, match=problem):
            Custom(folder).examples(Split.TRAIN)


def test_ids_and_labels(write: Write, tmp_path: Path) -> None:
    folder = given(write, tmp_path, CARD, RELATION)
    write("dev.jsonl", lines({**RELATION, "label": "flows thru"}))
    write("test.jsonl", lines({**RELATION, "id": "a"}, RELATION, {**RELATION, "id": "a"}))
    task = Custom(folder)
    with pytest.raises(
        DataError, match=r"'flows thru' does not occur in train; did you mean flows"
    ):
        task.examples(Split.DEV)
    with pytest.raises(DataError, match=r"line 3: has the id 'a', as record 0 has"):
        task.examples(Split.TEST)


@pytest.mark.parametrize("linker", ["gold", "alias"])
def test_a_grid_on_ones_own_data(
    write: Write, toy_folder: Path, tmp_path: Path, linker: str
) -> None:
    colours = ("red", "green", "blue", "white")
    records = [
        {
            "text": f"it is {colour} there {n} .",
            "mentions": [
                {"start": 6, "end": 6 + len(colour), "role": "head"}
                | ({"entity": f"class:{colour}"} if linker == "gold" else {})
            ],
            "label": colour,
        }
        for n in range(5)
        for colour in colours
    ]
    folder = given(write, tmp_path, CARD, *records)
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu", 1)
    chosen = grid(toy_folder, task="custom", data=folder, linker=linker)
    results = run(chosen, place)
    assert [result.status for result in results] == [Status.OK] * 3, results[0].reason
    assert rows(results, Results(place.out))[1].gain is not None
    coverage = results[1].coverage
    assert coverage is not None
    assert (coverage.linker, coverage.examples, coverage.ambiguous) == (linker, 1.0, 0)


@pytest.mark.parametrize(
    ("line", "name"), [("", None), ("name: rivers-2\n", "rivers-2"), ("name: 2024\n", "2024")]
)
def test_data_are_called_by_their_card_or_their_folder(
    write: Write, tmp_path: Path, line: str, name: str | None
) -> None:
    folder = given(write, tmp_path, CARD + line, RELATION)
    assert find_task("custom", f"{folder}/").card.name == (name or tmp_path.name)


@pytest.mark.parametrize("name", ["a,b", "a/b", "a b", "a@b", "*", "x" * 41])
def test_a_name_that_no_term_could_say_is_refused(write: Write, tmp_path: Path, name: str) -> None:
    folder = given(write, tmp_path, f"{CARD}name: '{name}'\n", RELATION)
    with pytest.raises(DataError, match="name: "):
        find_task("custom", folder)
