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
from kbench.task import RelationTask
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
    context = {"start": 0, "end": 3}
    other = {**RELATION, "id": "mine", "label": "lies in"}
    other["mentions"] = [*RELATION["mentions"], context]
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
    assert task.counts["test_mentions"] == 5
    assert task.counts["test_mentions_with_entity"] == 2


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
        ("family: entity typing\nlicence: none\n", "has no title; expected title: text"),
        (
            "title: t\nfamily: typing\nlicence: none\n",
            r"family is 'typing'.*; expected family: one of entity typing, relation classification",
        ),
        (CARD + "title: [a]\n", "has the key 'title' twice|twice"),
        (CARD + "citation: 7\n", "citation is 7; expected citation: text"),
        (CARD + "metric: micro-f1-without-null\n", "say which relation is none by null_label"),
        (CARD + "metric: f1\n", "metric is 'f1': expected accuracy, micro-f1-without-null, macro"),
        (CARD + "metric: loose-micro-f1\n", "expected accuracy, .* in relation classification"),
        (CARD + "metric: accuracy:x\n", "metric is 'accuracy:x': expected accuracy"),
        (CARD + "metric: 5\n", "metric is 5; expected metric: one or a list"),
        (CARD + "null_label: false\n", "null_label is False; expected null_label: text"),
        (
            CARD + "null_label: a\nmetric: micro-f1-without-null:b\n",
            "metric is 'micro-f1-without-null:b', and null_label 'a': say one",
        ),
        (CARD + "fallback: true\n", "fallback is for entity typing, not for relation class"),
        (CARD + "fallback: maybe\n", "fallback is 'maybe'; expected fallback: true or false"),
        (CARD + "link_threshold: true\n", "link_threshold is True; expected link_threshold: a num"),
        (CARD + "max_length: '64'\n", "max_length is '64'; expected max_length: a whole number"),
        (CARD + "markers: {context: '*'}\n", "markers has one for context: expected target, head"),
        (CARD + "link_threshold: 2\n", "link_threshold is 2; expected link_threshold: a number"),
        (CARD + "markers: {head: ' '}\n", "markers has ' ' for head: expected a sign"),
        (
            "title: t\nfamily: question answering\nlicence: none\nnull_label: a\n",
            "null_label is for relation classification, not for question answering",
        ),
        (
            "title: t\nfamily: entity typing\nlicence: none\n"
            "metric: loose-micro-f1:argmax-fallback\n",
            "expected loose-micro-f1, and fallback: true for the best type",
        ),
        (CARD + "titel: x\n", r"has an unknown key 'titel'; did you mean title\?"),
        (
            CARD + "max_length: 2\n",
            "max_length is 2; expected max_length: a whole number, at least 8",
        ),
        (CARD + "linking: gould\n", r"linking is 'gould'; did you mean gold\?"),
        (CARD + "markers: {hed: x}\n", r"markers is \{'hed': 'x'\}; expected markers: a mapping"),
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
    assert "Input should" not in str(error.value)
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
        ({"mentions": [{"start": 3, "end": 4}]}, r"mentions\[0\] is ' ', which names nothing"),
        ({"mentions": [{"start": 4, "end": 7, "score": 2}]}, r"\[0\].score is 2, no number from 0"),
        # Each field is right, and the record as a whole is none of the family.
        ({"mentions": []}, "has no mentions of the role head, not one"),
        (
            {
                "mentions": [
                    {k: v for k, v in m.items() if k != "role"} for m in RELATION["mentions"]
                ]
            },
            "has no mentions of the role head, not one",
        ),
        ({"mentions": RELATION["mentions"][:1]}, "has no mentions of the role tail, not one"),
        (
            {"mentions": [*RELATION["mentions"], {"start": 0, "end": 3, "role": "head"}]},
            "has 2 mentions of the role head, not one",
        ),
        (
            {"mentions": [*RELATION["mentions"], {"start": 0, "end": 3, "role": "target"}]},
            "a mention of the role target, and relation classification here marks head, tail",
        ),
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
        (
            {"text": "The Wye is in [MASK] ."},
            r"spells \[MASK\], which is read as text: take it out",
        ),
        (
            {"mentions": [{"start": 13, "end": 16, "role": "head"}]},
            "a mention of the role head, and question answering here marks target",
        ),
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
                | ({"entity": f"class:{colour}"} if linker == "gold" else {}),
                {"start": 7 + len(colour), "end": 12 + len(colour), "role": "tail"},
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


def test_a_typing_record_has_one_target(write: Write, tmp_path: Path) -> None:
    card = "title: Waters\nfamily: entity typing\nlicence: none\n"
    target = TYPES["mentions"][0]
    for mentions, problem in (
        ([], "has no mentions of the role target, not one"),
        ([{"start": 4, "end": 7}], "has no mentions of the role target, not one"),
        ([target, target], "has 2 mentions of the role target, not one"),
        ([target, {**target, "role": "head"}], "a mention of the role head, and entity typing"),
    ):
        folder = given(write, tmp_path, card, {**TYPES, "mentions": mentions})
        with pytest.raises(DataError, match=rf"train\.jsonl, line 1: .*{problem}"):
            Custom(folder).examples(Split.TRAIN)
    folder = given(write, tmp_path, card, {**TYPES, "label": []})
    with pytest.raises(DataError, match=r"train\.jsonl: has no example with a label"):
        Custom(folder).examples(Split.TRAIN)


def test_the_roles_are_those_that_the_card_marks(write: Write, tmp_path: Path) -> None:
    one = {**RELATION, "mentions": [{"start": 4, "end": 7, "role": "target"}]}
    task = Custom(given(write, tmp_path, CARD + "markers: {target: '$'}\n", one))
    assert task.examples(Split.TRAIN)[0].mentions == (Mention(4, 7, None, Role.TARGET),)
    folder = given(write, tmp_path, CARD + "markers: {target: '$'}\n", RELATION)
    with pytest.raises(DataError, match="has no mentions of the role target"):
        Custom(folder).examples(Split.TRAIN)


def variants(write: Write, tmp_path: Path, card: str, *records: Any) -> list[str]:
    task = Custom(given(write, tmp_path, card, *records))
    assert task.examples(Split.TRAIN)
    for metric in task.metrics:  # a stored result is scored again without the data
        again = Custom.metric_named(metric.variant)
        assert again is not None
        assert (again.name, again.variant) == (metric.name, metric.variant)
    return [metric.variant for metric in task.metrics]


def test_a_card_chooses_metrics_and_the_null_relation(write: Write, tmp_path: Path) -> None:
    other = {**RELATION, "label": "NA"}
    for lines_, expected in (
        ("", ["accuracy"]),
        ("null_label: NA\n", ["micro-f1-without-null:NA", "accuracy"]),
        ("metric: micro-f1-without-null:NA\n", ["micro-f1-without-null:NA", "accuracy"]),
        ("metric: macro-f1-over-classes\n", ["macro-f1-over-classes", "accuracy"]),
        (
            "metric: [accuracy, macro-f1-over-classes]\nnull_label: NA\n",
            ["accuracy", "macro-f1-over-classes", "micro-f1-without-null:NA"],
        ),
    ):
        assert variants(write, tmp_path, CARD + lines_, RELATION, other) == expected
    folder = given(write, tmp_path, CARD + "null_label: no_relation\n", RELATION, other)
    with pytest.raises(DataError, match="calls 'no_relation' the null relation, which train lacks"):
        Custom(folder).examples(Split.TRAIN)
    # What selects on dev is part of what a model is made of.
    forms = []
    for text in ("", "null_label: NA\n", "metric: macro-f1-over-classes\n"):
        forms.append(Custom(given(write, tmp_path, CARD + text, RELATION, other)).form)
    assert len({str(form) for form in forms}) == 3


def test_a_card_chooses_the_fallback_of_typing(write: Write, tmp_path: Path) -> None:
    card = "title: Waters\nfamily: entity typing\nlicence: none\n"
    text = f"{card}metric: strict-set-accuracy\nfallback: true\n"
    assert variants(write, tmp_path, text, TYPES) == [
        "strict-set-accuracy:argmax-fallback",
        "loose-micro-f1:argmax-fallback",
        "loose-macro-f1:argmax-fallback",
    ]
    assert Custom(str(tmp_path)).head(8).fallback is True  # type: ignore[attr-defined]
    assert variants(write, tmp_path, card, TYPES)[0] == "loose-micro-f1"
    assert Custom(str(tmp_path)).head(8).fallback is False  # type: ignore[attr-defined]


def test_ids_of_the_data_and_links_that_are_not_sure(write: Write, tmp_path: Path) -> None:
    head, tail = RELATION["mentions"]
    sure = {**head, "entity": "7", "score": 0.9}
    unsure = {**tail, "entity": "8", "score": 0.2}
    stranger = {"start": 8, "end": 13, "entity": "9", "score": 0.9}
    record = {**RELATION, "mentions": [sure, unsure, stranger]}
    write("ids.tsv", "7\tQ19\n8\tQ25\n")
    task = Custom(given(write, tmp_path, f"{CARD}ids: ids.tsv\nlink_threshold: 0.5\n", record))
    assert [m.entity for m in task.examples(Split.TEST)[0].mentions] == ["Q19", None, None]
    assert task.link_threshold == 0.5
    assert task.counts["test_links_below_threshold"] == 1
    assert task.counts["test_ids_without_counterpart"] == 1
    assert task.counts["test_mentions_with_entity"] == 1
    for text, problem in (
        ("7\n", "line 1: has 1 cells"),
        ("7\ta\n7\tb\n", "line 2: gives '7' the"),
    ):
        write("ids.tsv", text)
        with pytest.raises(DataError, match=problem):
            Custom(str(tmp_path)).examples(Split.TEST)


def test_links_that_nobody_scored_and_ids_that_are_not_there(write: Write, tmp_path: Path) -> None:
    folder = given(write, tmp_path, f"{CARD}link_threshold: 0.5\n", RELATION)
    with pytest.raises(DataError, match=r"line 1: mentions\[0\] has a link without a score: link"):
        Custom(folder).examples(Split.TEST)
    write("ids.tsv", "q19\tQ19\n")
    folder = given(write, tmp_path, f"{CARD}ids: ids.tsv\n", RELATION)
    with pytest.raises(DataError, match=r"ids\.tsv: has none of the ids that 1 links of train n"):
        Custom(folder).examples(Split.TEST)
    unlinked = {**RELATION, "mentions": [{**m, "entity": None} for m in RELATION["mentions"]]}
    assert Custom(given(write, tmp_path, f"{CARD}ids: ids.tsv\n", unlinked)).examples(Split.TEST)


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        ("Where?", 7),
        ("Where ", 6),
        ("어디", 3),
        ("中国的首都是", 6),
        ("中国的首都是哪里?", 9),
        ("日本の首都は？", 7),
        ("เมืองหลวงคือ", 12),
    ],
)
def test_an_answer_stands_behind_a_blank_where_words_do(
    write: Write, tmp_path: Path, text: str, blank: int
) -> None:
    card = "title: Where\nfamily: question answering\nlicence: none\n"
    task = Custom(given(write, tmp_path, card, {"text": text, "mentions": [], "answers": ["x"]}))
    (example,) = task.examples(Split.TEST)
    assert (example.blank, len(example.text)) == (blank, blank)


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


ASKED = """
prompt: "{text} What holds between {head} and {tail} ?"
words: {P1: flows through}
"""


def test_a_card_says_how_its_examples_are_put(write: Write, tmp_path: Path) -> None:
    coded = {**RELATION, "label": "P1"}
    other = {**RELATION, "id": "mine", "label": "lies in"}
    task = find_task("custom", given(write, tmp_path, CARD + ASKED, coded, other))
    prompt = task.prompt
    assert prompt is not None
    put = prompt.put(task.examples(Split.TEST)[0])
    assert put is not None
    assert put.text == f"{RELATION['text']} What holds between Wye and Wales ?"
    assert prompt.nothing == "What holds between it and it ?"
    assert [prompt.spelled(label) for label in task.labels] == ["flows through", "lies in"]
    write("card.yaml", f"{CARD}{ASKED}prompt_alone: What holds ?\n")
    alone = find_task("custom", str(tmp_path)).prompt
    assert alone is not None
    assert alone.nothing == "What holds ?"
    told = '"{head} runs through {tail} ."', '"{tail} has {head} ."'
    write("card.yaml", f"{CARD}statements:\n  P1: {told[0]}\n  lies in: {told[1]}\n")
    task = find_task("custom", str(tmp_path))
    assert task.prompt is not None
    assert type(task.prompted_head("pmi")).__name__ == "StatementHead"
    said = task.prompt.answer(task.examples(Split.TEST)[0], "lies in")
    assert said == "Wales has Wye ."
    write("card.yaml", CARD)
    assert find_task("custom", str(tmp_path)).prompt == RelationTask.prompt
    question = 'title: Q\nfamily: question answering\nlicence: none\nprompt: "问 : {before} 答 :"\n'
    asked = find_task("custom", given(write, tmp_path, question, QUESTION)).prompt
    assert asked is not None
    put = asked.put(find_task("custom", str(tmp_path)).examples(Split.TEST)[0])
    assert put is not None
    assert put.text == "问 : Where is the Wye ? 答 :"


TYPING = "title: T\nfamily: entity typing\nlicence: none\n"
ANSWERS = "title: Q\nfamily: question answering\nlicence: none\n"


@pytest.mark.parametrize(
    ("card", "record", "said"),
    [
        (CARD + 'prompt: "{head} is"\n', RELATION, "expected {text}, and once"),
        (
            CARD + 'prompt: "{text} {haed} is"\n',
            RELATION,
            "{haed}: expected {text}, {head}, {tail}",
        ),
        (CARD + 'prompt: "{before} is"\n', RELATION, "prompt has {before}: expected {text}"),
        (TYPING + 'prompt: "{text} {head} is"\n', TYPES, "prompt has {head}: expected {text}, {t"),
        (CARD + "prompt_alone: it is\n", RELATION, "no prompt that it is of"),
        (CARD + "words: {flow through: runs}\n", RELATION, "did you mean flows through"),
        (CARD + 'words: {flows through: " "}\n', RELATION, "words has nothing for 'flows through'"),
        (CARD + 'statements: {lies in: "{head}"}\n', RELATION, "'lies in', which is no label"),
        (CARD + "statements: {}\n", RELATION, "statements has none of 'flows through'"),
        (TYPING + 'statements: {river: "{target}"}\n', TYPES, "statements is for relation"),
        (ANSWERS + "words: {wales: Wales}\n", QUESTION, "questions have answers"),
        (CARD + "words: [a]\n", RELATION, "words: a mapping such as"),
    ],
)
def test_a_prompt_that_names_nothing_is_refused(
    write: Write, tmp_path: Path, card: str, record: Any, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        find_task("custom", given(write, tmp_path, card, record)).examples(Split.TRAIN)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
