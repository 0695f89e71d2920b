"""A message of a user: one beginning, everything inside, the answer without a blank."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import processors

from kbench.data import Example, Mention, Role
from kbench.encoding import Layout, Passage, TokenKind, answer_tokens, encode
from kbench.errors import InputError
from tests.families import FAMILIES, family

PLAIN = (
    "{{ bos_token }}{% for message in messages %}<mask>{{ message['role'] }}\n"
    "{{ message['content'] }}<mask>\n{% endfor %}"
    "{% if add_generation_prompt %}<mask>assistant\n"
    "{% if enable_thinking is not defined or enable_thinking %}it rained{% endif %}{% endif %}"
)
LAYOUT = Layout({}, left_to_right=True, chat=True, room=300)
TEXT = "we saw Istanbul near a river"
EXAMPLE = Example(
    "1", f"{TEXT} .", (Mention(7, 15, "Q406", Role.TARGET),), ("red",), blank=len(TEXT)
)
REFUSED = {
    "bpe always",
    "bpe first",
    "byte-level prefix",
    "prepended",
    "unigram always",
    "unigram first",
    "unigram never",
    "unigram unsplit",
    "whole words",
}
"""Tokenizers that write a message otherwise at the beginning of a text than within it."""


def talking(name: str = "byte-level", template: str | None = PLAIN) -> Any:
    tokenizer = deepcopy(family(name))
    tokenizer.bos_token, tokenizer.chat_template = "<s>", template
    return tokenizer


@pytest.fixture(params=["byte-level", "byte-level trimmed"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return talking(str(request.param))


def rendered(tokenizer: Any, message: str) -> list[int]:
    said = [{"role": "user", "content": message}]
    text = tokenizer.apply_chat_template(
        said, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_a_text_is_put_as_the_template_writes_it() -> None:
    tokenizer = talking()
    inputs = encode(tokenizer, [EXAMPLE], [(-1,)], LAYOUT)
    assert inputs.ids.tolist() == rendered(tokenizer, TEXT)
    assert inputs.blanks.tolist() == [len(inputs.ids) - 1]
    assert inputs.ids.tolist().count(tokenizer.bos_token_id) == 1
    assert "rained" not in tokenizer.decode(inputs.ids)
    start, end = inputs.spans[0].tolist()
    assert tokenizer.decode(inputs.ids[start:end]).strip() == "Istanbul"


def test_it_begins_once_whether_the_tokenizer_begins_texts_or_the_template_does() -> None:
    for bare in (False, True):
        for template in (PLAIN, PLAIN.removeprefix("{{ bos_token }}")):
            tokenizer = talking(template=template)
            if bare:
                ends = processors.ByteLevel(trim_offsets=False)
                tokenizer.backend_tokenizer.post_processor = ends
            ids = encode(tokenizer, [EXAMPLE], [(-1,)], LAYOUT).ids.tolist()
            begins = not bare or template == PLAIN
            assert ids.count(tokenizer.bos_token_id) == begins
            assert (ids[0] == tokenizer.bos_token_id) == begins


def test_a_template_that_begins_twice_is_refused() -> None:
    with pytest.raises(InputError, match="begins twice with <s>") as caught:
        encode(talking(template="{{ bos_token }}" + PLAIN), [EXAMPLE], [(-1,)], LAYOUT)
    assert "\n" not in str(caught.value)


def test_slots_and_passages_are_in_the_message() -> None:
    tokenizer = talking()
    bare = encode(tokenizer, [EXAMPLE], [(-1,)], LAYOUT).ids.tolist()
    slotted = encode(tokenizer, [EXAMPLE], [(7,)], replace(LAYOUT, slot="{slot} {mention}"))
    at = int(slotted.slots[0])
    assert [*slotted.ids[:at], *slotted.ids[at + 1 :]] == bare
    told = encode(tokenizer, [EXAMPLE], [(-1,)], LAYOUT, [[Passage("It is a town .")]])
    brought = told.kinds == TokenKind.PASSAGE
    assert told.ids[~brought].tolist() == bare
    assert told.ids.tolist() == rendered(tokenizer, f"It is a town .\n{TEXT}")


def test_what_is_cut_is_neither_the_template_nor_the_end_of_the_question() -> None:
    tokenizer = talking()
    long = replace(EXAMPLE, text="it rained " * 60 + TEXT, mentions=(), blank=10 * 60 + len(TEXT))
    around = len(rendered(tokenizer, "")) + 6
    inputs = encode(tokenizer, [long], [()], replace(LAYOUT, max_length=around))
    assert inputs.shortened == 1
    assert len(inputs.ids) == around
    text = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    kept = inputs.ids[inputs.kinds == TokenKind.TEXT].tolist()
    assert kept == text[-len(kept) :]


def test_answers_have_no_blank_before_them(tokenizer: Any) -> None:
    answers = ["red", "a river", "Berlin"]
    wanted = [rendered(tokenizer, "it") + ids for ids in answer_tokens(tokenizer, answers)]
    for answer, ids in zip(answers, wanted, strict=True):
        assert tokenizer.decode(ids).endswith(f"assistant\n{answer}")


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_other_tokenizers_are_put_right_or_refused(name: str) -> None:
    tokenizer = talking(name)
    if name in REFUSED:
        with pytest.raises(InputError, match="chat template"):
            encode(tokenizer, [EXAMPLE], [(-1,)], LAYOUT)
    else:
        ids = encode(tokenizer, [EXAMPLE], [(-1,)], LAYOUT).ids.tolist()
        assert ids == rendered(tokenizer, TEXT)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "has no chat template"),
        ("{{ messages[0]['content'] | upper }}", "changes what is put into it"),
        ("{{ raise_exception('Only with a system') }}", "does not take one message"),
    ],
)
def test_templates_that_cannot_be_used_say_why(template: str | None, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        encode(talking(template=template), [EXAMPLE], [(-1,)], LAYOUT)
    assert "\n" not in str(caught.value)
