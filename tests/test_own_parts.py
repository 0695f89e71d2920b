"""docs/own-parts.md: its examples as they are printed there are offered, checked and used."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from kbench.fetch import listing
from kbench.grid.tracker import find_trackers
from kbench.knowledge import Bundle
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.results import published
from kbench.testing import assert_contracts, registered
from tests.calling import call
from tests.stored import predictions, store

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "own-parts.md"
PARTS = {
    "river_banks": (Kind.TASKS, "RiverBanks"),
    "last_layer": (Kind.TUNINGS, "LastLayer"),
    "untrained_bert": (Kind.BACKBONES, "UntrainedBert"),
    "rivers": (Kind.KNOWLEDGE, "Rivers"),
    "arrows": (Kind.IMPORTERS, "Arrows"),
    "best": (Kind.VERBS, "best"),
    "tell_file": (Kind.TRACKERS, "TellFile"),
}
PACKAGES = {
    "rivers_published": (Kind.PUBLISHED, "paper.json"),
    "rivers_downloads": (Kind.DOWNLOADS, "river-banks.json"),
}


def _blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("examples")
    for name, code in zip(PARTS, _blocks("python"), strict=True):
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    for (name, (_, file)), content in zip(PACKAGES.items(), _blocks("json"), strict=True):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text('"""JSON files."""\n')
        (folder / name / file).write_text(content, encoding="utf-8")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    with ExitStack() as stack:
        for name, (kind, target) in PARTS.items():
            stack.enter_context(registered(kind, **{name: f"{name}:{target}"}))
        for name, (kind, _) in PACKAGES.items():
            stack.enter_context(registered(kind, **{name: name}))
        _forget()
        yield
    _forget()
    sys.path.remove(str(folder))
    for name in (*PARTS, *PACKAGES):
        sys.modules.pop(name, None)


def _forget() -> None:
    published.figures.cache_clear()
    listing.published.cache_clear()


@pytest.mark.parametrize("name", ["river_banks", "untrained_bert", "rivers", "arrows"])
def test_an_example_keeps_its_contracts(name: str) -> None:
    assert_contracts(PARTS[name][0], name.replace("_", "-"))


def test_the_tuning_keeps_its_contracts() -> None:
    assert_contracts(Kind.TUNINGS, "last-layer")


def test_the_metric_counts_errors_as_it_says() -> None:
    metric = registry.get(Kind.TASKS, "river-banks").metrics[1]
    assert metric.score(["a", "b", "c", "d"], ["a", "b", "c", "x"]) == 0.5
    assert metric.score(["a", "b"], ["x", "y"]) == 0
    assert metric.value(np.zeros((3, 2))).tolist() == [0, 0, 0]


def test_the_importer_reads_arrows_and_counts_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "facts.txt").write_text("Rhine -flows into-> North Sea\nElbe\nA -b-> C\n")
    bundle, report = registry.get(Kind.IMPORTERS, "arrows")().run(tmp_path, tmp_path / "kb")
    assert isinstance(bundle, Bundle)
    assert {*bundle.labels} == {"Rhine", "North Sea", "A", "C"}
    assert report.dropped["triples"]["malformed"] == 1


def test_the_verb_reads_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = ["a", "b", "c", "d"]
    store(tmp_path, predictions(gold, gold), task="atlas-relations")
    store(tmp_path, predictions(gold, ["a"] * 4), task="atlas-relations", method="none")
    assert call(capsys, "best", str(tmp_path))[:2] == (
        0,
        "atlas-relations: accuracy 1.000, map-tuning\n",
    )


def test_the_tracker_writes_a_line_a_run(tmp_path: Path) -> None:
    result = store(tmp_path, predictions(["a"], ["a"]), task="atlas-relations")
    (tracker,) = find_trackers(["tell-file"]).values()
    tracker.grid([], tmp_path)
    tracker.result(result)
    assert '"score": 1.0' in (tmp_path / "told.jsonl").read_text()


def test_published_figures_and_downloads_are_found() -> None:
    assert [f.value for f in published.figures() if f.task == "river-banks"] == [0.5]
    assert listing.find("river-banks").parts[0].to == "banks.jsonl"


def test_the_page_names_every_kind_of_part_and_its_links_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for kind in Kind:
        assert kind == Kind.METHODS or f"`kbench.{kind}`" in text, kind
    for link in re.findall(r"\]\(([^)#:]+)", text):
        assert (PAGE.parent / link).is_file(), link
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert {*re.findall(r"\]\(#([^)]+)\)", text)} <= anchors
    for page in ("README.md", "CONTRIBUTING.md", "docs/own-method.md", "mkdocs.yml"):
        assert "own-parts.md" in (ROOT / page).read_text(encoding="utf-8"), page
