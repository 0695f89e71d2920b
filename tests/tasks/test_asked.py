"""Decoders that are asked for letters, and for yes or no, by the option `ask` of their tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Lists, Options, Split, Verdicts
from kbench.errors import UsageError
from kbench.grid.plan import Place
from kbench.model.choices import LetterHead, VerdictHead
from kbench.model.listing import ListHead
from kbench.parts.find import find_task
from kbench.parts.run_parts import Parts
from kbench.results.rescoring import by_scorer
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Results, Status
from kbench.task import RelationTask, TypingTask
from tests.architectures import write_decoder
from tests.calling import call
from tests.grid.toygrid import grid, run

Write = Callable[[str, Any], Path]
LIGHT = {"learning_rate": 1e-3, "epochs": 1, "batch_size": 8}
RELATION = {
    "text": "Rhine flows through Cologne.",
    "mentions": [
        {"start": 0, "end": 5, "role": "head"},
        {"start": 20, "end": 27, "role": "tail"},
    ],
    "label": "P1",
}
TYPES = {
    "text": "Rhine flows.",
    "mentions": [{"start": 0, "end": 5, "role": "target"}],
    "label": ["river"],
}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("asked"), "llama", max_position_embeddings=512)


@pytest.mark.usefixtures("toy_tasks")
@pytest.mark.parametrize(
    ("task", "ask"),
    [("toy-typing", "yes-no"), ("toy-relations", "letters")],
    ids=["yes-no", "letters"],
)
def test_a_run_is_stored_and_scored_again(
    toy_folder: Path, decoder: Path, tmp_path: Path, task: str, ask: str
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    found = {}
    for scorer in ("pmi", "sum"):
        options: dict[str, Any] = {
            "task": {task: {"ask": ask}},
            "tuning": {
                "prompted": {"scorer": scorer, "shots": 2},
                "lora": {**LIGHT, "scorer": scorer},
            },
            "method": {"map-tuning": {"start": "scratch", "task-specific": LIGHT}},
        }
        values = {"task": task, "backbone": str(decoder), "options": options, "limit": 12}
        for tuning in ("prompted", "lora"):
            results = run(grid(toy_folder, **values, tuning=tuning, control="none"), place)
            assert [result.status for result in results] == [Status.OK] * 2, results[0].reason
            found[scorer, tuning] = results
    stored = Results(place.out)
    # Nothing was trained by a scorer: one is the other scored again, to the bit.
    one, other = found["pmi", "prompted"][0], found["sum", "prompted"][0]
    predictions = stored.predictions(one)
    assert predictions is not None
    assert predictions.likelihoods is not None
    assert predictions.likelihoods.scorers == ("sum", "pmi")
    scored = by_scorer(one, predictions, "sum")
    assert scored
    assert {name: score.value for name, score in scored.items()} == {
        name: other.metrics[name].value for name in scored
    }


@pytest.mark.usefixtures("toy_tasks")
def test_types_are_written_and_what_is_learnt_is_written_so(
    toy_folder: Path, decoder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    learnt = {"learning_rate": 3e-3, "epochs": 8, "batch_size": 8}
    found = {}
    for tuning, own in (("prompted", {"shots": 2}), ("full", learnt)):
        options: dict[str, Any] = {
            "task": {"toy-typing": {"ask": "list"}},
            "tuning": {tuning: own},
            "method": {"map-tuning": {"start": "scratch", "task-specific": LIGHT}},
        }
        values = {"task": "toy-typing", "backbone": str(decoder), "options": options}
        results = run(grid(toy_folder, **values, tuning=tuning, control="none"), place)
        assert [result.status for result in results] == [Status.OK] * 2, results[0].reason
        found[tuning] = results
    labels = {*find_task("toy-typing", None, None).examples(Split.TRAIN)[0].labels}
    stored = Results(place.out)
    predictions = stored.predictions(found["full"][0])
    assert predictions is not None
    assert predictions.likelihoods is None
    known = {label for example in predictions.labels for label in example}
    assert labels <= known
    said = [{*each} for each in predictions.predictions]
    assert sum(each <= known for each in said) > 0.9 * len(said)  # it has learnt to write lists
    before, after = (found[tuning][0].metrics for tuning in ("prompted", "full"))
    main = next(iter(after))
    assert after[main].value > before[main].value + 0.1


def parts_of(folder: Path, decoder: Path, task: str, ask: str, **prompted: Any) -> Parts:
    values = {
        "task": task,
        "data": str(folder) if task == "custom" else None,
        "backbone": str(decoder),
        "tuning": "prompted",
        "method": "none",
        "setting": Setting.GENERAL,
        "knowledge": None,
        "control": Control.NONE,
        "seed": 0,
        "options": {"task": {task: {"ask": ask}}, "tuning": {"prompted": prompted}},
    }
    return Parts(RunSpec.model_validate(values))


@pytest.mark.usefixtures("toy_tasks")
def test_demonstrations_say_yes_and_no_in_turn(toy_folder: Path, decoder: Path) -> None:
    shown = parts_of(toy_folder, decoder, "toy-typing", "yes-no", shots=6).demonstrations
    answers = [answer.rpartition("? Answer: ") for _, answer in shown]
    assert sorted(verdict for *_, verdict in answers) == ["no"] * 3 + ["yes"] * 3
    for (example, _), (label, _, verdict) in zip(shown, answers, strict=True):
        assert (label in example.labels) == (verdict == "yes")


@pytest.mark.usefixtures("toy_tasks")
def test_demonstrations_list_what_holds(toy_folder: Path, decoder: Path) -> None:
    parts = parts_of(toy_folder, decoder, "toy-typing", "list", shots=4)
    form = parts.task.asked
    assert isinstance(form, Lists)
    assert isinstance(parts.task, TypingTask)
    assert form.among == parts.task.labels
    for example, answer in parts.demonstrations:
        assert form.read(answer) == tuple(sorted(example.labels))


@pytest.mark.usefixtures("toy_tasks")
def test_demonstrations_have_letters_of_both_lists(toy_folder: Path, decoder: Path) -> None:
    parts = parts_of(toy_folder, decoder, "toy-relations", "letters", shots=12)
    assert isinstance(parts.task, RelationTask)
    names = [label.replace("-", " ") for label in parts.task.labels]
    begins = set()
    for example, answer in parts.demonstrations:
        *lines, said = answer.split("\n")
        listed = dict(line.split(". ") for line in lines)
        assert listed[said.removeprefix("Answer: ")] == str(example.label).replace("-", " ")
        assert sorted(listed.values()) == sorted(names)
        begins.add(listed["A"])
    assert begins == {names[0], names[-1]}


def custom(write: Write, card: str, record: dict[str, Any], labels: list[Any]) -> None:
    write("card.yaml", card)
    records = [{**record, "label": label} for label in labels]
    for split in Split:
        write(f"{split}.jsonl", records)


def test_a_card_says_the_words_and_what_stands_before(write: Write, tmp_path: Path) -> None:
    relations = "title: R\nfamily: relation classification\nlicence: none\n"
    card = relations + 'words: {P1: flows through}\nstatements: {P1: "{head} flows."}\n'
    custom(write, card, RELATION, ["P1"])
    task = find_task("custom", str(tmp_path), {"ask": "letters"})
    assert isinstance(task.prompt, Options)
    assert task.prompt.candidates(["P1"])[0] == "A. flows through\nAnswer: A"
    assert task.prompt.ask == RelationTask.ways["letters"].ask  # and nothing of statements
    assert isinstance(task.prompted_head("pmi"), LetterHead)
    write("card.yaml", card + 'prompt: "{text} Which one of {head} to {tail}?"\n')
    task = find_task("custom", str(tmp_path), {"ask": "letters"})
    assert isinstance(task.prompt, Options)
    put = task.prompt.put(task.examples(Split.TEST)[0])
    assert put is not None
    assert put.text == "Rhine flows through Cologne. Which one of Rhine to Cologne?"
    assert task.prompt.nothing == "Which one of it to it?"

    types = "title: T\nfamily: entity typing\nlicence: none\n"
    custom(write, types, TYPES, [["river"]])
    task = find_task("custom", str(tmp_path), {"ask": "yes-no"})
    assert isinstance(task.prompt, Verdicts)
    assert task.prompt.ask == TypingTask.ways["yes-no"].ask
    assert isinstance(task.prompted_head("pmi"), VerdictHead)
    task = find_task("custom", str(tmp_path), {"ask": "list"})
    assert isinstance(task.prompted_head("pmi"), ListHead)
    write("card.yaml", types + 'prompt: "{text} Of {labels}, {target} is"\n')
    task = find_task("custom", str(tmp_path), {"ask": "list"})
    assert task.asked is not None
    assert task.asked.nothing == "Of , it is"
    put = task.asked.put(task.examples(Split.TEST)[0])
    assert put is not None
    assert put.text == "Rhine flows. Of river, Rhine is"
    with pytest.raises(UsageError, match="expected a prompt without, or ask=list"):
        find_task("custom", str(tmp_path), {"ask": "name"})


@pytest.mark.parametrize(
    ("family", "ask", "record", "label"),
    [
        ("relation classification", "yes-no", RELATION, "P1"),
        ("relation classification", "list", RELATION, "P1"),
        ("entity typing", "letters", TYPES, ["river"]),
    ],
)
def test_what_another_family_is_asked_is_refused(
    write: Write, tmp_path: Path, family: str, ask: str, record: dict[str, Any], label: Any
) -> None:
    custom(write, f"title: T\nfamily: {family}\nlicence: none\n", record, [label])
    with pytest.raises(UsageError, match=f"^ask={ask} is of .*, and the card of T says {family}$"):
        find_task("custom", str(tmp_path), {"ask": ask})


@pytest.mark.usefixtures("toy_tasks")
def test_what_cannot_be_asked_so_is_one_clear_line(
    write: Write,
    tmp_path: Path,
    decoder: Path,
    toy_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = [f"number {n}" for n in range(27)]
    custom(write, "title: R\nfamily: relation classification\nlicence: none\n", RELATION, many)
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    values: dict[str, Any] = {"backbone": str(decoder), "tuning": "prompted", "method": "none"}
    options = {"task": {"custom": {"ask": "letters"}}}
    (result,) = run(
        grid(toy_folder, **values, task="custom", data=str(tmp_path), options=options), place
    )
    assert result.status != Status.OK
    assert "27 labels; expected 26 at most" in str(result.reason)
    asked = ["--task", "custom", "--data", str(tmp_path), "--backbone", str(decoder)]
    asked += ["--tuning", "prompted", "--method", "none", "--set", "task.custom.ask=letters"]
    status, out, err = call(capsys, "run", *asked, "--dry-run", "--out", str(tmp_path / "dry"))
    assert status == 2, err
    assert out.count("27 labels; expected 26 at most") == 1
    with pytest.raises(UsageError, match="ask is 'letter'; expected name or letters"):
        find_task("toy-relations", None, {"ask": "letter"})


@pytest.mark.usefixtures("toy_tasks")
def test_a_model_that_is_asked_by_no_prompt_says_so(toy_folder: Path, tmp_path: Path) -> None:
    """Its row would be called letters, and be that of the head that it always has."""
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    for ask, status in (("letters", Status.SKIPPED), ("name", Status.OK)):
        options = {"task": {"toy-relations": {"ask": ask}}, "tuning": {"full": LIGHT}}
        (result,) = run(grid(toy_folder, method="none", options=options, limit=8), place)
        assert result.status == status, result.reason
        assert ("ask=letters says how a model is asked by a prompt" in str(result.reason)) == (
            ask == "letters"
        )
