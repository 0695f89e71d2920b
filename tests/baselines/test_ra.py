"""Knowledge as text: what is written, how long it may be, who sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbench.data import Example, Mention, Split
from kbench.encoding import Batch, Layout, encode
from kbench.encoding.passages import Passage
from kbench.errors import Unsupported
from kbench.grid import runner
from kbench.grid.plan import Place
from kbench.knowledge import Bundle, Entity, write_bundle, write_vectors
from kbench.knowledge.controls import Random, Shuffled, Zero
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.huggingface import load_folder
from kbench.parts.catalogue import Kind
from kbench.parts.run_parts import Parts
from kbench.pipeline.preparation import Prepared, prepare
from kbench.spec import Control, Setting
from kbench.store import Result, Results, Status
from kbench.testing import registered
from kbench_baselines.retrieval import RetrievalAugmentation, VisibleMatrix
from tests.architectures import write
from tests.grid.toygrid import OPTIONS, grid, run

CARD = {"name": "told", "version": "1", "licence": "none", "source": "test"}


@pytest.fixture(autouse=True)
def _offered(toy_tasks: None) -> Iterator[None]:
    with registered(
        Kind.METHODS,
        ra="kbench_baselines.retrieval:RetrievalAugmentation",
        ra_vm="kbench_baselines.retrieval:VisibleMatrix",
    ):
        yield


@pytest.fixture(scope="module")
def told(toy_knowledge: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The toy world, with the class of every entity spelled out in its description."""
    folder = tmp_path_factory.mktemp("told")
    toy = toy_knowledge
    described = [
        replace(e, description=f"we spoke of it . it looks {e.types[0]} again" if e.types else "")
        for e in map(toy.entity, range(len(toy)))
    ]
    ids = [entity.id for entity in described]
    facts = [(ids[h], "color", ids[t]) for h, _, t in toy.triples.tolist()]
    write_bundle(folder, CARD, described, facts, toy.relations)
    return write_vectors(folder, toy.vectors(np.arange(len(toy))), {"model": "planted"})


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Place:
    return Place(tmp_path / "out", made, "cpu")


@pytest.fixture(scope="module")
def lm(toy_folder: Path) -> LanguageModel:
    return load_folder(toy_folder / "bert")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Entities with a description, with a description that begins with the name, with facts."""
    folder = tmp_path_factory.mktemp("small")
    entities = [
        Entity("a", "balike", description="a town ."),
        Entity("b", "vozuba", description="Vozuba is a river ."),
        Entity("c", "keste"),
        Entity("d", "moli"),
    ]
    facts = [("c", "in", "a"), ("c", "by", "b"), ("c", "in", "d"), ("a", "by", "d")]
    write_bundle(folder, CARD, entities, facts, {"in": "lies in", "by": "lies by"})
    return write_vectors(folder, np.eye(4, dtype=np.float32), {"model": "none"})


def test_an_entity_is_described_by_name_and_description_else_by_facts(small: Bundle) -> None:
    method = RetrievalAugmentation()
    assert [list(method.passages(small, row)) for row in range(4)] == [
        ["balike : a town ."],
        ["Vozuba is a river ."],
        ["keste lies by vozuba; lies in balike; lies in moli."],
        [],
    ]
    assert method.covers(small, np.array([0, 1, 2, 3, -1])).tolist() == [True] * 3 + [False] * 2


def test_broken_knowledge_comes_in_the_form_of_the_true(small: Bundle) -> None:
    method = RetrievalAugmentation()
    shuffled = Shuffled(small, 0)
    for row in range(4):
        text = shuffled.describe(row)
        expected = [f"balike : {text}" if row == 0 and not text.startswith("balike") else text]
        if row == 3 and text and not text.startswith("moli"):
            expected = [f"moli : {text}"]  # the true one has no text that shows a form
        assert list(method.passages(shuffled, row)) == (expected if text else [])
        assert text != small.describe(row)
    for row in range(3):
        (made_up,) = method.passages(Random(small, 0), row) or ("",)
        assert made_up != method.passages(small, row)[0]
        assert not method.passages(Zero(small), row)


def _prepared(
    toy_folder: Path, told: Bundle, task: str, room: int, split: Split = Split.TEST
) -> tuple[Prepared, LanguageModel]:
    options = {**OPTIONS, "method": {"ra": {"room": room}}}
    chosen = grid(
        toy_folder,
        task=task,
        method="ra",
        setting="general",
        control="none",
        knowledge=str(told.folder),
        options=options,
    )
    parts = Parts(runner.resolve(chosen)[0])
    lm = parts.backbone.load()
    model = DownstreamModel(lm, parts.task.head(lm.width))
    return prepare(parts, split, model, injected=True), lm


def test_an_input_with_room_is_what_the_tokenizer_makes_of_two_texts(
    toy_folder: Path, told: Bundle
) -> None:
    prepared, lm = _prepared(toy_folder, told, "toy-qa", 64)
    for number, example in enumerate(prepared.examples):
        start, end = prepared.inputs.bounds[number : number + 2]
        row = prepared.links.rows[number][0]
        text = f" {told.labels[row]} : {told.entity(row).description}"
        mention = example.mentions[0]
        first = f"{example.text[: mention.start]}$ {told.labels[row]} $"
        first += f"{example.text[mention.end :]}[MASK]"
        expected = lm.tokenizer(first, text, return_token_type_ids=True)
        assert prepared.inputs.ids[start:end].tolist() == expected["input_ids"]
        assert prepared.inputs.segments is not None
        assert prepared.inputs.segments[start:end].tolist() == expected["token_type_ids"]


@pytest.mark.parametrize("room", [1, 24, 30, 34, 64])
def test_room_is_kept_and_the_input_never_cut_for_it(
    toy_folder: Path, told: Bundle, room: int
) -> None:
    prepared, lm = _prepared(toy_folder, told, "toy-typing", room)
    for number in range(len(prepared.examples)):
        start, end = prepared.inputs.bounds[number : number + 2]
        ids = prepared.inputs.ids[start:end].tolist()
        plain = encode(
            lm.tokenizer,
            prepared.examples[number : number + 1],
            [(-1,)],
            Layout(dict.fromkeys({m.role for m in prepared.examples[number].mentions}, "$")),
        ).ids.tolist()
        assert ids[: len(plain)] == plain
        assert len(ids) <= max(room, len(plain))


def test_answers_count_where_they_are_read_and_not_where_they_were_cut_off(
    toy_folder: Path, told: Bundle
) -> None:
    counts = []
    for room in (64, 34, 24):
        # Two in three texts of train give the answer away themselves; that does not count.
        prepared, lm = _prepared(toy_folder, told, "toy-qa", room, Split.TRAIN)
        expected = 0
        for number, example in enumerate(prepared.examples):
            start, end = prepared.inputs.bounds[number : number + 2]
            read = lm.tokenizer.convert_ids_to_tokens(prepared.inputs.ids[start:end].tolist())
            second = read[read.index("[SEP]") :]
            assert isinstance(example.label, tuple)
            expected += example.label[0] in second
        assert prepared.counts["train_answer_in_context"] == expected
        counts.append(expected)
    assert counts[0] == len(prepared.examples)
    assert counts[0] > counts[1] > counts[2] == 0


def _brought(lm: LanguageModel, texts: list[str], room: int) -> str:
    example = Example("x", "we saw it", (), "")
    inputs = encode(
        lm.tokenizer,
        [example],
        [()],
        Layout({}, max_length=32, room=room),
        [[Passage(text) for text in texts]],
    )
    assert inputs.segments is not None
    return lm.tokenizer.decode(inputs.ids[inputs.segments == 1].tolist())


def test_room_is_shared_equally_and_cut_at_sentence_ends(lm: LanguageModel) -> None:
    long = "red as ever . red as ever . red as ever"
    # Five tokens of [CLS] we saw it [SEP], one of the second [SEP]; two shares of seven.
    assert _brought(lm, [long, long], 5 + 1 + 14) == "red as ever . red as ever . [SEP]"
    # What the first does not need goes to the second.
    assert _brought(lm, ["blue", long], 5 + 1 + 9) == ("blue red as ever . red as ever . [SEP]")
    # A first sentence that is too long is cut itself.
    assert _brought(lm, [long], 5 + 1 + 2) == "red as [SEP]"


def test_initials_and_titles_end_no_sentence(lm: LanguageModel) -> None:
    text = "A. B. saw St. A. there . red as ever"
    # The first sentence is too long; it is not "A." with nothing said of it.
    assert _brought(lm, [text], 5 + 1 + 7) == "a . b . saw s ##t [SEP]"
    assert _brought(lm, [text], 5 + 1 + 14) == "a . b . saw s ##t . a . there . [SEP]"


def _status(results: list[Result]) -> None:
    for result in results:
        assert result.status == Status.OK, result.reason


@pytest.mark.parametrize("method", ["ra", "ra-vm"])
def test_text_trains_nothing_and_without_it_the_model_is_as_it_was(
    method: str, toy_folder: Path, told: Bundle, place: Place
) -> None:
    chosen = grid(
        toy_folder,
        task="toy-typing",
        method=f"none,{method}",
        setting="general",
        control="none,shuffled,zero",
        knowledge=str(told.folder),
        options={**OPTIONS, "tuning": {"full": {"epochs": 2}}},
    )
    results = run(chosen, place)
    _status(results)
    base, true, shuffled, zero = results
    for result in (true, shuffled, zero):
        assert result.cost["trainable_parameters"] == result.cost["plug_bytes"] == 0
        assert result.coverage == true.coverage
        assert result.frozen is not None
        assert result.frozen.before == result.frozen.after
    assert true.coverage is not None
    assert true.coverage.mentions == 1.0
    assert true.counts["test_answer_in_context"] == true.counts["test_kept"]
    assert true.counts["test_tokens"] > base.counts["test_tokens"]
    assert shuffled.counts["test_answer_in_context"] < true.counts["test_answer_in_context"] / 2
    store = Results(place.out)
    read = {r.id: store.predictions(r) for r in results}
    plain, empty = read[base.id], read[zero.id]
    assert plain is not None
    assert empty is not None
    assert plain.predictions == empty.predictions
    assert np.abs(np.subtract(plain.scores, empty.scores)).max() <= 1e-5
    assert read[true.id].scores != plain.scores  # type: ignore[union-attr]


@pytest.mark.parametrize(("method", "epochs"), [("ra", 8), ("ra-vm", 12)])
def test_a_model_tuned_with_texts_reads_what_they_say(
    method: str, epochs: int, toy_folder: Path, told: Bundle, place: Place
) -> None:
    chosen = grid(
        toy_folder,
        method=method,
        setting="fine-tuning",
        control="none,shuffled",
        knowledge=str(told.folder),
        options={"tuning": {"full": {"learning_rate": 3e-3, "epochs": epochs, "batch_size": 16}}},
    )
    results = run(chosen, place)
    _status(results)
    scores = {r.spec.control: r.score.value for r in results if r.score}
    assert scores[Control.NONE] > 0.75, scores
    assert scores[Control.SHUFFLED] < 0.45, scores


def test_facts_hang_in_the_order_of_the_triples(small: Bundle) -> None:
    method = VisibleMatrix({"facts": 2})
    assert list(method.passages(small, 2)) == ["lies by vozuba", "lies in balike"]
    assert list(method.passages(small, 1)) == []
    assert method.covers(small, np.array([0, 1, 2, 3, -1])).tolist() == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert not method.passages(Zero(small), 2)
    assert Setting.TASK_SPECIFIC not in method.settings


_TEXT = "we saw keste near balike today"
_MENTIONS = (Mention(7, 12, "c"), Mention(18, 24, "a"), Mention(13, 17, None))
_OTHER = Example("y", "it rained", (), "")


def _hung(lm: LanguageModel, small: Bundle, room: int = 64) -> Batch:
    """A batch of a long example with branches, and a short one without."""
    method, rows = VisibleMatrix(), (2, 0, -1)
    brought = [
        Passage(text, number)
        for number, row in enumerate(rows)
        if row >= 0
        for text in method.passages(small, row)
    ]
    inputs = encode(
        lm.tokenizer,
        [Example("x", _TEXT, _MENTIONS, ""), _OTHER],
        [rows, ()],
        Layout({}, room=room),
        [brought, []],
    )
    return inputs.collate(np.array([0, 1]))


def _slow(lm: LanguageModel) -> torch.Tensor:
    """The states of the long example, by the definition of K-BERT and the network itself."""
    tokenizer: Any = lm.tokenizer

    def pieces(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    tokens: list[tuple[int, int, str]] = [(tokenizer.cls_token_id, 0, "trunk")]
    names = {"keste": ["lies by vozuba", "lies in balike"], "balike": ["lies by moli"]}
    branches = []
    position = 1
    for word in _TEXT.split():
        for piece in pieces(word):
            tokens.append((piece, position, word if word in names else "trunk"))
            position += 1
        branches += [(word, position, text) for text in names.get(word, ())]
    tokens.append((tokenizer.sep_token_id, position, "trunk"))
    for number, (word, start, text) in enumerate(branches):
        for step, piece in enumerate(pieces(text)):
            tokens.append((piece, start + step, f"{number} of {word}"))
    length = len(tokens)
    mask = torch.full((1, 1, length, length), float("-inf"))
    for i in range(length):
        for j in range(length):
            one, two = tokens[i][2], tokens[j][2]
            trunk = " of " not in one and " of " not in two
            own = one.endswith(f" of {two}") or two.endswith(f" of {one}")
            if trunk or one == two or own:
                mask[0, 0, i, j] = 0.0
    with torch.no_grad():
        states: torch.Tensor = lm.network.bert(
            input_ids=torch.tensor([[piece for piece, _, _ in tokens]]),
            position_ids=torch.tensor([[place for _, place, _ in tokens]]),
            token_type_ids=torch.tensor([[int(" of " in owner) for _, _, owner in tokens]]),
            attention_mask=mask,
        ).last_hidden_state
    return states[0]


def test_branches_are_read_by_the_definition_of_the_visible_matrix(
    lm: LanguageModel, small: Bundle
) -> None:
    batch = _hung(lm, small)
    expected = _slow(lm)
    with torch.no_grad():
        states = lm(batch)
    assert int(batch.mask[0].sum()) == len(expected)
    assert batch.segments is not None
    assert int(batch.segments.sum()) > 20
    torch.testing.assert_close(states[0], expected, atol=1e-5, rtol=0)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        narrow = lm(batch).float()[0]
    torch.testing.assert_close(narrow, expected, atol=0.1, rtol=0)


def test_padding_changes_nothing_and_an_example_without_branches_is_as_it_was(
    lm: LanguageModel, small: Bundle
) -> None:
    both = _hung(lm, small)
    alone = encode(lm.tokenizer, [_OTHER], [()], Layout({}))
    with torch.no_grad():
        padded = lm(both)[1][both.mask[1].bool()]
        plain = lm(alone.collate(np.array([0])))[0]
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bert", None),
        ("roberta", None),
        ("albert", None),
        ("distilbert", None),
        ("mpnet", "by the place of tokens"),
        ("deberta-v2", "does not take"),
        ("modernbert", "through windows"),
        ("longformer", "does not take"),
        ("xlm", "does not take"),
    ],
)
def test_a_backbone_that_cannot_bear_branches_is_refused(
    name: str, reason: str | None, tmp_path: Path, small: Bundle
) -> None:
    lm = load_folder(write(tmp_path, name))
    if reason is None:
        assert not list(VisibleMatrix().build(lm, small).parameters())
    else:
        with pytest.raises(Unsupported, match=reason):
            VisibleMatrix().build(lm, small)
