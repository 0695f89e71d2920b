"""How a body is held and asked: another address where it is said, one line where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kbench.errors import Unsupported
from kbench.grid import runner
from kbench.grid.grids import make_grid
from kbench.grid.plan import Cell, Place
from kbench.parts.run_parts import Parts
from kbench.pipeline.addresses import addresses, result_id
from kbench.spec import RunSpec
from tests.architectures import write_decoder

TEMPLATE = "{% for message in messages %}<mask>{{ message['content'] }}{% endfor %}<mask>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("llama"), "llama")


def spec_of(folder: Path, **chosen: Any) -> RunSpec:
    about = {"task": "atlas-typing", "method": "map-tuning", "tuning": "prompted", "limit": 5}
    about |= {"backbone": str(folder), "setting": "general", "control": "none", **chosen}
    return make_grid(about, "here").cells()[0]


def planned(spec: RunSpec, folder: Path) -> Cell:
    (cell,) = runner.plan([spec], Place(folder / "out", folder / "artifacts", "cpu"))
    return cell


def made(spec: RunSpec) -> tuple[str, dict[str, str | None]]:
    parts = Parts(spec)
    return result_id(parts), addresses(parts)


def test_how_weights_are_held_is_another_run(folder: Path) -> None:
    plain, narrow = spec_of(folder), spec_of(folder, weights="bfloat16")
    assert made(plain) == made(spec_of(folder, weights="float32"))
    assert made(plain)[0] != made(narrow)[0]
    assert all(made(plain)[1][kind] != made(narrow)[1][kind] for kind in ("model", "plug"))
    assert narrow.label.endswith("weights=bfloat16 / limit=5")
    assert "--weights bfloat16" in narrow.command()


@pytest.mark.parametrize(
    ("tuning", "weights", "setting", "runs"),
    [
        ("prompted", "bfloat16", "task-specific", True),
        ("head", "bfloat16", "general", True),
        ("head", "4bit", "general", False),
        ("full", "bfloat16", "general", False),
        ("lora", "8bit", "general", False),
        ("prompted", "4bit", "general", True),
        ("full", "bfloat16", "fine-tuning", False),
    ],
)
def test_what_trains_is_held_in_float32(
    folder: Path, tmp_path: Path, tuning: str, weights: str, setting: str, runs: bool
) -> None:
    cell = planned(spec_of(folder, tuning=tuning, weights=weights, setting=setting), tmp_path)
    assert (not cell.obstacle) == runs, cell.obstacle
    if not runs:
        told = f"weights held in {weights} stay as they are, and tuning {tuning} trains"
        assert cell.obstacle.startswith(told)


def test_a_chat_is_another_protocol(folder: Path, tmp_path: Path) -> None:
    talking = write_decoder(tmp_path / "talking", "llama")
    before = made(spec_of(talking))
    (talking / "chat_template.jinja").write_text(TEMPLATE)
    assert made(spec_of(talking)) == before == made(spec_of(folder))
    chat = spec_of(talking, chat=True)
    one = made(chat)
    assert one[0] != before[0]
    assert "--chat" in chat.command()
    (talking / "chat_template.jinja").write_text("Question: " + TEMPLATE)
    assert made(chat)[0] != one[0]


@pytest.mark.parametrize(
    ("backbone", "tuning", "told"),
    [
        (None, "prompted", "has no chat template, which --chat asks for"),
        (None, "head", r"tuning head asks backbone .* by no prompt"),
        ("kbench-tiny", "full", "tuning full asks backbone kbench-tiny by no prompt"),
    ],
)
def test_a_chat_that_cannot_be_says_so(
    folder: Path, tmp_path: Path, backbone: str | None, tuning: str, told: str
) -> None:
    spec = spec_of(folder, backbone=backbone or str(folder), tuning=tuning, chat=True)
    with pytest.raises(Unsupported, match=told):
        made(spec)
    assert planned(spec, tmp_path).obstacle
    assert "\n" not in planned(spec, tmp_path).obstacle
