"""The list of what can be fetched: ours is sound and complete, a stranger's is not trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kbench.fetch.checking import Verdict, check, folder_of
from kbench.fetch.listing import find, inside, published, reachable
from kbench.parts import registry
from kbench.parts.catalogue import Entry, Kind, entries, override
from kbench.parts.registry import PluginWarning

FREE_FORM = {"custom", "tsv", "pykeen"}
"""Tasks and importers of data of one's own."""


@pytest.fixture(autouse=True)
def fresh() -> Any:
    before = entries(Kind.DOWNLOADS)
    published.cache_clear()
    yield
    override(Kind.DOWNLOADS, before)
    published.cache_clear()


def test_our_list_is_sound() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PluginWarning)
        known = published()
    assert len(known) >= 20
    for each in known.values():
        assert each.title, each.name
        assert each.licence, each.name
        assert each.citation, each.name
        assert each.source.startswith("https://"), each.name
        addresses = [part.address for part in each.parts]
        assert len(addresses) == len(set(addresses)), each.name
        assert all(address.startswith(("https://", "hf:")) for address in addresses), each.name
        assert not each.parts or "address: " in each.note, each.name
        digests = [part for part in each.parts if part.sha256]
        assert not digests or "digest" in each.note, each.name


def test_every_task_and_importer_of_published_data_is_on_it() -> None:
    tasks = [name for name in registry.names(Kind.TASKS) if not name.startswith("atlas-")]
    for name in {*tasks, *registry.names(Kind.IMPORTERS)} - FREE_FORM:
        assert find(name).name in published()


def test_the_page_names_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "fetch.md").read_text(encoding="utf-8")
    assert [name for name in published() if f"`{name}`" not in page] == []


def test_what_states_no_licence_or_forbids_it_is_not_fetched() -> None:
    for each in published().values():
        if "not stated" in each.licence or "no redistribution" in each.licence:
            assert not each.parts, each.name
            assert each.by_hand, each.name
    assert find("tacred").by_hand.startswith("it is licensed by the LDC and may not be passed on")


def test_the_copies_of_the_tests_are_as_recorded() -> None:
    root = Path(os.environ.get("KBENCH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data in {root}")
    right = 0
    for each in published().values():
        folder = folder_of(root, each, alone=False)
        if folder is None:
            continue
        verdicts = {one.path: one.verdict for one in check(folder, each)}
        assert {*verdicts.values()} <= {Verdict.RIGHT, Verdict.MISSING}, each.name
        right += sum(verdict == Verdict.RIGHT for verdict in verdicts.values())
    assert right >= 105


def _offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> list[str]:
    """Offers a file beside our own list; returns what is warned of."""
    name = f"strange_{uuid4().hex}"
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mine.json").write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    ours = entries(Kind.DOWNLOADS)
    override(Kind.DOWNLOADS, (*ours, Entry("strange", name, "strange 1", Kind.DOWNLOADS)))
    published.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        known = published()
    assert "fewrel" in known
    assert ("mine" in known) == (not caught)
    return [str(warning.message) for warning in caught]


_SOUND: dict[str, Any] = {
    "title": "T",
    "folder": "t",
    "licence": "L",
    "citation": "C",
    "source": "S",
    "parts": [{"to": "a", "url": "https://a.invalid/a"}],
}


def test_a_plugin_may_add_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _offered(tmp_path, monkeypatch, json.dumps(_SOUND)) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"parts": [{"to": "../a", "url": "https://a.invalid/a"}]}, "leaves the folder"),
        ({"parts": [{"to": "/etc/a", "url": "https://a.invalid/a"}]}, "leaves the folder"),
        ({"folder": ".."}, "no folder in another"),
        ({"folder": "/etc"}, "no folder in another"),
        ({"parts": [{"to": "a", "url": "http://a.invalid/a"}]}, "is not https"),
        ({"parts": [{"to": "a", "url": "file:///etc/passwd"}]}, "is not https"),
        ({"parts": [{"to": "a"}]}, "neither url nor hub"),
        ({"parts": [{"url": "https://a.invalid/a"}]}, "neither to nor unpack"),
        ({"parts": [{"unpack": {"a/": "../"}, "url": "https://a.invalid/a"}]}, "leaves the folder"),
        ({"parts": [{"unpack": {"a": "b/"}, "url": "https://a.invalid/a"}]}, "a file to a folder"),
        ({"parts": [{"to": "a", "url": "https://a.invalid/a", "sha256": "12"}]}, "sha256 '12'"),
        ({"parts": [{"to": "a", "url": "https://a.invalid/a", "bytes": -1}]}, "-1 bytes"),
        ({"parts": [{"to": "a", "url": "https://a.invalid/a", "bytes": True}]}, "bytes is true"),
        ({"parts": []}, "parts and by_hand, or neither"),
        ({"by_hand": "ask"}, "parts and by_hand, or neither"),
        ({"files": [{"path": "a"}]}, "missing 2 required"),
        ({"title": 3}, "title is 3"),
        ({"licens": "L"}, "has the key 'licens', which nobody reads"),
        ({"name": "other"}, "has the key 'name', which nobody reads"),
    ],
)
def test_a_list_that_is_not_sound_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], told: str
) -> None:
    (warning,) = _offered(tmp_path, monkeypatch, json.dumps({**_SOUND, **change}))
    assert warning.startswith("left out: ")
    assert told in warning


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 20_000])
def test_what_is_no_list_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    assert len(_offered(tmp_path, monkeypatch, content)) == 1


def test_ours_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"thief_{uuid4().hex}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "fewrel.json").write_text(json.dumps(_SOUND))
    monkeypatch.syspath_prepend(tmp_path)
    ours = entries(Kind.DOWNLOADS)
    override(Kind.DOWNLOADS, (*ours, Entry("thief", name, "thief 1", Kind.DOWNLOADS)))
    with pytest.warns(PluginWarning, match="the data set 'fewrel' is offered by"):
        assert find("fewrel").licence == "MIT"


@pytest.mark.parametrize("path", ["a", "a/b.txt", ".a", "a..b"])
def test_paths_inside(path: str) -> None:
    assert inside(path)


@pytest.mark.parametrize("path", ["", ".", "..", "/a", "../a", "a/../../b", "a\\b", "C:a", "a\0"])
def test_paths_outside(path: str) -> None:
    assert not inside(path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a", "http://[::1]/a", "http://localhost/a"])
def test_this_machine_may_be_asked(url: str) -> None:
    assert reachable(url)


@pytest.mark.parametrize("url", ["http://10.0.0.1/a", "http://127.0.0.1.a.invalid/", "https:///a"])
def test_others_only_by_https(url: str) -> None:
    assert not reachable(url)


_RUN = """
import sys, socket
def asked(*arguments, **more):
    raise AssertionError("a run asked the network")
socket.getaddrinfo = socket.create_connection = asked
from kbench.cli import main
try:
    main(["run", "--task", "fewrel,atlas-typing", "--data", sys.argv[1], "--method", "none",
          "--limit", "8", "--set", "tuning.full.epochs=1", "--out", sys.argv[2]])
except SystemExit:
    pass
print(*sys.modules)
"""


def test_a_run_fetches_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(tmp_path / "data"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "KBENCH_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    modules = done.stdout.splitlines()[-1].split()
    assert "kbench.pipeline.session" in modules
    assert not [name for name in modules if name.startswith("kbench.fetch")]
    assert "kbench.cli.fetch" not in modules
    assert [*(tmp_path / "data").iterdir()] == []
