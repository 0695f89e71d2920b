"""Every recipe runs, and asks for the published hyperparameters."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kbench.cli.run import run
from kbench.grid import runner
from kbench.grid.estimate import SHAPES, shape_of
from kbench.grid.grids import make_grids, read_grid
from kbench.parts.run_parts import PartLoader, Parts
from kbench.results.published import figures
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Results, Status
from tests.recipe_world import write_data, write_knowledge

FOLDER = Path(__file__).resolve().parents[2] / "baselines" / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))

# One epoch of everything, and as little of it as there can be.
QUICK = [
    *(f"tuning.{tuning}.epochs=1" for tuning in ("full", "lora", "adapter", "bitfit")),
    *(
        f"method.{method}.{setting}.epochs=1"
        for method in ("map-tuning", "ernie", "k-adapter")
        for setting in Setting
    ),
    "method.k-adapter.min_examples=1",
    "task.lama.dev_share=0.5",  # of six subjects a tenth is none
    "task.popqa.dev_share=0.5",
    "tuning.prompted.shots=0",  # train asks what test does
    *(
        f"task.{task}.{option}=1"
        for task in ("fewrel", "fewrel-pubmed")
        for option in ("episodes", "train_episodes", "dev_episodes", "queries")
    ),
]
CHOOSE = ["method.map-tuning.choose.dropout=[0.0, 0.2]", "method.map-tuning.choose.epoch=[1]"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_data(folder / "data")
    write_knowledge(folder / "kb")
    return folder


def _call(*arguments: str) -> str:
    result = CliRunner().invoke(run, list(arguments), catch_exceptions=False)
    assert result.exit_code in (0, None), result.output
    return result.stdout


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_whole_without_a_failure(recipe: Path, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tiny = "kbench-tiny-lm" if _of_decoders(recipe) else "kbench-tiny"
    arguments = ["--backbone", tiny, "--limit", "6", "--seed", "0", "--device", "cpu"]
    arguments += ["--data", str(world / "data"), "--knowledge", str(world / "kb")]
    settings = [*QUICK, *(CHOOSE if "map-tuning" in recipe.stem else [])]
    for text in settings:
        arguments += ["--set", text]
    _call(str(recipe), *arguments, "--out", str(out), "--json")
    results = list(Results(out))
    assert [result.reason for result in results if result.status != Status.OK] == []
    with_knowledge = [result for result in results if result.spec.knowledge]
    documents = {"oracle", "answer-removed", "empty"} if _of_decoders(recipe) else set()
    controls = {"none", "foreign", "same-type"} | documents
    assert {result.spec.control for result in with_knowledge} == controls
    # The knowledge base is met everywhere, or the plugs would be attached to nothing.
    assert all(r.coverage and r.coverage.examples > 0 for r in with_knowledge)
    assert {result.spec.method for result in results} > {"none"}
    for result in with_knowledge:
        confident = result.spec.task in ("open-entity", "figer")
        assert result.coverage
        assert result.coverage.threshold == (0.3 if confident else None)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_can_be_planned_before_anything_is_there(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []

    def refuse(*address: Any, **_: Any) -> None:
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    *cells, last = map(json.loads, _call(str(recipe), "--dry-run", "--json").splitlines())
    assert cells
    assert {cell["plan"] for cell in cells} == {"not yet"}
    assert {cell["spec"]["seed"] for cell in cells} == {0, 1, 2}
    estimate = last["estimate"]
    assert estimate["gpu_hours"] > 1 or recipe.stem == "lama"  # where nothing is trained
    assert estimate["stages"]["evaluations"]["count"] == len(cells)
    assert asked == []
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_to_read_it_beside(recipe: Path) -> None:
    head = recipe.read_text().split("\nbackbone:")[0]
    named = re.findall(r"kbench_leaderboard/published/([\w-]+\.json)", head)
    assert named or "Read beside: nothing" in head
    assert all((_published() / name).is_file() for name in named)
    for part in ("Data", "Knowledge", "Read beside"):
        assert f"# {part}" in head


def _of_decoders(recipe: Path) -> bool:
    return recipe.stem.startswith("decoders")


DECODERS = {
    "Llama-3.2-1B": {
        "model_type": "llama",
        "num_hidden_layers": 16,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-1.5B": {
        "model_type": "qwen2",
        "num_hidden_layers": 28,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "SmolLM2-1.7B": {
        "model_type": "llama",
        "num_hidden_layers": 24,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
}
"""What the backbones' own configurations say of their shape."""


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("Llama-3.2-1B", 4.9, 15),
        ("Qwen2.5-1.5B", 6.1, 20),
        ("SmolLM2-1.7B", 6.8, 20),
    ],
)
def test_a_recipe_of_decoders_plans_its_hours_and_memory_by_a_configuration_alone(
    world: Path, tmp_path: Path, name: str, least: float, most: float
) -> None:
    config = DECODERS[name]
    assert shape_of("unknown", config) == SHAPES[name]
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    recipe = FOLDER / "decoders-questions.yaml"
    asked = [str(recipe), "--backbone", str(folder), "--dry-run"]
    asked += ["--data", str(world / "data"), "--knowledge", str(world / "kb")]
    asked += ["--set", "tuning.prompted.shots=0"]
    said = _call(*asked)
    (memory,) = (line for line in said.splitlines() if line.startswith("memory of"))
    total = float(memory.split(": ")[1].split(" GB")[0])
    assert least < total < most
    assert "keys and values where it writes" in memory
    last = json.loads(_call(*asked, "--json").splitlines()[-1])["estimate"]
    assert last["gpu_hours"] > 0
    assert not last["unknown"]
    assert last["stages"]["evaluations"]["count"] == 69


def _published() -> Path:
    import kbench_leaderboard.published

    return Path(kbench_leaderboard.published.__path__[0])


def _specs(name: str) -> list[RunSpec]:
    return runner.resolve(*make_grids(read_grid(FOLDER / f"{name}.yaml"), name))


def test_the_main_table_has_the_published_rows_and_no_other() -> None:
    specs = [s for s in _specs("map-tuning-table1") if s.seed == 0 and s.control == Control.NONE]
    ours = {(s.task, s.tuning, s.method, str(s.setting) if s.knowledge else None) for s in specs}
    theirs = {
        (figure.task, figure.tuning, figure.method, figure.setting and str(figure.setting))
        for figure in figures()
        if figure.backbone == "bert-base-uncased"
        and figure.method in ("none", "map-tuning")
        and figure.task in ("fewrel", "wiki80", "wiki-et", "entity-questions")
        and figure.tuning
    }
    assert ours == theirs
    assert len(ours) == 4 * (4 * 2 + 2)


@pytest.mark.parametrize(
    ("task", "tuning", "rate", "batch", "epochs"),
    [
        ("fewrel", "full", 2e-5, 100, 1),
        ("fewrel", "lora", 8e-4, 100, 1),
        ("fewrel", "adapter", 5e-4, 100, 1),
        ("fewrel", "bitfit", 8e-4, 100, 1),
        ("wiki80", "full", 5e-5, 32, 15),
        ("wiki80", "lora", 2e-3, 64, 60),
        ("wiki80", "adapter", 2e-3, 64, 60),
        ("wiki80", "bitfit", 2e-3, 64, 60),
        ("wiki-et", "full", 1e-5, 64, 2),
        ("wiki-et", "lora", 1e-3, 64, 2),
        ("entity-questions", "full", 1e-4, 64, 5),
        ("entity-questions", "bitfit", 5e-4, 64, 5),
    ],
)
def test_models_are_tuned_as_published(
    task: str, tuning: str, rate: float, batch: int, epochs: int
) -> None:
    specs = [s for s in _specs("map-tuning-table1") if (s.task, s.tuning) == (task, tuning)]
    assert len(specs) == (30 if tuning == "full" else 12)
    for spec in specs:
        recipe = Parts(spec, PartLoader(download=False)).tuning_recipe
        assert (recipe.learning_rate, recipe.batch_size, recipe.epochs) == (rate, batch, epochs)


@pytest.mark.parametrize(
    ("task", "rate", "batch", "epochs", "dropout", "fixed"),
    [
        ("fewrel", 2e-5, 100, 1, 0.35, 5),
        ("wiki80", 4e-4, 64, 30, 0.3, 2),
        ("wiki-et", 5e-5, 128, 2, 0.2, 2),
        ("entity-questions", 2e-3, 64, 5, 0.1, 4),
    ],
)
def test_maps_are_trained_as_published(
    task: str, rate: float, batch: int, epochs: int, dropout: float, fixed: int
) -> None:
    specs = [s for s in _specs("map-tuning-table1") if s.task == task and s.tuning == "full"]
    for spec in specs:
        if spec.method == "none":
            continue
        parts = Parts(spec, PartLoader(download=False))
        own = parts.plug_recipe(spec.setting)
        if spec.setting == Setting.TASK_SPECIFIC:
            found = (own.learning_rate, own.batch_size, own.epochs, own.dropout)
            assert found == (rate, batch, epochs, dropout)
        if spec.setting == Setting.FINE_TUNING:
            assert (own.learning_rate, own.epochs, own.dropout) == (1e-5, fixed, None)
            assert not parts.method.choices()
        else:
            # 20 general maps, at the rate of the release for those with dropout.
            general = parts.plug_recipe(Setting.GENERAL)
            assert (general.learning_rate, general.epochs, general.batch_size) == (3e-5, 5, 64)
            assert len(parts.method.choices()) == 20


def test_the_domain_transfer_starts_from_scratch() -> None:
    specs = [s for s in _specs("map-tuning-pubmed") if s.setting == Setting.TASK_SPECIFIC]
    assert len(specs) == 9
    for spec in specs:
        parts = Parts(spec, PartLoader(download=False))
        assert parts.plug_recipe(spec.setting).learning_rate == 5e-4
        assert parts.method.options["start"] == "scratch"
