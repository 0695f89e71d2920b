"""Methods that go wrong in every way there is; each trains as map-tuning does until then."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from kbench.method import Fit, Plug
from kbench.training import History
from kbench_baselines.map_tuning import MapTuning


class Raises(MapTuning):  # type: ignore[misc]
    """Raises what cannot even say what it is."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        class MuteError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        raise MuteError


class Chatters(MapTuning):  # type: ignore[misc]
    """Raises a novel with half a surrogate pair and terminal sequences in it."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        print("nothing that belongs to the output")
        raise ValueError("\x1b[31mİstanbul\ud83d\u202e " + "word " * 100_000)


class Exits(MapTuning):  # type: ignore[misc]
    """Leaves as a script would."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        sys.exit(3)


class Panics(MapTuning):  # type: ignore[misc]
    """Raises what is no Exception, as Rust's panics are."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        class PanicError(BaseException):
            pass

        raise PanicError("Regex search error: retry-limit-in-match over")


class Vanishes(MapTuning):  # type: ignore[misc]
    """Ends the process at once."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        os._exit(7)


class Crashes(MapTuning):  # type: ignore[misc]
    """Reads memory that is nobody's."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        ctypes.string_at(1)


class Hangs(MapTuning):  # type: ignore[misc]
    """Sleeps in C and lets no other thread of Python run; a child of it sleeps, too."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        child = subprocess.Popen(["sleep", "1000"])
        Path(os.environ["KBENCH_CACHE"], "child").write_text(str(child.pid))
        ctypes.PyDLL(None).sleep(1000)


class Leaks(MapTuning):  # type: ignore[misc]
    """Takes memory until it is stopped."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        taken = []
        while True:
            taken.append(bytearray(b"x" * 50_000_000))
            time.sleep(0.02)


class Unset(MapTuning):  # type: ignore[misc]
    """Puts vectors into the model that are no numbers; its parameters are."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        history = super().fit(plug, fit)
        given = plug.slot_vectors
        plug.slot_vectors = lambda rows: given(rows) * float("nan")
        return history


class Infinite(MapTuning):  # type: ignore[misc]
    """Ends with a parameter that is not finite."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        history = super().fit(plug, fit)
        with torch.no_grad():
            next(plug.parameters()).fill_(float("inf"))
        return history


class Misreports(MapTuning):  # type: ignore[misc]
    """Says that its loss was no number."""

    def fit(self, plug: Plug, fit: Fit) -> Any:
        super().fit(plug, fit)
        return History(steps=1, losses=[float("nan")])
