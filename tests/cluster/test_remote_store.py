"""A store at a URL: whole or not there, the same from every machine, mended where damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kbench.errors import ArtifactError, UsageError
from kbench.grid.executors import remote_store
from kbench.grid.executors.remote_store import RemoteArtifacts, open_url
from kbench.store import Artifacts
from kbench.store.folder import DamageWarning, address

INPUTS = {"engine": 1, "task": "t", "seed": 0}
KEY = address("plug", INPUTS)
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True])}


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/store"
        return
    yield "memory://store"
    system, root = open_url("memory://store")
    system.rm(root, recursive=True)


@pytest.fixture
def two(url: str, tmp_path: Path) -> tuple[RemoteArtifacts, RemoteArtifacts]:
    """The store as two machines see it."""
    return RemoteArtifacts(tmp_path / "one", url), RemoteArtifacts(tmp_path / "two", url)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store, "_WAITS", (0.0, 0.0))


def _files(store: RemoteArtifacts) -> dict[str, bytes]:
    system, root = open_url(store.url)
    system.invalidate_cache()
    return {path.removeprefix(root): system.cat_file(path) for path in system.find(root)}


def _is_whole(store: RemoteArtifacts) -> bool:
    found = store.load("plug", KEY)
    return found is not None and all(torch.equal(found.tensors[k], v) for k, v in TENSORS.items())


def test_one_machine_reads_what_another_has_made(
    two: tuple[RemoteArtifacts, RemoteArtifacts],
) -> None:
    one, other = two
    assert ("plug", KEY) not in other
    assert other.load("plug", KEY) is None
    one.save("plug", INPUTS, TENSORS, of="a run")
    assert ("plug", KEY) in other
    assert _is_whole(other)
    # From then on from its own folder, as any artifact.
    assert Artifacts(other.folder).check(other.path("plug", KEY))["of"] == "a run"
    assert len(_files(one)) == 2


def test_pushing_twice_changes_nothing(two: tuple[RemoteArtifacts, RemoteArtifacts]) -> None:
    for store in two:
        store.save("plug", INPUTS, TENSORS)
        files = _files(store)
        assert len(files) == 2
    assert _is_whole(two[0])


def test_a_push_that_breaks_off_is_not_seen_and_is_made_up_for(
    two: tuple[RemoteArtifacts, RemoteArtifacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    real, moved = one._system.mv, list[str]()

    def breaks(source: str, target: str, **options: Any) -> None:
        moved.append(target)
        if target.endswith(".json"):
            raise KeyboardInterrupt
        real(source, target, **options)

    monkeypatch.setattr(type(one._system), "mv", lambda _, *a, **o: breaks(*a, **o))
    with pytest.raises(KeyboardInterrupt):
        one.save("plug", INPUTS, TENSORS)
    assert [path.rpartition(".")[2] for path in moved] == ["safetensors", "json"]
    assert ("plug", KEY) not in other
    assert other.load("plug", KEY) is None
    monkeypatch.undo()
    assert _is_whole(one)  # it has its own copy, and brings the store up to it
    assert _is_whole(other)


def test_what_a_machine_has_already_is_offered_unless_damaged(url: str, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        Artifacts(tmp_path / name).save("plug", INPUTS, TENSORS)
    weights = tmp_path / "bad" / "plug" / KEY / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    wanted = [("plug", KEY), ("model", KEY)]
    bad, good = RemoteArtifacts(tmp_path / "bad", url), RemoteArtifacts(tmp_path / "good", url)
    bad.offer(wanted)
    assert ("plug", KEY) not in good
    good.offer(wanted)
    assert ("plug", KEY) in good
    assert ("model", KEY) not in good


def test_a_damaged_copy_is_fetched_again(two: tuple[RemoteArtifacts, RemoteArtifacts]) -> None:
    one, _ = two
    one.save("plug", INPUTS, TENSORS)
    (one.path("plug", KEY) / "weights.safetensors").write_bytes(b"")
    with pytest.warns(DamageWarning):
        assert _is_whole(one)


def test_a_damaged_store_is_mended_by_who_makes_it_again(
    two: tuple[RemoteArtifacts, RemoteArtifacts],
) -> None:
    one, other = two
    one.save("plug", INPUTS, TENSORS)
    about = next(path for path in _files(one) if path.endswith("artifact.json"))
    system, root = open_url(one.url)
    for content in (b"{", b'{"sha256": "../../secret"}', b'{"sha256": 3}', b"[]"):
        system.pipe_file(root + about, content)
        assert other.load("plug", KEY) is None
    other.save("plug", INPUTS, TENSORS)
    assert _is_whole(RemoteArtifacts(other.folder.parent / "three", other.url))


def test_weights_that_are_lost_are_no_artifact(
    two: tuple[RemoteArtifacts, RemoteArtifacts],
) -> None:
    one, other = two
    one.save("plug", INPUTS, TENSORS)
    system, root = open_url(one.url)
    system.rm_file(root + next(path for path in _files(one) if path.endswith(".safetensors")))
    assert other.load("plug", KEY) is None
    assert not other.path("plug", KEY).exists()


def test_a_network_that_fails_is_tried_again_and_then_named(
    two: tuple[RemoteArtifacts, RemoteArtifacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two
    one.save("plug", INPUTS, TENSORS)
    real, failures = one._system.exists, [OSError("no route"), OSError("no route")]

    def exists(_: Any, path: str, **options: Any) -> bool:
        if failures:
            raise failures.pop()
        return bool(real(path, **options))

    monkeypatch.setattr(type(one._system), "exists", exists)
    assert ("plug", KEY) in one
    failures[:] = [OSError("no route")] * 3
    with pytest.raises(ArtifactError, match=r"store \w+://.* cannot be used \(no route\)"):
        _ = ("plug", KEY) in one


@pytest.mark.parametrize("url", ["nobody://knows/this", "s4://bucket"])
def test_a_url_that_nothing_opens_is_refused_in_one_line(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a path or a URL that fsspec opens") as refused:
        RemoteArtifacts(tmp_path, url)
    assert "\n" not in str(refused.value)
