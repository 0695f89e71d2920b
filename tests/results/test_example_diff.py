"""What two runs predict otherwise, and the knowledge behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbench.data import Example, Mention, Split
from kbench.knowledge import Bundle, Entity, write_bundle, write_vectors
from kbench.knowledge.controls import Shuffled
from kbench.knowledge.documents import NOTHING
from kbench.results import nearest
from kbench.results.example_diff import Change, Texts, changes, injected, known
from kbench.results.nearest import nearest_rows
from kbench.store import Result, Status
from kbench.testing.toys import ToyRelations
from tests.stored import predictions, provenance, spec

CARD = {"name": "world", "version": "1", "licence": "none", "source": "test"}


def world(folder: Path, vectors: np.ndarray) -> Bundle:
    entities = [
        Entity(f"Q{n}", f"label {n}", types=(f"type {n}",), description=f"text {n}")
        for n in range(len(vectors))
    ]
    write_bundle(folder, CARD, entities, [("Q0", "r", "Q1")], {"r": "relates to"})
    return write_vectors(folder, vectors.astype(np.float32), {"model": "random"})


def result(control: str = "none", **changed: str | None) -> Result:
    return Result(
        id="0" * 32,
        status=Status.OK,
        spec=spec(control=control, seed=3),
        provenance=provenance(**changed),  # type: ignore[arg-type]
    )


@settings(max_examples=20)
@given(st.integers(2, 10), st.integers(0, 6), st.integers(1, 9), st.integers(0, 2**31))
def test_neighbours_are_those_of_the_whole_matrix(
    tmp_path_factory: pytest.TempPathFactory, n: int, count: int, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 4))
    vectors[rng.random(n) < 0.2] = np.nan
    vectors[rng.random(n) < 0.1] = 0
    base = world(tmp_path_factory.mktemp("kb"), vectors)
    queries = rng.standard_normal((3, 4)).astype(np.float32)
    queries[2] = 0
    without = rng.integers(-1, n, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_BLOCK", 4 * block)
        rows, cosines = nearest_rows(base, queries, count, without)
    stored = vectors.astype(np.float32).astype(np.float64)
    for at, query in enumerate(queries.astype(np.float64)):
        norms = np.linalg.norm(stored, axis=1) * np.linalg.norm(query)
        with np.errstate(all="ignore"):
            exact = stored @ query / norms
        able = [r for r in range(n) if norms[r] > 0 and r != without[at]]
        best = sorted(able, key=lambda r: -exact[r])[:count]
        assert rows[at].tolist() == best + [-1] * (count - len(best))
        assert cosines[at][: len(best)] == pytest.approx(exact[best])
        assert np.isneginf(cosines[at][len(best) :]).all()


def test_changes_by_hand() -> None:
    gold = ["a", "b", ("c", "d"), "e"]
    ours = predictions(gold, ["a", "x", ("d", "c"), "e"], degrees=[2, -1, 9, 1])
    theirs = predictions(gold, ["y", "b", ("c",), "e"], degrees=[-1] * 4)
    found = changes(ours, theirs)
    assert [(each.id, each.change) for each in found] == [
        ("e0", Change.GAINED),
        ("e1", Change.LOST),
        ("e2", Change.GAINED),
    ]
    assert [each.degree for each in found] == [2, -1, 9]
    assert [each.linked for each in found] == [True, False, True]
    assert [each.within("known", None) for each in found] == [True, False, True]
    assert [each.about("[xd]") for each in found] == [False, True, True]
    wrong = changes(predictions(["a"], ["x"]), predictions(["a"], ["y"]))
    assert [each.change for each in wrong] == [Change.WRONG]


@pytest.mark.parametrize("control", ["none", "shuffled", "random", "zero", "empty"])
def test_knowledge_is_shown_as_the_control_breaks_it(tmp_path: Path, control: str) -> None:
    vectors = np.eye(6) + 0.1 * np.arange(6)[:, None]
    vectors[5] = np.nan
    base = world(tmp_path, vectors)
    text = "Ann met Bob and Cid"
    mentions = (Mention(0, 3, "Q1"), Mention(8, 11, "Q5"), Mention(16, 19, "Q99"))
    ((ann, bob),) = injected(result(control), base, [Example("e", text, mentions, "x")], 2)
    assert (ann.mention, ann.entity, ann.label) == ("Ann", "Q1", "label 1")
    assert (bob.mention, bob.vector, bob.neighbours) == ("Bob", False, ())
    if control == "none":
        assert (ann.instead, ann.types, ann.description) == (None, ("type 1",), "text 1")
        assert [name for name, _ in ann.neighbours] == ["label 4", "label 3"]
    elif control == "empty":
        assert (ann.instead, ann.types, ann.description) == (None, ("type 1",), NOTHING)
    elif control == "shuffled":
        # Another's knowledge, and the neighbours are those of the other.
        other = int(Shuffled(base, 3).other[1])
        assert (ann.instead, ann.description) == (f"label {other}", f"text {other}")
        assert other != 1
        near, _ = nearest_rows(base, base.vectors(np.array([other])), 2, np.array([other]))
        assert [name for name, _ in ann.neighbours] == [f"label {row}" for row in near[0]]
    else:
        assert (ann.instead, len(ann.types)) == (None, int(control == "random"))
        assert len(ann.neighbours) == (2 if control == "random" else 0)


def test_a_mention_is_found_by_the_linker_of_the_run(tmp_path: Path) -> None:
    base = world(tmp_path, np.eye(3))
    example = Example("e", "we met Label 2 there", (), "x")
    by_alias = result().model_copy(update={"spec": spec(linker="alias")})
    ((found,),) = injected(by_alias, base, [example])
    assert (found.mention, found.entity) == ("Label 2", "Q2")
    assert injected(result(), base, [example]) == [[]]


@pytest.mark.usefixtures("toy_tasks")
def test_texts_and_knowledge_are_shown_only_if_they_are_those_of_the_run(
    tmp_path: Path,
) -> None:
    task = ToyRelations()
    texts = Texts.of(result(digest=task.digest))
    assert texts.problem == ""
    assert [*texts.examples.values()] == [*task.examples(Split.TEST)]
    assert "not those that the result is of" in Texts.of(result()).problem
    gone = result().model_copy(update={"spec": spec(task="gone")})
    assert "no task is called 'gone'" in Texts.of(gone).problem
    base = world(tmp_path / "kb", np.eye(3))
    right = result(knowledge=base.digest)
    assert "no knowledge base is called 'kb'" in known(right)[1]
    found, problem = known(right, str(tmp_path / "kb"))
    assert (found and found.digest, problem) == (base.digest, "")
    assert "is not what the result was made with" in known(result(), str(tmp_path / "kb"))[1]
    assert known(right.model_copy(update={"spec": spec(method="none")})) == (None, "")


def test_a_shuffle_is_shown_only_if_it_can_be_made_again(tmp_path: Path) -> None:
    base = world(tmp_path / "kb", np.eye(3))
    shuffled = result("shuffled", knowledge=base.digest)
    assert known(shuffled, str(base.folder))[1] == ""
    of_old = shuffled.provenance.model_copy(update={"revision": 4})
    found, problem = known(shuffled.model_copy(update={"provenance": of_old}), str(base.folder))
    assert (found, "by revision 4 of the engine" in problem) == (None, True)
    gone = spec(control="shuffled", method="gone")
    found, problem = known(shuffled.model_copy(update={"spec": gone}), str(base.folder))
    assert (found, "'gone'" in problem) == (None, True)
