"""Plugs that leave home: what their folder holds, what its card says, and the same logits again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import kbench
from kbench.data import Split
from kbench.data.files import cache_home, file_digest
from kbench.errors import DataError, KbenchError, UsageError
from kbench.interface import exporting
from kbench.parts.run_parts import Parts
from kbench.pipeline.models import tune
from kbench.pipeline.plugs import fit
from kbench.pipeline.prediction import logits_of
from kbench.pipeline.session import Session
from kbench.store import Artifacts, Result, Results
from kbench.testing.toys import write_world
from kbench_baselines.map_tuning import MapTuning
from tests.calling import call
from tests.conftest import registered_toys
from tests.grid.toygrid import QUICK

CHOOSING = {"choose": {"dropout": [0.0, 0.3], "epoch": [1, 2]}}
OWN = QUICK["method"]["map-tuning"]


@pytest.fixture(scope="module")
def world(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs in ``out``, and all that they trained in ``cache``."""
    folder = tmp_path_factory.mktemp("plugs")
    with pytest.MonkeyPatch.context() as patch, registered_toys():
        patch.setenv("KBENCH_CACHE", str(folder / "cache"))
        asked: dict[str, Any] = {
            "task": "toy-relations",
            "method": ["none", "map-tuning"],
            "backbone": toy_folder / "bert",
            "knowledge": toy_folder / "kb",
            "control": "none,foreign",
            "out": folder / "out",
            "threads": 1,
        }
        special = {"start": "scratch", "task-specific": OWN["task-specific"]}
        options = {"tuning": QUICK["tuning"], "method": {"map-tuning": special}}
        kbench.run(**asked, setting="task-specific", options=options)
        chosen = {**CHOOSING, "general": OWN["general"]}
        options = {"tuning": QUICK["tuning"], "method": {"map-tuning": chosen}}
        kbench.run(**{**asked, "control": "none"}, setting="general", options=options)
        yield folder


@pytest.fixture
def stored(world: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setenv("KBENCH_CACHE", str(world / "cache"))
    return Results(world / "out")


def result_of(stored: Results, setting: str) -> Result:
    (found,) = (
        one
        for one in stored
        if (one.spec.method, one.spec.setting, one.spec.control) == ("map-tuning", setting, "none")
    )
    return found


def run_logits(result: Result) -> torch.Tensor:
    """Logits of a run's test split, by the stages of the run."""
    session, parts = (
        Session(Artifacts(cache_home() / "artifacts"), torch.device("cpu")),
        Parts(result.spec),
    )
    model, _ = tune(session, parts)
    plug, _ = fit(session, parts, result.spec.setting, model)
    if choice := result.training.get("choice"):
        plug.choose(choice["chosen"])
    with plug.attach(model.lm):
        inputs = session.prepared(parts, Split.TEST, model, injected=True).inputs
        return logits_of(model, inputs, session.device)


@pytest.mark.parametrize("setting", ["task-specific", "general"])
def test_a_plug_gives_the_logits_of_its_run_elsewhere(
    stored: Results,
    toy_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
) -> None:
    result = result_of(stored, setting)
    expected = run_logits(result)
    exporting.export_plug(stored, result.id, tmp_path / "plug", with_model=True)
    monkeypatch.setenv("KBENCH_CACHE", str(tmp_path / "another"))
    plug = kbench.load_plug(
        tmp_path / "plug", backbone=toy_folder / "bert", knowledge=toy_folder / "kb"
    )
    model = plug.model()
    before = plug.logits(model, injected=False)
    with plug.attach(model):
        found = plug.logits(model)
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)
    assert torch.equal(plug.logits(model, injected=False), before), "something was left behind"
    told = stored.predictions(result)
    assert told is not None
    labels, scores = model.head.predict(found, model.lm.tokenizer, ())
    assert labels == told.predictions
    assert torch.equal(torch.tensor(scores), torch.tensor(told.scores))
    some = plug.parts.task.examples(Split.TEST)[:5]
    with plug.attach(model):
        assert torch.allclose(plug.logits(model, some), expected[:5], atol=1e-5)
    assert not (tmp_path / "another" / "artifacts").exists(), "a stranger's weights were stored"
    assert (plug.config.choice is not None) == (setting == "general")


def test_a_folder_holds_weights_names_and_a_card_and_no_path_of_here(
    stored: Results, tmp_path: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terms, out = "map-tuning,setting=task-specific", str(stored.folder)
    folder = tmp_path / "plug"
    arguments = ("export", "plug", terms, str(folder), "--out", out, "--licence", "mit")
    status, said, err = call(capsys, *arguments)
    assert (status, err) == (0, "")
    assert said.startswith(f"{folder}: the plug of toy-relations")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "plug.safetensors"
    ]  # fmt: skip
    result = result_of(stored, "task-specific")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["result"] == result.id
    assert (config["spec"]["backbone"], config["spec"]["knowledge"]) == ("bert", "kb")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert str(toy_folder) not in card + json.dumps(config)
    _, head, text = card.split("---\n", 2)
    told = yaml.safe_load(head)
    assert told == {"library_name": "kbench", "tags": told["tags"], "license": "mit"}
    assert result.score is not None
    row = kbench.load(stored.folder).table().query(f"ids == '{result.id}'").iloc[0]
    for value in (
        f"{100 * result.score.value:.1f} [{100 * result.score.low:.1f}, ",
        f"{100 * row.gain:+.1f} [{100 * row.gain_low:+.1f}, {100 * row.gain_high:+.1f}]",
        f"{100 * row.delta:+.1f} [",
        "100.0 % of the test examples",
        f"| trained parameters | {result.cost['trainable_parameters']:.0f} |",
        "| licence of the knowledge | Apache-2.0 |",
        "| licence of the task's data | Apache-2.0 |",
        "kbench run --task toy-relations --method map-tuning --backbone bert",
    ):
        assert value in text
    status, _, err = call(capsys, *arguments)
    assert (status, "is there already" in err) == (2, True)


def loaded(folder: Path, toy_folder: Path, **named: Any) -> kbench.LoadedPlug:
    parts = {"backbone": toy_folder / "bert", "knowledge": toy_folder / "kb", **named}
    return kbench.load_plug(folder, **parts)


@pytest.fixture
def folder(stored: Results, tmp_path: Path) -> Path:
    exporting.export_plug(stored, "map-tuning,setting=task-specific", tmp_path / "plug")
    return tmp_path / "plug"


def test_what_was_tuned_is_taken_from_the_store_or_asked_for(
    stored: Results,
    folder: Path,
    toy_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plug = loaded(folder, toy_folder)
    with plug.attach(model := plug.model()):
        assert torch.equal(plug.logits(model), run_logits(result_of(stored, "task-specific")))
    monkeypatch.setenv("KBENCH_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UsageError, match=r"tuning full made of .* export the plug with --with-mod"):
        loaded(folder, toy_folder).model()


def test_other_weights_and_other_parts_are_refused(
    folder: Path, toy_folder: Path, tmp_path: Path
) -> None:
    write_world(tmp_path / "other", entities=100)
    with pytest.raises(UsageError, match=r"the knowledge .*other is not the one it was trained"):
        loaded(folder, toy_folder, knowledge=tmp_path / "other")
    with pytest.raises(UsageError, match="no knowledge base is called 'kb'"):
        kbench.load_plug(folder, backbone=toy_folder / "bert")
    changed(folder, method_revision="0")
    with pytest.raises(UsageError, match=r"is of revision 0 of map-tuning, and revision \d"):
        loaded(folder, toy_folder)
    tensors = load_file(folder / "plug.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, folder / "plug.safetensors")
    changed(folder, method_revision=MapTuning.revision)
    with pytest.raises(DataError, match=r"plug.safetensors: has SHA-256"):
        loaded(folder, toy_folder)


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, **values}), encoding="utf-8")


def attached(folder: Path, toy_folder: Path) -> None:
    plug = loaded(folder, toy_folder)
    with plug.attach(plug.model()):
        pass


@pytest.mark.parametrize(
    "values",
    [
        {"format": 2},
        {"more": 1},
        {"spec": {"task": "toy-relations"}},
        {"files": {}},
        {"files": {"plug.safetensors": "../../x"}},
        {"addresses": {"model": "0" * 32, "plug": "0" * 32}},
        {"digests": {}},
        {"choice": "dropout 9"},
    ],
)
def test_a_liar_is_refused_in_a_line(
    folder: Path, toy_folder: Path, values: dict[str, Any]
) -> None:
    changed(folder, **values)
    with pytest.raises(KbenchError) as told:
        attached(folder, toy_folder)
    assert len(str(told.value).splitlines()) == 1


def test_a_pickle_beside_the_weights_is_never_opened(folder: Path, toy_folder: Path) -> None:
    bomb = b"cos\nsystem\n(S'touch bombed'\ntR."
    for name in ("pytorch_model.bin", "plug.pt", "modeling.py"):
        (folder / name).write_bytes(bomb)
    loaded(folder, toy_folder)
    shutil.copyfile(folder / "plug.pt", folder / "plug.safetensors")
    changed(folder, files={"plug.safetensors": file_digest(folder / "plug.pt")})
    with pytest.raises(DataError, match=r"plug.safetensors: cannot be read"):
        loaded(folder, toy_folder)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("none", "has no plug of the true knowledge"),
        ("map-tuning,control=foreign", "has no plug of the true knowledge"),
        ("map-tuning", "are 2 runs; expected one; choose by setting="),
    ],
)
def test_what_has_no_plug_of_its_own_is_told(
    stored: Results, tmp_path: Path, run: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        exporting.export_plug(stored, run, tmp_path / "plug")
    assert not (tmp_path / "plug").exists()


def test_the_hub_is_asked_for_a_push_alone(
    stored: Results,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import huggingface_hub

    asked: list[tuple[str, Any]] = []

    class Hub:
        def create_repo(self, name: str, repo_type: str, exist_ok: bool) -> None:
            asked.append(("make", f"{repo_type} {name}"))

        def upload_folder(self, repo_id: str, repo_type: str, folder_path: Path) -> str:
            asked.append((repo_id, sorted(path.name for path in folder_path.iterdir())))
            return f"https://example.org/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    terms = "map-tuning,setting=general"
    out = ("--out", str(stored.folder))
    assert call(capsys, "export", "plug", terms, str(tmp_path / "one"), *out)[0] == 0
    assert asked == []
    status, said, _ = call(
        capsys, "export", "plug", terms, str(tmp_path / "two"), *out, "--push", "me/plug"
    )
    assert status == 0
    assert said.splitlines()[-1] == "https://example.org/me/plug"
    assert asked == [
        ("make", "model me/plug"), ("me/plug", ["README.md", "config.json", "plug.safetensors"])
    ]  # fmt: skip
    monkeypatch.setattr(Hub, "create_repo", None)
    status, _, err = call(
        capsys, "export", "plug", terms, str(tmp_path / "three"), *out, "--push", "me/plug"
    )
    assert (status, err.startswith("error: --push me/plug: the hub refused (")) == (2, True)
