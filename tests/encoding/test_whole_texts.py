"""What a model reads is the text as its tokenizer writes it, whatever family that is of."""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from kbench.data import Example, Mention, Role
from kbench.encoding import (
    Inputs,
    Layout,
    TokenKind,
    encode,
    inner_tokens,
    known_markers,
    known_words,
)
from kbench.encoding.passages import Passage
from kbench.errors import KbenchError, Unsupported
from tests.families import CORPUS, FAMILIES, family
from tests.hostile import TEMPLATES, texts

ROLES = {Role.HEAD: "#", Role.TAIL: "$"}
PARTS = ("Istanbul", "Tokyo", "river", "'s", "(", ")", ",", " ", " ", "  ", "'", "a", "北京", "-")

every_family = pytest.mark.parametrize("name", FAMILIES)
JOINING = ("unigram unsplit", "prepended", "without blanks")
"""Families whose tokens may reach over a blank: no word of theirs is sure to stay one."""
every_family_of_words = pytest.mark.parametrize("name", [n for n in FAMILIES if n not in JOINING])


@st.composite
def marked(draw: st.DrawFn, *, hostile: bool = False) -> Example:
    """A text with head, tail and other mentions anywhere in it, and a blank in some."""
    plain = st.lists(st.sampled_from(PARTS), min_size=2, max_size=10).map("".join)
    text = draw(texts if hostile else plain | st.sampled_from(CORPUS))
    roles = [*draw(st.permutations([Role.HEAD, Role.TAIL])), Role.CONTEXT, Role.CONTEXT]
    mentions = []
    for role in roles[: draw(st.integers(0, 4))]:
        start = draw(st.integers(0, len(text) - 1))
        mentions.append(Mention(start, draw(st.integers(start + 1, len(text))), "e", role))
    blank = draw(st.none() | st.integers(0, len(text)))
    return Example("x", text, tuple(mentions), "label", blank)


def clean(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)


class Plain(list[str]):
    """A text put together piece by piece, where words stand apart from what is beside them."""

    apart = False

    def write(self, piece: str) -> None:
        self.append(" " * (self.apart and not piece[0].isspace()) + piece)
        self.apart = False

    def word(self, word: str) -> None:
        self.apart = bool(self) and not self[-1][-1].isspace()
        self.write(word)
        self.apart = True


def plainly_written(example: Example, mask: str) -> str:
    """The text with its markers as words and the mask token, put together sign by sign."""
    plain = Plain()
    outer_first = sorted(example.mentions, key=lambda m: (m.start, -m.end))
    marked = [(m, ROLES[m.role]) for m in outer_first if m.role in ROLES]
    for at, sign in enumerate([*clean(example.text), ""]):
        for marker in (marker for m, marker in reversed(marked) if m.end == at):
            plain.word(marker)
        if example.blank == at:
            plain.write(mask)
        for marker in (marker for m, marker in marked if m.start == at):
            plain.word(marker)
        if sign:
            plain.write(sign)
    return "".join(plain)


def one(tokenizer: Any, example: Example, rows: list[int], slot: str | None = None) -> Inputs:
    return encode(tokenizer, [example], [rows], Layout(ROLES, slot, 100_000))


def words_of(inputs: Inputs) -> list[int]:
    chosen = np.isin(inputs.kinds, (TokenKind.TEXT, TokenKind.BLANK))
    return cast("list[int]", inputs.ids[chosen].tolist())


@every_family
@settings(max_examples=40)
@given(example=marked(hostile=True), linked=st.booleans())
def test_mentions_alone_leave_the_tokens_of_the_text(
    name: str, example: Example, linked: bool
) -> None:
    tokenizer = family(name)
    mentions = tuple(Mention(m.start, m.end, m.entity) for m in example.mentions)
    example = Example("x", example.text, mentions, "label")
    got = one(tokenizer, example, [0 if linked else -1] * len(mentions))
    whole = tokenizer(clean(example.text), split_special_tokens=True, verbose=False)
    assert got.ids.tolist() == whole["input_ids"]


@every_family
@settings(max_examples=40)
@given(example=marked())
def test_markers_and_blank_are_written_into_the_text(name: str, example: Example) -> None:
    tokenizer = family(name)
    got = one(tokenizer, example, [-1] * len(example.mentions))
    assert got.ids.tolist() == tokenizer(plainly_written(example, "<mask>"))["input_ids"]
    if example.blank is not None:
        assert got.ids[got.blanks[0]] == tokenizer.mask_token_id
        assert (got.kinds == TokenKind.BLANK).sum() == 1


@every_family
@settings(max_examples=40)
@given(example=marked(), template=st.sampled_from(TEMPLATES), data=st.data())
def test_slots_go_between_the_tokens_that_are_there_without_them(
    name: str, example: Example, template: str, data: st.DataObject
) -> None:
    tokenizer = family(name)
    rows = [data.draw(st.integers(-1, 5)) for _ in example.mentions]
    without = one(tokenizer, example, rows)
    got = one(tokenizer, example, rows, template)
    assert words_of(got) == words_of(without)
    assert sorted(got.slot_rows.tolist()) == sorted(row for row in rows if row >= 0)
    literals = [w for w in template.split() if w not in ("{slot}", "{mention}")]
    own = [ids for literal in literals for ids in inner_tokens(tokenizer, [literal])]
    more = sum(1 + sum(map(len, own)) for row in rows if row >= 0)
    assert len(got.ids) == len(without.ids) + more


@every_family
@settings(max_examples=40)
@given(example=marked())
def test_a_slot_stands_before_the_token_that_holds_the_first_character(
    name: str, example: Example
) -> None:
    tokenizer = family(name)
    if not example.mentions:
        return
    start, end = example.mentions[0].start, example.mentions[0].end
    bare = Example("x", example.text, (Mention(start, end, "e"),), "label")
    got = one(tokenizer, bare, [3], "{slot} / {mention}")
    core = example.text[start:end].strip()
    first = start + example.text[start:end].find(core)
    encoded = tokenizer(example.text, return_offsets_mapping=True, add_special_tokens=False)
    holds = [at for at, (a, b) in enumerate(encoded["offset_mapping"]) if a <= first < b]
    if not core or not holds:
        return
    place = int(got.slots[0]) - 1  # behind the special
    between = encoded["offset_mapping"][place : holds[0]]
    assert place <= holds[0]
    assert all(not example.text[a:b].strip() for a, b in between)
    assert got.spans[0, 0] == got.slots[0] + 1 + len(inner_tokens(tokenizer, ["/"])[0])


@every_family_of_words
def test_a_mention_within_another_keeps_its_own_marker(name: str) -> None:
    tokenizer = family(name)
    text = "river Istanbul today"
    pairs = (((0, 14), (0, 5)), ((0, 5), (0, 14)), ((0, 14), (6, 14)), ((0, 14), (0, 14)))
    for head, tail in pairs:
        mentions = (Mention(*head, "h", Role.HEAD), Mention(*tail, "t", Role.TAIL))
        got = one(tokenizer, Example("x", text, mentions, ""), [-1, -1])
        names = [sign.strip("▁Ġ ") for sign in tokenizer.convert_ids_to_tokens(got.ids.tolist())]
        assert [names[start - 1] for start in got.spans[:, 0]] == ["#", "$"], (head, tail)
        # The blank before a marker may be a token of its own.
        after = ["".join(names[end : end + 2])[:1] for end in got.spans[:, 1]]
        assert after == ["#", "$"], (head, tail)


@every_family
def test_passages_are_a_second_text_as_the_tokenizer_writes_it(name: str) -> None:
    tokenizer = family(name)
    layout = Layout({}, None, 100, room=400)
    told = ["a river (near it). They spoke,  Tokyo's towns", "it rained"]
    example = Example("x", CORPUS[0], (), "")
    got = encode(tokenizer, [example], [()], layout, [[Passage(text) for text in told]])
    assert got.ids.tolist() == tokenizer(CORPUS[0], " ".join(told))["input_ids"]


@every_family_of_words
def test_a_branch_goes_on_after_its_mention(name: str) -> None:
    tokenizer = family(name)
    layout = Layout({}, None, 100, room=400)
    example = Example("x", "a river", (Mention(2, 7, "e"),), "")
    got = encode(tokenizer, [example], [(0,)], layout, [[Passage("near Tokyo", 0)]])
    whole = tokenizer("a river near Tokyo", add_special_tokens=False)["input_ids"]
    hung = got.ids[got.kinds == TokenKind.PASSAGE].tolist()
    assert [*got.ids[1 : len(got.ids) - len(hung) - 1].tolist(), *hung] == whole


@every_family
@settings(max_examples=25)
@given(words=st.lists(st.sampled_from(["river", "#", "Tokyo's", "(red)", "a"]), min_size=1))
def test_words_inside_a_text_go_on_after_others(name: str, words: list[str]) -> None:
    tokenizer = family(name)
    several = inner_tokens(tokenizer, words)
    for word, ids in zip(words, several, strict=True):
        both, start = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f"a {word}", "a")
        )
        assert both[len(start) :] == ids


def test_a_text_that_spells_out_specials_has_one_blank_and_is_text() -> None:
    tokenizer = family("byte-level")
    example = Example("x", "we saw <mask> and </s> today", (), "", blank=6)
    got = one(tokenizer, example, [])
    assert (got.ids == tokenizer.mask_token_id).sum() == 1
    assert (got.ids == tokenizer.eos_token_id).sum() == 1  # the one around the text
    assert got.ids[got.blanks[0]] == tokenizer.mask_token_id
    names = tokenizer.decode(got.ids.tolist())
    assert names.count("<mask>") == 2


def test_a_mask_that_takes_the_blank_before_it_does_so_here_too() -> None:
    greedy = copy.deepcopy(family("byte-level"))
    greedy.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True, special=True)})
    text = "the river is "
    got = one(greedy, Example("x", text, (), "", blank=len(text)), [])
    assert got.ids.tolist() == greedy(f"{text}<mask>")["input_ids"]
    assert got.ids[got.blanks[0]] == greedy.mask_token_id
    assert len(got.ids) == len(greedy("the river is")["input_ids"]) + 1


def test_markers_that_are_unknown_or_alike_are_refused_by_name() -> None:
    tokenizer = family("wordpiece")
    mentions = (Mention(0, 2, "h", Role.HEAD), Mention(3, 6, "t", Role.TAIL))
    example = Example("x", "we saw it", mentions, "")
    cases = {
        ("|", "$"): r"marker '\|' of head is unknown to the backbone's tokenizer .*such as # \$",
        ("§1", "$"): "marker '§1' of head is unknown",
        ("#", " "): "marker ' ' of tail is unknown",
        ("#", "\u200b"): "of tail is unknown",
        ("#", "#"): "markers '#' of head and '#' of tail are one to",
        ("RED", "red"): "markers 'RED' of head and 'red' of tail are one to",
    }
    for (head, tail), problem in cases.items():
        layout = Layout({Role.HEAD: head, Role.TAIL: tail})
        with pytest.raises(KbenchError, match=problem):
            encode(tokenizer, [example], [(-1, -1)], layout)
    cased = family("wordpiece cased")
    layout = Layout({Role.HEAD: "T", Role.TAIL: "t"})
    assert len(encode(cased, [example], [(-1, -1)], layout)) == 1


def test_context_is_not_marked_since_a_linker_may_add_to_it() -> None:
    example = Example("x", "we saw it", (Mention(0, 2, "h"),), "")
    with pytest.raises(KbenchError, match="markers are for target, head and tail"):
        encode(family("wordpiece"), [example], [(-1,)], Layout({Role.CONTEXT: "#"}))


def test_a_template_with_a_word_that_is_unknown_is_unsupported() -> None:
    example = Example("x", "we saw it", (Mention(0, 2, "h"),), "")
    with pytest.raises(Unsupported, match=r"'\{slot\} \| \{mention\}' holds '\|'"):
        encode(family("wordpiece"), [example], [(0,)], Layout({}, "{slot} | {mention}"))


def test_markers_of_a_family_give_way_to_known_signs() -> None:
    tokenizer = family("wordpiece")
    roles = (Role.HEAD, Role.TAIL)
    for given_, expected in (("#$", "#$"), ("@#", "$#"), ("$@", "$#"), ("@|", "#$"), ("#|", "#$")):
        markers = dict(zip(roles, given_, strict=True))
        assert "".join(known_markers(tokenizer, markers).values()) == expected
    assert known_markers(family("byte-level"), {Role.HEAD: "@"}) == {Role.HEAD: "@"}


def test_known_words_are_the_first_of_those_that_are_one() -> None:
    assert known_words(family("wordpiece"), ["|", "RED", "#", "red"]) == ["RED", "#"]
    assert known_words(family("byte-level"), ["|", "#"]) == ["|", "#"]


def test_unknown_words_of_texts_and_passages_are_counted() -> None:
    tokenizer = family("whole words")
    texts_ = ["We saw Istanbul", "xyz saw klm", "klm"]
    brought = [[], [Passage("We klm"), Passage("xyz")], []]
    examples = [Example(str(at), text, (), "") for at, text in enumerate(texts_)]
    got = encode(tokenizer, examples, [()] * 3, Layout({}, room=50), brought)
    assert got.words["text_tokens"] == 7
    assert got.words["unknown_text_tokens"] == 3
    assert got.words["unknown_passage_tokens"] == 2
    linked = Example("x", "We saw", (Mention(0, 2, "e"),), "")
    slotted = encode(tokenizer, [linked], [(0,)], Layout({}, "{slot} / {mention}"))
    assert slotted.words == {"text_tokens": 2, "unknown_text_tokens": 0}  # a slot is no word


def test_a_context_mention_without_a_slot_changes_nothing_of_what_is_cut() -> None:
    tokenizer = family("byte-level")
    text = " ".join(["river"] * 60)
    target = Mention(0, 5, "e", Role.HEAD)
    added = tuple(Mention(at, at + 5, "e") for at in (60, 120, 240, 350))
    layout = Layout(ROLES, None, 24)
    plain = encode(tokenizer, [Example("x", text, (target,), "")], [(-1,)], layout)
    more = Example("x", text, (target, *added), "")
    got = encode(tokenizer, [more], [(0,) * 5], layout)
    assert got.ids.tolist() == plain.ids.tolist()
    assert got.spans[-1].tolist() == [0, 0]  # what was cut off is nowhere
    assert len(got.collate(np.array([0])).mentions) < 5
