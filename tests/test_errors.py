"""How the cause of an error is told in the text of another one."""

import errno
import os

import pytest

from kbench.errors import first_line, one_line, with_type


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    ("cause", "first", "whole"),
    [
        (ValueError("no number"), "no number", "no number"),
        (ValueError("\n \n  two\tnumbers  \nor three"), "two\tnumbers", "two numbers or three"),
        (ValueError(" \n"), "ValueError", "ValueError"),
        (EOFError(), "EOFError", "EOFError"),
        (MuteError(), "MuteError", "MuteError"),
        (OSError("a library's own text"), "a library's own text", "a library's own text"),
        (
            PermissionError(errno.EACCES, "Permission denied", "file.json"),
            "Permission denied",
            "[Errno 13] Permission denied: 'file.json'",
        ),
        (OSError(errno.ENOENT, "no such file\nin Arrow"), "no such file", None),
    ],
)
def test_a_cause_is_told_in_one_line(cause: Exception, first: str, whole: str | None) -> None:
    assert first_line(cause) == first
    assert whole is None or one_line(cause) == whole


def test_the_system_says_why_a_file_cannot_be_opened() -> None:
    with pytest.raises(OSError) as caught:
        os.open("/dev/null/file", os.O_RDONLY)
    assert first_line(caught.value) == os.strerror(errno.ENOTDIR)


def test_a_text_is_folded_to_one_line() -> None:
    assert one_line("  two\r\n\tlines\u2028and a  third ") == "two lines and a third"
    assert one_line("") == ""


def test_the_type_stands_before_a_text_if_there_is_one() -> None:
    assert with_type(KeyError("a")) == "KeyError: 'a'"
    assert with_type(RuntimeError("two\nlines")) == "RuntimeError: two lines"
    assert with_type(AssertionError()) == "AssertionError"
    assert with_type(MuteError()) == "MuteError"
