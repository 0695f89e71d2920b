"""The site that `kbench leaderboard build` writes: what is on it, and whom it trusts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kbench.cli.messages import plain, steers
from kbench.data import Example, Mention, Role, Split
from kbench.knowledge import Bundle
from kbench.parts.find import task_kind
from kbench.pipeline.revision import ENGINE_REVISION
from kbench.results.comparison import compare
from kbench.results.example_diff import known
from kbench.results.ranking import front
from kbench.results.selection import grouped
from kbench.store import Result, Results, Status
from kbench_leaderboard import making, pages, site
from kbench_leaderboard.board import Group, ranks
from kbench_leaderboard.cards import paper
from kbench_leaderboard.charts import _drawable, _drawn
from kbench_leaderboard.clean import clean
from kbench_leaderboard.compared import _text, shown
from kbench_leaderboard.content import Built, _pieces
from kbench_leaderboard.names import slug
from tests import stored
from tests.board_world import GOLD, HOSTILE, groups, guesses, skipped, write
from tests.calling import call

pytestmark = pytest.mark.usefixtures("toy_tasks")


@dataclass
class Page(HTMLParser):
    """What a browser would make of a page."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.append((tag, named))
        self.ids |= {named["id"]} if "id" in named else set()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def page(path: Path) -> Page:
    found = Page()
    found.feed(path.read_text(encoding="utf-8"))
    return found


def every(folder: Path) -> Iterator[tuple[Path, Page]]:
    for path in sorted(folder.rglob("*.html")):
        yield path, page(path)


def built(folder: Path, out: Path, **more: object) -> Built:
    return site.build([folder], out, **more)  # type: ignore[arg-type]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write(tmp_path / "results")
    skipped(tmp_path / "results")
    return tmp_path / "results"


def board(folder: Path) -> list[Group]:
    found = list(Results(folder))
    return groups(found, folder)


def test_rows_that_cannot_be_told_apart_share_a_rank(results: Path) -> None:
    (group,) = board(results)
    by_score = {line.first.spec.method: line.by_score for line in group.lines if line.ranked}
    by_net = {line.first.spec.method: line.by_net for line in group.lines if line.ranked}
    assert by_score == {"best": 1, "level": 1, "low": 3, "none": 4, HOSTILE: 4}
    assert by_net == {"best": 1, "level": 2, "low": 2, HOSTILE: 4, "none": None}
    assert next(line.first.spec.method for line in group.lines) == "best"


def test_controls_are_shown_and_not_ranked(results: Path) -> None:
    (group,) = board(results)
    controls = [line for line in group.lines if line.first.spec.control != "none"]
    assert len(controls) == 4
    assert all(line.by_net is line.by_score is None for line in controls)


def test_a_rank_needs_a_difference_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, 2000)
    # The second shares all its noise with the first, the third has its own.
    told = [0.70 + noise, 0.69 + noise, 0.69 + rng.normal(0, 0.02, 2000), None]
    assert ranks(told) == [1, 2, 1, None]


def test_other_data_backbones_and_metrics_are_not_ranked_together(tmp_path: Path) -> None:
    told = stored.predictions(GOLD, guesses(0.5, 0))
    for changes in ({}, {"backbone": "other"}, {"digest": "d2"}, {"tuning": "lora"}):
        stored.store(tmp_path, told, **changes)  # type: ignore[arg-type]
    assert len(board(tmp_path)) == 4


def test_runs_of_another_revision_of_the_engine_are_not_ranked_together(tmp_path: Path) -> None:
    told = stored.predictions(GOLD, guesses(0.5, 0))
    stored.store(tmp_path, told)
    stored.store(tmp_path, told, method="none", made={"revision": 4})
    titles = [group.title for group in board(tmp_path)]
    assert len(titles) == 2
    assert sum("engine revision 4" in title for title in titles) == 1


def test_a_site_has_the_scores_of_its_own_folder(tmp_path: Path) -> None:
    shown = []
    for share in (0.9, 0.2):
        folder = tmp_path / f"results-{share}"
        told = stored.predictions(GOLD, guesses(share, 0))
        stored.store(folder, told)
        stored.store(folder, stored.predictions(GOLD, guesses(0.1, 0)), method="none")
        (group,) = board(folder)  # the same ids from the same working directory
        line = next(line for line in group.lines if line.first.spec.method != "none")
        assert line.row.score
        assert line.row.delta
        shown.append((line.row.score.value, line.row.delta.value, line.first.score.value))
    (high, gain, high_alone), (low, loss, low_alone) = shown
    assert (high, low) == (high_alone, low_alone)
    assert high > 0.8 > 0.3 > low
    assert gain > 0.7 > 0.2 > loss


def test_whoever_lacks_examples_of_the_others_has_no_rank(tmp_path: Path) -> None:
    write(tmp_path)
    few = stored.predictions(GOLD[:100], guesses(0.9, 0)[:100])
    odd = stored.store(tmp_path, few, method="zz", seed=0)
    (group,) = board(tmp_path)
    (line,) = [line for line in group.lines if line.first.id == odd.id]
    assert line.by_score is None


def test_the_site_holds_all_that_was_run(results: Path, tmp_path: Path) -> None:
    made = built(results, tmp_path / "site")
    assert (made.runs, made.failed, made.limited, made.twice, made.damaged) == (19, 1, 0, 0, [])
    assert len(list((tmp_path / "site" / "runs").glob("*.html"))) == 19
    front_page = page(tmp_path / "site" / "index.html")
    assert "19 runs, 1 of them failed or skipped" in front_page.text
    assert "kar cannot be run on it" in front_page.text


def test_whatever_a_result_says_is_text(results: Path, tmp_path: Path) -> None:
    _poison(results)
    built(results, tmp_path / "site")
    count = 0
    for path, found in every(tmp_path / "site"):
        scripts = [a for tag, a in found.tags if tag == "script"]
        assert all({*a} - {"defer"} == {"src"} for a in scripts), path
        # The one image that a stranger's text could make would have this source.
        assert "x" not in found.values("src"), path
        assert not [n for _, a in found.tags for n in a if n.startswith("on")], path
        links = found.values("href")
        assert not [link for link in links if urlsplit(link).scheme not in ("", "https", "data")]
        count += found.text.count("<script>alert(1)</script>")
    assert count > 50


def _poison(folder: Path) -> None:
    """Puts markup into every text of a result that its schema allows."""
    for path in folder.glob("*/result.json"):
        value = json.loads(path.read_text())
        if value["status"] != Status.OK:
            continue
        value["counts"] = {f"test_{HOSTILE}": 1}
        value["cost"] |= {HOSTILE: 1.0}
        value["training"] = {HOSTILE: {HOSTILE: [HOSTILE]}}
        value["spec"]["options"] = {HOSTILE: {HOSTILE: HOSTILE}}
        value["spec"]["linker"] = HOSTILE
        value["buckets"] = {HOSTILE: {HOSTILE: value["metrics"][value["main_metric"]]}}
        for name in ("versions", "git", "plugin", "hardware", "addresses"):
            value["provenance"][name] = {HOSTILE: HOSTILE}
        value["provenance"] |= {"kbench": HOSTILE, "command": HOSTILE, "started": HOSTILE}
        value["reason"] = HOSTILE
        value["coverage"] = value["coverage"] and {**value["coverage"], "linker": HOSTILE}
        path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "name",
    ["a\0b", "\x1b]0;x\x07", "a\ufffeb", "\uffff", "a\nb", "a\u2028b", "a\\", "'\"`", "a\u202eb",
     "\ufeff", "\x9b31m", "\ud83d", "</script><b>", "n" * 500, "]b[c.d", "datum.x", "{{7*7}}"],
    ids=ascii,
)  # fmt: skip
def test_a_chart_is_drawn_whatever_its_names_are(name: str) -> None:
    points = [
        {"seconds": 1.0, "score": at, "front": True, "name": _drawable(name)} for at in (1, 2)
    ]
    drawn = _drawn(points, _drawable(name), "wall clock")
    assert drawn.startswith("<svg")
    assert not steers(drawn)
    assert len(_drawable(name)) <= 40


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ada/models/bert", "~/models/bert"),
        ("kbench run --backbone /Users/ada.b/x --data '/home/ada/y'", "kbench run --backbone ~/x "
         "--data '~/y'"),
        ("DataError: /root/kb/card.json: lacks", "DataError: ~/kb/card.json: lacks"),
        (r"C:\Users\Ada\kb", r"~\kb"),
        ("/data/home/x", "/data/home/x"),
        ("/rooted/x", "/rooted/x"),
        ("https://host/home/ada", "https://host/home/ada"),
    ],
)  # fmt: skip
def test_nobody_s_home_is_on_a_page(text: str, shown: str) -> None:
    assert clean(text) == shown
    assert clean({text: [text, 1, None]}) == {shown: [shown, 1, None]}


def test_pages_show_no_home_and_nothing_that_steers(tmp_path: Path) -> None:
    """Wherever in a result it stands: in names, options, reasons, labels, the command."""
    out = tmp_path / "results"
    odd = "/home/adalove/m\u202e\x9b\ufeff\x1b[31m"
    told = stored.predictions([odd, "a"] * 20, ["a"] * 40)
    for method in ("none", "map-tuning", f"map-{odd}"):
        stored.store(out, told, method=method, backbone=odd, cost={"train_seconds": 1.0})
    skipped(out)
    for path in out.glob("*/result.json"):
        value = json.loads(path.read_text())
        value["reason"] = odd
        if value["provenance"]:
            value["provenance"] |= {"command": f"kbench run --backbone {odd}"}
        value["spec"]["options"] = {"method": {odd: {odd: odd}}}
        path.write_text(json.dumps(value))
    built(out, tmp_path / "site")
    pages = [*(tmp_path / "site").rglob("*.html"), *(tmp_path / "site").glob("compare/*.js")]
    assert len(pages) > 6
    for path in pages:
        text = path.read_text("utf-8")
        assert not steers(text), path
        assert "adalove" not in text, path
        assert not re.search(r"\\u(202e|001b|009b|feff)", text), path


def test_a_group_that_cannot_be_shown_ends_no_site(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(results, backbone="other")
    before = built(results, tmp_path / "before")
    real = making.compared

    def broken(group: Group, *rest: Any) -> Any:
        if group.backbone == "other":
            raise TypeError("what nobody could have made")
        return real(group, *rest)

    monkeypatch.setattr(making, "compared", broken)
    made = built(results, tmp_path / "site")
    assert len(made.damaged) == made.runs - 1 == (before.runs - 1) // 2
    assert all("cannot be shown (TypeError" in line for line in made.damaged)


def test_groups_made_beside_each_other_make_the_same_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    for backbone in ("bert", "other"):  # of a task that other processes know as well
        write(results, task="atlas-relations", backbone=backbone)
    alone = built(results, tmp_path / "alone")
    monkeypatch.setattr(making, "_MANY", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    beside = built(results, tmp_path / "beside")
    assert beside == alone
    assert (beside.runs, beside.damaged) == (36, [])
    assert _bytes(tmp_path / "beside") == _bytes(tmp_path / "alone")


def _bytes(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


class _Dies:
    """Ends its process, as a library does that panics, when it has written all of a group."""

    def __init__(self, maker: Any) -> None:
        self._maker = maker

    def __call__(self, item: Any) -> Any:
        made = self._maker(item)
        if item[1][0].spec.backbone == "other":
            os._exit(3)
        return made


def _begun(desk: making.Desk, *_: object) -> _Dies:
    return _Dies(making._Maker(desk))


def test_what_ends_its_process_is_the_loss_of_one_group(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(results, tmp_path / "without")
    write(results, backbone="other")
    monkeypatch.setattr(making, "_MANY", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(making, "_begun", _begun)
    made = built(results, tmp_path / "site")
    assert made.damaged
    assert all("cannot be shown (its process ended with exit" in line for line in made.damaged)
    lost = [line.partition(":")[0] for line in made.damaged]
    assert not any((tmp_path / "site" / "runs" / f"{key}.html").exists() for key in lost)
    for name in ("runs", "compare"):
        there = {path.name for path in (tmp_path / "site" / name).iterdir()}
        assert there == {path.name for path in (tmp_path / "without" / name).iterdir()}


def test_predictions_are_text_too(tmp_path: Path) -> None:
    told = stored.predictions([HOSTILE] * 30, ["x"] * 30, ids=[f"{HOSTILE}{n}" for n in range(30)])
    result = stored.store(tmp_path / "results", told)
    stored.store(tmp_path / "results", told, method="none")
    built(tmp_path / "results", tmp_path / "site")
    found = page(tmp_path / "site" / "runs" / f"{result.id}.html")
    assert found.text.count("<script>alert(1)</script>") == 40
    (script,) = (tmp_path / "site" / "compare").glob("*.js")
    data = json.loads(script.read_text("ascii").removeprefix("const DATA = ").rstrip(";\n"))
    assert data["labels"][0] == plain(HOSTILE) != HOSTILE


def test_links_lead_to_pages_that_are_there_and_nothing_is_loaded_from_elsewhere(
    results: Path, tmp_path: Path
) -> None:
    built(results, tmp_path / "site")
    found = dict(every(tmp_path / "site"))
    inside = 0
    for path, each in found.items():
        loaded = [a.get("src") or a["href"] for tag, a in each.tags if tag in ("script", "link")]
        assert all(not urlsplit(at).netloc for at in loaded), path
        for link in [*each.values("href"), *each.values("src")]:
            parts = urlsplit(link)
            if parts.scheme == "https":
                assert paper(link.split("/abs/")[-1]) or "doi.org" in link or "aclanthology" in link
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), (path, link)
            if parts.fragment and "=" not in parts.fragment and target in found:
                assert parts.fragment in found[target].ids, (path, link)
            inside += 1
    assert inside > 100


def test_a_page_may_not_load_from_elsewhere_even_if_it_wanted(
    results: Path, tmp_path: Path
) -> None:
    built(results, tmp_path / "site")
    for path, each in every(tmp_path / "site"):
        (policy,) = [a["content"] for _, a in each.tags if "http-equiv" in a]
        assert policy.startswith("default-src 'none'; script-src 'self';"), path


def test_runs_with_a_limit_damaged_ones_and_copies_are_left_out_and_counted(
    results: Path, tmp_path: Path
) -> None:
    told = stored.predictions(GOLD, guesses(0.9, 0))
    limited = stored.store(results, told, limit=240)
    first = next(result for result in Results(results) if result.id != limited.id)
    shutil.copytree(results / first.id, results / ("e" * 32))
    (results / ("d" * 32)).mkdir()
    (results / ("d" * 32) / "result.json").write_text("{")
    made = site.build([results, results], tmp_path / "site")
    assert (made.runs, made.limited, made.twice) == (19, 2, 19)
    assert len(made.damaged) == 4
    assert f"{'e' * 32}: says it is {first.id}" in made.damaged
    assert limited.id not in (tmp_path / "site" / "index.html").read_text()
    assert "4 that cannot be read" in page(tmp_path / "site" / "index.html").text


def test_the_same_results_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        built(results, tmp_path / name)
    one, two = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    )
    assert one == two


def test_comparisons_are_those_of_the_command(results: Path, tmp_path: Path) -> None:
    built(results, tmp_path / "site")
    (script,) = (tmp_path / "site" / "compare").glob("*.js")
    data = json.loads(script.read_text("ascii").removeprefix("const DATA = ").rstrip(";\n"))
    store = Results(results)
    runs = {group[0].id: group for group in grouped(list(store))}
    entries = [line.first.id for line in board(results)[0].lines if line.ranked]
    assert len(data["pairs"]) == 10 + 4  # of five entries, and of four with their control
    for pair in data["pairs"][:3]:
        assert {pair["a"], pair["b"]} <= {*entries}
        (told,) = compare([(runs[pair["a"]], runs[pair["b"]])], store)
        assert pair["difference"] == vars(told.contrast.difference)
        assert pair["p"] == told.contrast.p
        assert pair["p_holm"] >= pair["p"]


def test_the_page_of_two_lists_what_they_predict(results: Path, tmp_path: Path) -> None:
    built(results, tmp_path / "site")
    (script,) = (tmp_path / "site" / "compare").glob("*.js")
    data = json.loads(script.read_text("ascii").removeprefix("const DATA = ").rstrip(";\n"))
    store = Results(results)
    for result in store:
        told = store.predictions(result)
        if told is not None:
            codes = data["predictions"][result.id]
            assert [data["labels"][code] for code in codes] == told.predictions
    assert [data["labels"][each["gold"]] for each in data["examples"]] == GOLD


def test_the_page_of_two_takes_any_acceptable_answer_for_right(tmp_path: Path) -> None:
    gold = [["red", "rouge"], ["green"], ["blue", "azure"]] * 20
    guesses = ["rouge", "red", "blue"] * 20
    out = tmp_path / "results"
    result = stored.store(out, stored.predictions(gold, guesses), task="toy-qa", method="none")
    built(out, tmp_path / "site")
    (script,) = (tmp_path / "site" / "compare").glob("*.js")
    data = json.loads(script.read_text("ascii").removeprefix("const DATA = ").rstrip(";\n"))
    assert data["right"] == {result.id: "101" * 20}


@pytest.mark.parametrize("revision", [ENGINE_REVISION, ENGINE_REVISION - 1])
def test_texts_and_knowledge_are_shown_where_they_are_given(
    toy_folder: Path, tmp_path: Path, revision: int
) -> None:
    task, kb = task_kind("toy-relations")(), str(toy_folder / "kb")
    labels = [example.label for example in task.examples(Split.TEST)]
    told = stored.predictions(labels, labels, ids=[e.id for e in task.examples(Split.TEST)])
    digests = {"digest": task.digest, "knowledge": kb}
    for control in ("none", "foreign"):
        made = stored.store(tmp_path / "results", told, control=control, **digests)
        path = tmp_path / "results" / made.id / "result.json"
        value = json.loads(path.read_text())
        value["provenance"]["digests"]["knowledge"] = Bundle(toy_folder / "kb").digest
        value["provenance"]["revision"] = revision
        value["spec"]["knowledge"] = kb
        path.write_text(json.dumps(value))
    site.build([tmp_path / "results"], tmp_path / "bare")
    site.build([tmp_path / "results"], tmp_path / "full", None, [toy_folder / "kb"])
    name = f"runs/{made.id}.html"
    bare, full = (page(tmp_path / which / name) for which in ("bare", "full"))
    # The toy tasks bring their texts; the knowledge base lies in a folder that the result names,
    # and that nobody but the builder of the site may name.
    assert "mark" in {tag for tag, _ in bare.tags}
    assert "with that of" not in bare.text
    # Another revision swaps others: neither the site nor `kbench diff` names a partner of today.
    swaps = revision == ENGINE_REVISION
    assert ("with that of" in full.text) == swaps
    (swapped,) = (r for r in Results(tmp_path / "results") if r.spec.control == "foreign")
    base, problem = known(swapped, kb)
    assert (base is not None, "swaps others" in problem) == (swaps, not swaps), problem


def test_what_is_turned_has_columns_where_results_have_it(results: Path, tmp_path: Path) -> None:
    built(results, tmp_path / "site")
    (group,) = board(results)
    turned = [line.row.turned for line in group.lines]
    assert any(turned)
    heads = {"retention", "repair"}
    for path in ("tables.html", f"tasks/{slug(group.task)}.html"):
        found = page(tmp_path / "site" / path)
        assert heads < {*found.values("data-column")}
        for each in filter(None, turned):
            for share, of in ((each.retention, each.right), (each.repair, each.wrong)):
                if share is not None:
                    assert f"{100 * share:.1f} of {of}" in found.text
    alone = [result for result in Results(results) if result.spec.method == "none"]
    for result in alone:
        shutil.copytree(results / result.id, tmp_path / "alone" / result.id)
    built(tmp_path / "alone", tmp_path / "bare")
    assert not heads & {*page(tmp_path / "bare" / "tables.html").values("data-column")}


def test_a_stratum_without_an_example_has_no_score(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = next(r for r in Results(results) if r.status == Status.OK)
    path = results / result.id / "result.json"
    value = json.loads(path.read_text())
    main = value["metrics"][value["main_metric"]]
    value["metrics"]["accuracy_in_language"] = {
        **main,
        "variant": "accuracy@in_language",
        "value": 0.0,
        "low": 0.0,
        "high": 0.0,
        "n": 0,
    }
    path.write_text(json.dumps(value))
    built(results, tmp_path / "site")
    text = page(tmp_path / "site" / "runs" / f"{result.id}.html").text
    assert "accuracy_in_language – no such example 0 accuracy@in_language" in text
    asked = ("--out", str(results), "--metric", "accuracy_in_language")
    code, _, message = call(capsys, "table", *asked)
    assert (code, "no stored result has a metric" in message) == (2, True), message


def test_a_question_is_shown_with_its_blank() -> None:
    mentions = (Mention(0, 3, "Q1", Role.TARGET), Mention(11, 14, "Q2", Role.CONTEXT))
    asked = Example("1", "Ann lives  in", mentions[:1], ("Rome",), blank=10)
    assert shown(asked) == ("Ann lives ____ in", [(0, 3)])
    behind = Example("1", "Ann knows , Bo!", mentions, ("Eve",), blank=10)
    text, spans = shown(behind)
    assert text == "Ann knows ____, Bo!"
    assert [text[start:end] for start, end in spans] == ["Ann", " Bo"]
    assert shown(replace(asked, blank=None)) == ("Ann lives  in", [(0, 3)])
    assert "".join(piece for piece, _ in _pieces(behind)) == text
    assert _text(behind)["text"] == text


def test_no_path_in_a_result_is_followed(tmp_path: Path) -> None:
    told = stored.predictions(GOLD, guesses(0.5, 0))
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "card.json").write_text("{}")
    stored.store(tmp_path / "results", told, data=str(trap), knowledge=str(trap))
    for options in ({"task": {"toy-relations": {"file": "../trap"}}}, {}):
        made = stored.store(
            tmp_path / "results", told, method="zz", data=str(trap), options=options
        )
        path = tmp_path / "results" / made.id / "result.json"
        path.write_text(path.read_text().replace('"toy-relations"', '"custom"'))
    opened: list[str] = []
    watching = True

    def watch(event: str, given: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(str(given[0]))

    sys.addaudithook(watch)  # for good: there is no way to take it back
    built(tmp_path / "results", tmp_path / "site")
    watching = False
    assert any(path.endswith("result.json") for path in opened)
    assert not [path for path in opened if path.startswith(str(trap))]


def test_a_folder_that_is_no_site_is_not_replaced(results: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(site.UsageError, match="is no site"):
        built(results, mine)
    assert (mine / "thesis.tex").read_text() == "years of work"
    built(results, tmp_path / "site")
    built(results, tmp_path / "site")  # a site is


def test_the_command_says_what_it_wrote(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "site")
    status, told, _ = call(capsys, "leaderboard", "build", "--results", str(results), "--out", out)
    assert status == 0
    assert "index.html: 19 runs, 1 of them failed or skipped" in told
    missing = str(tmp_path / "nothing")
    status, _, told = call(capsys, "leaderboard", "build", "--results", missing, "--out", out)
    assert status == 2
    assert missing in told
    assert "Traceback" not in told


def test_a_missing_package_is_named(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "find_spec", lambda name: None if name == "itables" else name)
    with pytest.raises(site.UsageError, match=r"needs itables: pip install .*\[leaderboard\]"):
        built(results, tmp_path / "site")


def test_another_bundle_of_datatables_is_refused(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_EXPORT", pages.re.compile("no such export"))
    with pytest.raises(site.UsageError, match="constraints"):
        built(results, tmp_path / "site")
    assert not (tmp_path / "site").exists()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    found = front(points)
    for (cost, score), on in zip(points, found, strict=True):
        better = [(c, s) for c, s in points if c <= cost and s >= score and (c, s) != (cost, score)]
        assert on == (not better)


@given(st.text(max_size=80), st.text(max_size=80))
def test_file_names_are_ours(one: str, two: str) -> None:
    name = slug(one)
    assert name.isascii()
    assert not {"/", "\\", ":", "%"} & {*name}
    assert name.strip(".")
    assert (slug(two) == name) == (one == two)


def test_a_result_of_a_task_that_is_not_installed_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "results")
    for path in (tmp_path / "results").glob("*/result.json"):
        value = json.loads(path.read_text())
        value["spec"]["task"] = "elsewhere"
        path.write_text(json.dumps(value))
    built(tmp_path / "results", tmp_path / "site")
    assert "Other tasks" in page(tmp_path / "site" / "tables.html").text
    front_page = page(tmp_path / "site" / "index.html").text
    assert "elsewhere" in front_page
    assert "no order: no method has its foreign control" in front_page


def test_an_empty_board_is_a_page(tmp_path: Path) -> None:
    skipped(tmp_path / "results")
    built(tmp_path / "results", tmp_path / "site")
    assert "1 runs, 1 of them failed" in page(tmp_path / "site" / "index.html").text


def test_the_command_of_a_run_needs_no_path_of_its_maker(tmp_path: Path) -> None:
    told = stored.predictions(GOLD, guesses(0.5, 0))
    made: Result = stored.store(tmp_path / "results", told, data="/home/somebody/secret")
    built(tmp_path / "results", tmp_path / "site")
    text = page(tmp_path / "site" / "runs" / f"{made.id}.html").text
    assert "kbench run --task toy-relations" in text
    assert "somebody" not in text


WORKFLOW = Path(__file__).parents[2] / "leaderboard" / "github" / "leaderboard.yml"


def _steps() -> dict[str, str]:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    steps = workflow["jobs"]["verify"]["steps"]
    return {step["name"]: step["run"] for step in steps if "run" in step}


def _shell(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
    environment = {**os.environ, **names, "GIT_COMMITTER_EMAIL": "a@b", "PATH": path, **more}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_workflow_trusts_no_pull_request() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    # What verifies makes scores and addresses again, as what runs models does.
    assert workflow["env"]["KBENCH"] == "knowledge-bench[leaderboard,run]"
    assert {*workflow[True]} == {"pull_request", "push"}  # YAML 1.1 reads ``on`` as true
    assert "permissions" not in workflow["jobs"]["verify"]
    assert workflow["jobs"]["publish"]["if"] == "github.event_name == 'push'"
    # What a stranger can name never becomes part of a command.
    assert not [run for run in _steps().values() if "${{" in run]


def test_the_commands_of_the_workflow_exist(tmp_path: Path) -> None:
    told = stored.predictions(["canada"] * 20, ["canada"] * 20)
    stored.store(tmp_path / "results", told, task="atlas-qa", method="none")
    verify = _shell(_steps()["Verify every result"], tmp_path)
    assert verify.returncode == 1  # made by hand, it states no weights
    assert "1 of 1 results rejected" in verify.stdout
    assert _shell(_steps()["Build the site"], tmp_path).returncode == 0
    assert (tmp_path / "site" / "index.html").is_file()


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ("mkdir -p results/b && echo 1 > results/b/result.json", True),
        ("echo 2 > results/a/result.json", False),
        ("git rm -q -r results/a", False),
        ("git mv results/a results/b", False),
        ("mkdir -p results/b .github && echo 1 > results/b/x && echo 1 > .github/x", False),
    ],
)
def test_a_pull_request_may_only_add_results(change: str, good: bool, tmp_path: Path) -> None:
    start = "git init -q . && mkdir -p results/a && echo 1 > results/a/result.json"
    commit = "git add -A && git commit -q -m x"
    assert _shell(f"{start} && {commit}", tmp_path).returncode == 0
    base = _shell("git rev-parse HEAD", tmp_path).stdout.strip()
    assert _shell(f"{change} && {commit}", tmp_path).returncode == 0
    done = _shell(_steps()["A pull request only adds results"], tmp_path, BASE=base)
    assert (done.returncode == 0) == good, done.stdout + done.stderr


def test_a_board_goes_by_content_and_shows_what_differs(tmp_path: Path) -> None:
    for name in ("rivers", "roads"):
        for machine, method in (("m1", "none"), ("m2", "map-tuning")):
            for epochs in (1, 2):
                made = {
                    "names": {"task": f"toy-relations:{name}"},
                    "digests": {"backbone": "b" * 64},
                }
                stored.store(
                    tmp_path / "results",
                    stored.predictions(GOLD, guesses(0.5, epochs)),
                    method=method,
                    backbone=f"/{machine}/bert",
                    digest=name * 4,
                    data=f"/{machine}/{name}",
                    options={"tuning": {"full": {"epochs": epochs}}},
                    made=made,
                )
    out = tmp_path / "site"
    site.build([tmp_path / "results"], out)
    page = Page()
    page.feed((out / "tables.html").read_text(encoding="utf-8"))
    chosen = [attrs for name, attrs in page.tags if name == "tr" and "data-task" in attrs]
    assert {attrs["data-task"] for attrs in chosen} == {
        "toy-relations:rivers",
        "toy-relations:roads",
    }
    assert {attrs["data-backbone"] for attrs in chosen} == {"bert"}
    assert page.words.count("epochs=2") == 4
    assert "toy-relations:rivers / bert / full / accuracy" in " ".join(page.words)
    assert len([*(out / "compare").glob("*.html")]) == 2
    assert (out / "tasks" / f"{slug('toy-relations:roads')}.html").is_file()
