"""Plugins: found by their metadata, imported when asked for, blamed by name when broken."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kbench.errors import PluginError, UsageError
from kbench.parts import catalogue, registry
from kbench.parts.catalogue import Kind, entries
from kbench.parts.registry import PluginWarning
from kbench.parts.source_text import declared, defaults, settings, summary

Install = Callable[..., Path]

SOUND = '''
"""A plugin."""


class Card:
    def __init__(self, **fields): pass


class Injector:
    """Injects [bold]everything[/bold].

    And more.
    """

    card = Card(title="Injector", year=2023, paper=str(1 + 1))


number = 3
'''
BROKEN = "import a_module_that_nobody_has\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution on the path, as pip leaves it: a module and a dist-info folder."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(name: str, points: str, source: str = SOUND, *, group: str = "kbench.methods") -> Path:
        module = name.replace("-", "_")
        (site / f"{module}.py").write_text(source)
        info = site / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
        importlib.invalidate_caches()
        monkeypatch.setattr(catalogue, "_found", {})
        monkeypatch.delitem(sys.modules, module, raising=False)
        return site

    return put


def test_a_plugin_is_found_without_being_imported_and_loaded_when_asked_for(
    install: Install,
) -> None:
    install("acme-inject", "acme = acme_inject:Injector")
    found = registry.find("methods", "acme")
    assert found.distribution == "acme-inject 1.2"
    assert found.kind == Kind.METHODS
    assert "acme" in registry.names(Kind.METHODS)
    assert "acme" not in registry.names(Kind.TASKS)
    assert summary(found) == "Injects [bold]everything[/bold]."
    assert declared(found) == {"title": "Injector", "year": 2023}
    assert "acme_inject" not in sys.modules
    assert registry.get("methods", "acme").__name__ == "Injector"
    assert "acme_inject" in sys.modules


def test_an_unknown_name_is_answered_with_the_nearest(install: Install) -> None:
    install("acme-inject", "acme-tuning = acme_inject:Injector")
    with pytest.raises(UsageError, match="no method is called 'acme-tunin'; did you mean acme-tun"):
        registry.get("methods", "acme-tunin")
    with pytest.raises(UsageError, match="no knowledge base is called 'x'"):
        registry.find(Kind.KNOWLEDGE, "x")
    with pytest.raises(
        UsageError, match=r"no method matches 'acme-tunig\*'; did you mean acme-tun"
    ):
        registry.expand("methods", "acme-tunig*")


@pytest.mark.parametrize(
    ("target", "source", "cause"),
    [
        ("bad_plugin:Injector", BROKEN, "ModuleNotFoundError: No module named 'a_module_that"),
        ("bad_plugin:Injector", "raise SystemExit(3)", "SystemExit: 3"),
        ("bad_plugin:Injector", "class Injector(", "SyntaxError"),
        ("bad_plugin:Injecter", SOUND, "AttributeError: .* has no attribute 'Injecter'"),
        ("bad_plugin", SOUND, "AttributeError"),
        ("nowhere.at.all:Injector", SOUND, "ModuleNotFoundError"),
        ("bad_plugin:number", SOUND, "is int bad_plugin:number, not a class"),
    ],
)
def test_a_broken_plugin_that_is_asked_for_is_an_error_with_distribution_and_cause(
    install: Install, target: str, source: str, cause: str
) -> None:
    install("bad-plugin", f"bad = {target}", source)
    with pytest.raises(PluginError, match=f"method 'bad' of bad-plugin 1.2 .*{cause}"):
        registry.get("methods", "bad")


def test_a_broken_plugin_swept_in_by_a_glob_is_left_out_with_a_warning(install: Install) -> None:
    install("bad-plugin", "zz-bad = bad_plugin:Injector", BROKEN)
    install("acme-inject", "zz-good = acme_inject:Injector")
    with pytest.warns(PluginWarning, match="left out: .*'zz-bad' of bad-plugin 1.2"):
        assert registry.expand("methods", "zz-*") == ["zz-good"]
    with pytest.warns(PluginWarning, match="zz-bad"):
        found = registry.expand("methods", "all")
    assert "zz-good" in found
    assert "zz-bad" not in found
    assert registry.expand("methods", "zz-good,none") == ["zz-good", "none"]


def test_one_name_from_two_distributions_is_an_error_that_names_both(install: Install) -> None:
    install("acme-inject", "twin = acme_inject:Injector")
    install("other-inject", "twin = other_inject:Injector\nzz-other = other_inject:Injector")
    both = r"acme-inject 1.2 .acme_inject:Injector. and other-inject 1.2 .other_inject:Injector."
    with pytest.raises(PluginError, match=f"'twin' is offered by {both}: uninstall one"):
        registry.get("methods", "twin")
    with pytest.warns(PluginWarning, match=both):
        assert registry.expand("methods", "tw*") == []
    assert registry.names("methods").count("twin") == 1
    assert registry.expand("methods", "zz-other") == ["zz-other"]


def test_a_plugin_cannot_take_the_name_of_a_built_in_part(install: Install) -> None:
    install("acme-inject", "none = acme_inject:Injector")
    with pytest.raises(PluginError, match=r"acme-inject 1.2 .* and knowledge-bench"):
        registry.get("methods", "none")


def test_one_distribution_that_is_on_the_path_twice_counts_once(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install("acme-inject", "acme = acme_inject:Injector")
    (tmp_path / "again").symlink_to(site)
    monkeypatch.syspath_prepend(str(tmp_path / "again"))
    monkeypatch.setattr(catalogue, "_found", {})
    assert registry.find("methods", "acme").target == "acme_inject:Injector"


def test_names_come_in_the_order_asked_for_and_once(install: Install) -> None:
    install("acme-inject", "zz-1 = acme_inject:Injector\nzz-2 = acme_inject:Injector")
    assert registry.expand("methods", " zz-2 , none,,zz-* ,zz-1") == ["zz-2", "none", "zz-1"]
    assert registry.expand("methods", "zz-[1]") == ["zz-1"]
    assert registry.expand("methods", "") == []


BASES = '''
from kbench.method import InjectionMethod
from acme_base import Base as Ground


class Middle(Ground):
    settings = frozenset({Setting.GENERAL, Setting.FINE_TUNING})


class Injector(Middle):
    """Inherits what it says of itself."""

    settings: ClassVar[frozenset]
    defaults = {"rank": 4, "names": ["a", None]}


class Loop(Loop):
    """Its own base."""


class Computed(Middle):
    defaults = {**Middle.defaults}
'''
GROUND = "class Base(InjectionMethod):\n    card = Card(title='ground')\n    defaults = {'x': 1}\n"


def test_what_a_class_inherits_is_read_from_the_sources_of_its_bases(install: Install) -> None:
    install("acme-base", "ground = acme_base:Base", GROUND)
    install(
        "acme-inject",
        "a = acme_inject:Injector\nb = acme_inject:Loop\nc = acme_inject:Computed",
        BASES,
    )
    found, loop, computed = (registry.find("methods", name) for name in "abc")
    assert declared(found) == {"title": "ground"}
    assert settings(found) == ("general", "fine-tuning")
    assert defaults(found) == {"rank": 4, "names": ["a", None]}
    assert defaults(registry.find("methods", "ground")) == {"x": 1}
    assert (declared(loop), settings(loop), defaults(loop)) == ({}, (), {})
    assert defaults(computed) == {}
    assert not {"acme_base", "acme_inject"} & set(sys.modules)


@pytest.mark.parametrize(
    ("target", "source"),
    [
        ("odd_plugin:Injector", "class Injector("),
        ("odd_plugin:Injector", "\x00"),
        ("odd_plugin:Nobody", SOUND),
        ("odd_plugin:Injector", "class Injector: card = make()\n"),
        ("odd_plugin.inner:Injector", SOUND),
        ("not_there:Injector", SOUND),
        ("odd_plugin", SOUND),
    ],
)
def test_a_listing_survives_any_source(install: Install, target: str, source: str) -> None:
    install("odd-plugin", f"odd = {target}", source)
    entry = registry.find("methods", "odd")
    assert summary(entry) == ""
    assert declared(entry) == {}


@pytest.mark.parametrize("leftover", ["METADATA", "entry_points.txt"])
def test_leftovers_of_an_uninstalled_distribution_harm_nobody(
    install: Install, leftover: str
) -> None:
    site = install("acme-inject", "acme = acme_inject:Injector")
    info = site / "half_gone-1.0.dist-info"
    info.mkdir()
    (info / leftover).write_text("[kbench.methods]\nhalf = half_gone:Injector\n")
    importlib.invalidate_caches()
    assert "acme" in [entry.name for entry in entries(Kind.METHODS)]


def listing(site: Path, *arguments: str) -> tuple[str, set[str]]:
    """What `kbench ls` prints, and the modules it imported, in a process of its own."""
    code = (
        "import sys, json, atexit\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        f"sys.argv = ['kbench', *{list(arguments)}]\n"
        "from kbench.cli import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [("ls",), ("ls", "methods", "--json"), ("--help",)])
def test_a_listing_imports_no_plugin(install: Install, arguments: tuple[str, ...]) -> None:
    site = install("acme-inject", "acme = acme_inject:Injector")
    install("bad-plugin", "bad = bad_plugin:Injector", BROKEN)
    out, modules = listing(site, *arguments)
    if arguments[0] == "ls":
        assert "Injects [bold]everything[/bold]." in out
        assert "bad-plugin 1.2" in out
        assert "map-tuning" in out
    assert not modules & {"acme_inject", "bad_plugin", "kbench_tasks", "kbench_baselines"}
    assert "kbench.cli" in modules
