"""What a model answers at the blank: spelled by any tokenizer, and any right answer counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM
from transformers.utils import logging

from kbench.cli.formats import as_csv, as_latex, as_markdown
from kbench.data import Split
from kbench.grid.plan import Place
from kbench.results.comparison import compare
from kbench.results.example_diff import Change, changes
from kbench.results.notes import kept, notes
from kbench.results.rescoring import again
from kbench.results.selection import Selection, grouped, partners
from kbench.results.tables import rows
from kbench.store import Result, Results, Status
from kbench.testing.spelling import byte_level_of, metaspace_of, wordpiece
from tests.calling import call
from tests.grid.toygrid import grid, run

CARD = "title: Capitals\nfamily: question answering\nlicence: none\n"
WORDS = ("Rome", "Roma", "Oslo")
FAMILIES = {"wordpiece": wordpiece, "byte level": byte_level_of, "metaspace": metaspace_of}


def saying(folder: Path, word: str, family: str, *, folds: bool = False) -> Path:
    """Writes a model that has one answer to everything; a word that is one token."""
    tokenizer = FAMILIES[family](WORDS, lowercase=folds)
    lead = {"wordpiece": "", "byte level": "\u0120", "metaspace": "\u2581"}[family]
    token = tokenizer.convert_tokens_to_ids(lead + (word.lower() if folds else word))
    assert token != tokenizer.unk_token_id
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.cls.predictions.bias[token] = 50.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def questions(folder: Path, *several: list[str]) -> Path:
    """Writes a data set that asks for each of these answers in every split."""
    folder.mkdir()
    (folder / "card.yaml").write_text(CARD)
    records = [
        {
            "text": f"What is the capital of Town{n} ?",
            "mentions": [{"start": 23, "end": 28, "role": "target"}],
            "answers": answers,
        }
        for n, answers in enumerate(several)
    ]
    for split in Split:
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "out", tmp_path / "artifacts", "cpu", 1)


def asked(toy_folder: Path, place: Place, data: Path, backbone: Path) -> Result:
    chosen: dict[str, Any] = {"task": "custom", "data": str(data), "method": "none"}
    (result,) = run(grid(toy_folder, **chosen, tuning="frozen", backbone=str(backbone)), place)
    assert result.status == Status.OK, result.reason
    return result


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_says_rome_is_right_whatever_spells_it(
    tmp_path: Path, toy_folder: Path, place: Place, family: str, folds: bool
) -> None:
    data = questions(tmp_path / "data", ["Rome"], ["nowhere at all", "Oslo", "Rome"], ["Oslo"])
    backbone = saying(tmp_path / "model", "Rome", family, folds=folds)
    result = asked(toy_folder, place, data, backbone)
    assert result.metrics["accuracy"].value == pytest.approx(2 / 3)
    stored = Results(place.out).predictions(result)
    assert stored is not None
    # All answers are kept, in the words of the data, and so is what was said.
    assert stored.labels == [("Rome",), ("nowhere at all", "Oslo", "Rome"), ("Oslo",)]
    assert stored.predictions[:2] == ["Rome", "Rome"]
    assert [each.differs for each in again(result, stored) if each.differs] == []
    assert kept(result) == {"train": (3, 3), "dev": (3, 3), "test": (3, 3)}


def test_what_is_left_out_stands_beside_the_score(
    tmp_path: Path, toy_folder: Path, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = saying(tmp_path / "model", "Rome", "byte level")
    data = questions(tmp_path / "data", ["Rome"], ["the old city"], ["Oslo", "New Oslo"], ["New"])
    result = asked(toy_folder, place, data, backbone)
    assert kept(result) == {"train": (2, 4), "dev": (2, 4), "test": (2, 4)}
    said = "Kept: 2 of 4 test examples, 2 of 4 train examples, 2 of 4 dev examples."
    one = f"{result.spec.title}: one and the same is predicted for all 2 test examples."
    assert notes([result, result]) == [said, one]
    shown = rows([result], Results(place.out))
    assert shown[0].as_json()["kept"]["test"] == (2, 4)
    assert said in as_markdown(shown, set()).replace("\\", "")
    assert said in as_latex(shown, set())
    header, line = as_csv(shown, set()).splitlines()
    named = dict(zip(header.split(","), line.split(","), strict=False))
    assert (named["test_kept"], named["test_total"]) == ("2", "4")
    code, table, _ = call(capsys, "table", "--out", str(place.out))
    assert code == 0
    assert said in " ".join(table.split())


def test_runs_of_two_tokenizers_are_compared_by_all_answers(
    tmp_path: Path, toy_folder: Path, place: Place
) -> None:
    data = questions(tmp_path / "data", ["Rome", "Roma"], ["Oslo"], ["Roma", "Oslo"])
    roma = asked(toy_folder, place, data, saying(tmp_path / "a", "Roma", "wordpiece"))
    oslo = asked(toy_folder, place, data, saying(tmp_path / "b", "Oslo", "metaspace", folds=True))
    store = Results(place.out)
    results = list(store)
    first, second = (Selection.parse(r.id[:12], results) for r in (roma, oslo))
    pairs = partners(grouped(r for r in results if r in first), second, results)
    (found,) = compare(pairs, store)
    assert found.scores == pytest.approx((2 / 3, 2 / 3))
    sides = [store.predictions(result) for result in (roma, oslo)]
    assert sides[0] is not None
    assert sides[1] is not None
    told = {each.id: each.change for each in changes(sides[0], sides[1])}
    assert told == {"test/0": Change.GAINED, "test/1": Change.LOST}
