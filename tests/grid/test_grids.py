"""Runs and grids: products of axes, errors of one line, and commands that repeat a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbench.cli import run_grids
from kbench.cli.run import run
from kbench.errors import DataError, KbenchError, UsageError
from kbench.grid import runner
from kbench.grid.grids import Grid, make_grid, make_grids, read_grid, set_option
from kbench.interface.asking import Asked
from kbench.spec import Control, RunSpec, Setting, short_names

LEAST = {"task": "a", "method": "b"}


def test_a_grid_is_the_product_of_its_axes() -> None:
    grid = make_grid(
        {"task": "a, b", "method": ["m", "n"], "seed": "0,1", "setting": "general"}, "here"
    )
    cells = grid.cells()
    assert len(cells) == len({cell.model_dump_json() for cell in cells}) == 2 * 2 * 3 * 2
    assert [cell.seed for cell in cells[:4]] == [0, 1, 0, 1]
    assert [cell.control for cell in cells[:4]] == ["none", "none", "foreign", "foreign"]
    assert cells[0].backbone == "kbench-tiny"


def test_a_cell_carries_the_options_of_its_own_parts_alone() -> None:
    options = {
        "method": {"m": {"x": 1}, "n": {"x": 2}},
        "tuning": {"full": {"epochs": 1}},
        "task": {"b": {"threshold": 0.3}},
    }
    grid = make_grid({"task": "a", "method": "m,n,o", "options": options}, "here")
    first, second, third = (cell.options for cell in grid.cells()[::6])
    assert first == {"tuning": {"full": {"epochs": 1}}, "method": {"m": {"x": 1}}}
    assert second["method"] == {"n": {"x": 2}}
    assert third == {"tuning": {"full": {"epochs": 1}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": "a"}, "unknown key 'tasks'; did you mean task"),
        ({"task": None}, "--task is missing"),
        ({"task": " , "}, "task is empty; expected one or more names"),
        ({"task": 5}, "task.0 is 5; expected one or more names or globs, as text"),
        ({"task": ["a", None]}, "task.1 is None; expected one or more names"),
        ({"setting": []}, "setting is empty; expected one or more of general, task-specific"),
        ({"setting": "generall"}, "setting.0 is 'generall'; expected .* fine-tuning"),
        ({"control": "none,odd"}, "control.1 is 'odd'; expected .* shuffled"),
        ({"seed": "0,x"}, "seed.1 is 'x'; expected whole numbers from 0 to 4294967295, or ranges"),
        ({"seed": -1}, "seed.0 is -1; expected whole numbers"),
        ({"seed": "-1"}, "seed.0 is '-1'; expected whole numbers"),
        ({"seed": 2**32}, "seed.0 is 4294967296; expected whole numbers"),
        ({"seed": True}, "seed.0 is True; expected whole numbers"),
        ({"seed": [0, 1.0]}, "seed.1 is 1.0; expected whole numbers"),
        ({"seed": "9-0"}, "seed is '9-0'; expected a range whose end is not before its start"),
        ({"seed": "0-4294967295"}, "seed is '0-4294967295'; expected .* at most 20,000 seeds"),
        ({"seed": "4294967295-4294967296"}, "seed.1 is 4294967296; expected whole numbers"),
        ({"seed": "a-b"}, "seed.0 is 'a-b'; expected .* or ranges such as 0-9"),
        ({"seed": "0..9"}, "seed.0 is '0..9'; expected .* or ranges such as 0-9"),
        ({"seed": "0--9"}, "seed.0 is '0--9'; expected .* or ranges such as 0-9"),
        ({"limit": 0}, "limit is 0; expected a whole number, at least 1"),
        ({"limit": "many"}, "limit is 'many'; expected a whole number, at least 1"),
        ({"limit": True}, "limit is True; expected a whole number, at least 1"),
        ({"limit": 2.0}, "limit is 2.0; expected a whole number, at least 1"),
        ({"data": 3}, "data is 3; expected a folder"),
        ({"linker": ["gold"]}, "linker is .'gold'.; expected the name of a linker"),
        ({"dtype": "fp16"}, "dtype is 'fp16'; expected float32 or bfloat16 or float16"),
        ({"options": {"methods": {"m": {"x": 1}}}}, "options.methods is 'methods'; .* or method a"),
        ({"options": {"method": {"m": 1}}}, "options.method.m is 1; expected for task"),
        ({"options": {"method": {3: {}}}}, "options.method.3 is 3; expected for task"),
        ({"options": 3}, "options is 3; expected for task, tuning or method a mapping"),
    ],
)
def test_a_wrong_grid_is_a_usage_error_of_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"^here: {said}") as caught:
        make_grid({**LEAST, **change}, "here")
    assert "\n" not in str(caught.value)


def test_what_a_grid_accepts_a_run_accepts() -> None:
    grid = make_grid({**LEAST, "seed": [0, 2**32 - 1], "limit": 1, "dtype": "bfloat16"}, "here")
    assert len(grid.cells()) == 2 * 6


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        ("0-3", (0, 1, 2, 3)),
        ("7, 0-2 ,9", (7, 0, 1, 2, 9)),
        (["0-1", 5, "8,3-3"], (0, 1, 5, 8, 3)),
        ("0-2,1", (0, 1, 2)),
        ("4294967294-4294967295", (2**32 - 2, 2**32 - 1)),
    ],
)
def test_a_range_of_seeds_is_each_of_them_once(given: Any, seeds: tuple[int, ...]) -> None:
    assert make_grid({**LEAST, "seed": given}, "here").seed == seeds


def test_a_range_of_seeds_narrows_and_is_narrowed() -> None:
    (grid,) = make_grids({**LEAST, "grids": [{"seed": "2-5"}]}, "file", {"seed": "0-3"})
    assert grid.seed == (2, 3)


# -- grid files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"task: [a", r"line 1: .*expected a YAML mapping"),
        (b"a: b: c", r"line 1: mapping values are not allowed"),
        (b"- task", r"holds list; expected"),
        (b"", r"holds NoneType; expected"),
        (b"1: a", r"has the key 1, which is no text; expected"),
        (b"task: \xff", r"is not UTF-8"),
        (b"task: \x00", r"expected a YAML mapping"),
        (b"!!python/object:os.system {}", r"expected a YAML mapping"),
    ],
)
def test_a_file_that_is_no_grid_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_grid(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_a_grid_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_grid(tmp_path / name)


def test_a_grid_file_gives_a_grid(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("task: [a, b]\nmethod: m\nseed: 3\nsetting: general\ncontrol: none\n")
    assert [cell.task for cell in make_grid(read_grid(path), "here").cells()] == ["a", "b"]


# -- several grids in a file ----------------------------------------------------------------------


SEVERAL: dict[str, Any] = {
    "backbone": "b",
    "seed": [0, 1],
    "method": "m",
    "control": "none",
    "setting": "general",
    "options": {"method": {"m": {"x": 1, "y": 1}}},
    "grids": [
        {"task": ["one", "two"], "tuning": ["full", "lora"]},
        {"task": "two", "method": "n", "seed": 2, "options": {"method": {"m": {"y": 2}, "n": {}}}},
    ],
}


def test_each_grid_says_in_what_it_differs() -> None:
    first, second = make_grids(SEVERAL, "file")
    assert (first.task, first.tuning, first.method) == (("one", "two"), ("full", "lora"), ("m",))
    assert (second.task, second.tuning, second.method) == (("two",), ("full",), ("n",))
    assert (first.backbone, second.backbone) == (("b",), ("b",))
    assert (first.seed, second.seed) == ((0, 1), (2,))
    assert first.options == {"method": {"m": {"x": 1, "y": 1}}}
    assert second.options == {"method": {"m": {"x": 1, "y": 2}, "n": {}}}


def test_a_choice_given_replaces_that_of_the_file_and_narrows_that_of_a_grid() -> None:
    given = {"task": "two", "backbone": "other", "limit": 3, "tuning": "l*,bitfit"}
    first, second = make_grids(SEVERAL, "file", given)
    assert (first.task, first.tuning) == (("two",), ("lora",))
    assert (second.task, second.tuning) == (("two",), ("l*", "bitfit"))
    assert {first.backbone, second.backbone} == {("other",)}
    assert {first.limit, second.limit} == {3}
    # The common seeds are replaced, the second grid's own are narrowed to nothing: it is left out.
    (only,) = make_grids(SEVERAL, "file", {"seed": "0,5"})
    assert only.seed == (0, 5)


@pytest.mark.parametrize(
    ("own", "given", "kept"),
    [
        (["a", "b"], "b,c", ("b",)),
        (["a", "b"], "all", ("a", "b")),
        ("all", "b,a", ("b", "a")),
        (["a*", "b"], "ab,c", ("ab",)),
    ],
)
def test_globs_narrow_and_are_narrowed(own: Any, given: str, kept: tuple[str, ...]) -> None:
    (grid,) = make_grids({"method": "m", "grids": [{"task": own}]}, "file", {"task": given})
    assert grid.task == kept


def test_settings_are_laid_over_every_grid() -> None:
    grids = make_grids(SEVERAL, "file", {}, ["method.m.y=7"])
    assert [grid.options["method"]["m"] for grid in grids] == [{"x": 1, "y": 7}] * 2
    assert SEVERAL["options"] == {"method": {"m": {"x": 1, "y": 1}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grids": []}, "file: grids is .*expected a list of mappings"),
        ({"grids": {"task": "a"}}, "file: grids is .*expected a list of mappings"),
        ({"grids": ["a"]}, "file: grids is .*expected a list of mappings"),
        ({"grids": [{"tasks": "a"}]}, "file: grids.0: unknown key 'tasks'; did you mean task"),
        ({"grids": [{"task": "a", "grids": []}]}, "file: grids.0: unknown key 'grids'"),
        ({"grids": [{"task": "a"}, {}]}, "file: grids.1: --task is missing"),
        ({"grids": [{"task": "a", "options": 3}]}, "file: grids.0: options is 3; expected"),
    ],
)
def test_a_wrong_list_of_grids_is_a_usage_error_of_one_line(
    change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=f"^{said}") as caught:
        make_grids({"method": "m", **change}, "file")
    assert "\n" not in str(caught.value)


def test_nothing_left_of_a_file_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="file: none of its grids has anything of --task three"):
        make_grids(SEVERAL, "file", {"task": "three"})


def test_runs_of_two_grids_that_are_the_same_are_one(toy_tasks: None) -> None:
    same = {"task": "toy-qa", "method": "none"}
    grids = make_grids({"grids": [same, {**same, "control": "zero"}]}, "file")
    assert len(runner.resolve(*grids)) == 1


# -- --set -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("abc", "abc"),
        ("nan", "nan"),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ("a=b", "a=b"),
    ],
)
def test_a_set_value_is_yaml_and_numbers_are_numbers(text: str, value: Any) -> None:
    options: dict[str, Any] = {}
    set_option(options, f"method.m.general.x={text}")
    assert options == {"method": {"m": {"general": {"x": value}}}}


def test_later_settings_win_and_others_stay() -> None:
    options: dict[str, Any] = {"method": {"m": {"x": 1, "y": 2}}}
    set_option(options, "method.m.x=3")
    set_option(options, "task.t.z=4")
    assert options == {"method": {"m": {"x": 3, "y": 2}}, "task": {"t": {"z": 4}}}


@pytest.mark.parametrize(
    "text",
    ["method.m.x", "method.m=3", "odd.m.x=3", "x=1", "=", "", "method.m.x=[1", "task.a.b=\x00"],
)
def test_a_setting_of_another_form_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--set"):
        set_option({}, text)


def test_a_setting_below_a_value_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="m already has a value"):
        set_option({"method": {"m": 3}}, "method.m.x=3")


# -- commands --------------------------------------------------------------------------------------


words = st.from_regex(r"[A-Za-z0-9_/][A-Za-z0-9_/. '\"$#*~@:+-]{0,8}", fullmatch=True).map(
    str.strip
)
keys = st.from_regex(r"[a-z_][a-z0-9_-]{0,5}", fullmatch=True)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(
        ["1e-4", "true", "no", "null", "~", "2", " a ", "", "a: b", "#", "0x1f", "1_0"]
    ),
)
values = scalars | st.lists(scalars, max_size=3)
trees = st.recursive(values, lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=2))
own = st.dictionaries(keys, trees, min_size=1, max_size=3)


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    parts = {kind: draw(words) for kind in ("task", "tuning", "method")}
    named = (
        draw(st.sets(st.sampled_from(sorted(parts)))) if "." not in "".join(parts.values()) else ()
    )
    return RunSpec(
        **parts,
        backbone=draw(words),
        setting=draw(st.sampled_from(Setting)),
        knowledge=draw(words),
        control=draw(st.sampled_from(Control)),
        seed=draw(st.integers(0, 2**32 - 1)),
        limit=draw(st.none() | st.integers(1, 10**6)),
        data=draw(st.none() | words),
        linker=draw(st.none() | st.sampled_from(["gold", "title"])),
        dtype=draw(st.sampled_from(["float32", "bfloat16", "float16"])),
        options={kind: {parts[kind]: draw(own)} for kind in named if "=" not in parts[kind]},
    )


def replayed(command: str, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """The grid that a command line asks for."""
    found: list[Grid] = []

    def keep(asked: Asked, *rest: Any, **options: Any) -> int:
        found.extend(asked.grids)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(run_grids, "run", keep)
        program, verb, *arguments = shlex.split(command)
        assert (program, verb) == ("kbench", "run")
        result = CliRunner().invoke(run, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(spec=specs())
def test_the_command_of_a_run_repeats_exactly_that_run(
    monkeypatch: pytest.MonkeyPatch, spec: RunSpec
) -> None:
    assert replayed(spec.command(), monkeypatch).cells() == [spec]


def _without_knowledge(tuning: dict[str, Any]) -> RunSpec:
    return RunSpec(
        task="toy-typing",
        backbone="somewhere else",
        tuning="full",
        method="none",
        setting=Setting.GENERAL,
        knowledge=None,
        control=Control.NONE,
        seed=3,
        options={"tuning": {"full": tuning}},
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("tuning.full.epochs=2", "tuning.full.epochs=3"),
        ("method.m.general.epochs=2", "method.m.general={batch_size: 8}"),
    ],
)
def test_a_setting_that_takes_another_away_is_a_usage_error(first: str, second: str) -> None:
    with pytest.raises(UsageError, match=r"replaces --set .*; give one of them"):
        make_grids({}, "here", LEAST, [first, second])
    assert make_grids({}, "here", LEAST, [first, first]) == make_grids({}, "here", LEAST, [first])


def test_a_setting_with_a_key_twice_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"not YAML .key 'a' is there twice"):
        make_grids({}, "here", LEAST, ["method.m.x={a: 1, a: 2}"])


@pytest.mark.parametrize("text", ["\x85", "a\u2028b", "\ufeff", "é\x85", "1e-4", "[", " "])
def test_text_in_a_list_is_repeated_as_it_is(
    monkeypatch: pytest.MonkeyPatch, text: str, toy_tasks: None
) -> None:
    spec = _without_knowledge({"words": [text, {"inner": text}]})
    assert runner.resolve(replayed(spec.command(), monkeypatch)) == [spec]


def test_the_command_of_a_run_without_knowledge_resolves_to_that_run(
    monkeypatch: pytest.MonkeyPatch, toy_tasks: None
) -> None:
    spec = _without_knowledge({"epochs": 2})
    assert runner.resolve(replayed(spec.command(), monkeypatch)) == [spec]


def test_a_title_says_what_differs() -> None:
    spec = Grid(task=("t",), method=("m",)).cells()[1]
    assert spec.control == Control.FOREIGN
    assert spec.title == "t / kbench-tiny / full / m / general / atlas / control=foreign / seed 0"
    bare = spec.model_copy(update={"knowledge": None})
    assert bare.title == "t / kbench-tiny / full / m / seed 0"


def test_two_options_of_one_name_are_told_apart_in_a_line() -> None:
    own = {"full": {"epochs": 2}}, {"m": {"general": {"epochs": 3}, "facts": 1}}
    options = {"tuning": own[0], "method": own[1]}
    grid = make_grid({"task": "a", "method": "m", "options": options, "data": "x/y"}, "here")
    told = grid.cells()[0].label.split(" / ")[-4:]
    assert told == ["data=y", "facts=1", "m.general.epochs=3", "full.epochs=2"]
    alone = make_grid({"task": "a", "method": "m", "options": {"tuning": own[0]}}, "here")
    assert alone.cells()[0].label.endswith(" / epochs=2")
    namesakes = ["tuning.adapter.size", "method.adapter.size", "method.adapter.rate"]
    assert [*short_names(namesakes).values()] == [*namesakes[:2], "rate"]


def test_every_error_of_the_command_is_for_the_user() -> None:
    with pytest.raises(KbenchError, match="--task is missing"):
        run.main(["--method", "none"], standalone_mode=False)


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_an_option_that_is_not_finite_is_named(value: float, shown: str) -> None:
    options = {"tuning": {"full": {"epochs": 1, "learning_rate": value}}}
    with pytest.raises(UsageError) as caught:
        make_grid({"task": "atlas-qa", "method": "none", "options": options}, "here")
    assert f"here: options.tuning.full.learning_rate is {shown}; expected" in str(caught.value)


def test_options_that_hold_themselves_or_lie_too_deep_are_told_in_a_line() -> None:
    around: dict[str, Any] = {"tuning": {"full": {}}}
    around["tuning"]["full"]["inside"] = around
    deep: dict[str, Any] = {}
    for _ in range(50_000):
        deep = {"x": deep}
    for options in (around, {"tuning": {"full": deep}}):
        with pytest.raises(UsageError, match=r"^here: options.* is .*; expected text") as caught:
            make_grid({**LEAST, "options": options}, "here")
        assert "\n" not in str(caught.value)
