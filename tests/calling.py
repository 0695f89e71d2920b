"""The command as a user calls it."""

from __future__ import annotations

import pytest

from kbench.cli import main

__all__ = ["call"]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Runs the command; returns its exit status, output and messages."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err
