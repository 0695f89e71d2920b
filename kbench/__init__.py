"""kbench: a benchmark of knowledge injection into frozen language models."""

from importlib import import_module

TYPE_CHECKING = False  # as of typing, which takes longer to import than all that is here
if TYPE_CHECKING:
    from kbench.interface.plugs import LoadedPlug, load_plug
    from kbench.interface.reading import Runs, load
    from kbench.interface.running import plan, run
    from kbench.interface.working import Plan

__all__ = ["LoadedPlug", "Plan", "Runs", "load", "load_plug", "plan", "run"]

__version__ = "0.1.0"

_ROOMS = {
    "LoadedPlug": "kbench.interface.plugs",
    "Plan": "kbench.interface.working",
    "Runs": "kbench.interface.reading",
    "load": "kbench.interface.reading",
    "load_plug": "kbench.interface.plugs",
    "plan": "kbench.interface.running",
    "run": "kbench.interface.running",
}


def __getattr__(name: str) -> object:
    """Imports what is asked for: whoever only wants a door waits for nothing else."""
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
