"""Options as environment variables of their long names; what none reads is told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kbench.cli import environment, verbs
from tests.calling import call

ROOT = Path(__file__).parents[2]


def commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The words of a command and of all below it."""
    yield words
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from commands(inner, (*words, name))


EVERY = [words for name in verbs.names() for words in commands(verbs.load(name), (name,))]


def reached(words: tuple[str, ...]) -> tuple[click.Command, str]:
    """A command as `kbench` finds it, and the prefix of its variables."""
    prefix = f"KBENCH_{words[0].upper()}"
    command = environment.named(verbs.load(words[0]), prefix)
    for word in words[1:]:
        assert isinstance(command, click.Group)
        inner = command.get_command(click.Context(command), word)
        assert inner is not None
        command, prefix = inner, f"{prefix}_{word.upper().replace('-', '_')}"
    return command, prefix


def values(option: click.Option) -> tuple[str, object]:
    """Text of a variable that an option takes, and what it makes of it."""
    if option.is_flag:
        return ("0", False) if option.default is True else ("1", True)
    kind = option.type
    text = "2"
    if isinstance(kind, click.Choice):
        text = str(kind.choices[-1])
    elif kind.name in ("DURATION", "SIZE"):
        text = "2h" if kind.name == "DURATION" else "2GB"
    elif kind.name == "condition":
        text = "low<2"
    value = kind.convert(text, option, None)
    return text, (value,) if option.multiple else value


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_option_is_read_from_the_variable_of_its_long_name(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, prefix = reached(words)
    options = [p for p in command.params if isinstance(p, click.Option)]
    for option in options:
        (long,) = [name for name in option.opts if name.startswith("--")]
        text, value = values(option)
        with monkeypatch.context() as patch:
            patch.setenv(f"{prefix}_{long[2:].upper().replace('-', '_')}", text)
            ctx = click.Context(command, resilient_parsing=True)
            taken, source = option.consume_value(ctx, {})
            assert source == click.core.ParameterSource.ENVIRONMENT, long
            assert option.type_cast_value(ctx, taken) == value, long


def test_the_commands_walked_are_those_there_are() -> None:
    assert ("run",) in EVERY
    assert ("cache", "prune") in EVERY
    assert ("leaderboard", "build") in EVERY
    assert len(EVERY) > 20


def dry(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    return call(capsys, "run", "--task", "atlas-qa", "--method", "none", "--dry-run", *more)


def test_a_variable_of_several_values_is_split_as_a_shell_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KBENCH_RUN_SET", "tuning.full.epochs=2\n'tuning.full.batch_size= 8'")
    monkeypatch.setenv("KBENCH_RUN_JSON", "1")
    status, out, err = dry(capsys)
    assert status == 0, err
    spec = json.loads(out.splitlines()[0])["spec"]
    assert spec["options"]["tuning"] == {"full": {"epochs": 2, "batch_size": 8}}
    monkeypatch.setenv("KBENCH_RUN_SET", "tuning.full.epochs='2")
    status, _, err = dry(capsys)
    assert status == 2
    assert "expected words as in a shell" in err


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("KBENCH_RUN_SEEDS", "KBENCH_RUN_SEED"),
        ("KBENCH_RUN_SETTINGS", "KBENCH_RUN_SETTING"),
        ("KBENCH_RNU_SEED", "KBENCH_RUN_SEED"),
        ("KBENCH_HIDEN_BYTES", "KBENCH_HIDDEN_BYTES"),
        ("KBENCH_CACHE_DIR", "KBENCH_CACHE"),  # begins as those of another verb, and all read it
        ("KBENCH_X", ""),
        ("KBENCH_VERSION", ""),
    ],
)
def test_a_variable_that_nothing_reads_is_told_with_the_nearest(
    name: str,
    near: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "3")
    status, out, err = dry(capsys)
    assert (status, out) == (2, "")
    assert name in err
    assert err.count("\n") == 1
    assert (f"(did you mean {near}" in err) is bool(near)


def test_a_variable_of_another_command_is_its_own_to_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KBENCH_LEADERBOARD_BUILD_RESULT", "there")
    monkeypatch.setenv("KBENCH_LEADERBOARD_BUILD_RESULTS", "there")
    monkeypatch.setenv("KBENCH_TABLE_OUTS", "/somewhere")
    status, _, err = dry(capsys)
    assert status == 0
    (said,) = (line for line in err.splitlines() if "environment" in line)
    start = "warning: no option is read from the environment variable KBENCH_LEADERBOARD_BUILD_RES"
    assert said.startswith(f"{start}ULT (did you mean")
    assert "; KBENCH_TABLE_OUTS (did you mean KBENCH_TABLE_OUT" in said
    assert "BUILD_RESULTS;" not in said
    status, _, err = call(capsys, "leaderboard", "merge", "a", "--out", "b")
    assert status == 2
    assert "KBENCH_LEADERBOARD_BUILD_RESULT (did you mean KBENCH_LEADERBOARD_BUILD_RESULTS" in err
    monkeypatch.setenv("KBENCH_RUN_SEEDS", "1")
    assert call(capsys, "run", "--help")[0] == 0


def test_commands_of_plugins_are_read_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    class Late(click.Group):
        """Makes its commands when they are asked for."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            return ["deep-one"]

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
            def work(**given: object) -> None:
                seen.append((given["inner"], given["pair"], given["named"]))

            options = [
                click.Option(["--outer-name", "inner"]),
                click.Option(["--pair"], nargs=2),
                click.Option(["--named"], envvar="KBENCH_FREE"),
            ]
            return click.Command(cmd_name, callback=work, params=list(options))

    group = Late("plug")
    command = environment.named(group, "KBENCH_PLUG")
    found = environment.variables(command, "KBENCH_PLUG")
    assert {"KBENCH_PLUG_DEEP_ONE_OUTER_NAME", "KBENCH_FREE"} <= found
    assert "KBENCH_PLUG_DEEP_ONE_INNER" not in found
    monkeypatch.setenv("KBENCH_PLUG_DEEP_ONE_OUTER_NAME", "a")
    monkeypatch.setenv("KBENCH_PLUG_DEEP_ONE_PAIR", "b 'c d'")
    monkeypatch.setenv("KBENCH_FREE", "e")
    command.main(["deep-one"], standalone_mode=False, auto_envvar_prefix="KBENCH_PLUG")
    assert seen == [("a", ("b", "c d"), "e")]

    loaded = {"plug": command, "run": environment.named(verbs.load("run"), "KBENCH_RUN")}
    environment.unread("run", loaded, loaded.__getitem__)  # KBENCH_FREE is the other's


def test_the_variables_of_the_engine_are_those_it_reads() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for wing in ("kbench", "tasks", "baselines", "leaderboard")
        for path in (ROOT / wing).rglob("*.py")
        if path.name != "environment.py"
    ]
    read = {name for text in sources for name in re.findall(r'"(KBENCH_[A-Z_]+)"', text)}
    # That of the folder of results is an option's, though of every command.
    assert read - {"KBENCH_OUT"} == environment.ENGINE - {"KBENCH_TEST_DATA"}


@pytest.mark.parametrize(
    "twice",
    [
        ("--seed", "0", "--seed", "1"),
        ("--deterministic", "--no-deterministic"),
        ("--executor", "ray", "--option", "retries=1", "-o", "retries=2"),
    ],
)
def test_of_an_option_given_twice_none_is_lost(
    twice: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    more = () if "--executor" not in twice else ("--task", "atlas-qa", "--method", "none")
    status, out, err = call(capsys, "run", *more, *twice)
    assert (status, out) == (2, "")
    assert "give it once" in err
    assert err.count("\n") == 1


def test_a_command_that_was_run_by_itself_has_the_help_of_all() -> None:
    alone = click.Command("alone", callback=lambda: None)
    assert alone.get_help_option(click.Context(alone)) is not None
    own = environment.named(alone, "KBENCH_ALONE")
    option = own.get_help_option(click.Context(own, help_option_names=environment.HELP))
    assert option is not None
    assert sorted(option.opts) == sorted(environment.HELP)
