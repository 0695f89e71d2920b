"""Names: of label, id or alias; and where they stand in scripts with and without blanks."""

from __future__ import annotations

import numpy as np
import pytest

from kbench.knowledge import Bundle, Entity, begins_with, first_place, write_bundle
from kbench.knowledge.aliases import Aliases
from kbench.knowledge.names import id_name, stands
from tests.knowledge.test_aliases import base_of, found


@pytest.mark.parametrize(
    ("entity", "name"),
    [
        ("River12", "River12"),
        ("New_York", "New York"),
        ("J._R._R._Tolkien", "J. R. R. Tolkien"),
        ("Star_Wars:_Part_Two", "Star Wars: Part Two"),
        ("20th_century", "20th century"),
        ("UK", "UK"),
        ("Zürich", "Zürich"),
        ("柏林", "柏林"),
        ("第5区", "第5区"),
        *((code, "") for code in ("Q42", "P31", "L7-F1", "/m/0abc", "m.0abc", "/c/en/dog")),
        *((code, "") for code in ("00260881", "12", "MESH:D0001", "C0000001", "DB00316", "r")),
        *((code, "") for code in ("ENSG00000139618", "http://x.org/Paris", "<x>", "_", "n0144")),
        ("550e8400-e29b-41d4-a716-446655440000", ""),
        ("abe107d9d372bb6826bd81d3542a419d", ""),
    ],
)
def test_an_id_is_a_name_where_it_is_words(entity: str, name: str) -> None:
    assert id_name(entity) == name
    assert Entity(entity).name == name


def test_label_goes_before_id_before_alias() -> None:
    assert Entity("New_York", "NYC", ("Gotham",)).names == ("NYC", "Gotham")
    assert Entity("New_York", " ", ("Gotham", "New York", "")).names == ("New York", "Gotham")
    assert Entity("Q60", "", (" ", " Gotham", "NYC", "NYC")).names == ("Gotham", "NYC")
    assert Entity("Q60", " ").names == ()
    assert Entity("Q60").name == ""


@pytest.mark.parametrize(
    ("text", "name", "whole"),
    [
        ("we saw Paris.", "Paris", True),
        ("Parisian", "Paris", False),
        ("xParis", "Paris", False),
        ("Paris2", "Paris", False),
        ("Yahoo!s", "Yahoo!", False),
        ("Cafe\u0301s", "Cafe", False),
        ("他从柏林去罗马", "柏林", True),
        ("在Berlin是", "Berlin", True),
        ("奥运2008年", "奥运", True),
        ("東京へ", "東京", True),
        ("パリへ", "パリ", True),
        ("パリスへ", "パリ", False),
        ("スパリへ", "パリ", False),
        ("らーめん", "ら", False),
        ("佐々木", "佐", False),
        ("ไปกรุงเทพเมื่อ", "กรุงเทพ", True),
        ("น้ำ", "น้", False),
        ("เลา", "ลา", False),
        ("ໄປວຽງຈັນກັບ", "ວຽງຈັນ", True),
        ("ទៅភ្នំពេញជាមួយ", "ភ្នំពេញ", True),
        ("ရန်ကုန်မှာ", "ရန်ကုန်", True),
        ("서울은 크다", "서울", True),
        ("서울에서는", "서울", True),
        ("NATO의", "NATO", True),
        ("서울대학교", "서울", False),
        ("남서울은", "서울", False),
        ("राम गया", "राम", True),
        ("रामायण", "राम", False),
        ("क्षमा", "षमा", False),
    ],
)
def test_where_a_name_stands_as_whole_words(text: str, name: str, whole: bool) -> None:
    start = text.index(name)
    assert stands(text, start, start + len(name)) is whole


SHORT = [
    Entity("Q1", "柏林"),
    Entity("Q2", "European Union", ("EU", "Eu")),
    Entity("Q3", "Europium", ("Eu",)),
    Entity("Q4", "Io"),
    Entity("Q5", "莱茵"),
    Entity("Q6", "莱茵河"),
    Entity("Q7", "서울"),
    Entity("Q8", "กก"),
    Entity("Q9", "中"),
    Entity("Q10", "ЕС"),
    Entity("Q11", "O’Neil"),
    Entity("Q12", "Canada", ("CAN",)),
    Entity("Q13", "WHO"),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("他从柏林去莱茵河", [("柏林", 0), ("莱茵河", 5)]),
        ("the EU, not Eu or eu", [("EU", 1)]),
        ("ＥＵ law", [("ＥＵ", 1)]),
        ("CAN it, who can? The WHO can", [("CAN", 11), ("WHO", 12)]),
        ("EUR", []),
        ("Io io IO", []),
        ("서울은", [("서울", 6)]),
        ("ดูกกนี้", [("กก", 7)]),
        ("中国", []),
        ("в ЕС", [("ЕС", 9)]),
        ("in O'Neil\u00a0and o’neil", [("O'Neil", 10), ("o’neil", 10)]),
    ],
)
def test_short_names_in_a_text(
    tmp_path_factory: pytest.TempPathFactory, text: str, expected: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("short") / "kb"
    base = base_of(folder, SHORT, [])
    rows = {f"Q{number}": row for row, number in enumerate([1, 10, 11, 12, 13, *range(2, 10)])}
    wanted = [(name, rows[SHORT[at].id]) for name, at in expected]
    assert [(name, row) for name, row, _ in found(Aliases(base), text)] == wanted


def test_capitals_count_among_those_who_are_written_so(world: Bundle) -> None:
    base = base_of(world.folder.parent / "kb", SHORT, [("Q3", "r", "Q1")])
    names = Aliases(base)
    eu, element = base.rows(["Q2", "Q3"]).tolist()
    assert names.lookup("eu") == (element, True)  # the one in more facts
    assert found(names, "the EU") == [("EU", eu, False)]


@pytest.mark.parametrize(
    ("names", "text", "place"),
    [
        (("Paris",), "Parisian Paris is", (9, 14)),
        (("Paris",), "PARIS is", (0, 5)),
        (("Ann", "Ann Mary Lee"), "He met Ann Mary Lee", (7, 10)),
        (("annie0", "Ann Mary Lee"), "Ann Mary Lee was", (0, 12)),
        (("Zürich",), "In Zu\u0308rich.", (3, 10)),
        (("柏林",), "柏林是", (0, 2)),
        (("Io",), "Io is a moon", (0, 2)),
        (("Io",), "IO is", None),
        (("Moon", "Io"), "Io is", None),
        (("European Union", "EU"), "the EU", (4, 6)),
        (("Spin",), "Spin\u0308al", None),
        ((), "it", None),
    ],
)
def test_where_an_entity_is_named_in_its_own_text(
    names: tuple[str, ...], text: str, place: tuple[int, int] | None
) -> None:
    assert first_place(names, text) == place


def test_a_text_begins_with_a_name_as_whole_words() -> None:
    assert begins_with("PARIS is", "Paris")
    assert begins_with("柏林是", "柏林")
    assert not begins_with("Parisian", "Paris")
    assert not begins_with("it", "")


def test_a_relation_goes_by_its_id_where_it_has_no_label(world: Bundle) -> None:
    facts = [("Town_A", "lies_in", "Land"), ("Town_A", "P17", "Land"), ("Town_A", "near", "Town_B")]
    entities = [Entity("Town_A"), Entity("Town_B"), Entity("Land")]
    labels = {"lies_in": "", "near": "is near"}
    card = {"name": "r", "version": "1", "licence": "none", "source": "test"}
    base = write_bundle(world.folder.parent / "kb", card, entities, facts, labels)
    row = int(base.rows(["Town_A"])[0])
    assert sorted(base.facts(row)) == [
        ("P17", "Land"),
        ("is near", "Town B"),
        ("lies in", "Land"),
    ]


def test_how_many_have_no_name_is_counted(world: Bundle) -> None:
    entities = [Entity("Q1", "Ada"), Entity("Q2"), Entity("Town_A"), Entity("Q3", " ", ("Bo",))]
    facts = [("Q1", "r", "Q2"), ("Q2", "r", "Q1"), ("Q1", "r", "Q3"), ("Q1", "r", "Town_A")]
    base = base_of(world.folder.parent / "kb", entities, facts)
    everyone = np.arange(-1, len(base))
    assert base.has_name(everyone).tolist() == [False, True, False, True, True]
    assert base.unnamed() == (1, 2)
    assert base.facts(0) == [("r", "Bo"), ("r", "Town A")]
    assert base.facts(1) == []
