"""A Ray cluster: joined or started, asked for resources, watched while it works."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, TextIO, cast

from kbench.errors import UsageError, first_line, one_line

__all__ = ["Board", "Cluster", "TaskReport", "ray_module"]

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A task that is killed for its memory is not repeated for ever.
    "RAY_task_oom_retries": "3",
}


_PATIENCE = 5.0
"""Seconds for a cluster to answer."""


def ray_module() -> Any:
    """Imports Ray.

    Raises:
        UsageError: it is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UsageError(
            "executor ray needs Ray, which is not installed: pip install 'knowledge-bench[ray]'"
        ) from None
    return ray


@dataclass(frozen=True)
class TaskReport:
    """What a task is doing.

    Attributes:
        node: id of its node.
        worker: id of its process.
        host: name of its machine.
        what: in words.
        done: steps of training.
        total: of them; 0 if there are none to count.
    """

    node: str
    worker: str
    host: str
    what: str
    done: int
    total: int

    @property
    def where(self) -> str:
        """Its machine and node, for people."""
        return f"{self.host} (node {self.node[:8]})"


@dataclass
class Reports:
    """What the tasks have told.

    Attributes:
        last: the last report of each, by key of its step.
        again: of each that was begun a second time, where it was and where it is now.
    """

    last: dict[str, TaskReport] = field(default_factory=dict)
    again: list[tuple[TaskReport, TaskReport]] = field(default_factory=list)


class Board:
    """An actor on the driver's node that tasks report to."""

    def __init__(self) -> None:
        self._reports = Reports()

    def tell(self, key: str, report: TaskReport) -> None:
        """Notes what the task of a key is doing now."""
        before = self._reports.last.get(key)
        if before is not None and before.worker != report.worker:
            self._reports.again.append((before, report))
        self._reports.last[key] = report

    def read(self) -> Reports:
        """Returns all that was told."""
        return self._reports


class Cluster:
    """A connection to a Ray cluster.

    Args:
        address: ``HOST:PORT`` or ``auto`` of a running cluster, or ``local`` for one of this
            machine alone that ends with the grid; empty for a running one if there is one.
    """

    def __init__(self, ray: Any, address: str) -> None:
        self._ray = ray
        self.address = address
        self.board = self._hung()
        self._alive = self._nodes()

    @classmethod
    @contextmanager
    def joined(cls, address: str) -> Iterator[Cluster]:
        """Joins or starts a cluster for the time of the block.

        Raises:
            UsageError: it cannot be reached.
        """
        ray = ray_module()
        if ray.is_initialized():  # by whoever uses kbench as a library: theirs to end
            yield cls(ray, ray.get_runtime_context().gcs_address)
            return
        _reach(address)
        silent = redirect_stdout(cast("TextIO", _Silent(sys.stdout)))
        try:
            ray.init(
                address=address or None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                namespace="kbench",
            )
        except (ConnectionError, OSError, ValueError, RuntimeError, ray.exceptions.RayError) as why:
            raise UsageError(
                f"the Ray cluster {address or '(none given)'} cannot be joined "
                f"({one_line(why)}); if it has a token, set RAY_AUTH_MODE=token and "
                "have the token in ~/.ray/auth_token or where RAY_AUTH_TOKEN_PATH says; else see "
                "that it has the same version of Ray and of Python"
            ) from None
        with silent:
            try:
                yield cls(ray, ray.get_runtime_context().gcs_address)
            finally:
                with redirect_stdout(StringIO()):  # what it kept back is printed by this thread
                    ray.shutdown()

    def _hung(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self._ray.get_runtime_context().get_node_id()
        strategy = NodeAffinitySchedulingStrategy(here, soft=True)
        board = self._ray.remote(Board)
        return board.options(num_cpus=0, scheduling_strategy=strategy).remote()

    def _nodes(self) -> dict[str, dict[str, Any]]:
        return {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}

    @property
    def workers(self) -> int:
        """How many nodes have CPUs for stages."""
        return sum(bool(node["Resources"].get("CPU")) for node in self._alive.values())

    def most(self, resource: str) -> float:
        """Returns how much of a resource the node with the most has."""
        return float(max(n["Resources"].get(resource, 0.0) for n in self._alive.values()))

    def total(self, resource: str) -> float:
        """Returns how much of a resource there is."""
        return float(sum(n["Resources"].get(resource, 0.0) for n in self._alive.values()))

    def lost(self) -> list[str]:
        """Returns the names of the nodes that were there when last asked and are no more."""
        before, self._alive = self._alive, self._nodes()
        return [
            f"{key[:8]} on {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            for key, node in before.items()
            if key not in self._alive
        ]

    def reports(self) -> Reports | None:
        """Returns what the tasks have told; None if the board cannot be read just now."""
        try:
            reports: Reports = self._ray.get(self.board.read.remote(), timeout=5)
        except self._ray.exceptions.RayError:
            return None
        return reports


def _reach(address: str) -> None:
    """Refuses an address at which nothing listens: Ray itself tries for minutes.

    Raises:
        UsageError: nothing answers there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # ``auto``, ``local`` or none: Ray's to find
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as cause:
        raise UsageError(
            f"no Ray cluster answers at {address} ({first_line(cause)}); expected "
            "-o address=HOST:PORT of the node that `ray start --head` was called on, or "
            "-o address=local for a cluster of this machine alone"
        ) from None


class _Silent:
    """The output without what Ray's threads print of nodes and tasks: the driver tells it better.

    Ray prints it to the standard output, which belongs to the results.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
