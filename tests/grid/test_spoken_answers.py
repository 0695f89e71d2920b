"""Questions answered in a model's own words, and by ranking what it might say: whole runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pytest
import transformers

from kbench.data import SCORERS, Example, Split, TaskCard
from kbench.grid.plan import Place
from kbench.parts.catalogue import Kind
from kbench.results.comparison import rights
from kbench.results.rescoring import again, by_scorer
from kbench.spec import Control
from kbench.store import Result, Results, Status
from kbench.task import QuestionTask
from kbench.testing.registration import registered
from kbench.testing.toys import ToyQuestions
from tests.grid.test_planted_decoders import score, write_decoder
from tests.grid.toygrid import grid, run

pytestmark = pytest.mark.usefixtures("toy_tasks")

RECIPE = {"learning_rate": 2e-2, "epochs": 12, "batch_size": 16, "dropout": 0.0}
TRAINED = {
    "tuning": {"full": {"learning_rate": 3e-3, "epochs": 12, "batch_size": 16}},
    "method": {"map-tuning": {"start": "scratch", "task-specific": RECIPE}},
}
UNTRAINED = {"method": {"map-tuning": {"start": "scratch", "task-specific": {"epochs": 1}}}}


@final
class ToyAnswers(QuestionTask):
    """The class of a toy entity in two words, or three."""

    card: ClassVar[TaskCard] = ToyQuestions.card

    def load(self, split: Split) -> Sequence[Example]:
        return [
            replace(
                example,
                label=(f"{example.label[0]} thing", f"a {example.label[0]} thing"),
                relation=("color", "looks")[number % 2],
            )
            for number, example in enumerate(ToyQuestions().load(split))
        ]


@pytest.fixture
def decoder(toy_folder: Path, tmp_path: Path) -> Path:
    """A random decoder that knows the words of the toy world, and how a text ends."""
    folder = write_decoder(tmp_path / "llama", toy_folder, "llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def offered() -> Iterator[None]:
    with registered(Kind.TASKS, **{"toy-answers": f"{__name__}:ToyAnswers"}):
        yield


def asked(toy_folder: Path, decoder: Path, answers: str, **changes: Any) -> Any:
    values = {"backbone": str(decoder), "tuning": "prompted", "options": TRAINED, **changes}
    options = {**values.pop("options"), "task": {"toy-answers": {"answers": answers}}}
    return grid(toy_folder, task="toy-answers", options=options, **values)


def check_again(place: Place, results: list[Result]) -> None:
    """All scores follow from what is stored."""
    store = Results(place.out)
    for result in results:
        predictions = store.predictions(result)
        assert predictions is not None
        assert result.main_metric is not None
        scores = again(result, predictions)
        assert {each.name for each in scores} >= result.metrics.keys()
        assert not [each.differs for each in scores if each.differs]
        right = rights(result, predictions)
        assert sum(right) / len(right) == pytest.approx(result.metrics[result.main_metric].value)


def test_answers_of_several_tokens_are_said_by_a_decoder(
    decoder: Path, toy_folder: Path, place: Place
) -> None:
    results = run(asked(toy_folder, decoder, "open", tuning="full", control="none,shuffled"), place)
    assert score(results, "map-tuning") > 0.7
    assert score(results, "map-tuning", Control.SHUFFLED) < 0.5
    assert score(results, "none") < 0.5
    check_again(place, results)
    own = next(r for r in results if r.spec.method == "map-tuning" and r.spec.control == "none")
    assert own.main_metric == "has_answer"
    names = ("has_answer", "em", "f1", "popqa", "contains")
    assert [*own.metrics] == [name for m in names for name in (m, f"{m}_chance")]
    assert own.metrics["em"].value > 0.7  # the end of a text is learnt with the answer
    assert 0.1 < own.metrics["em_chance"].value < 0.45
    assert own.counts["test_kept"] == own.counts["test_total"]


def test_ranked_answers_have_several_names(decoder: Path, toy_folder: Path, place: Place) -> None:
    results = run(
        asked(toy_folder, decoder, "ranked", tuning="full", control="none,shuffled"), place
    )
    assert score(results, "map-tuning") > 0.7
    assert score(results, "map-tuning", Control.SHUFFLED) < 0.5
    check_again(place, results)
    own = next(r for r in results if r.spec.method == "map-tuning" and r.spec.control == "none")
    assert own.metrics["hits_at_1"].variant == "hits-at-1:128-of-train"
    assert own.metrics["mrr"].value >= own.metrics["hits_at_1"].value
    base = next(r for r in results if r.spec.method == "none")
    assert base.metrics["mrr"].value > base.metrics["hits_at_1"].value
    assert own.counts["answers_among_candidates"] == own.counts["test_total"]
    assert own.metrics.keys() == {"hits_at_1", "mrr"}  # by `sum`, which is what trains


def test_ranked_answers_are_scored_again_by_any_scorer(
    decoder: Path, toy_folder: Path, place: Place
) -> None:
    by = {}
    for scorer in SCORERS:
        options = {**UNTRAINED, "tuning": {"prompted": {"scorer": scorer}}}
        (by[scorer],) = run(
            asked(toy_folder, decoder, "ranked", method="none", options=options), place
        )
    assert len({json.dumps(r.metrics, default=str) for r in by.values()}) > 1
    store = Results(place.out)
    for result in by.values():
        check_again(place, [result])
        found = store.predictions(result)
        assert found is not None
        assert ("hits_at_1_by_sum" in result.metrics) == (result is not by["sum"])
        for scorer, other in by.items():
            wanted = store.predictions(other)
            assert wanted is not None
            assert found.by(scorer).predictions == wanted.predictions
            assert by_scorer(result, found, scorer) == {
                name: other.metrics[name] for name in ("hits_at_1", "mrr")
            }


def test_a_ranked_run_that_trained_knows_its_names_after_nothing(
    decoder: Path, toy_folder: Path, place: Place
) -> None:
    told = []
    for scorer in ("sum", "pmi"):
        tuned = {"full": {"learning_rate": 3e-3, "epochs": 1, "batch_size": 16, "scorer": scorer}}
        (result,) = run(
            asked(
                toy_folder,
                decoder,
                "ranked",
                tuning="full",
                method="none",
                options={**UNTRAINED, "tuning": tuned},
            ),
            place,
        )
        found = Results(place.out).predictions(result)
        assert found is not None
        assert found.likelihoods is not None
        assert found.by("pmi").likelihoods is not None
        told.append(found.likelihoods.nothing)
    assert told[0].any()
    assert np.array_equal(*told)  # of the backbone, before anything trained


def test_each_way_is_a_run_of_its_own(decoder: Path, toy_folder: Path, place: Place) -> None:
    ids = set()
    for options in (
        {},
        {"answers": "token"},
        {"answers": "open"},
        {"answers": "open", "tokens": 4},
        {"answers": "ranked"},
        {"answers": "ranked", "candidates": 3},
    ):
        chosen = grid(
            toy_folder,
            task="toy-answers",
            method="none",
            backbone=str(decoder),
            tuning="prompted",
            options={"task": {"toy-answers": options}},
        )
        (result,) = run(chosen, place)
        ids.add(result.id)
        if options.get("answers", "token") == "token":  # no answer of these is one token
            assert result.status == Status.REFUSED
            assert "none of 96 test examples is usable" in result.reason
        else:
            assert result.status == Status.OK, result.reason
    assert len(ids) == 5


def test_the_size_of_a_batch_changes_no_answer(
    decoder: Path, toy_folder: Path, tmp_path: Path
) -> None:
    said = []
    for size in (1, 7, None):
        place = Place(tmp_path / f"out{size}", tmp_path / "artifacts", "cpu", evaluation_batch=size)
        results = run(asked(toy_folder, decoder, "open", options=UNTRAINED, control="none"), place)
        stored = [Results(place.out).predictions(result) for result in results]
        said.append([each and each.predictions for each in stored])
    assert said[0] == said[1] == said[2]
    assert any(len(str(answer).split()) > 3 for answer in said[0][0] or ())


def test_an_encoder_says_that_it_answers_no_open_question(toy_folder: Path, place: Place) -> None:
    for answers in ("open", "ranked"):
        chosen = asked(
            toy_folder, toy_folder / "bert", answers, tuning="full", method="none", control="none"
        )
        (result,) = run(chosen, place)
        assert result.status == Status.SKIPPED
        assert "is for models that read from left to right" in result.reason
        assert "\n" not in result.reason


def test_a_prompt_that_does_not_fit_is_refused(
    decoder: Path, toy_folder: Path, place: Place
) -> None:
    chosen = grid(
        toy_folder,
        task="toy-answers",
        method="none",
        backbone=str(decoder),
        tuning="prompted",
        options={"task": {"toy-answers": {"answers": "open", "tokens": 60}}},
    )
    (result,) = run(chosen, place)
    assert result.status == Status.REFUSED
    assert "the window has room for 4 beside an answer of 60" in result.reason
