from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kbench.errors import KbenchError, UsageError
from kbench.knowledge import Bundle, Entity, write_bundle
from kbench.knowledge.vectors import VectorSettings, train_vectors

CARD = {"name": "world", "version": "1", "licence": "CC0-1.0", "source": "made for a test"}
SMALL = {"dimension": 8, "epochs": 5, "batch_size": 16, "negatives": 4, "device": "cpu"}


def small(**changes: object) -> VectorSettings:
    return VectorSettings(**{**SMALL, **changes})  # type: ignore[arg-type]


def content(bundle: Bundle) -> bytes:
    return (bundle.folder / "vectors.npy").read_bytes()


def test_vectors_of_linked_entities(world: Bundle) -> None:
    seen: list[tuple[int, float]] = []
    bundle = train_vectors(world.folder, small(), lambda epoch, loss: seen.append((epoch, loss)))
    rows = np.arange(len(bundle))
    island = bundle.rows(["I0"])[0]
    assert np.flatnonzero(~bundle.has_vector(rows)).tolist() == [island]
    assert np.isfinite(bundle.vectors(rows[rows != island])).all()
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4, 5]
    origin = bundle.card["vectors"]
    assert origin["final_loss"] == seen[-1][1] < seen[0][1]
    assert (origin["model"], origin["seed"], origin["dimension"], origin["entities"]) == (
        "TransE", 0, 8, 44,
    )  # fmt: skip
    assert 0 <= origin["fit_hits_at_10"] <= 1
    bundle.verify()


def test_same_seed_same_bytes(world: Bundle) -> None:
    first = content(train_vectors(world.folder, small()))
    torch.rand(3), np.random.rand(3), random.random()
    assert content(train_vectors(world.folder, small())) == first
    assert content(train_vectors(world.folder, small(seed=1))) != first


def test_the_states_of_the_generators_are_left_alone(world: Bundle) -> None:
    torch.manual_seed(4)
    np.random.seed(4)
    random.seed(4)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(4)
    np.random.seed(4)
    random.seed(4)
    train_vectors(world.folder, small(epochs=1))
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


@pytest.mark.parametrize(
    ("model", "width"), [("transe", 8), ("DistMult", 8), ("RotatE", 16), ("ComplEx", 16)]
)
def test_models_by_name(world: Bundle, model: str, width: int) -> None:
    bundle = train_vectors(world.folder, small(model=model))
    assert bundle.dimension == width
    assert bundle.card["vectors"]["model"].lower() == model.lower()


def test_neighbours_share_their_country(world: Bundle) -> None:
    bundle = train_vectors(world.folder, small(epochs=100, dimension=16, margin=2.0))
    cities = bundle.rows([f"T{i}" for i in range(40)])
    vectors = bundle.vectors(cities)
    distance = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    same = distance.argmin(axis=1) % 4 == np.arange(40) % 4
    assert same.mean() > 0.8  # a quarter by chance
    assert bundle.card["vectors"]["fit_hits_at_10"] > 0.9


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "TransEE"}, "no trainable model 'TransEE'; did you mean .*TransE"),
        ({"model": "DistMultLiteral"}, "cannot build DistMultLiteral"),
        ({"model": "CompGCN"}, "cannot build CompGCN"),
        ({"loss": "nsa"}, "no loss 'nsa'"),
        ({"device": "gpu9"}, "device 'gpu9' is not there"),
    ],
)
def test_what_is_not_there(world: Bundle, changes: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        train_vectors(world.folder, small(**changes))
    world.verify()
    assert Bundle(world.folder).dimension == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"dimension": -1},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"margin": float("nan")},  # else the learning rate is blamed
        {"seed": -1},
    ],
)
def test_impossible_settings(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(changes))):
        small(**changes)


def test_divergence_is_an_error(world: Bundle) -> None:
    with pytest.raises(KbenchError, match=r"diverged .* lower the learning rate"):
        train_vectors(world.folder, small(model="DistMult", learning_rate=1e30, epochs=3))
    assert Bundle(world.folder).dimension == 0


def test_no_triples(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "kb", CARD, [Entity("Q1")])
    with pytest.raises(KbenchError, match="no triples"):
        train_vectors(bundle.folder)


def test_quiet_and_out_of_the_home_folder(world: Bundle, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from kbench.knowledge.vectors import *;"
        "train_vectors(sys.argv[1], VectorSettings(dimension=4, epochs=1, batch_size=8))"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYKEEN", "PYSTOW", "XDG"))}
    environment = {**kept, "HOME": str(home), "KBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-W", "always::UserWarning", "-c", code, str(world.folder)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
    assert list(home.iterdir()) == []
