"""A frozen model reads each text once: the same bits from disk, from memory, and just read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbench.data import Example, Split
from kbench.encoding import Examples, Layout, encode
from kbench.encoding.pairs import Pairs, compared, room_of_text
from kbench.errors import KbenchError, Unsupported
from kbench.model import DownstreamModel, FrozenReader, LanguageModel, digest
from kbench.model.frozen_reading import WithStates, last_states
from kbench.model.heads import PairHead
from kbench.model.huggingface import load_folder
from kbench.parts.catalogue import Kind
from kbench.parts.run_parts import Parts
from kbench.pipeline.models import tune, untrained
from kbench.pipeline.prediction import predict
from kbench.pipeline.session import Session
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Artifacts, hidden_states
from kbench.store.hidden_states import BYTES, HiddenStates, HiddenStateStore
from kbench.testing import registered
from kbench.testing.toys import write_backbone
from kbench.training import History, Recipe, train
from kbench.training.tunings.head import HeadTuning
from tests.encoding.test_pairs import episode, sentence
from tests.grid.toygrid import OPTIONS

CPU = torch.device("cpu")
EPOCHS = 4
HEAD = {"learning_rate": 1e-2, "epochs": EPOCHS, "batch_size": 16}


@contextmanager
def counted(lm: LanguageModel) -> Iterator[list[int]]:
    """Counts the texts that a network is given inside the block."""
    texts: list[int] = []
    handle = lm.base.register_forward_pre_hook(
        lambda _, __, given: texts.append(len(given["inputs_embeds"])), with_kwargs=True
    )
    try:
        yield texts
    finally:
        handle.remove()


def parts(toy_folder: Path, task: str = "toy-relations", **changes: Any) -> Parts:
    options = {**OPTIONS, "tuning": {"head": HEAD, "my-head": HEAD}}
    given: dict[str, Any] = {
        "task": task,
        "backbone": str(toy_folder / "bert"),
        "tuning": "head",
        "method": "none",
        "setting": Setting.GENERAL,
        "knowledge": None,
        "control": Control.NONE,
        "seed": 0,
        "options": options,
    }
    return Parts(RunSpec(**{**given, **changes}))


def session(folder: Path) -> Session:
    return Session(Artifacts(folder), CPU)


def inputs_of(lm: LanguageModel, count: int = 40) -> Any:
    texts = [sentence(number, 1 + number % 9) for number in range(count)]
    return encode(lm.tokenizer, texts, [(-1,)] * count, Layout({}))


def test_kept_states_are_those_of_each_text_alone(lm: LanguageModel) -> None:
    inputs = inputs_of(lm)
    kept = FrozenReader(lm, CPU).read(inputs, last_states(lm, {}))
    assert kept is not None
    for number in range(len(inputs)):
        start, end = kept.states.places[number]
        with torch.no_grad():
            alone = lm(inputs.collate(np.array([number])))[0].numpy()
        assert end - start == inputs.lengths[number]
        np.testing.assert_allclose(kept.states.arrays[0][start:end], alone, atol=1e-5, rtol=0)


def test_a_batch_brings_them_and_the_network_is_not_asked(lm: LanguageModel) -> None:
    data = Examples(inputs_of(lm), np.zeros(40, dtype=np.int64))
    with counted(lm) as texts:
        recalled, said = FrozenReader(lm, CPU).with_states(data, last_states(lm, {}))
        assert (said, sum(texts)) == ("kept", 40)
        batch = recalled.batch(np.array([7, 3, 25]))
        hidden = lm(batch)
        assert sum(texts) == 40
    plain = data.batch(np.array([7, 3, 25]))
    with torch.no_grad():
        direct = lm(plain)
    mask = plain.mask.bool()
    torch.testing.assert_close(hidden[mask], direct[mask], atol=1e-5, rtol=0)
    assert torch.equal(batch.ids, plain.ids)


def test_the_address_knows_all_that_states_depend_on(toy_folder: Path, tmp_path: Path) -> None:
    asked = []

    class Store(HiddenStateStore):
        def kept(self, wanted: Any, blocks: Any, *, keep: bool = True) -> HiddenStates | None:
            asked.append(wanted.key)
            return None

    def key(lm: LanguageModel, count: int = 40, chosen: Any = None, **of: Any) -> str:
        frozen = FrozenReader(lm, CPU, Store(tmp_path, 0))
        frozen.read(inputs_of(lm, count), last_states(lm, of), chosen)
        return str(asked[-1])

    lm = load_folder(toy_folder / "bert")
    same = key(lm)
    assert key(load_folder(toy_folder / "bert")) == same
    other = load_folder(toy_folder / "bert")
    with torch.no_grad():
        other.layers[0].attention.self.query.bias[0] += 1e-3
    heads = load_folder(toy_folder / "bert")
    heads.config.num_attention_heads = 2  # the same weights read otherwise
    keys = [
        key(lm, 41),
        key(lm, chosen=np.arange(39)),
        key(lm, chosen=np.arange(40)[::-1].copy()),
        key(lm, plug="p"),
        key(other),
        key(heads),
    ]
    assert len({same, *keys}) == len(keys) + 1


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("task", ["toy-relations", "toy-typing"])
def test_a_head_is_the_same_bit_for_bit_wherever_states_lie(
    task: str, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str) -> tuple[str, History, list[float]]:
        own, chosen = session(tmp_path / name), parts(toy_folder, task)
        model, record = tune(own, chosen)
        inputs = own.prepared(chosen, Split.TEST, model, injected=False).inputs
        return digest(model), record.history, predict(model, inputs, CPU).scores

    cold, history, scores = made("cold")
    assert (history.states, len(history.dev)) == ("kept", EPOCHS)
    assert len(list(HiddenStateStore().all())) == 2, "train and dev"
    before = {folder: folder.stat().st_mtime_ns for folder in HiddenStateStore().all()}
    warm, again, _ = made("warm")
    assert {folder: folder.stat().st_mtime_ns for folder in HiddenStateStore().all()} == before
    assert warm == cold
    monkeypatch.setenv(BYTES, "0")
    off, without, _ = made("off")
    assert off == cold
    for other in (again, without):
        assert other.losses == history.losses
        assert other.dev == history.dev
    monkeypatch.setattr(hidden_states, "_MEMORY", 0)
    _, direct, near = made("direct")
    assert direct.states == "recomputed"
    np.testing.assert_allclose(direct.losses, history.losses, atol=1e-5)
    np.testing.assert_allclose(near, scores, atol=1e-4)


@pytest.mark.usefixtures("toy_tasks")
def test_every_text_is_read_once_however_many_epochs(toy_folder: Path, tmp_path: Path) -> None:
    chosen = parts(toy_folder)
    lm = chosen.backbone.load()
    chosen.__dict__["backbone"] = Same(chosen.backbone, lm)
    with counted(lm) as texts:
        _, record = tune(session(tmp_path / "one"), chosen)
        examples = [len(chosen.task.examples(split)) for split in (Split.TRAIN, Split.DEV)]
        assert sum(texts) == sum(examples)
        steps = -(-examples[0] // 16) * EPOCHS
        assert record.history.steps == steps
        # Another seed is another head on the same states.
        again = parts(toy_folder, seed=1)
        again.__dict__["backbone"] = chosen.backbone
        _, second = tune(session(tmp_path / "two"), again)
        assert second.digest != record.digest
        assert sum(texts) == sum(examples)


class Same:
    """A backbone that gives the same network each time, for what is counted on it."""

    def __init__(self, backbone: Any, lm: LanguageModel) -> None:
        self.digest, self.recipes, self.name = backbone.digest, backbone.recipes, backbone.name
        self.lm = lm

    def load(self) -> LanguageModel:
        return self.lm


@pytest.mark.usefixtures("toy_tasks")
def test_the_frozen_part_has_no_dropout_and_stays(toy_folder: Path, tmp_path: Path) -> None:
    chosen = parts(toy_folder)
    own = session(tmp_path)
    model, record = tune(own, chosen)
    assert digest(model.lm) == digest(chosen.backbone.load())
    trained = sum(p.numel() for p in model.head.parameters())
    assert record.trainable_parameters == trained
    # The plainest form: the head on states read anew, the network in eval mode.
    head = untrained(own, chosen)
    head.eval()
    head.head.train()
    data = own.prepared(chosen, Split.TRAIN, head, injected=False)
    assert chosen.tuning_recipe is not None
    train(
        head.head,
        head.loss,
        Examples(data.inputs, data.gold.targets),
        chosen.tuning_recipe.updated({"select": False}),
        seed=0,
        device=CPU,
    )
    last = {**OPTIONS, "tuning": {"head": {**HEAD, "select": False}}}
    before = len(list(HiddenStateStore().all()))
    kept, record = tune(session(tmp_path / "last"), parts(toy_folder, options=last, limit=90))
    assert record.history.dev == []
    assert len(list(HiddenStateStore().all())) == before + 1, "dev is not read"
    kept, record = tune(session(tmp_path / "whole"), parts(toy_folder, options=last))
    ours, plain = (dict(m.named_parameters())["linear.weight"] for m in (kept.head, head.head))
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=0)


def test_what_is_answered_at_mask_has_no_head_to_train(toy_folder: Path) -> None:
    from kbench.model.heads import BlankHead

    model = DownstreamModel(load_folder(toy_folder / "bert"), BlankHead())
    with pytest.raises(Unsupported, match=r"answered at .MASK. has none; take frozen"):
        HeadTuning().prepare(model, {})


class Liar(HeadTuning):  # type: ignore[misc]
    """Says that nothing of the network trains, and trains its biases."""

    def prepare(self, model: DownstreamModel, options: Any) -> None:
        super().prepare(model, options)
        model.lm.layers[0].attention.self.query.bias.requires_grad_(True)


@pytest.mark.usefixtures("toy_tasks")
def test_a_tuning_that_says_so_wrongly_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    with (
        registered(Kind.TUNINGS, my_head=f"{__name__}:Liar"),
        pytest.raises(KbenchError, match=r"tuning my-head says .*reads_once.*query.bias"),
    ):
        tune(session(tmp_path), parts(toy_folder, tuning="my-head"))


@pytest.mark.usefixtures("toy_tasks")
def test_a_plug_that_is_fixed_is_read_through(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {}
    for control in (Control.NONE, Control.SHUFFLED):
        chosen = {
            "method": "map-tuning",
            "setting": Setting.FINE_TUNING,
            "knowledge": str(toy_folder / "kb"),
            "control": control,
        }
        monkeypatch.setattr(hidden_states, "_MEMORY", 1 << 30)
        monkeypatch.delenv(BYTES, raising=False)
        _, record = tune(session(tmp_path / f"kept-{control}"), parts(toy_folder, **chosen))
        assert record.history.states == "kept"
        monkeypatch.setattr(hidden_states, "_MEMORY", 0)
        monkeypatch.setenv(BYTES, "0")
        _, direct = tune(session(tmp_path / f"direct-{control}"), parts(toy_folder, **chosen))
        assert direct.history.states == "recomputed"
        losses[control] = record.history.losses
        np.testing.assert_allclose(losses[control], direct.history.losses, atol=1e-4)
        assert record.history.dev == direct.history.dev
    apart = np.subtract(losses[Control.NONE], losses[Control.SHUFFLED])
    assert np.abs(apart).max() > 1e-3, "another plug, other states"


def test_pairs_are_read_once_too(toy_folder: Path) -> None:
    lm = load_folder(write_backbone(toy_folder.parent / "bert-of-pairs"))
    texts = [sentence(number, 2 + number % 4) for number in range(20)]
    of = compared([episode(texts[at : at + 5], 2, 2, f"c{at % 2}") for at in range(16)])
    layout = Layout({}, max_length=room_of_text(lm.tokenizer, lm.max_length))
    inputs = encode(lm.tokenizer, of.texts, [(-1,)] * len(of.texts), layout)
    pairs = Pairs.encoded(lm.tokenizer, inputs, of)
    torch.manual_seed(0)
    model = DownstreamModel(lm, PairHead(lm.width)).eval().requires_grad_(False)
    kept = FrozenReader(lm, CPU).read(pairs, last_states(lm, {}))
    assert kept is not None
    assert len(kept.states.places) == 64
    assert predict(model, pairs, CPU, states=kept) == predict(model, pairs, CPU)
    data = Examples(pairs, np.arange(16) % 2)
    losses = []
    for known in (data, WithStates(data, kept)):
        torch.manual_seed(0)
        head = PairHead(lm.width)
        head.dropout.p = 0.0
        trial = DownstreamModel(lm, head)
        recipe = Recipe(learning_rate=1e-2, batch_size=4, epochs=3)
        with counted(lm) as read:
            history = train(head, trial.loss, known, recipe, seed=0, device=CPU)
        assert sum(read) == (3 * 64 if known is data else 0)
        losses.append(history.losses)
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)


def test_predictions_from_kept_states_are_those_of_the_model(lm: LanguageModel) -> None:
    from kbench.model.heads import RelationHead

    inputs = inputs_of(lm, 150)
    model = DownstreamModel(lm, RelationHead(lm.width, ["x", "y", "z"])).eval()
    kept = FrozenReader(lm, CPU).read(inputs, last_states(lm, {}))
    assert predict(model, inputs, CPU, states=kept) == predict(model, inputs, CPU)


def test_what_is_kept_is_sound_whatever_its_address_is_made_of(lm: LanguageModel) -> None:
    lm.config.id2label = {number: f"label {number}" for number in range(12)}
    reading = last_states(lm, {"pairs": (1, 2), "numbers": {10: "a", 9: "b"}})
    for _ in range(2):
        kept = FrozenReader(lm, CPU).read(inputs_of(lm), reading)
        assert kept is not None
    (folder,) = HiddenStateStore().all()
    assert HiddenStateStore().check(folder)["of"] == "last hidden states"


def test_a_text_of_one_token_has_states(lm: LanguageModel) -> None:
    examples = [Example("a", "", (), ""), Example("b", "we saw it", (), "")]
    inputs = encode(lm.tokenizer, examples, [(), ()], Layout({}))
    kept = FrozenReader(lm, CPU).read(inputs, last_states(lm, {}))
    assert kept is not None
    batch = kept.into(inputs.collate(np.array([0, 1])))
    assert batch.states is not None
    assert batch.states.last.shape == (*batch.ids.shape, lm.width)
    assert not batch.states.last[batch.mask == 0].any()
