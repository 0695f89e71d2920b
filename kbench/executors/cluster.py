"""A Ray cluster: joined or started, asked for resources, watched while it works."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kbench.errors import UsageError

__all__ = ["Board", "Cluster", "Report", "ray_module"]

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A task that is killed for its memory is not repeated for ever.
    "RAY_task_oom_retries": "3",
}


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
class Report:
    """What a task is doing.

    Attributes:
        node: id of its node.
        host: name of its machine.
        what: in words.
        done: steps of training.
        total: of them; 0 if there are none to count.
    """

    node: str
    host: str
    what: str
    done: int
    total: int


class Board:
    """An actor on the driver's node that tasks report to."""

    def __init__(self) -> None:
        self._reports: dict[str, Report] = {}

    def tell(self, key: str, report: Report) -> None:
        """Notes what the task of a key is doing now."""
        self._reports[key] = report

    def read(self) -> Mapping[str, Report]:
        """Returns the last report of each task."""
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
        try:
            ray.init(
                address=address or None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                namespace="kbench",
            )
        except (ConnectionError, OSError, ValueError, RuntimeError) as cause:
            reason = " ".join(str(cause).split())
            raise UsageError(
                f"the Ray cluster {address or '(none given)'} cannot be joined ({reason}); "
                "expected -o address=HOST:PORT of a cluster that `ray start` has started, or "
                "-o address=local for one of this machine alone"
            ) from None
        try:
            yield cls(ray, ray.get_runtime_context().gcs_address)
        finally:
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

    def lost(self) -> dict[str, str]:
        """Returns id and name of the nodes that were there when last asked and are no more."""
        before, self._alive = self._alive, self._nodes()
        return {
            key: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {key[:8]})"
            for key, node in before.items()
            if key not in self._alive
        }

    def reports(self) -> Mapping[str, Report]:
        """Returns what the tasks are doing; nothing if the board cannot be read just now."""
        try:
            found: Mapping[str, Report] = self._ray.get(self.board.read.remote(), timeout=5)
        except self._ray.exceptions.RayError:
            return {}
        return found
