"""What a chat template writes around one message, and how an answer is spelled after that.

A base model is asked by a text that it goes on with; a model that was tuned to talk may be asked
by a message of a user, after which it is its turn. All that is said stands in that one message. The
answer begins without a blank, and the model does not think aloud before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kbench.encoding.tokens import Affixes, affixes, bare_tokens
from kbench.errors import InputError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["answer_tokens", "around_message"]

_PROBES = ("Kbench 4711 asks this", "it rained near 的 river, 88", "Which town? It is a")
_SAID = {
    "enable_thinking": False,
    "thinking": False,
    # Templates that write the date would give another prompt every day.
    "date_string": "26 Jul 2024",
}


def around_message(tokenizer: PreTrainedTokenizerFast) -> Affixes:
    """Returns the tokens before and after a message to which the model is to answer.

    Args:
        tokenizer: with a chat template.

    Raises:
        InputError: it has none, or none that writes a message as it is; or what begins a text
            would stand there twice.
    """
    found = {_split(tokenizer, probe) for probe in _PROBES}
    if len(found) != 1:
        raise InputError(
            "the chat template of the backbone does not write every message alike, with the same "
            "tokens around it; expected one that does, or a run without --chat"
        )
    around = found.pop()
    start = tokenizer.bos_token_id
    if start is not None and around.before[:2] == (start, start):
        raise InputError(
            f"the chat template of the backbone begins twice with {tokenizer.bos_token}; expected "
            "what begins a text once"
        )
    return around


def answer_tokens(tokenizer: PreTrainedTokenizerFast, answers: Sequence[str]) -> list[list[int]]:
    """Returns the tokens of answers right after a message: they have no blank before them.

    Args:
        tokenizer: with a chat template.
        answers: in words.

    Raises:
        InputError: an answer would change the tokens that stand before it.
    """
    asked = _rendered(tokenizer, _PROBES[0])
    before, *whole = _plain(tokenizer, [asked, *(asked + answer for answer in answers)])
    for answer, ids in zip(answers, whole, strict=True):
        if ids[: len(before)] != before:
            raise InputError(
                f"answer {answer!r} changes the last tokens of the chat template before it; "
                "expected a template that ends where a token does, or a run without --chat"
            )
    return [ids[len(before) :] for ids in whole]


def _split(tokenizer: PreTrainedTokenizerFast, message: str) -> Affixes:
    """What is written before and after a message, by its tokens."""
    text = _rendered(tokenizer, message)
    ids, own = _plain(tokenizer, [text])[0], bare_tokens(tokenizer, [message])[0]
    at = next((n for n in range(len(ids)) if ids[n : n + len(own)] == own), None)
    if at is None:
        raise InputError(
            "the chat template of the backbone changes what is put into it, or its first or last "
            "token; expected one that writes a message as it is, or a run without --chat"
        )
    start = affixes(tokenizer).before
    before = tuple(ids[:at])
    if before[: len(start)] != start:
        before = start + before
    return Affixes(before, tuple(ids[at + len(own) :]))


def _rendered(tokenizer: PreTrainedTokenizerFast, message: str) -> str:
    if not tokenizer.chat_template:
        raise InputError("the backbone has no chat template, which --chat asks for")
    said = [{"role": "user", "content": message}]
    try:
        text: str = tokenizer.apply_chat_template(
            said, tokenize=False, add_generation_prompt=True, **_SAID
        )
    except Exception as cause:  # a template is a program of a stranger
        raise InputError(
            f"the chat template of the backbone does not take one message of a user "
            f"({first_line(cause)})"
        ) from cause
    return text


def _plain(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of whole texts, in which special tokens are spelled out."""
    ids: list[list[int]] = tokenizer([*texts], add_special_tokens=False)["input_ids"]
    return ids
