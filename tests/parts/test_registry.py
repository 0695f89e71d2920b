"""Plugins: found by their metadata, imported when asked for, blamed by name when broken."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kbench.cli import doctor, verbs
from kbench.errors import PluginError, UsageError
from kbench.grid.executor import find_executor
from kbench.parts import catalogue, registry
from kbench.parts.catalogue import Kind, entries
from kbench.parts.registry import PluginWarning
from kbench.parts.source_text import declared, defaults, settings, summary
from kbench.results.published import figures
from tests.calling import call

Install = Callable[..., Path]

SOUND = '''
"""A plugin."""

from kbench.method import InjectionMethod


class Card:
    def __init__(self, **fields): pass


class Injector(InjectionMethod):
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
        ("bad_plugin", SOUND, "is module bad_plugin, not a class"),
        ("nowhere.at.all:Injector", SOUND, "ModuleNotFoundError"),
        ("bad_plugin:number", SOUND, "is int bad_plugin:number, not a class"),
        ("bad_plugin:Card", SOUND, "is class bad_plugin:Card, not a subclass of kbench.method.Inj"),
        ("bad_plugin:Injector", "class Panic(BaseException): ...\nraise Panic('x')", "Panic: x"),
        ("bad_plugin:Injector", "import os\nos._exit(0)", r"SystemExit: os\._exit\(0\)"),
        ("bad_plugin:Injector", "raise GeneratorExit", "GeneratorExit"),
    ],
)
def test_a_broken_plugin_that_is_asked_for_is_an_error_with_distribution_and_cause(
    install: Install, target: str, source: str, cause: str
) -> None:
    install("bad-plugin", f"bad = {target}", source)
    with pytest.raises(PluginError, match=f"method 'bad' of bad-plugin 1.2 .*{cause}"):
        registry.get("methods", "bad")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.has_contracts])
def test_what_is_no_part_of_its_kind_ends_no_sweep(install: Install, kind: Kind) -> None:
    install("bad-plugin", "zz-bad = bad_plugin:Card", group=f"kbench.{kind}")
    before = registry.names(kind)
    with pytest.warns(PluginWarning, match="left out: .*'zz-bad' .*not a subclass of kbench"):
        assert {*registry.expand(kind, "*")} == {*before} - {"zz-bad"}


@pytest.mark.parametrize("name", [*verbs.OWN, "leaderboard"])
def test_a_command_of_ours_is_not_taken_over(install: Install, name: str) -> None:
    """Not in silence: it is refused, and both are named."""
    source = "import click\n\n@click.command()\ndef evil(): print('good')\n"
    install("bad-plugin", f"{name} = bad_plugin:evil", source, group="kbench.verbs")
    with pytest.raises(PluginError, match=r"bad-plugin 1\.2 \(bad_plugin:evil\)"):
        verbs.load(name)
    assert "bad_plugin" not in sys.modules


def test_two_distributions_with_one_command_are_refused(install: Install) -> None:
    for dist in ("one-plugin", "two-plugin"):
        target = f"both = {dist.replace('-', '_')}:evil"
        install(dist, target, "evil = None", group="kbench.verbs")
    with pytest.raises(PluginError, match=r"one-plugin 1\.2 .* and two-plugin 1\.2"):
        verbs.load("both")


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


class Taken(Middle):
    defaults = {**Middle.defaults, "y": 2}


class Ring(Middle):
    defaults = {**Ring.defaults, "z": 3}


class Computed(Middle):
    defaults = dict(Middle.defaults)
'''
GROUND = "class Base(InjectionMethod):\n    card = Card(title='ground')\n    defaults = {'x': 1}\n"


def test_what_a_class_inherits_is_read_from_the_sources_of_its_bases(install: Install) -> None:
    install("acme-base", "ground = acme_base:Base", GROUND)
    install(
        "acme-inject",
        "a = acme_inject:Injector\nb = acme_inject:Loop\nc = acme_inject:Computed\n"
        "d = acme_inject:Taken\ne = acme_inject:Ring",
        BASES,
    )
    found, loop, computed = (registry.find("methods", name) for name in "abc")
    assert declared(found) == {"title": "ground"}
    assert settings(found) == ("general", "fine-tuning")
    assert defaults(found) == {"rank": 4, "names": ["a", None]}
    assert defaults(registry.find("methods", "ground")) == {"x": 1}
    assert (declared(loop), settings(loop), defaults(loop)) == ({}, (), {})
    assert defaults(computed) == {}
    taken, ring = (registry.find("methods", name) for name in "de")
    assert (defaults(taken), defaults(ring)) == ({"x": 1, "y": 2}, {"z": 3})
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


@pytest.mark.parametrize("by_user", [True, False])
def test_a_plugin_that_says_it_was_interrupted_is_left_out(install: Install, by_user: bool) -> None:
    install("acme-inject", "acme = acme_inject:Injector")
    kind = "InterruptedByUser" if by_user else "KeyboardInterrupt"
    source = f"from kbench.errors import InterruptedByUser\nraise {kind}\n"
    install("bad-plugin", "bad = bad_plugin:Injector", source)
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        if by_user:
            with pytest.raises(KeyboardInterrupt):
                registry.expand("methods", "all")
        else:
            with pytest.warns(registry.PluginWarning, match=r"bad-plugin.* KeyboardInterrupt"):
                assert "acme" in registry.expand("methods", "all")
        # Where Python itself listens nobody can tell, and it may be somebody at a keyboard.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            registry.expand("methods", "bad*")
    finally:
        signal.signal(signal.SIGINT, before)


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


@pytest.mark.parametrize(
    "arguments", [("ls",), ("ls", "methods", "--json"), ("ls", "verbs"), ("--help",)]
)
def test_a_listing_imports_no_plugin(install: Install, arguments: tuple[str, ...]) -> None:
    site = install("acme-inject", "acme = acme_inject:Injector")
    install("bad-plugin", "bad = bad_plugin:Injector", BROKEN)
    out, modules = listing(site, *arguments)
    if arguments[-1] in ("verbs", "--help"):
        assert "Verify, merge and show results" in out
    else:
        assert "Injects [bold]everything[/bold]." in out
        assert "bad-plugin 1.2" in out
        assert "map-tuning" in out
    parts = {"acme_inject", "bad_plugin", "kbench_tasks", "kbench_baselines", "kbench_leaderboard"}
    assert not modules & parts
    assert "kbench.cli" in modules


GREETING = '''
"""Commands."""
import click


@click.command()
@click.option("--name", default="you")
def hello(name):
    """Greets somebody.

    And more.
    """
    click.echo(f"hello {name}")


made = click.Command("made", help="Made by a call.")
'''
NOTE = "(cannot be loaded: call it to see why)"
OTHERS = [("executors", "local"), ("verbs", "leaderboard"), ("published", "kbench")]
"""The kinds that no run is made of, and a part of each that is installed."""


@pytest.mark.parametrize(("kind", "name"), OTHERS)
def test_executors_verbs_and_published_figures_are_parts_like_others(
    install: Install, kind: str, name: str
) -> None:
    assert name in registry.names(kind)
    with pytest.raises(UsageError, match=f"is called '{name}z'; did you mean {name}"):
        registry.get(kind, f"{name}z")
    install("acme-twin", f"{name} = acme_twin:Injector", group=f"kbench.{kind}")
    both = rf"'{name}' is offered by acme-twin 1.2 \(.*\) and knowledge-bench .*: uninstall one"
    with pytest.raises(PluginError, match=both):
        registry.get(kind, name)


@pytest.mark.parametrize(
    ("kind", "target", "what"),
    [
        ("executors", "odd_part:number", "executor 'odd' of odd-part 1.2 is int .*, not a class"),
        ("verbs", "odd_part:Injector", "command 'odd' of .* is class .*, not a click command"),
        ("verbs", "odd_part", "is module odd_part, not a click command"),
        ("published", "odd_part", "published figures 'odd' of .* is module odd_part, not a pack"),
        ("published", "odd_part:Injector", "is class odd_part:Injector, not a package"),
        ("published", "not_there", "does not load: ModuleNotFoundError"),
    ],
)
def test_a_part_that_is_not_what_its_kind_asks_for_is_an_error(
    install: Install, kind: str, target: str, what: str
) -> None:
    install("odd-part", f"odd = {target}", group=f"kbench.{kind}")
    with pytest.raises(PluginError, match=what):
        registry.get(kind, "odd")


def test_who_asks_for_an_executor_or_for_figures_is_told_of_two_with_one_name(
    install: Install,
) -> None:
    install("acme-far", "local = acme_far:Injector", group="kbench.executors")
    install("acme-figures", "kbench = acme_figures", group="kbench.published")
    with pytest.raises(PluginError, match=r"'local' is offered by acme-far 1.2"):
        find_executor("local")
    figures.cache_clear()
    with pytest.raises(PluginError, match=r"'kbench' is offered by acme-figures 1.2"):
        figures()


@pytest.mark.parametrize(
    ("kind", "target", "about"),
    [
        ("executors", "acme_part:Injector", "Injects [bold]everything[/bold]."),
        ("verbs", "acme_part:hello", "Greets somebody."),
        ("published", "acme_part", "A plugin."),
    ],
)
def test_each_kind_is_listed_from_its_source(
    install: Install,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    target: str,
    about: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    install("acme-part", f"acme = {target}", SOUND + GREETING, group=f"kbench.{kind}")
    status, out, _ = call(capsys, "ls", kind)
    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("acme "))
    assert about in line
    assert "acme-part 1.2" in line
    _, out, _ = call(capsys, "ls", kind, "--json")
    found = {value["name"]: value for value in map(json.loads, out.splitlines())}
    assert (found["acme"]["summary"], found["acme"]["target"]) == (about, target)
    assert "acme_part" not in sys.modules


def test_a_verb_is_offered_by_name_and_imported_when_called(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("acme-verbs", "hello = acme_verbs:hello", GREETING, group="kbench.verbs")
    status, out, _ = call(capsys, "--help")
    assert status == 0
    assert "hello        Greets somebody." in out
    assert "acme_verbs" not in sys.modules
    assert call(capsys, "hello", "--name", "Ada") == (0, "hello Ada\n", "")
    status, _, err = call(capsys, "hell")
    assert (status, err) == (2, "error: no command is called 'hell'; did you mean hello?\n")


def test_a_verb_whose_source_does_not_tell_is_asked_itself(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("acme-verbs", "made = acme_verbs:made", GREETING, group="kbench.verbs")
    install("bad-verb", "bad = bad_verb:bad", BROKEN, group="kbench.verbs")
    status, out, _ = call(capsys, "--help")
    assert status == 0
    assert "made         Made by a call." in out
    assert f"bad          {NOTE}" in out
    status, _, err = call(capsys, "bad")
    assert status == 2
    assert "command 'bad' of bad-verb 1.2 does not load: ModuleNotFoundError" in err


def test_two_verbs_with_one_name_are_an_error_when_called_and_a_note_in_the_help(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("acme-verbs", "twin = acme_verbs:hello", GREETING, group="kbench.verbs")
    install("other-verbs", "twin = other_verbs:hello", GREETING, group="kbench.verbs")
    status, out, _ = call(capsys, "--help")
    assert status == 0
    assert out.count("  twin ") == 1
    assert f"twin         {NOTE}" in out
    status, out, err = call(capsys, "twin")
    assert (status, out) == (2, "")
    assert "'twin' is offered by acme-verbs 1.2 (acme_verbs:hello) and other-verbs 1.2" in err
    assert not {"acme_verbs", "other_verbs"} & set(sys.modules)


def test_a_verb_cannot_take_the_name_of_one_of_kbenchs_own(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("acme-verbs", "schema = acme_verbs:hello", GREETING, group="kbench.verbs")
    _, out, _ = call(capsys, "--help")
    assert out.count("  schema ") == 1
    assert f"schema       {NOTE}" in out
    told = "'schema' is offered by acme-verbs 1.2 (acme_verbs:hello) and is one of kbench's own"
    status, out, err = call(capsys, "schema")
    assert (status, out) == (2, "")
    assert told in err
    with pytest.raises(PluginError, match="one of kbench's own"):
        doctor._parts(Kind.VERBS)


def test_every_verb_of_kbenchs_own_is_a_command() -> None:
    assert {verbs.load(name).name for name in verbs.OWN} == set(verbs.OWN)
