"""`kbench doctor`: is this installation able to do its work?"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import click

from kbench import __version__
from kbench.cli import verbs
from kbench.cli.messages import say
from kbench.data.files import cache_home
from kbench.errors import KbenchError, one_line, with_type
from kbench.parts import registry
from kbench.parts.catalogue import Kind, entries
from kbench.pipeline import provenance

__all__ = ["doctor"]

_RUN = (Kind.TASKS, Kind.METHODS, Kind.BACKBONES, Kind.TUNINGS, Kind.EXECUTORS)
"""Kinds of parts whose code brings torch."""


@click.command("doctor")
def doctor() -> int:
    """Check Python, libraries, plugins, device, the cache and the embedded parts."""
    problems = 0
    light = find_spec("torch") is None
    checks: list[tuple[str, Callable[[], str]]] = [
        ("kbench", lambda: f"{__version__} in {Path(__file__).parent.parent}"),
        ("python", lambda: f"{sys.version.split()[0]} at {sys.executable}"),
        ("libraries", lambda: ", ".join(f"{k} {v}" for k, v in provenance.versions().items())),
        ("machine", _machine),
        ("device", _no_device if light else _device),
        ("cache", _cache),
        *(
            (f"{kind}", lambda kind=kind: _parts(kind))
            for kind in Kind
            if not (light and kind in _RUN)
        ),
        ("embedded knowledge", _knowledge),
        *(() if light else (("embedded backbone", _backbone),)),
    ]
    for name, check in checks:
        try:
            say(f"ok       {name}: {check()}")
        except Exception as error:  # whatever is wrong, the other checks still matter
            problems += 1
            text = one_line(error) if isinstance(error, KbenchError) else with_type(error)
            say(f"PROBLEM  {name}: {text}")
    say(f"{problems} problems" if problems else "no problems")
    return 1 if problems else 0


def _no_device() -> str:
    return "no matter: torch is not installed, so results can be read, and none be made"


def _machine() -> str:
    hardware = provenance.hardware()
    memory = f", {int(hardware['memory_bytes']) / 1e9:.0f} GB" if "memory_bytes" in hardware else ""
    return f"{hardware['processor']}, {os.cpu_count()} cores{memory}"


def _device() -> str:
    import torch

    from kbench.grid.devices import find_device

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"cuda: {', '.join(names)}"
    device = find_device("auto")  # what `kbench run` takes where nothing is said
    if device.type != "cpu":
        return f"{device.type} (no CUDA device found)"
    return f"cpu, {torch.get_num_threads()} threads (no CUDA device found)"


def _cache() -> str:
    home = cache_home()
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=home):
        pass
    return f"{home}, {shutil.disk_usage(home).free / 1e9:.0f} GB free"


def _parts(kind: Kind) -> str:
    names = [entry.name for entry in entries(kind)]
    for name in names:
        if kind == Kind.VERBS:
            verbs.load(name)  # sees too that kbench has none of this name
        else:
            registry.get(kind, name)
    return ", ".join(names)


def _knowledge() -> str:
    from kbench.parts.find import find_knowledge

    verified = []
    for name in registry.names(Kind.KNOWLEDGE):
        bundle = find_knowledge(name)
        bundle.verify()
        verified.append(f"{name} {len(bundle)} entities, digest {bundle.digest[:12]} verified")
    return "; ".join(verified)


def _backbone() -> str:
    from kbench.parts.find import find_backbone

    loaded = []
    for name in registry.names(Kind.BACKBONES):
        lm = find_backbone(name).load()
        count = sum(p.numel() for p in lm.parameters())
        loaded.append(f"{name} {count:,} parameters")
    return "; ".join(loaded)
