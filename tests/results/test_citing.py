"""`kbench cite`: each work once, with what it is cited for, and BibTeX that can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from kbench import __version__
from kbench.knowledge import Entity, write_bundle
from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.results.citing import Work, bibtex, cited
from kbench.store import Results
from tests.calling import call
from tests.stored import predictions, store

ONE = predictions(["a"], ["a"])
ENTRY = re.compile(r"@misc\{(?P<key>[^,{}]+),\n(?:  \w+ = \{.*\},\n)+\}")


def test_every_work_is_there_once_with_what_it_is_cited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("ra", "map-tuning", "none"):
        store(tmp_path, ONE, task="popqa", method=method)
    store(tmp_path, ONE, task="fewrel", method="ra-vm")
    status, out, err = call(capsys, "cite", "--out", str(tmp_path))
    assert (status, err) == (0, "")
    entries = out.strip().split("\n\n")
    assert all(ENTRY.fullmatch(entry) for entry in entries)
    keys = [entry.partition("{")[2].partition(",")[0] for entry in entries]
    assert len({*keys}) == len(keys)
    assert entries[0].startswith("@misc{kbench,")
    assert f"version = {{{__version__}}}" in entries[0]
    (plug,) = (entry for entry in entries if "2023.acl-long.594" in entry)
    assert "note = {method map-tuning, method ra}" in plug or "method ra, method map-t" in plug
    (popqa,) = (entry for entry in entries if "task popqa" in entry)
    assert "author = {Alex Mallen and Akari Asai and Victor Zhong and " in popqa
    assert "title = {{When Not to Trust Language Models: " in popqa
    assert "year = {2023}" in popqa
    assert "https://arxiv.org/abs/1909.07606" in out
    fewrel = [entry for entry in entries if "task fewrel" in entry]
    assert len(fewrel) == 2
    assert "author = {Tianyu Gao and Xu Han and " in "".join(fewrel)
    _, some, _ = call(capsys, "cite", "ra-vm", "--out", str(tmp_path))
    assert "popqa" not in some
    assert "task fewrel" in some


def test_every_installed_part_has_something_to_cite(tmp_path: Path) -> None:
    methods = [name for name in registry.names(Kind.METHODS) if name != "none"]
    for method in methods:
        store(tmp_path, ONE, task="popqa", method=method)
    tasks = [name for name in registry.names(Kind.TASKS) if name != "custom"]
    for task in tasks:
        families = registry.get(Kind.TASKS, task).metrics[0].name
        labels = ONE if families in ("accuracy", "hits@1") else predictions([("a",)], [("a",)])
        store(tmp_path, labels, task=task, method="none")
    works, unknown = cited(Results(tmp_path))
    used = {what for work in works for what in work.used}
    assert unknown == []
    assert {f"method {name}" for name in methods} <= used
    assert {f"task {name}" for name in tasks} <= used


def test_a_paper_of_several_parts_is_one_entry(tmp_path: Path) -> None:
    """ERNIE is a method, gave a split to a task, and vectors to a knowledge base."""
    results = []
    for method in ("ernie", "map-tuning", "map-tuning-mlp", "kv-text", "kv-train"):
        results.append(store(tmp_path, ONE, task="fewrel-80way", method=method))
    results.append(store(tmp_path, predictions([("a",)], [("a",)]), task="wiki-et", method="ra"))
    works, _ = cited(results)
    by_title = {work.fields["title"]: work for work in works}
    assert len(by_title) == len({work.key for work in works}) == len(works) == 6
    ernie = by_title["ERNIE: Enhanced Language Representation with Informative Entities"]
    assert ernie.used == ["task fewrel-80way", "method ernie"]
    assert ernie.fields["url"] == "https://aclanthology.org/P19-1139"
    assert ernie.fields["howpublished"] == "ACL"
    plug = by_title["Plug-and-Play Knowledge Injection for Pre-trained Language Models"]
    assert {*plug.used} == {
        "method map-tuning",
        "method map-tuning-mlp",
        "task wiki-et",
        "method ra",
    }
    assert plug.key == "zhang2023plug"
    own = next(work for title, work in by_title.items() if title.startswith("Cartridges: "))
    assert own.used == ["method kv-text", "method kv-train"]
    assert own.fields["year"] == "2025"


def test_a_knowledge_base_stands_on_the_paper_of_its_format(tmp_path: Path) -> None:
    made = {"import": {"format": "codex", "revision": "2"}}
    card = {"name": "mine", "version": "1", "licence": "MIT", "source": "here", **made}
    write_bundle(tmp_path / "mine", card, [Entity("Q1", "a"), Entity("Q2", "b")])
    result = store(
        tmp_path / "out", ONE, task="popqa", method="ra", knowledge=str(tmp_path / "mine")
    )
    spec = result.spec.model_copy(update={"knowledge": str(tmp_path / "mine")})
    works, unknown = cited([result.model_copy(update={"spec": spec})])
    assert unknown == []
    codex = next(work for work in works if work.fields["title"].startswith("CoDEx: "))
    assert codex.fields["author"] == "Tara Safavi and Danai Koutra"
    assert codex.key == "safavi2020codex"
    assert codex.used == ["knowledge mine"]


@pytest.mark.parametrize("kind", [Kind.TASKS, Kind.METHODS, Kind.IMPORTERS])
def test_authors_have_their_given_names(kind: Kind) -> None:
    """But for KnowLA, whose card has none."""
    for name in registry.names(kind):
        entry = registry.find(kind, name)
        if not entry.target.startswith("kbench_"):
            continue
        card = registry.load(entry).card
        told = [card.authors] if kind == Kind.METHODS else re.findall(r"([^:;]+): ", card.citation)
        for authors in filter(None, told):
            names = re.split(r", | and ", re.sub(r"^.*\b(?:of|by) ", "", authors.strip()))
            if len(names) > 1:  # else a title with a colon
                assert all(" " in each for each in names), (name, names)


def test_what_bibtex_gives_a_meaning_is_text() -> None:
    text = bibtex([Work("k", {"title": "50 % of {A_b} & C\\d\n# e", "url": "https://x.y/a_b"})])
    assert r"title = {{50 \% of \{A\_b\} \& C\textbackslash{}d \# e}}" in text
    assert "url = {https://x.y/a_b}" in text


def test_without_results_it_is_kbench_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capsys, "cite", "--out", str(tmp_path / "none"))
    assert (status, out.count("@")) == (0, 1)
    status, _, err = call(capsys, "cite", "ra", "--out", str(tmp_path / "none"))
    assert (status, "no folder" in err) == (2, True)


def test_the_citation_file_is_of_this_version() -> None:
    path = Path(__file__).parents[2] / "CITATION.cff"
    about = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert about["version"] == __version__
    assert about["title"] == cited([])[0][0].fields["title"]
