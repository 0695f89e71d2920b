"""Yes or no of each label, and the letter of one: against whole texts, read one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbench.data import Example, Mention, Options, Prompt, Role, Verdicts
from kbench.encoding import Layout, encode
from kbench.errors import InputError, UsageError
from kbench.model import DownstreamModel, LanguageModel
from kbench.model.choices import LetterHead, VerdictHead
from kbench.model.huggingface import load_folder
from kbench.model.tiny import KbenchTiny
from kbench.pipeline.prediction import Predicted, predict
from tests.architectures import write_decoder

LABELS = ("body_of_water", "city", "person")
OPTIONS = Options("{text} what of {head} and {tail} ?", nothing="what of them ?")
VERDICTS = Verdicts("{text} is {target} a", nothing="is it a")
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return load_folder(write_decoder(folder, request.param, max_position_embeddings=300))


def texts(label: Any) -> list[Example]:
    roles = (Role.HEAD, Role.TAIL, Role.TARGET)
    said = ("ann lives by the sea", "so ann lives")
    return [
        Example(
            str(number),
            text,
            tuple(Mention(text.index("ann"), text.index("ann") + 3, None, r) for r in roles),
            label,
        )
        for number, text in enumerate(said)
    ]


def predicted(lm: LanguageModel, head: LetterHead | VerdictHead, label: Any) -> Predicted:
    head.settle(lm)
    examples = texts(label)
    put = [asked for example in examples if (asked := head.put(example)) is not None]
    inputs = encode(lm.tokenizer, put, [(-1,) * 3] * len(put), Layout({}, left_to_right=True))
    model = DownstreamModel(lm, head).eval()
    return predict(model, head.grown(inputs, lm.tokenizer, examples), CPU)


def after(lm: LanguageModel, text: str, words: list[str]) -> torch.Tensor:
    """Log-probabilities of words after a text, each read behind it in a row of its own."""

    def spelled(said: str) -> list[int]:
        ids: list[int] = lm.tokenizer(said)["input_ids"]
        return ids[:-1] if ids[-1] == lm.tokenizer.eos_token_id else ids

    begin, found = len(spelled(text)), []
    for word in words:
        whole = spelled(f"{text} {word}")
        assert whole[:begin] == spelled(text)
        with torch.no_grad():
            logits = lm.network(torch.tensor([whole])).logits[0].log_softmax(-1)
        found.append(sum(logits[at - 1, whole[at]].item() for at in range(begin, len(whole))))
    return torch.tensor(found)


def test_a_letter_is_said_after_the_list_and_after_the_list_turned_round(lm: LanguageModel) -> None:
    labels = ("ann", "bob", "cid")
    head = LetterHead(labels, OPTIONS, "pmi")
    said = predicted(lm, head, "bob").likelihoods
    assert said is not None
    assert said.scorers == ("sum", "pmi")

    def plain(text: str) -> np.ndarray:
        both = []
        for order in (labels, labels[::-1]):
            listed = "\n".join(
                f"{letter}. {name}" for letter, name in zip("ABC", order, strict=True)
            )
            letters = after(lm, f"{text} {listed}\nAnswer:", ["A", "B", "C"]).log_softmax(0)
            both.append([float(letters[order.index(name)]) for name in labels])
        mean: np.ndarray = np.mean(both, axis=0)
        return mean

    bare = plain("what of them ?")
    for row, example in enumerate(texts("bob")):
        put = OPTIONS.put(example)
        assert put is not None
        assert said.by("sum").scores[row] == pytest.approx(plain(put.text), abs=1e-4)
        assert said.scores[row] == pytest.approx(plain(put.text) - bare, abs=1e-4)


def test_each_label_is_asked_about_by_itself(lm: LanguageModel) -> None:
    head = VerdictHead(LABELS, VERDICTS, "pmi")
    said = predicted(lm, head, ("city",)).likelihoods
    assert said is not None

    def plain(text: str) -> list[float]:
        found = []
        for name in ("body of water", "city", "person"):
            words = after(lm, f"{text} {name}? Answer:", ["yes", "Yes", "no", "No"])
            found.append(float(words[:2].logsumexp(0) - words[2:].logsumexp(0)))
        return found

    bare = np.array(plain("is it a"))
    for row, example in enumerate(texts(("city",))):
        put = VERDICTS.put(example)
        assert put is not None
        assert said.by("sum").scores[row] == pytest.approx(plain(put.text), abs=1e-4)
        assert said.scores[row] == pytest.approx(plain(put.text) - bare, abs=1e-4)


def test_the_order_of_the_list_has_no_say(lm: LanguageModel) -> None:
    """Behind both lists together no label has a better place or letter than the opposite one."""
    labels = ("ann", "bob", "cid", "dan")
    one = predicted(lm, LetterHead(labels, OPTIONS, "pmi"), "bob").likelihoods
    other = predicted(lm, LetterHead(labels[::-1], OPTIONS, "pmi"), "bob").likelihoods
    assert one is not None
    assert other is not None
    for scorer in ("sum", "pmi"):
        assert one.by(scorer).scores == pytest.approx(other.by(scorer).scores[:, ::-1], abs=1e-4)


def test_what_is_stored_is_what_was_predicted_to_the_bit(lm: LanguageModel) -> None:
    for scorer in ("sum", "pmi"):
        letters = predicted(lm, LetterHead(LABELS, OPTIONS, scorer), "city")
        assert letters.likelihoods is not None
        assert letters.likelihoods.predicted() == letters.labels
        head = VerdictHead(LABELS, VERDICTS, scorer)
        head.settle_on_dev(torch.randn(4, 12), torch.tensor([[1, 0, 0], [0, 1, 0]] * 2))
        verdicts = predicted(lm, head, ("city",))
        assert verdicts.likelihoods is not None
        assert [{*own} for own in verdicts.likelihoods.predicted()] == [
            {*own} for own in verdicts.labels
        ]


def test_what_candidates_are() -> None:
    prompt = Verdicts("{text}", words={"city": "town"})
    assert prompt.candidates(("city",)) == [
        f"town? Answer: {w}" for w in ("yes", "Yes", "no", "No")
    ]
    example = Example("a", "it is", (), ("city",))
    assert prompt.answer(example, "city") == "town? Answer: yes"
    assert prompt.answer(example, "sea") == "sea? Answer: no"
    lists = ["A. town\nB. sea\nAnswer:", "A. sea\nB. town\nAnswer:"]
    options = Options("{text}", words={"city": "town"})
    assert options.candidates(("city", "sea")) == [
        f"{lists[0]} A",
        f"{lists[1]} B",
        f"{lists[0]} B",
        f"{lists[1]} A",
    ]
    assert options.lettered(("city", "sea"), "sea", turned=True) == f"{lists[1]} A"
    assert Prompt("{text}").candidates(("a_b", "c")) == ["a b", "c"]


def test_what_cannot_be_asked_so_is_refused() -> None:
    for scorer in ("mean", "char", "byte"):
        with pytest.raises(UsageError, match=f"scorer is {scorer}, and labels are told by letters"):
            LetterHead(LABELS, OPTIONS, scorer)
        with pytest.raises(UsageError, match=f"scorer is {scorer}, and labels are told by yes"):
            VerdictHead(LABELS, VERDICTS, scorer)
    many = [f"label {number}" for number in range(27)]
    with pytest.raises(UsageError, match=r"27 labels; expected 26 at most.*take ask=name"):
        LetterHead(many, OPTIONS, "sum")
    tokenizer = KbenchTiny().load().tokenizer
    with pytest.raises(InputError, match="2 of 2 labels are ids"):
        LetterHead(("P17", "P18"), OPTIONS, "sum")._tree(tokenizer)
    strange = Verdicts("{text}", yes="? 😀", no="? no")
    with pytest.raises(InputError, match=r"tokenizer does not know all of 'body of water\? 😀'"):
        VerdictHead(LABELS, strange, "sum")._tree(tokenizer)
