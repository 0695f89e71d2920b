"""Prompt and answer as one text: no blank where a script has none, and what is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from kbench.data import Example, Mention, Options, Prompt, Role, Split, Verdicts
from kbench.model import DownstreamModel, Head
from kbench.model.answering import SpokenHead
from kbench.model.candidates import CandidateHead
from kbench.model.choices import LetterHead
from kbench.model.heads import BlankHead
from kbench.model.statements import StatementHead, _Statements
from kbench.parts.run_parts import Parts
from kbench.pipeline.addresses import model_inputs
from kbench.pipeline.boundaries import respelled
from kbench.spec import RunSpec
from kbench_tasks.custom import Custom
from tests.architectures import write_decoder

Write = Callable[[str, Any], Path]
PLACES = ("北京", "上海")
TEXTS = ["安在北京。安的出生地是：北京", "安在上海。安的出生地是：上海", "北京 上海 ： 北京"] * 20


def tokenizer(*, across: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE; ``across`` without words, so that a sign and what follows are one token."""
    core = Tokenizer(models.BPE())
    if not across:
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<unk>"],
        initial_alphabet=[*"".join(TEXTS), *pre_tokenizers.ByteLevel.alphabet()],
    )
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="<unk>")


ASKED = Prompt("{text}{head}的出生地是：", nothing="出生地是：")


def example(place: str) -> Example:
    text = f"安在{place}。"
    roles = (Role.HEAD, Role.TAIL)
    return Example(place, text, tuple(Mention(0, 1, None, role) for role in roles), place)


def counted(
    head: Head,
    prompt: Prompt,
    core: PreTrainedTokenizerFast,
    tested: Sequence[Example] = tuple(map(example, PLACES)),
) -> int:
    task = SimpleNamespace(
        asked=prompt, shows=lambda one: {one.label: prompt.answer(one, one.labels[0])}
    )
    parts = SimpleNamespace(task=task, prompting={"shots": 0}, spec=SimpleNamespace(chat=False))
    model = SimpleNamespace(lm=SimpleNamespace(tokenizer=core), head=head)
    found = respelled(cast("Parts", parts), cast("DownstreamModel", model), tested)
    return found["test_answers_spelled_otherwise"]


def test_a_sign_of_a_script_without_blanks_is_followed_by_none() -> None:
    core = tokenizer(across=False)
    assert ASKED.closed == "："
    assert ASKED.joins(example("北京"))
    shown = ASKED.shown(example("北京"), "北京")
    assert shown is not None
    assert shown.text == "安在北京。安的出生地是：北京"
    spelled = CandidateHead(PLACES, ASKED, "sum").spelled(core)
    assert core.decode(spelled[0]).replace(" ", "") == "北京"
    before = core("安在北京。安的出生地是：")["input_ids"]
    assert core(shown.text)["input_ids"] == [*before, *spelled[0]]
    for other in (Prompt("{text} it is"), Prompt("{text}：{head}"), Prompt("{before}")):
        assert not other.closed
    assert counted(CandidateHead(PLACES, ASKED, "sum"), ASKED, core) == 0


def test_answers_at_one_token_are_looked_at_behind_the_sign() -> None:
    core = tokenizer(across=False)
    asked = Prompt("问：{before}答：")
    question = Example("a", "首都 ", (), ("北京",), blank=3)
    gold = BlankHead(asked).gold([question], core)
    assert gold.kept.tolist() == [0]
    assert core.convert_ids_to_tokens(gold.targets.tolist()) == core.tokenize("：北京")[1:]
    learnt = SpokenHead(asked, 8)._spelled([question], core)[2]
    assert learnt == {("北京", True): gold.targets.tolist()}


def words_behind_blanks() -> PreTrainedTokenizerFast:
    """Byte-level BPE that spells a word otherwise behind a blank, as GPT-2's does."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<s>", "<unk>"])
    core.train_from_iterator(
        ["Where is Ann? Rome", "(Rome) A: Rome", "Q: Oslo (Oslo)"] * 9, trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize(
    ("asked", "text", "token"),
    [
        # The prompt goes on behind the question: whatever stands before the data's own blank.
        ("Q: {before} A:", "Where is Ann?", "ĠRome"),
        ("Q: {before} A:", "Where is Ann? ", "ĠRome"),
        ("Q: {text} A:", "Where is Ann (", "ĠRome"),
        ("{target} {before} A:", "", "ĠRome"),
        # The text itself ends it.
        ("{before}", "Where is Ann? ", "ĠRome"),
        ("{before}", "Where is Ann (", "Rome"),
        ("Q: {before}", "Where is Ann (", "Rome"),
        ("Q: {before}", "", "ĠRome"),
        ("{before}", "", "Rome"),
    ],
)
def test_one_token_is_spelled_by_what_stands_before_it_as_it_is_asked(
    asked: str, text: str, token: str
) -> None:
    core = words_behind_blanks()
    prompt = Prompt(asked)
    question = Example("a", text, (), ("Rome",), blank=len(text))
    head = BlankHead(prompt)
    gold = head.gold([question], core)
    assert core.convert_ids_to_tokens(gold.targets.tolist()) == [token]
    if text:
        shown = prompt.shown(question, "Rome")
        assert shown is not None
        assert core(shown.text)["input_ids"][-1] == gold.targets.tolist()[0]
        assert counted(head, prompt, core, [question]) == 0


@pytest.mark.parametrize(
    ("asked", "ends", "said"),
    [
        ("Q: {before} A:", "?", True),
        ("Q: {before} A:", "? ", False),
        ("{before}", "(", False),
        ("问：{before}答：", "?", False),
    ],
)
def test_a_task_asked_so_has_another_address(
    write: Write, tmp_path: Path, asked: str, ends: str, said: bool
) -> None:
    text = f"Where is Ann{ends}"
    mention = {"start": 9, "end": 12, "role": "target"}
    record = {"text": text, "mentions": [mention], "answers": ["Rome"], "blank": len(text)}
    write(
        "card.yaml",
        f'title: Q\nfamily: question answering\nlicence: none\nprompt: "{asked}"\n'
        "prompt_alone: it\n",
    )
    for split in Split:
        write(f"{split}.jsonl", [record])
    assert ("spelled" in Custom(str(tmp_path)).form) == said


def test_what_a_tokenizer_joins_across_the_boundary_is_counted() -> None:
    core = tokenizer(across=True)
    asked = "安在北京。安的出生地是："
    assert len(core.tokenize(f"{asked}北京")) < len(core.tokenize(asked)) + len(
        core.tokenize("北京")
    )
    assert counted(CandidateHead(PLACES, ASKED, "sum"), ASKED, core) == len(PLACES)


def test_the_address_says_so_and_that_of_others_is_what_it_was(
    write: Write, tmp_path: Path
) -> None:
    decoder = write_decoder(tmp_path / "model", "llama")
    record = {
        "text": "Ann in Rome.",
        "mentions": [
            {"start": 0, "end": 3, "role": "head"},
            {"start": 7, "end": 11, "role": "tail"},
        ],
        "label": "near",
    }
    found = {}
    for prompt in ("{text} {head} is", "{text} {head}："):
        write(
            "card.yaml",
            "title: R\nfamily: relation classification\nlicence: none\n"
            f'prompt: "{prompt}"\nprompt_alone: it\n',
        )
        for split in Split:
            write(f"{split}.jsonl", [record])
        values = {
            "task": "custom",
            "data": str(tmp_path),
            "backbone": str(decoder),
            "tuning": "prompted",
            "method": "none",
            "setting": "general",
            "knowledge": None,
            "control": "none",
            "seed": 0,
        }
        parts = Parts(RunSpec.model_validate(values))
        found[prompt] = model_inputs(parts)["prompt"]
    assert [said[2:] for said in found.values()] == [[], ["joined"]]


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize("kind", [Options, Verdicts])
def test_all_ways_to_ask_can_be_closed(kind: type[Prompt]) -> None:
    core = tokenizer(across=False)
    prompt = kind("{text}{head}是：", words={"a": "北京", "b": "上海"})
    assert prompt.closed
    if isinstance(prompt, Options):
        tree = LetterHead(("a", "b"), prompt, "sum")._tree(core)
        first = core.convert_ids_to_tokens(tree.tokens.tolist())[0]
        assert first == core.tokenize("：A")[1]


def test_a_statement_follows_a_text_of_a_script_without_blanks_without_one(
    write: Write, tmp_path: Path
) -> None:
    core = tokenizer(across=False)
    prompt = Prompt("{text}", statements={"北京": "{head}的出生地是北京", "上海": "{head}在上海。"})
    head = StatementHead(PLACES, prompt, "sum")
    told = example("北京")
    assert prompt.lead(told) == "。"
    tree = _Statements(prompt, core, [told], [PLACES])[0]
    whole = prompt.shown(told, prompt.answer(told, "北京"))
    assert whole is not None
    assert whole.text == "安在北京。安的出生地是北京"
    before = core(told.text)["input_ids"]
    behind = core(whole.text)["input_ids"][len(before) :]
    assert core(whole.text)["input_ids"][: len(before)] == before
    assert set(behind[:-1]) <= {*tree.tokens.tolist()}  # the last is said, and not read
    assert behind[0] in tree.tokens.tolist()
    blank = core(" 安")["input_ids"][0]
    assert blank not in tree.tokens.tolist()
    assert counted(head, prompt, core) == 0
    english = replace(told, text="Ann in Rome.", mentions=())
    assert prompt.lead(english) == " "
    assert not prompt.joins(english)
    roles = [{"start": 0, "end": 1, "role": role} for role in ("head", "tail")]
    for text, joined in (("安在北京。", True), ("Ann in Rome.", False)):
        record = {"text": text, "mentions": roles, "label": "P1"}
        write(
            "card.yaml",
            "title: R\nfamily: relation classification\nlicence: none\n"
            'statements: {P1: "{head} flows."}\n',
        )
        for split in Split:
            write(f"{split}.jsonl", [record])
        assert Custom(str(tmp_path)).form.get("joined", False) == joined
