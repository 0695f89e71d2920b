"""Nothing that a stranger wrote is run: not by a file, not by a name in a grid."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbench.data.files import canonical_digest, file_digest
from kbench.errors import DataError, KbenchError, UsageError
from kbench.grid.grids import make_grid, make_grids, read_grid, set_option
from kbench.knowledge import Bundle
from kbench.model.huggingface import load_folder
from kbench.store import Artifacts
from kbench.store.folder import DamageWarning, address
from tests.calling import call
from tests.faults.conftest import ROOT

_SOURCES = [
    path
    for room in ("kbench", "tasks", "baselines", "leaderboard")
    for path in sorted((ROOT / room).rglob("*.py"))
]
_NEVER = {
    "eval", "exec", "compile", "__import__", "system", "popen", "extractall", "extract",
    "unpack_archive", "unsafe_load", "full_load", "load_all", "load_pickle", "read_pickle",
    "load_module", "run_path", "run_module",
}  # fmt: skip
"""Calls with which a file could run code or be unpacked where it says."""
_LOADERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile"}


@cache
def _nodes() -> list[tuple[Path, ast.AST]]:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in _SOURCES}
    return [(path.relative_to(ROOT), n) for path, tree in trees.items() for n in ast.walk(tree)]


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_no_source_calls_what_runs_or_unpacks_a_file() -> None:
    found = []
    for path, node in _nodes():
        if isinstance(node, ast.Call):
            name = _called(node)
            last = name.rsplit(".", 1)[-1]
            # `model.eval()`, `re.compile()` and the like only share the name.
            if (
                last in _NEVER
                and name not in ("re.compile", "torch.compile", "platform.system")
                and not _is_mode(node, last)
            ):
                found.append(f"{path}:{node.lineno} {name}")
    assert len(_SOURCES) > 150
    assert found == []


def _is_mode(node: ast.Call, last: str) -> bool:
    return last == "eval" and isinstance(node.func, ast.Attribute) and not node.args


_TOLD = {
    "torch.load": ("weights_only", "True"),
    "np.load": ("allow_pickle", "False"),
    "numpy.load": ("allow_pickle", "False"),
}


def _trusting(node: ast.Call) -> Iterator[str]:
    """Says in what a call trusts a file."""
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    name = _called(node)
    option, value = _TOLD.get(name, ("trust_remote_code", "False"))
    auto = "Auto" in name and name.endswith("from_pretrained")
    if (name in _TOLD or (auto and None not in given)) and given.get(option) != value:
        yield f"{name} without {option}={value}"
    if given.get("trust_remote_code", "False") != "False" or given.get("shell") == "True":
        yield f"{name} trusts"
    if name == "yaml.load":
        yield "yaml.load, not safe_load"


def test_every_loader_is_told_not_to_trust() -> None:
    calls = [(path, node) for path, node in _nodes() if isinstance(node, ast.Call)]
    assert {"torch.load", "np.load"} <= {_called(node) for _, node in calls}
    wrong = [f"{path}:{node.lineno} {w}" for path, node in calls for w in _trusting(node)]
    assert wrong == []


def test_no_source_imports_what_unpickles_or_unpacks() -> None:
    found = []
    for path, node in _nodes():
        if isinstance(node, ast.Import):
            found += [f"{path} {n.name}" for n in node.names if n.name.split(".")[0] in _LOADERS]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _LOADERS:
            # The name of an error may be known without anything being loaded.
            found += [f"{path} {n.name}" for n in node.names if not n.name.endswith("Error")]
    assert found == []


class _Bomb:
    """What writes a file wherever it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self._canary, "boom")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that nothing may write."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code of a stranger was run"


def test_the_canary_sings(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "canary")))
    assert (tmp_path / "canary").read_text() == "boom"


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:pathlib.Path.write_text [{path}, boom]",
        "!!python/object/apply:os.system ['touch {path}']",
        "!!python/name:os.system",
        "!!python/object/new:os.system ['touch {path}']",
    ],
)
def test_yaml_makes_nothing_but_values(text: str, tmp_path: Path, canary: Path) -> None:
    given = text.format(path=canary)
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"task: a\nmethod: {given}\n")
    with pytest.raises(DataError, match="could not determine a constructor"):
        read_grid(grid)
    with pytest.raises(UsageError, match="the value is not YAML"):
        set_option({}, f"method.none.x={given}")


@pytest.mark.parametrize(
    "text",
    ["!!int ''", "!!bool x", "!!timestamp x", "!!float ''", "9" * 5000, "[" * 3000],
)
def test_yaml_that_its_parser_stumbles_over_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"task: a\nmethod: b\nlimit: {text}\n")
    with pytest.raises(DataError, match=r"is not YAML \(") as caught:
        read_grid(grid)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="the value is not YAML"):
        set_option({}, f"method.none.x={text}")


def test_no_grid_reaches_an_option_of_the_loader(capsys: pytest.CaptureFixture[str]) -> None:
    names = (
        "trust_remote_code",
        "use_safetensors",
        "weights_only",
        "allow_pickle",
        "code_revision",
    )
    for name in names:
        with pytest.raises(UsageError, match=f"unknown key '{name}'"):
            make_grid({"task": "a", "method": "b", name: True}, "grid.yaml")
        options = {"backbone": {"kbench-tiny": {name: True}}}
        with pytest.raises(UsageError, match=r"options\.backbone"):
            make_grids({"task": "a", "method": "b", "options": options}, "grid.yaml")
        for option in (f"method.map-tuning.{name}", f"tuning.full.{name}", f"task.atlas-qa.{name}"):
            words = ["--task", "atlas-qa", "--method", "map-tuning", "--set", f"{option}=true"]
            code, _, err = call(capsys, "run", *words, "--dry-run")
            assert code == 2
            assert f"has no option '{name}'" in err, err


_CODE = """
from pathlib import Path
Path({canary!r}).write_text("boom")
from transformers import BertConfig, BertModel
class OwnConfig(BertConfig): model_type = "own"
class OwnModel(BertModel): config_class = OwnConfig
"""


@pytest.fixture
def model(toy_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_folder / "bert", tmp_path / "bert"))


@pytest.mark.parametrize("kind", ["own", "bert"])
def test_code_in_the_folder_of_a_backbone_is_not_run(kind: str, model: Path, canary: Path) -> None:
    (model / "own.py").write_text(_CODE.format(canary=str(canary)))
    config = json.loads((model / "config.json").read_text())
    config["model_type"] = kind
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModel": "own.OwnModel",
        "AutoModelForMaskedLM": "own.OwnModel",
        "AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"],
    }
    (model / "config.json").write_text(json.dumps(config))
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["auto_map"] = config["auto_map"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    if kind == "bert":
        assert load_folder(model).width == 32  # the class of transformers, not the folder's
    else:
        with pytest.raises(KbenchError, match="cannot be loaded as a language model"):
            load_folder(model)


def test_pickled_weights_of_a_backbone_are_not_opened(model: Path, canary: Path) -> None:
    bomb = pickle.dumps(_Bomb(canary))
    (model / "pytorch_model.bin").write_bytes(bomb)
    assert load_folder(model).width == 32
    (model / "model.safetensors").unlink()
    with pytest.raises(KbenchError):
        load_folder(model)
    (model / "model.safetensors").write_bytes(bomb)
    with pytest.raises(KbenchError, match="cannot be loaded as a language model"):
        load_folder(model)


def test_a_plug_of_a_stranger_is_numbers_or_nothing(tmp_path: Path, canary: Path) -> None:
    import torch

    store, inputs = Artifacts(tmp_path / "store"), {"seed": 0}
    store.save("plug", inputs, {"a": torch.zeros(2)})
    folder = store.path("plug", address("plug", inputs))
    about = json.loads((folder / "artifact.json").read_text())
    torch.save(_Bomb(canary), tmp_path / "zip.pt")
    for content in (pickle.dumps(_Bomb(canary)), (tmp_path / "zip.pt").read_bytes()):
        (folder / "weights.safetensors").write_bytes(content)
        about["sha256"] = file_digest(folder / "weights.safetensors")
        (folder / "artifact.json").write_text(json.dumps(about))
        with pytest.warns(DamageWarning, match="is damaged"):
            assert store.load("plug", folder.name) is None


def test_a_matrix_of_objects_is_not_opened(tmp_path: Path, canary: Path) -> None:
    from kbench.testing.toys import write_world

    write_world(tmp_path / "kb", entities=24)
    np.save(tmp_path / "kb" / "vectors.npy", np.array([_Bomb(canary)] * 2), allow_pickle=True)
    card = json.loads((tmp_path / "kb" / "card.json").read_text())
    card["files"]["vectors.npy"] = file_digest(tmp_path / "kb" / "vectors.npy")
    card["digest"] = canonical_digest(card["files"])
    (tmp_path / "kb" / "card.json").write_text(json.dumps(card))
    bundle = Bundle(tmp_path / "kb")
    for look in (bundle.verify, lambda: bundle.vectors(np.array([0]))):  # its digests are right
        with pytest.raises(DataError, match=r"vectors.npy: cannot be read \(.*Python objects"):
            look()


@pytest.mark.parametrize("name", ["../card.json", "/etc/passwd", "vectors.npy/../../x", "extra"])
def test_a_card_names_no_file_but_those_of_a_bundle(name: str, tmp_path: Path) -> None:
    from kbench.testing.toys import write_world

    write_world(tmp_path / "kb", entities=24)
    card = json.loads((tmp_path / "kb" / "card.json").read_text())
    card["files"][name] = "0" * 64
    card["digest"] = canonical_digest(card["files"])
    (tmp_path / "kb" / "card.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="a digest that is not that of its files"):
        Bundle(tmp_path / "kb")


def test_a_data_set_with_a_script_is_refused(tmp_path: Path, canary: Path) -> None:
    from kbench.data.sources import hub_records

    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text(_CODE.format(canary=str(canary)))
    with pytest.raises(DataError, match="cannot be loaded"):
        hub_records(f"hf:{folder}", "test", {"text": str})


def test_a_listing_imports_no_plugin(
    faulty: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (faulty / "stranger.py").write_text(
        f"from pathlib import Path\nPath({str(canary)!r}).write_text('boom')\nclass Task: ...\n"
    )
    about = faulty / "kbench_faulty-1.0.dist-info" / "entry_points.txt"
    about.write_text("[kbench.tasks]\nstranger = stranger:Task\n")
    code, out, _ = call(capsys, "ls", "tasks")
    assert code == 0
    assert "stranger" in out
