"""A grid over the toy world, what came of it, and a Ray cluster of two nodes."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kbench.grid.grids import Grid
from kbench.parts.catalogue import Kind
from kbench.testing import registered
from tests.conftest import registered_toys
from tests.grid.toygrid import grid

_OFFERED = """[kbench.tasks]
toy-typing = kbench.testing.toys:ToyTyping
toy-relations = kbench.testing.toys:ToyRelations

[kbench.methods]
deadly = deadly:Deadly
"""
_DEADLY = '''"""A method whose fitting ends its process."""

import os

from kbench_baselines.map_tuning import MapTuning


class Deadly(MapTuning):
    """Dies while it trains."""

    def fit(self, plug, fit):
        os._exit(3)
'''


def toy_grid(folder: Path, epochs: int = 2, **changes: Any) -> Grid:
    """Two tasks, with every kind of step: models, general, task-specific and fixed plugs."""
    plug = {"learning_rate": 1e-2, "epochs": epochs, "batch_size": 32, "dropout": None}
    options: dict[str, Any] = {
        "tuning": {"full": {"learning_rate": 3e-3, "epochs": epochs, "batch_size": 16}},
        "method": {
            name: {"general": plug, "fine-tuning": plug, "task-specific": plug}
            for name in ("map-tuning", "deadly")
        },
    }
    values = {
        "task": "toy-relations,toy-typing",
        "setting": "general,task-specific,fine-tuning",
        "options": options,
        **changes,
    }
    wanted = {*values["method"].split(",")} if "method" in values else {"map-tuning"}
    options["method"] = {k: v for k, v in options["method"].items() if k in wanted}
    return grid(folder, **values)


def outcome(out: Path) -> dict[str, bytes]:
    """The bytes of all predictions in a folder of results, by id."""
    return {path.parent.name: path.read_bytes() for path in out.glob("*/predictions.parquet")}


def weights(store: Path) -> dict[tuple[str, str], bytes]:
    """The bytes of all weights of a store, by kind and address."""
    found = store.glob("*/*/*.safetensors")
    return {(path.parts[-3], path.parts[-2]): path.read_bytes() for path in found}


class Nodes:
    """A Ray cluster on this machine; each node has a cache of its own."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self._cluster = Cluster()
        for name in ("one", "two"):
            self.add(name)
        self.address: str = self._cluster.address

    def cache(self, name: str) -> Path:
        """Where a node keeps what it reads from the store."""
        return self.folder / name / "artifacts"

    def add(self, name: str) -> Any:
        """Starts a node."""
        return self._cluster.add_node(
            num_cpus=1,
            include_dashboard=False,
            env_vars={"KBENCH_CACHE": str(self.folder / name)},
        )

    def kill(self, node: Any) -> None:
        """Kills all processes of a node."""
        self._cluster.remove_node(node, allow_graceful=False)

    def end(self) -> None:
        """Ends all nodes."""
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes that know the toy tasks, for as long as the tests of a module take."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'knowledge-bench[ray]'")
    folder = tmp_path_factory.mktemp("nodes")
    site = folder / "site"
    about = site / "kbench_clustered-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kbench-clustered\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(_OFFERED)
    (site / "deadly.py").write_text(_DEADLY)
    (folder / "token").write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(site), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.syspath_prepend(site)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray reads this once, when it is first imported; Nodes does that.
        patch.setenv("RAY_AUTH_MODE", "disabled" if "ray" in sys.modules else "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        with registered_toys(), registered(Kind.METHODS, deadly="deadly:Deadly"):
            started = Nodes(folder)
            yield started
            started.end()
