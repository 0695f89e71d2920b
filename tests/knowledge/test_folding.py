"""Folding: two forms of a name are one text, and every character knows where it stood."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kbench.knowledge.arrow import maybe_among
from kbench.knowledge.folding import Folded, folded

TRICKY = (
    "eE\u0301\u0308 \u00a0\t\u200b\u00ad\u00b4¨ﬁßİŉ︲‴½"
    "ｶﾞ\u1112\u1161\u11ab\u3131\u314f…’–\u0e19\u0e33`A"
)
texts = st.text(
    st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from(TRICKY)), max_size=9
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Zürich", unicodedata.normalize("NFD", "Zürich")),
        ("New York", "NEW\u00a0YORK"),
        ("New York", "New\u2009 \nYork"),
        ("O’Connor", "O'Connor"),
        ("O`Connor", "Oʼconnor"),
        ("“Air”", '"air"'),
        ("Jean–Luc", "jean-luc"),
        ("Ｔｏｋｙｏ ２", "tokyo 2"),
        ("ｶﾞﾝﾀﾞﾑ", "ガンダム"),
        ("서울", unicodedata.normalize("NFD", "서울")),
        ("STRASSE", "straße"),
        ("ﬁnland", "Finland"),
        ("Müll\u00ader", "müller"),
        ("\u200fחיפה\u200e", "חיפה"),
        ("ΟΔΟΣ", "οδος"),
        ("ŉ Berg", "'n berg"),
        ("Jean︲Luc", "jean-luc"),
        ("القاهرة", "القـاهـرة"),
    ],
)
def test_forms_of_one_name_are_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)


@pytest.mark.parametrize(("one", "other"), [("Zürich", "Zurich"), ("a b", "ab"), ("U.S.", "US")])
def test_other_names_stay_other(one: str, other: str) -> None:
    assert folded(one) != folded(other)


@given(texts)
@example("\r¸")
@example("¸ \u2017¨")
def test_what_is_folded_stays_so(text: str) -> None:
    assert folded(folded(text)) == folded(text)


@given(texts)
@example("\r¸")
@example("a ¸ \u200b\u2017¨\u00a0¸")
def test_folding_with_places_is_folding(text: str) -> None:
    whole = Folded.of(text)
    assert whole.text == folded(text)
    if whole.starts is not None and whole.ends is not None:
        assert len(whole.starts) == len(whole.ends) == len(whole.text)
        assert all(0 <= s < e <= len(text) for s, e in zip(whole.starts, whole.ends, strict=True))


@given(texts, texts, st.sampled_from(["rhône", "東京", "o'neil"]))
def test_what_is_found_stands_where_it_stood(before: str, after: str, name: str) -> None:
    spelled = unicodedata.normalize("NFD", name.upper()).replace("'", "’")
    text = f"{before} {spelled} {after}"
    whole = Folded.of(text)
    places, start = [], whole.text.find(name)
    while start >= 0:
        places.append(whole.span(start, start + len(name)))
        start = whole.text.find(name, start + 1)
    # A mark that follows the blank may belong to nothing of the name.
    assert any(place and text[slice(*place)] == spelled for place in places)


def test_no_part_of_a_character_is_found() -> None:
    whole = Folded.of("½ ﬁ n\u0308")
    assert whole.text == "1⁄2 fi n\u0308"
    assert whole.span(0, 3) == (0, 1)
    assert whole.span(0, 1) is None
    assert whole.span(5, 6) is None
    assert whole.span(7, 8) is None
    assert whole.span(7, 9) == (4, 6)


def test_what_a_column_is_asked_for_leaves_out_no_name() -> None:
    signs = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    names = [f"a{sign}{again}" for again in ("", "e\u0301") for sign in signs]
    keys = pa.array(sorted({folded(name) for name in names}), pa.string())
    # Each of the names is among the folded ones; few are looked at because they are odd alone.
    assert len(maybe_among(pa.array(names), keys)) == len(names)
    assert maybe_among(pa.array(["Zürich", "柏林", "Москва", "서울", "パリ"]), keys[:0]) == []
