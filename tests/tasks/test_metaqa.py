from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Mention, Role, Split
from kbench.errors import DataError, UsageError
from kbench_tasks.metaqa import RELATIONS, MetaQA, MetaQA2Hop

Write = Callable[[str, Any], Path]

TRAIN = (
    "who directed [The Red Kite]\tAda Roe|Ben Oak\nwhat films did [Ben Oak] write\tThe Red Kite\n"
)
DEV = "[Ada Roe] appears in which movies\tThe Red Kite\nwhat year was [Up [Sky]] released\t1984\n"
TEST = "what genre is [The Red Kite]\tDrama\nwho directed [The Red Kite]\tCy Ash\n"
KINDS = {
    "train": "movie_to_director\nwriter_to_movie\n",
    "dev": "actor_to_movie\nmovie_to_year\n",
    "test": "movie_to_genre\nmovie_to_director\n",
}
QUESTIONS = {"train": TRAIN, "dev": DEV, "test": TEST}


@pytest.fixture
def release(write: Write, tmp_path: Path) -> str:
    for split, text in QUESTIONS.items():
        write(f"release/1-hop/vanilla/qa_{split}.txt", text)
        write(f"release/1-hop/qa_{split}_qtype.txt", KINDS[split])
    return str(tmp_path / "release")


def flat(write: Write, dev: str, test: str = TEST, hops: int = 1) -> str:
    write(f"flat/MetaQA/{hops}-hop-dev.txt", dev)
    return str(write(f"flat/MetaQA/{hops}-hop-test.txt", test).parents[1])


def many(entities: int) -> str:
    """Two questions about each entity."""
    rows = (
        f"when was [Film {n}] made\t{n}\nwho made [Film {n}]\tAnn {n}\n" for n in range(entities)
    )
    return "".join(rows)


def test_an_example(release: str) -> None:
    task = MetaQA(release)
    first, second = task.examples(Split.TRAIN)
    assert first.id == "1-hop/train/0"
    assert first.text == "who directed The Red Kite "
    assert first.blank == len(first.text)
    assert first.mentions == (Mention(13, 25, "The Red Kite", Role.TARGET),)
    assert first.text[13:25] == "The Red Kite"
    assert first.label == ("Ada Roe", "Ben Oak")
    # The tail of a fact is asked for by the name of its relation, the head by the kind as it is.
    assert (first.stratum, second.stratum) == ("directed_by", "writer_to_movie")
    assert task.linking == "gold"


def test_brackets_in_a_name_are_its_own(release: str) -> None:
    begins, nested = MetaQA(release).examples(Split.DEV)
    assert begins.text == "Ada Roe appears in which movies "
    assert begins.mentions[0] == Mention(0, 7, "Ada Roe", Role.TARGET)
    assert nested.mentions[0].entity == "Up [Sky]"
    assert nested.text == "what year was Up [Sky] released "


def test_what_is_asked_about_known_entities_is_counted(release: str) -> None:
    task = MetaQA(release)
    assert [len(task.examples(split)) for split in Split] == [2, 2, 2]
    assert task.counts == {
        "train_total": 2,
        "dev_total": 2,
        "dev_about_known": 0,
        "dev_asked_before": 0,
        "test_total": 2,
        "test_about_known": 2,
        "test_asked_before": 1,
    }


def test_known_entities_may_be_left_out(release: str, write: Write) -> None:
    write("release/1-hop/vanilla/qa_dev.txt", DEV.replace("[Ada Roe]", "[Ben Oak]"))
    write(
        "release/1-hop/vanilla/qa_test.txt",
        TEST.replace("genre is [The Red Kite]", "year is [Up [Sky]]")
        + "what is [New] about\tkites\n",
    )
    write("release/1-hop/qa_test_qtype.txt", KINDS["test"] + "movie_to_tags\n")
    task = MetaQA(release, {"entities": "new"})
    asked = {s: [e.mentions[0].entity for e in task.examples(s)] for s in (Split.DEV, Split.TEST)}
    # Of dev goes whom train asks about; of test, whom dev asks about, too.
    assert asked == {Split.DEV: ["Up [Sky]"], Split.TEST: ["New"]}
    assert (task.counts["test_total"], task.counts["test_about_known"]) == (3, 2)
    with pytest.raises(UsageError, match="entities is 'knew': expected all or new; did you mean"):
        MetaQA(release, {"entities": "knew"})


def test_the_flat_layout_reads_alike(release: str, write: Write, tmp_path: Path) -> None:
    for split, text in QUESTIONS.items():
        write(f"other/1-hop-{split}.txt", text.replace("\n", "\r\n").encode())
        write(f"other/1-hop-{split}-qtype.txt", KINDS[split])
    assert MetaQA(str(tmp_path / "other")).digest == MetaQA(release).digest


def test_dev_is_cut_by_entity_where_there_is_no_train(write: Write) -> None:
    folder = flat(write, many(23))
    task = MetaQA(folder)
    train, dev = (
        Counter(e.mentions[0].entity for e in task.examples(split))
        for split in (Split.TRAIN, Split.DEV)
    )
    assert not train.keys() & dev.keys()
    assert (len(train), len(dev)) == (18, 5)  # four fifths and one, rounded in favour of dev
    assert {*train.values(), *dev.values()} == {2}
    assert task.counts == {
        "train_total": 36,
        "train_without_kind": 36,
        "train_out_of_dev": 36,
        "dev_total": 10,
        "dev_without_kind": 10,
        "dev_about_known": 0,
        "dev_asked_before": 0,
    }
    again, other = (MetaQA(folder, {"split_seed": seed}) for seed in (0, 1))
    assert again.digest == task.digest != other.digest
    assert [e.stratum for e in task.examples(Split.TEST)] == ["", ""]


def test_two_hops_are_files_of_their_own(write: Write) -> None:
    folder = flat(write, many(5))
    flat(write, many(10), hops=2)
    assert MetaQA2Hop(folder).examples(Split.DEV)[0].id.startswith("2-hop/dev/")
    assert len(MetaQA2Hop(folder).examples(Split.TRAIN)) == 16
    assert len(MetaQA(folder).examples(Split.TRAIN)) == 8
    assert [metric.name for metric in MetaQA2Hop.metrics] == ["accuracy"]
    names = [metric.name for metric in MetaQA.metrics]
    assert names[0] == "accuracy"
    assert {name.removeprefix("accuracy_") for name in names[1:]} < {*RELATIONS.values()}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("who directed [Kite]", "has an empty answer, or none"),
        ("who directed [Kite]\t", "has an empty answer, or none"),
        ("who directed [Kite]\tAda||Ben", "has an empty answer, or none"),
        ("who directed Kite\tAda", "has no entity in brackets"),
        ("who directed [Kite\tAda", "has no entity in brackets"),
        ("who directed ]Kite[\tAda", "has no entity in brackets"),
        ("who directed []\tAda", "has no entity in brackets"),
        ("who directed [ Kite]\tAda", "has no entity in brackets"),
        (b"who directed [Zo\xeb]\tAda", "is not UTF-8"),
    ],
)
def test_a_malformed_row(write: Write, release: str, row: Any, problem: str) -> None:
    content = TEST.encode() + (row if isinstance(row, bytes) else row.encode())
    write("release/1-hop/vanilla/qa_test.txt", content)
    write("release/1-hop/qa_test_qtype.txt", KINDS["test"] + "movie_to_director\n")
    told(release, rf"qa_test\.txt, line 3: {problem}")


def test_files_that_do_not_fit(write: Write, release: str, tmp_path: Path) -> None:
    write("release/1-hop/qa_dev_qtype.txt", "actor_to_movie\n")
    told(release, r"qa_dev_qtype\.txt: has 1 lines, and qa_dev\.txt has 2; expected the kind")
    (tmp_path / "release/1-hop/vanilla/qa_test.txt").unlink()
    (tmp_path / "release/1-hop/qa_dev_qtype.txt").unlink()
    told(release, r"release: has no 1-hop/vanilla/qa_test\.txt or 1-hop-test\.txt; expected the")
    told(flat(write, "who is [A]\tB\n"), "asks about A alone: there is no train, and nothing is")
    with pytest.raises(UsageError, match="MetaQA needs --data DIR, a folder of files"):
        MetaQA("hf:someone/metaqa").examples(Split.TEST)


def told(folder: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        MetaQA(folder).examples(Split.TEST)
    assert "\n" not in str(caught.value)
    assert "; expected " in str(caught.value)


def test_the_real_questions(real_data: Callable[[str], str]) -> None:
    task = MetaQA(real_data("metaqa"))
    parts = {split: task.examples(split) for split in Split}
    assert [len(parts[split]) for split in Split] == [7_999, 1_993, 9_947]
    assert task.counts["test_about_known"] == 2_591
    assert task.counts["test_asked_before"] == 64
    kinds = Counter(example.stratum for example in parts[Split.TEST])
    assert kinds["release_year"] == 1_420
    assert kinds["tag_to_movie"] == 411
    new = MetaQA(real_data("metaqa"), {"entities": "new"})
    assert len(new.examples(Split.TEST)) == 7_356


def test_the_real_questions_of_two_hops(real_data: Callable[[str], str]) -> None:
    task = MetaQA2Hop(real_data("metaqa"))
    assert [len(task.examples(split)) for split in Split] == [11_871, 3_001, 14_872]
    assert task.counts["test_about_known"] == 5_214
