"""Demonstrations: who is shown, and how they stand before what is asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbench.data import Example, Split
from kbench.data.demonstrations import drawn
from kbench.encoding import Demonstrations, Trees
from kbench.encoding.demonstrations import separator
from kbench.errors import UsageError
from kbench.model.huggingface import load_folder
from kbench.model.tiny import KbenchTiny
from kbench.parts.run_parts import Parts
from kbench.pipeline.addresses import addresses
from kbench.pipeline.models import tune
from kbench.pipeline.prediction import predict
from kbench.pipeline.preparation import Prepared
from kbench.pipeline.session import Session
from kbench.results.notes import undemonstrated
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Artifacts, Result, Status
from kbench.testing.toys import write_backbone

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    return write_backbone(folder / "llama", positions=256, left_to_right=True)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(Artifacts(tmp_path / "artifacts"), CPU)


def parts_of(toy_folder: Path, decoder: Path, shots: int | None = None, **changes: Any) -> Parts:
    options = {} if shots is None else {"tuning": {"prompted": {"shots": shots}}}
    given = {
        "task": "toy-relations",
        "backbone": str(decoder),
        "tuning": "prompted",
        "method": "map-tuning",
        "setting": Setting.TASK_SPECIFIC,
        "knowledge": str(toy_folder / "kb"),
        "control": Control.NONE,
        "seed": 0,
        "options": options,
    }
    return Parts(RunSpec.model_validate({**given, **changes}))


def read(session: Session, parts: Parts, *, injected: bool) -> Prepared:
    return session.prepared(parts, Split.TEST, tune(session, parts)[0], injected=injected)


def texts(prepared: Prepared) -> Any:
    inputs = prepared.inputs
    return inputs.inputs if isinstance(inputs, Trees) else inputs


def test_one_of_each_class_comes_before_a_second_of_any() -> None:
    examples = [
        Example(f"{label}{n}", f"{label} {n}", (), label)
        for label, often in (("a", 30), ("b", 5), ("c", 1))
        for n in range(often)
    ]

    def shows(example: Example) -> dict[str, str]:
        return {str(example.label): f"an {example.label}"}

    found = drawn(examples, 6, 0, shows)
    assert {answer for _, answer in found[:3]} == {"an a", "an b", "an c"}
    assert Counter(answer for _, answer in found) == {"an a": 3, "an b": 2, "an c": 1}
    assert found == drawn(examples[::-1], 6, 0, shows)
    assert found != drawn(examples, 6, 1, shows)
    assert len({example.id for example, _ in found}) == 6
    assert len(drawn(examples, 100, 0, shows)) == 36


def test_of_several_classes_an_example_shows_the_one_shown_least() -> None:
    examples = [Example(str(n), "x", (), ("common", "rare")[: 1 + n % 2]) for n in range(20)]
    found = drawn(examples, 2, 0, lambda example: {name: name for name in example.label})
    assert {answer for _, answer in found} == {"common", "rare"}


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("task", ["toy-relations", "toy-typing", "toy-qa"])
def test_all_texts_have_the_same_demonstrations_and_none_is_tested(
    task: str, toy_folder: Path, decoder: Path, session: Session
) -> None:
    parts = parts_of(toy_folder, decoder, 3, task=task)
    bare = parts_of(toy_folder, decoder, task=task)
    tokenizer = parts.backbone.load().tokenizer
    shown, plain = read(session, parts, injected=False), read(session, bare, injected=False)
    tested = {example.text for example in shown.examples}
    assert not tested & {example.text for example, _ in parts.demonstrations}
    assert len({example.label for example, _ in parts.demonstrations}) > 1
    start = tokenizer("a")["input_ids"].index(
        tokenizer("a", add_special_tokens=False)["input_ids"][0]
    )
    befores = set()
    for n in range(len(shown.examples)):
        whole, own = (texts(p).ids[slice(*texts(p).bounds[n : n + 2])] for p in (shown, plain))
        cut = len(whole) - len(own)
        assert whole[start + cut :].tolist() == own[start:].tolist()
        befores.add(tuple(whole[start : start + cut].tolist()))
    (before,) = befores
    said = tokenizer.decode(before).replace(" ##", "")
    places = [said.index(example.text.split()[0]) for example, _ in parts.demonstrations]
    assert places == sorted(places)
    assert all(answer in said for _, answer in parts.demonstrations)
    assert shown.counts["test_demonstrations_without_room"] == 0
    assert "test_demonstrations_without_room" not in plain.counts


@pytest.mark.usefixtures("toy_tasks")
def test_demonstrations_carry_the_plug_as_the_text_does(
    toy_folder: Path, decoder: Path, session: Session
) -> None:
    parts, bare = parts_of(toy_folder, decoder, 2), parts_of(toy_folder, decoder)
    with_slots, own = read(session, parts, injected=True), read(session, bare, injected=True)
    base = parts.base_knowledge
    assert base is not None
    known = [m.entity for e, _ in parts.demonstrations for m in e.mentions if m.entity is not None]
    rows = [int(row) for row in base.rows(known)]
    assert len(rows) == 2
    for n in range(len(own.examples)):
        whole, alone = (
            p.slot_rows[slice(*p.slot_bounds[n : n + 2])] for p in map(texts, (with_slots, own))
        )
        assert whole.tolist() == [*rows, *alone.tolist()]
    batch = with_slots.inputs.collate_sequences(np.arange(2))
    kinds = texts(with_slots).kinds
    assert (kinds == 3).sum() == len(texts(with_slots).slots)
    # Each slot lies where its kind says, and each mention where its name is.
    assert (batch.ids.flatten()[batch.slot_index] == batch.ids.flatten()[batch.slot_index[0]]).all()
    spans = texts(with_slots)
    tokenizer = parts.backbone.load().tokenizer
    first = spans.spans[slice(*spans.span_bounds[:2])]
    ids = spans.ids[slice(*spans.bounds[:2])]
    names = [tokenizer.decode(ids[a:b]) for a, b in first]
    shown = [e for e, _ in parts.demonstrations]
    wanted = [e.text[m.start : m.end] for e in [*shown, own.examples[0]] for m in e.mentions]
    assert [name.replace(" ##", "") for name in names] == wanted


@pytest.mark.usefixtures("toy_tasks")
def test_passages_stand_in_demonstrations_too(
    toy_folder: Path, decoder: Path, session: Session
) -> None:
    told = {"method": {"ra": {"room": 200}}, "tuning": {"prompted": {"shots": 2}}}
    changes = {"method": "ra", "setting": Setting.GENERAL}
    parts = parts_of(toy_folder, decoder, **changes, options=told)
    bare = parts_of(toy_folder, decoder, **changes, options={"method": told["method"]})
    shown, alone = (texts(read(session, p, injected=True)) for p in (parts, bare))
    for n in range(3):
        more, own = (p.kinds[slice(*p.bounds[n : n + 2])] for p in (shown, alone))
        assert (more == 5).sum() > (own == 5).sum() > 0


@pytest.mark.usefixtures("toy_tasks")
def test_addresses_move_only_where_something_is_shown(toy_folder: Path, decoder: Path) -> None:
    model = {
        key: addresses(parts_of(toy_folder, decoder, shots, seed=seed))["model"]
        for key, shots, seed in (("none", None, 0), ("0", 0, 0), ("1", 1, 0), ("2", 2, 0))
    }
    assert model["none"] == model["0"]
    assert len({*model.values()}) == 3


@pytest.mark.usefixtures("toy_tasks")
def test_more_than_there_are_is_refused(toy_folder: Path, decoder: Path) -> None:
    with pytest.raises(UsageError, match="shots is 5000, and task toy-relations has"):
        _ = parts_of(toy_folder, decoder, 5000).demonstrations


@pytest.mark.usefixtures("toy_tasks")
def test_demonstrations_are_dropped_first_and_the_text_never(
    toy_folder: Path, tmp_path: Path, session: Session
) -> None:
    small = write_backbone(tmp_path / "small", positions=40, left_to_right=True)
    parts, bare = parts_of(toy_folder, small, 4), parts_of(toy_folder, small)
    shown, plain = (read(session, p, injected=True) for p in (parts, bare))
    assert (shown.inputs.lengths <= 40).all()
    assert shown.inputs.shortened == plain.inputs.shortened
    lost = shown.counts["test_demonstrations_without_room"]
    assert 0 < lost <= 4 * len(shown.examples)
    told = Result(id="0" * 32, status=Status.OK, spec=parts.spec, counts=shown.counts)
    assert undemonstrated(told).endswith("demonstrations a test example have no room in the window")
    for n in range(len(shown.examples)):
        whole, own = (texts(p).ids[slice(*texts(p).bounds[n : n + 2])] for p in (shown, plain))
        assert whole[-len(own) + 1 :].tolist() == own[1:].tolist()


def test_what_stands_between_is_what_the_tokenizer_keeps(tmp_path: Path) -> None:
    tiny = KbenchTiny().load().tokenizer
    assert separator(tiny) == (".", tiny(".", add_special_tokens=False)["input_ids"])


@pytest.mark.usefixtures("toy_tasks")
def test_each_demonstration_is_put_together_once(
    toy_folder: Path, decoder: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(toy_folder, decoder, 3)
    joined: list[object] = []
    bare = Demonstrations._bare
    monkeypatch.setattr(
        Demonstrations, "_bare", lambda self, text: joined.append(text) or bare(self, text)
    )
    model, _ = tune(session, parts)
    joined.clear()
    prepared = session.prepared(parts, Split.TEST, model, injected=False)
    assert len(prepared.examples) > 3
    assert len(joined) == 3
    assert session.prepared(parts, Split.TEST, model, injected=False) is prepared


@pytest.mark.usefixtures("toy_tasks")
def test_what_is_shown_changes_what_is_said(
    toy_folder: Path, decoder: Path, session: Session
) -> None:
    said = []
    for shots in (0, 2):
        parts = parts_of(toy_folder, decoder, shots)
        model, _ = tune(session, parts)
        prepared = session.prepared(parts, Split.TEST, model, injected=False)
        found = predict(model, prepared.inputs, CPU).likelihoods
        assert found is not None
        said.append(found)
    assert not np.allclose(said[0].said, said[1].said)
    # The prompt without an example has them before it too.
    assert not np.allclose(said[0].nothing, said[1].nothing)
    assert load_folder(decoder).left_to_right
