"""What differs between operating systems: groups of processes, memory, folders on a disk.

kbench is run and tested on Linux. macOS counts memory in bytes; Windows has no groups of processes
that a signal ends, no account of a process's peak in Python's library, and opens no folders. What a
system cannot do is left out there, and says so where a user asks for it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["end_group", "kill_group", "lead_group", "peak_memory", "sync_folder", "total_memory"]


def peak_memory() -> int | None:
    """Returns the bytes that this process has held at most; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else 1024 * int(peak)


def total_memory() -> int | None:
    """Returns the bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def lead_group() -> None:
    """Makes this process the first of a group, so that it is ended with all that it starts."""
    if hasattr(os, "setsid"):
        os.setsid()


def kill_group(pid: int) -> None:
    """Ends a process and all that it started; where there are no groups, the process is left.

    Args:
        pid: of the first of its group; 0 for this one's.
    """
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def end_group() -> None:
    """Ends this process and all that it started, at once."""
    kill_group(0)
    os._exit(1)


def sync_folder(folder: Path) -> None:
    """Writes the names in a folder to the disk, where the system opens folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
