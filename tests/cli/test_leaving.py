"""How the command leaves: interrupted once and twice, and where nobody reads on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from io import TextIOWrapper

import click
import pytest

from kbench import cli
from kbench.cli import main, verbs

_TWICE = """
import os, signal
from kbench.cli import main, verbs
import click

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a job in the background

@click.command()
def slow():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os.kill(os.getpid(), signal.SIGINT)  # while the first is cleared up after
        print("goes on")

verbs.load = lambda name: slow
main(["table"])
"""


def test_a_second_interruption_ends_at_once_and_is_no_crash() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TWICE], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_one_interruption_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def slow() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("goes on")

    monkeypatch.setattr(verbs, "load", lambda name: slow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as left:
            main(["table"])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert left.value.code == 130
    assert "interrupted; what was finished is stored" in capsys.readouterr().err


_EARLY = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)

class Pressed:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressed())
from kbench.__main__ import main

main()
"""


def test_an_interruption_before_all_is_imported_is_no_crash() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _EARLY], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("status", [0, 1])
def test_where_nobody_reads_on_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, lines: int, status: int
) -> None:
    """A short output is still held when all is said, and a long one fails where it is written."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = TextIOWrapper(os.fdopen(writing, "wb"), encoding="utf-8")

    @click.command()
    def talks() -> int:
        for _ in range(lines):
            stream.write("a line\n")
        return status

    monkeypatch.setattr(verbs, "load", lambda name: talks)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as left:
        cli.main(["table"])
    assert left.value.code == (status if lines == 1 else 0)
    stream.close()  # which would be told at the end of the process, else


@pytest.mark.parametrize("words", [["--version"], ["table", "--out", "nowhere"]])
def test_a_closed_output_is_no_crash(words: list[str]) -> None:
    code = (
        "import os, sys; os.execv(sys.executable, [sys.executable, '-m', 'kbench', *sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.close(1); {code}", *words],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == (0 if words == ["--version"] else 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (0 if words == ["--version"] else 1)


def test_a_help_that_nobody_reads_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "kbench", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_error_is_no_longer_than_anyone_reads(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["show", "x" * 100_000])
    assert len(capsys.readouterr().err) < 2100


def test_names_of_strangers_do_not_steer_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs, "names", lambda: ["v\x1b[31mRED", "w\u202ex"])
    monkeypatch.setattr(verbs, "about", lambda name: "about \x9b")
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert "RED" in said
    assert not {"\x1b", "\u202e", "\x9b"} & {*said}
