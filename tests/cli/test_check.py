"""`kbench check` as a user meets it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from kbench.cli.check import _print
from kbench.cli.terminal import Console
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.testing import Finding, registered
from kbench.testing.contracts import names
from tests.calling import call

PARTS = "tests.testing.broken_parts"


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    return call(capsys, "check", *arguments)


def test_a_part_that_keeps_its_contracts_has_a_line_each_and_status_zero(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = _call(capsys, "atlas", "--kind", "knowledge")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("knowledge base atlas of knowledge-bench")
    assert all(line.startswith("  ok ") for line in lines[1:-1])
    assert "11503 entities" in lines[1]
    assert lines[-1].startswith(f"{len(lines) - 2} of {len(lines) - 2} contracts held (")
    assert lines[-1].endswith(" s)")


def test_a_broken_contract_is_named_with_its_figure_and_wording(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with registered(Kind.IMPORTERS, broken=f"{PARTS}:Sourceless"):
        status, out, _ = _call(capsys, "broken")
    assert status == 1
    assert re.search(r"  FAILED card +missing: source\n    the contract: The card is comp", out)
    assert "2 of 3 contracts held" in out


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.has_contracts])
def test_no_contract_runs_into_its_figures(
    kind: Kind, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*_: object) -> list[Finding]:
        return [Finding(name, True, "0.5 of all") for name in names(kind)]

    monkeypatch.setattr("kbench.testing.contracts.findings", found)
    out = _call(capsys, registry.names(kind)[0], "--kind", str(kind))[1]
    lines = out.splitlines()[1:-1]
    told = [re.fullmatch(r"  ok +(.*\S) +0\.5 of all", line) for line in lines]
    assert [match and match[1] for match in told] == names(kind)
    assert len({line.index("0.5") for line in lines}) == 1


def test_figures_are_wrapped_beside_their_contract_at_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, color_system=None)
    _print(Finding("spelled", True, "wordpiece 51 of 51, " * 6), 15, console)
    lines = file.getvalue().splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 60
    assert {line.index("wordpiece") for line in lines} == {lines[0].index("wordpiece")}


def test_what_cannot_be_checked_is_neither_held_nor_broken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, _ = _call(capsys, "open-entity")
    assert status == 0
    assert re.search(r"  -      splits +its data must be given \(--data\)", out)
    assert "2 of 2 contracts held" in out


def test_given_data_let_a_task_be_checked_in_full(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    texts = {"train": ("a town", "a river"), "dev": ("a river",), "test": ("a town",)}
    for split, places in texts.items():
        lines = [
            {
                "sent": f"{split}: we saw Xy, {kind}",
                "start": 0,
                "end": 2,
                "labels": [kind],
                "ents": [],
            }
            for kind in places
        ]
        for line in lines:
            line["start"] = line["sent"].index("Xy")
            line["end"] = line["start"] + 2
        (tmp_path / f"{split}.json").write_text(json.dumps(lines), encoding="utf-8")
    status, out, _ = _call(capsys, "open-entity", "--data", str(tmp_path))
    assert status == 0, out
    assert "2 train, 1 dev, 1 test" in out
    assert "9 of 9 contracts held" in out
    (tmp_path / "dev.json").unlink()
    status, out, _ = _call(capsys, "open-entity", "--data", str(tmp_path), "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [f["contract"] for f in found if not f["held"]] == ["data"]
    assert {f["figure"] for f in found if not f["checked"]} >= {"its data do not load"}


def test_data_are_for_tasks_alone(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = _call(capsys, "full", "--data", "here")
    assert status == 2
    assert err == "error: --data is for tasks, and none is called 'full'; leave it out\n"


def test_a_class_of_which_nothing_can_be_made_is_one_finding(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with registered(Kind.METHODS, abstract="kbench.method:InjectionMethod"):
        status, out, _ = _call(capsys, "abstract")
    assert status == 1
    assert out.count("FAILED") == 1
    assert "FAILED builds" in out
    assert "abstract" in out
    assert "0 of 1 contracts held" in out


def test_json_has_a_line_for_each_contract(capsys: pytest.CaptureFixture[str]) -> None:
    with registered(Kind.IMPORTERS, broken=f"{PARTS}:Sourceless"):
        status, out, _ = _call(capsys, "codex,broken", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert {(f["kind"], f["name"]) for f in found} == {
        ("importers", "codex"),
        ("importers", "broken"),
    }
    assert [(f["name"], f["contract"]) for f in found if not f["held"]] == [("broken", "card")]
    assert all(f["figure"] and f["says"] for f in found)


def test_globs_and_all_reach_broken_plugins_too(capsys: pytest.CaptureFixture[str]) -> None:
    with registered(Kind.IMPORTERS, broken="a_module_that_nobody_has:Format"):
        status, out, _ = _call(capsys, "all", "--kind", "importers")
        assert status == 1
        assert "importer codex" in out
        assert "ModuleNotFoundError" in out
        status, out, _ = _call(capsys, "cod*")
    assert status == 0
    assert "importer broken" not in out


def test_two_distributions_with_one_name_are_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    with registered(Kind.IMPORTERS, codex=f"{PARTS}:Format"):
        status, out, _ = _call(capsys, "codex")
    assert status == 1
    assert "uninstall one of them" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["map-tunin"], "no part is called 'map-tunin'; did you mean map-tuning"),
        (["full", "--kind", "methods"], "no part is called 'full'"),
        (["zz*"], "no part is called 'zz*'"),
        (["local"], "the executor 'local' has no contracts to check"),
        ([","], "no part is asked for"),
        (["none", "--kind", "metods"], "'metods' is not one of"),
    ],
)
def test_a_name_that_is_not_there_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = _call(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
