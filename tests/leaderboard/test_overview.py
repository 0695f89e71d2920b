"""The front page: what its panels hold, whom they rank, and whom they leave out with a reason."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

import numpy as np
import pytest

from kbench.data import Split
from kbench.errors import Unsupported
from kbench.knowledge import Bundle
from kbench.metrics import standings
from kbench.parts.find import task_kind
from kbench.results.example_diff import injected
from kbench.results.identity import Names
from kbench.spec import Control, Setting
from kbench.store import Result, Results, Status
from kbench_leaderboard import cli, opening, overview, site, sources
from kbench_leaderboard.board import Group, beside
from kbench_leaderboard.names import short
from kbench_leaderboard.overview import FIGURES, Panel, panels
from tests import stored
from tests.board_world import GOLD, LONG, TASKS, groups, guesses, write_front
from tests.calling import call

pytestmark = pytest.mark.usefixtures("toy_tasks")


def boards(folder: Path) -> list[Group]:
    found = list(Results(folder))
    return groups(found, folder)


def made(folder: Path) -> list[Panel]:
    found = list(Results(folder))
    failed = [result for result in found if result.status != Status.OK]
    return panels(boards(folder), failed, Names(found))


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import registered_toys

    folder = tmp_path_factory.mktemp("front")
    with registered_toys():
        write_front(folder)
    return folder


def test_a_panel_orders_methods_over_all_tasks(front: Path) -> None:
    encoder, decoder = made(front)
    assert (encoder.backbone, encoder.tuning, encoder.reads) == ("kbench-tiny", "full", "encoder")
    assert (decoder.backbone, decoder.reads) == ("kbench-tiny-lm", "decoder")
    assert sorted(column.label for column in encoder.compared) == sorted(TASKS)
    assert [row.method for row in encoder.order] == ["first", "equal", "second"]
    assert [row.method for row in encoder.first] == ["first", "equal"]
    assert [row.method for row in encoder.rows] == ["first", "second", LONG, "equal", "none"]
    assert [row.seeds for row in encoder.rows] == [2, 1, 1, 1, 2]
    assert [row.method for row in decoder.first] == ["second", "first"]  # of three tasks
    assert decoder.best is not None
    assert decoder.best.method == "second"


def test_the_order_is_that_of_the_statistic_on_the_board_s_figures(front: Path) -> None:
    panel, _ = made(front)
    rows = panel.order
    cells = [[cell for cell in row.cells if cell] for row in rows]
    values = np.array([[cell.line.row.net.value for cell in each] for each in cells])
    drawn = np.array([[cell.replicates("net") for cell in each] for each in cells])
    assert [row.standing for row in rows] == standings(values, drawn)
    means = values.mean(axis=1)[:, None], drawn.mean(axis=1)[:, None]
    assert [row.here for row in rows] == standings(*means)
    for row, told in zip(rows, means[1][:, 0], strict=True):
        net = row.averages["net"]
        assert (net.low, net.high) == pytest.approx(tuple(np.quantile(told, [0.025, 0.975])))
    for each in cells:
        for cell in each:  # the replicates are of what the tables show
            net = cell.figure("net")
            assert cell.replicates("net").mean() == pytest.approx(net.value, abs=0.01)


def test_the_order_is_by_mean_rank_and_the_rank_is_a_label(tmp_path: Path) -> None:
    shares = {"steady": (0.6, 0.6, 0.6), "once": (0.95, 0.55, 0.55), "twice": (0.5, 0.61, 0.61)}
    for number, task in enumerate(TASKS):
        stored.store(tmp_path, stored.predictions(GOLD, guesses(0.3, 0)), method="none", task=task)
        for method, scores in shares.items():
            setting = Setting.TASK_SPECIFIC if method == "once" else Setting.GENERAL
            for control, share in (("none", scores[number]), ("foreign", 0.3)):
                about = {"method": method, "task": task, "setting": setting}
                told = stored.predictions(GOLD, guesses(share, 0))
                stored.store(tmp_path, told, control=Control(control), **about)
    (panel,) = made(tmp_path)
    stands = [row.standing for row in panel.order if row.standing]
    assert [stand.mean_rank for stand in stands] == pytest.approx([5 / 3, 2.0, 7 / 3])
    assert [row.method for row in panel.order] == ["twice", "steady", "once"]
    assert {stand.rank for stand in stands} == {1}  # three tasks tell nothing apart
    averages = [row.averages["net"].value for row in panel.order]
    assert averages[2] == max(averages)
    assert [row.method for row in panel.rows if row.setting] == ["twice", "steady", "once"]
    assert [(row.setting, row.method) for row in panel.leads] == [
        ("general", "steady"),
        ("task-specific", "once"),
    ]
    assert panel.seeds == 1


def test_who_takes_no_part_is_named_with_what_is_missing(front: Path) -> None:
    told = {m.name: m for m in made(front)[0].missing}
    assert {*told} == {f"{LONG} (general)", "kar (general)"}
    text = told[f"{LONG} (general)"].text
    assert "toy-typing, toy-relations: no result" in text
    assert "toy-qa: no run with foreign knowledge" in text
    assert "skipped: kar cannot be run" in told["kar (general)"].text
    assert told["kar (general)"].result is not None


def test_a_cell_has_the_scores_under_each_control(front: Path) -> None:
    panel, _ = made(front)
    row = next(row for row in panel.rows if row.method == "first")
    (cell, *_) = [cell for cell in row.cells if cell]
    assert {*cell.under} == {"none", "foreign", "same-type"}
    score, foreign, gain = (cell.figure(name) for name in ("score", "foreign", "gain"))
    assert gain.value == pytest.approx(score.value - foreign.value)
    kind, individual = (cell.figure(name) for name in ("kind", "individual"))
    assert gain.value == pytest.approx(kind.value + individual.value)
    assert [*panel.figures] == [*FIGURES, "none", "foreign", "same-type"]


def test_every_figure_can_be_shown_without_a_script() -> None:
    style = (Path(site.__file__).parent / "static" / "style.css").read_text("utf-8")
    for name in (*FIGURES, *map(str, Control)):
        assert f":root:has(#f-{name}:checked) .f-{name}" in style


def test_two_rows_of_a_method_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for task in TASKS[:2]:
        stored.store(tmp_path, stored.predictions(GOLD, guesses(0.3, 0)), method="none", task=task)
        for number, linker in enumerate(("gold", "exact")):
            for control, share in (("none", 0.5 + 0.2 * number), ("foreign", 0.3)):
                told = stored.predictions(GOLD, guesses(share, 0))
                about = {"task": task, "control": Control(control), "linker": linker}
                stored.store(tmp_path, told, method="twice", **about)
    (panel,) = made(tmp_path)
    names = [row.name for row in panel.order]
    assert names == ["twice (general, linker=exact)", "twice (general, linker=gold)"]
    assert all(all(row.cells) for row in panel.order)


def test_a_task_that_few_have_is_not_in_the_order(tmp_path: Path) -> None:
    for task in TASKS:
        stored.store(tmp_path, stored.predictions(GOLD, guesses(0.3, 0)), method="none", task=task)
        for method in ("a", "b", "c") if task != "toy-qa" else ("a",):
            for control, share in (("none", 0.6), ("foreign", 0.3)):
                told = stored.predictions(GOLD, guesses(share, 0))
                stored.store(tmp_path, told, method=method, control=Control(control), task=task)
    (panel,) = made(tmp_path)
    assert [c.label for c in panel.columns if not c.compared] == ["toy-qa"]
    assert sorted(row.method for row in panel.order) == ["a", "b", "c"]
    assert panel.missing == ()


def test_only_so_many_models_are_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = stored.predictions(GOLD, guesses(0.5, 0))
    for backbone, tuning in (("a", "full"), ("a", "lora"), ("b", "full"), ("b", "lora")):
        stored.store(tmp_path, told, method="none", backbone=backbone, tuning=tuning)
    stored.store(tmp_path, told, backbone="b", tuning="lora")
    monkeypatch.setattr(overview, "_PANELS", 3)
    shown = [(panel.backbone, panel.tuning) for panel in made(tmp_path)]
    assert shown == [("b", "lora"), ("a", "full"), ("b", "full")]  # one of each first, the fullest
    assert all(not panel.order and panel.best is None for panel in made(tmp_path))


def test_a_run_leads_to_what_it_is_read_against(front: Path) -> None:
    group = next(g for g in boards(front) if g.backbone == "kbench-tiny" and g.task == "toy-qa")
    line = next(each for each in group.lines if each.name.startswith("first general kb"))
    result = line.row.results[1]
    told = dict(beside(group, line, result))
    assert {*told} == {"foreign knowledge", "same-type knowledge", "no knowledge"}
    assert {other.spec.seed for other in told.values()} == {1}
    control = next(each for each in group.lines if each.first.id == told_first(line).id)
    assert {*dict(beside(group, control, control.first))} == {
        "true knowledge",
        "same-type knowledge",
        "no knowledge",
    }


def told_first(line: object) -> object:
    return line.row.foreign[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["kar", "x" * 44, "x" * 45, LONG])
def test_a_long_name_keeps_both_its_ends(name: str) -> None:
    told = short(name)
    assert len(told) <= 44
    assert (told == name) == (len(name) <= 44)
    assert name.startswith(told[:29])
    assert name.endswith(told[-14:])


class Browser:
    """What is asked of the browser of a desk."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def __call__(self, address: str) -> bool:
        self.opened.append(address)
        return True


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Browser:
    found = Browser()
    monkeypatch.setattr(webbrowser, "open", found)
    monkeypatch.setenv("DISPLAY", ":0")
    return found


def test_open_builds_what_is_not_there_or_shows_others(
    tmp_path: Path,
    desk: Browser,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    built: list[Path] = []
    real = opening.build

    def build(folders: list[Path], out: Path) -> object:
        built.append(out)
        return real(folders, out)

    monkeypatch.setattr(opening, "build", build)
    told = stored.predictions(GOLD, guesses(0.5, 0))
    stored.store(tmp_path / "results", told, method="none")
    for _ in range(2):
        code, out, _ = call(capsys, "leaderboard", "open", "results")
        assert (code, out.strip()) == (0, (tmp_path / "site" / "index.html").as_uri())
    assert len(built) == 1
    stored.store(tmp_path / "results", told, setting=Setting.TASK_SPECIFIC)
    assert call(capsys, "leaderboard", "open", "results")[0] == 0
    assert len(built) == 2
    assert call(capsys, "leaderboard", "open", "site")[0] == 0  # a site, as it is
    (tmp_path / "kbench-results").mkdir()  # of a run that has not ended
    assert call(capsys, "leaderboard", "open")[0] == 0
    assert len(built) == 2
    monkeypatch.setattr(cli, "reference", lambda: (tmp_path / "results",))
    assert call(capsys, "leaderboard", "open", "--out", "new")[0] == 0
    assert built[2:] == [Path("new")]
    assert desk.opened[:5] == [(tmp_path / "site" / "index.html").as_uri()] * 5


def test_open_says_where_the_site_is_if_there_is_no_browser(
    front: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "kbench-site.json").write_text("{}")
    code, out, err = call(capsys, "leaderboard", "open", str(tmp_path / "site"))
    assert code == 0
    assert out.strip() == (tmp_path / "site" / "index.html").as_uri()
    assert err.strip() == "no browser is here to open it"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, _, err = call(capsys, "leaderboard", "open", "empty", "--out", "new")
    assert code == 2
    assert "holds no result" in err
    assert not (tmp_path / "new").exists()
    assert call(capsys, "leaderboard", "open", str(tmp_path / "nothing"))[0] == 2


def test_what_runs_bring_in_alike_is_looked_up_once(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, base = task_kind("toy-relations")(), Bundle(toy_folder / "kb")
    examples = task.examples(Split.TEST)[:5]
    told = stored.provenance(task.digest, knowledge=base.digest)
    runs = [
        Result(
            id=f"{number:032x}",
            status=Status.OK,
            provenance=told,
            spec=stored.spec(method=method, knowledge=str(base.folder), **about),
        )
        for number, (method, about) in enumerate(
            [("map-tuning", about) for about in ({}, {"seed": 1}, {"backbone": "other"})]
            + [("map-tuning", {"control": Control.SHUFFLED, "seed": seed}) for seed in (0, 1, 1)]
            # Who is swapped for whom hangs on whom a method covers: those with a vector, or a text.
            + [(name, {"control": Control.SHUFFLED}) for name in ("map-tuning-mlp", "ra")]
        )
    ]
    wanted = [injected(run, base, examples) for run in runs]
    asked: list[Result] = []

    def counted(result: Result, *given: object, **more: object) -> object:
        asked.append(result)
        return injected(result, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "injected", counted)
    shown = sources.Sources(None, [base.folder])
    assert [shown.knowledge(run, examples) for run in runs] == wanted
    assert asked == [runs[0], runs[3], runs[4], runs[7]]
    asked.clear()

    def refused(result: Result, *given: object, **more: object) -> object:
        asked.append(result)
        raise Unsupported("nobody can answer for another")

    monkeypatch.setattr(sources, "injected", refused)
    shown = sources.Sources(None, [base.folder])
    assert [shown.knowledge(run, examples) for run in runs[:3]] == [[[]] * 5] * 3
    assert asked == [runs[0]]
