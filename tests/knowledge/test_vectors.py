from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbench.errors import KbenchError, UsageError
from kbench.knowledge import Bundle, Entity, vectors, write_bundle
from kbench.knowledge.link_prediction import held_out
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
        {"ranked": -1},
        {"train_on": "test"},
    ],
)
def test_impossible_settings(changes: dict[str, object]) -> None:
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


def figures(bundle: Bundle) -> dict[str, Any]:
    found: dict[str, Any] = bundle.card["vectors"]["link_prediction"]
    return found


def ring(folder: Path, split_of: list[int] | None = None) -> Bundle:
    """A graph in which who follows whom tells who is followed: each fact is in it both ways."""
    entities = [Entity(f"E{n:02}") for n in range(40)]
    facts = [(f"E{n:02}", "next", f"E{(n + 1) % 40:02}") for n in range(40)]
    facts += [(tail, "before", head) for head, _, tail in facts]
    return write_bundle(folder, CARD, entities, facts, splits=split_of)


def test_link_prediction_is_of_a_twin_and_leaves_the_vectors_as_they_are(tmp_path: Path) -> None:
    bundle = ring(tmp_path / "kb", [0] * 76 + [1, 2, 2, 2])
    without = content(train_vectors(bundle.folder, small(ranked=0)))
    assert figures(Bundle(bundle.folder)) == {"not_measured": "not asked for (ranked is 0)"}
    seen: list[int] = []
    made = train_vectors(bundle.folder, small(), twin_progress=lambda epoch, _: seen.append(epoch))
    assert content(made) == without
    assert seen == [1, 2, 3, 4, 5]
    about = figures(made)
    assert about["of"].startswith("a twin")
    assert (about["split"], about["facts_of_the_split"], about["facts_ranked"]) == ("test", 3, 3)
    assert about["facts_trained_on"] == 76
    assert about["ranked_pairs_in_training"] == 3
    assert about["ranked_with_an_entity_not_in_training"] == 0
    assert 0 < about["mrr"] <= 1
    assert made.card["vectors"]["triples"] == 80
    valid = train_vectors(bundle.folder, small(ranked_split="valid"))
    assert (figures(valid)["split"], figures(valid)["facts_ranked"]) == ("valid", 1)


def test_vectors_of_train_alone_are_measured_themselves(tmp_path: Path) -> None:
    """E3 is in a fact of test alone: trained on train, it has no vector."""
    entities = [Entity(f"E{n}") for n in range(4)]
    facts = [("E0", "r", "E1"), ("E1", "r", "E2"), ("E2", "r", "E3")]
    bundle = write_bundle(tmp_path / "kb", CARD, entities, facts, splits=[0, 0, 2])
    made = train_vectors(bundle.folder, small(train_on="train"))
    assert figures(made)["of"] == "the vectors of this bundle"
    assert figures(made)["ranked_with_an_entity_not_in_training"] == 1
    assert made.has_vector(np.arange(4)).tolist() == [True, True, True, False]
    assert made.card["vectors"]["triples"] == 2
    assert made.card["vectors"]["train_on"] == "train"


def test_what_can_be_told_is_told_and_what_cannot_is_not(tmp_path: Path) -> None:
    """Half of `before` is held out; the vectors know it from `next`, those of one epoch do not."""
    split_of = [0] * 40 + [0, 2] * 20
    settings = {"dimension": 16, "margin": 2.0, "model": "RotatE", "train_on": "train"}
    bundle = ring(tmp_path / "kb", split_of)
    known = figures(train_vectors(bundle.folder, small(**settings, epochs=200)))
    guessed = figures(train_vectors(bundle.folder, small(**settings, epochs=1)))
    assert known["hits_at_10"] > 0.9 > guessed["hits_at_10"]
    assert known["mrr"] > 2 * guessed["mrr"]


def test_a_graph_without_splits_holds_out_what_else_is_told_of(tmp_path: Path) -> None:
    bundle = ring(tmp_path / "kb")
    held = held_out(bundle, "test", 1000, 0)
    assert held is not None
    assert (held.split, held.size) == ("seeded hold-out", 4)  # of 80 facts a twentieth
    known, facts = bundle.triples[held.train], bundle.triples
    assert len(known) == len(facts) - 4
    for columns in ([1], [0, 2]):
        assert set(np.unique(known[:, columns])) == set(np.unique(facts[:, columns]))
    assert not {tuple(row) for row in known} & {tuple(row) for row in held.ranked}
    drawn = [held_out(bundle, "test", 1000, seed) for seed in (0, 7)]
    same = [other is not None and (other.train == held.train).all() for other in drawn]
    assert same == [True, False]


def test_nothing_can_be_held_out(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "kb", CARD, [Entity("a"), Entity("b")], [("a", "r", "b")])
    made = train_vectors(bundle.folder, small())
    assert figures(made) == {"not_measured": "no fact can be held out"}
    with pytest.raises(KbenchError, match="no fact is held out"):
        train_vectors(bundle.folder, small(train_on="train"))


def test_a_large_graph_is_not_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = ring(tmp_path / "kb")
    monkeypatch.setattr(vectors, "_TWIN", 100)
    made = train_vectors(bundle.folder, small())
    assert "training twice would take long" in figures(made)["not_measured"]
    assert "mrr" in figures(train_vectors(bundle.folder, small(train_on="train")))


def test_fewer_facts_are_ranked_among_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = ring(tmp_path / "kb", [0] * 60 + [2] * 20)
    monkeypatch.setattr(vectors, "_RANKED_AMONG", 20)  # there are 40
    monkeypatch.setattr(vectors, "_RANKED_LEAST", 3)
    for asked, ranked in ((16, 8), (4, 3), (2, 2)):
        made = train_vectors(bundle.folder, small(train_on="train", epochs=1, ranked=asked))
        assert figures(made)["facts_ranked"] == ranked


def test_a_twin_that_diverges_has_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = ring(tmp_path / "kb", [0] * 76 + [2] * 4)
    run = vectors._Training.run

    def diverging(self: vectors._Training, progress: vectors.Progress | None) -> list[float]:
        losses = run(self, progress)
        return losses if len(self._triples) == 80 else [float("nan")]

    monkeypatch.setattr(vectors._Training, "run", diverging)
    assert "diverged" in figures(train_vectors(bundle.folder, small()))["not_measured"]


def test_who_breaks_off_the_twin_has_the_vectors(tmp_path: Path) -> None:
    bundle = ring(tmp_path / "kb", [0] * 76 + [2] * 4)
    whole = content(train_vectors(bundle.folder, small()))

    def broken(epoch: int, loss: float) -> None:
        raise KeyboardInterrupt

    again = ring(tmp_path / "again", [0] * 76 + [2] * 4)
    with pytest.raises(KeyboardInterrupt):
        train_vectors(again.folder, small(), twin_progress=broken)
    assert figures(Bundle(again.folder)) == {"not_measured": "broken off"}
    assert content(Bundle(again.folder)) == whole
