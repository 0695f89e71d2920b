"""Pairs of texts: the same tokens, spans and logits as one call for each query and class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kbench.data import NONE_OF_THE_ABOVE, Candidate, Example, Mention, Role, digest_examples
from kbench.encoding import Examples, Inputs, Layout, affixes, encode
from kbench.encoding.pairs import Pairs, compared, room_of_text
from kbench.encoding.passages import Passage
from kbench.encoding.tokens import pair_affixes
from kbench.errors import Unsupported
from kbench.model import DownstreamModel
from kbench.model.heads import PairHead
from kbench.model.huggingface import load_folder
from kbench.pipeline.prediction import predict
from tests.hostile import MARKERS, TEMPLATES, examples

CPU = torch.device("cpu")
LONG = 100_000


def bare(tokenizer: Any, example: Example, rows: Any, layout: Layout) -> tuple[list[int], Inputs]:
    """Tokens of a text without its specials, and the text encoded for itself."""
    inputs = encode(tokenizer, [example], [rows], layout)
    one = affixes(tokenizer)
    end = len(inputs.ids) - len(one.after)
    return inputs.ids[len(one.before) : end].tolist(), inputs


def episode(texts: list[Example], ways: int, shots: int, label: str = "c0") -> Example:
    own, *rest = texts
    sets = [tuple(rest[at * shots : (at + 1) * shots]) for at in range(ways)]
    found = tuple(Candidate(f"c{at}", support) for at, support in enumerate(sets))
    return Example(f"episode {own.id}", own.text, own.mentions, label, candidates=found)


@settings(max_examples=25)
@given(data=st.data(), template=st.sampled_from(TEMPLATES))
def test_a_pair_is_its_two_texts(tokenizer: Any, data: Any, template: str | None) -> None:
    drawn = [data.draw(examples())[0] for _ in range(3)]
    texts = [Example(str(n), e.text, e.mentions, "") for n, e in enumerate(drawn)]
    of = compared([episode(texts, 2, 1)])
    rows = [tuple(data.draw(st.integers(-1, 5)) for _ in text.mentions) for text in of.texts]
    layout = Layout(MARKERS, template, LONG)
    inputs = encode(tokenizer, of.texts, rows, layout)
    batch = Pairs.encoded(tokenizer, inputs, of).collate_sequences(np.array([1, 0]))
    special = affixes(tokenizer)
    before, after = list(special.before), list(pair_affixes(tokenizer).after)
    middle, start = list(pair_affixes(tokenizer).between), len(before)
    width = batch.ids.shape[1]
    for row, right in enumerate((of.right[1], of.right[0])):
        halves = [(bare(tokenizer, of.texts[n], rows[n], layout), n) for n in (of.left[0], right)]
        (one, _), (two, _) = (half for half, _ in halves)
        wanted = [*before, *one, *middle, *two, *after]
        length = int(batch.mask[row].sum())
        assert batch.ids[row, :length].tolist() == wanted
        assert (batch.ids[row, length:] == (tokenizer.pad_token_id or 0)).all()
        offsets = (start, start + len(one) + len(middle))
        assert batch.segments is not None
        assert batch.segments[row].tolist() == [
            int(offsets[1] <= at < length) for at in range(width)
        ]
        mine = batch.mention_owners == row
        spans, slots = [], []
        for ((_, alone), number), offset in zip(halves, offsets, strict=True):
            moved = alone.spans - start + offset
            kept = alone.spans[:, 1] > 0
            spans += [
                (*span, entity)
                for span, entity, on in zip(moved.tolist(), rows[number], kept, strict=True)
                if on
            ]
            found = zip((alone.slots - start + offset).tolist(), alone.slot_rows, strict=True)
            slots += [(at, int(entity)) for at, entity in found]
        flat = (batch.mentions[mine] - row * width).tolist()
        assert [(*s, int(r)) for s, r in zip(flat, batch.mention_rows[mine], strict=True)] == spans
        of_row = torch.div(batch.slot_index, width, rounding_mode="floor") == row
        places = (batch.slot_index[of_row] - row * width).tolist()
        assert sorted(zip(places, batch.slot_rows[of_row].tolist(), strict=True)) == sorted(slots)


def sentence(number: int, words: int) -> Example:
    text = " ".join(f"Town {(number + at) % 9}" for at in range(words)) + " ."
    return Example(f"s{number}", text, (Mention(0, 6, f"T{number}", Role.HEAD),), "")


@pytest.fixture
def model(toy_folder: Path) -> DownstreamModel:
    torch.manual_seed(0)
    lm = load_folder(toy_folder / "bert")
    return DownstreamModel(lm, PairHead(lm.width)).eval()


@pytest.mark.parametrize("none", [False, True])
def test_all_pairs_at_once_give_the_logits_of_one_call_each(toy_folder: Path, none: bool) -> None:
    """The naive loop: one call for each query and class, mean over its supports, then softmax."""
    torch.manual_seed(1)
    lm = load_folder(toy_folder / "bert")
    head = PairHead(lm.width, none=none)
    model = DownstreamModel(lm, head).eval()
    sentences = [sentence(n, 1 + n % 5) for n in range(14)]
    given = [
        episode([sentences[n], *sentences[n + 1 : n + 1 + ways * shots]], ways, shots)
        for n, (ways, shots) in enumerate([(2, 3), (4, 2), (3, 1)])
    ]
    of = compared(given)
    rows = [(n % 4 - 1,) for n in range(len(of.texts))]
    layout = Layout({Role.HEAD: "#"}, "{slot} / {mention}", LONG)
    pairs = Pairs.encoded(lm.tokenizer, encode(lm.tokenizer, of.texts, rows, layout), of)
    table = torch.randn(4, lm.slot_width)
    with lm.slots(lambda asked: table[asked]), torch.inference_mode():
        found = predict(model, pairs, CPU)
        names, sure = found.labels, found.scores
        for number, example in enumerate(given):
            logits, unlike = [], []
            for place in range(len(example.candidates)):
                start, end = of.bounds[number : number + 2]
                own = np.arange(start, end)[of.candidates[start:end] == place]
                scores = [model(pairs.collate_sequences(np.array([pair])))[0] for pair in own]
                logits.append(torch.stack(scores).mean(0)[-1])
                unlike.append(torch.stack(scores).mean(0)[0])
            if none:
                logits.append(torch.stack(unlike).min())
            wanted = torch.stack(logits).softmax(0)
            best = int(wanted.argmax())
            labels = [*(candidate.label for candidate in example.candidates), NONE_OF_THE_ABOVE]
            assert names[number] == labels[best]
            assert abs(sure[number] - float(wanted[best])) < 1e-5
            gold = head.gold(given, lm.tokenizer)
            batch = Examples(pairs, gold.targets).batch(np.array([number]))
            together = model(batch)[0]
            present = torch.isfinite(together)
            assert (together[present].softmax(0) - wanted).abs().max() < 1e-5


def test_targets_and_names() -> None:
    head, other = PairHead(8), PairHead(8, none=True)
    sentences = [sentence(n, 2) for n in range(8)]
    given = [
        episode(sentences[:4], 3, 1, "c2"),
        episode(sentences[:3], 2, 1, "c0"),
        episode(sentences[:3], 2, 1, NONE_OF_THE_ABOVE),
    ]
    assert head.gold(given, None).targets.tolist() == [2, 0, -1]  # type: ignore[arg-type]
    gold = other.gold(given, None)  # type: ignore[arg-type]
    assert gold.targets.tolist() == [2, 0, 3]
    assert gold.labels == ["c2", "c0", NONE_OF_THE_ABOVE]
    words, _ = other.predict(torch.eye(3), None, [("a", "b")] * 3)  # type: ignore[arg-type]
    assert words == ["a", "b", NONE_OF_THE_ABOVE]


def test_training_reaches_the_head_and_ignores_a_label_that_is_no_candidate(
    model: DownstreamModel,
) -> None:
    sentences = [sentence(n, 3) for n in range(5)]
    given = [episode(sentences, 2, 2, label) for label in ("c1", "unheard of")]
    of = compared(given)
    tokenizer = model.lm.tokenizer
    inputs = encode(tokenizer, of.texts, [(-1,)] * len(of.texts), Layout({}, None, LONG))
    data = Examples(Pairs.encoded(tokenizer, inputs, of), model.head.gold(given, tokenizer).targets)
    both, first = data.batch(np.array([0, 1])), data.batch(np.array([0]))
    assert float(model.loss(both).detach()) == pytest.approx(float(model.loss(first).detach()))
    model.loss(first).backward()  # type: ignore[no-untyped-call]
    # Not its bias: the softmax over candidates does not see it.
    weight = next(p for name, p in model.head.named_parameters() if name.endswith("weight"))
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_each_text_is_tokenized_once() -> None:
    sentences = [sentence(n, 2) for n in range(5)]
    given = [episode(sentences, 2, 2), episode(sentences[::-1], 2, 2)]
    of = compared(given)
    assert [text.id for text in of.texts] == ["episode s0", "s1", "s2", "s3", "s4"]
    assert of.texts_of(0) == [0, 1, 2, 3, 4]
    assert of.texts_of(1) == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("limit", [12, 13, 64])
def test_any_pair_fits(toy_tokenizer: Any, limit: int) -> None:
    room = room_of_text(toy_tokenizer, limit)
    texts = [sentence(n, 40) for n in range(3)]
    of = compared([episode(texts, 2, 1)])
    inputs = encode(toy_tokenizer, of.texts, [(-1,)] * 3, Layout({}, None, room))
    pairs = Pairs.encoded(toy_tokenizer, inputs, of)
    assert limit - 1 <= pairs.sequence_lengths.max() <= limit
    assert pairs.shortened == 3
    assert pairs.lengths.tolist() == [pairs.sequence_lengths.sum()]


def test_passages_go_with_their_text(toy_tokenizer: Any) -> None:
    texts = [sentence(n, 2) for n in range(3)]
    of = compared([episode(texts, 2, 1)])
    brought = [[Passage("Country 1")], [], [Passage("Country 2")]]
    layout = Layout({}, None, LONG, room=LONG)
    inputs = encode(toy_tokenizer, of.texts, [(-1,)] * 3, layout, brought)
    batch = Pairs.encoded(toy_tokenizer, inputs, of).collate_sequences(np.array([0, 1]))
    rows = [ids[mask > 0].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]
    own, plain, told = (
        toy_tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (
            f"{texts[0].text}[SEP]Country 1",
            texts[1].text,
            f"{texts[2].text}[SEP]Country 2",
        )
    )
    cls, sep = toy_tokenizer.cls_token_id, toy_tokenizer.sep_token_id
    assert rows == [[cls, *own, sep, *plain, sep], [cls, *own, sep, *told, sep]]


def test_facts_at_mentions_are_for_one_text(toy_tokenizer: Any) -> None:
    texts = [sentence(n, 2) for n in range(3)]
    of = compared([episode(texts, 2, 1)])
    hung = [[Passage("Country 1", 0)], [], []]
    inputs = encode(toy_tokenizer, of.texts, [(-1,)] * 3, Layout({}, None, LONG, room=LONG), hung)
    with pytest.raises(Unsupported, match="not for pairs"):
        Pairs.encoded(toy_tokenizer, inputs, of)


def test_the_digest_sees_candidates_and_strata() -> None:
    texts = [sentence(n, 2) for n in range(5)]
    one = episode(texts, 2, 2)
    other = episode([texts[0], *texts[:0:-1]], 2, 2)
    marked = Example(one.id, one.text, one.mentions, one.label, stratum="5w1s")
    plain = Example(one.id, one.text, one.mentions, one.label)
    assert len({digest_examples([e]) for e in (one, other, marked, plain)}) == 4
