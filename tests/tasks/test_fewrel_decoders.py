"""Few-shot FewRel on models that read from left to right: supports are demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbench.data import NONE_OF_THE_ABOVE, SCORERS, Split
from kbench.encoding import Batch, Ranked, inner_tokens
from kbench.errors import InputError, UsageError
from kbench.grid.plan import Place
from kbench.model import EpisodeHead, LanguageModel, StatementHead, beginnings
from kbench.parts.run_parts import Parts
from kbench.pipeline.addresses import plug_inputs
from kbench.pipeline.models import tune
from kbench.pipeline.plugs import fit
from kbench.pipeline.prediction import predict
from kbench.pipeline.session import Session
from kbench.results.rescoring import again, by_scorer
from kbench.spec import Control, RunSpec, Setting
from kbench.store import Artifacts, Results, Status
from kbench_tasks.fewrel import FORMS
from kbench_tasks.fewrel_relations import NAMED, STATED
from tests.architectures import write_decoder
from tests.grid.toygrid import grid, run
from tests.tasks.test_fewrel import KNOWN, SMALL

Write = Callable[[str, Any], Path]
CPU = torch.device("cpu")
RELATIONS = sorted(NAMED.words)


def sentence(relation: str, number: int) -> dict[str, Any]:
    return {
        "tokens": ["Town", str(number), "of", relation, "."],
        "h": ["town", KNOWN[number % len(KNOWN)], [[0, 1]]],
        "t": [relation, "I0", [[3]]],
    }


def relations(names: list[str]) -> dict[str, list[dict[str, Any]]]:
    return {name: [sentence(name, n) for n in range(9)] for name in names}


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> str:
    write("fewrel/train_wiki.json", relations(RELATIONS[:14]))
    write("fewrel/val_wiki.json", relations(RELATIONS[20:31]))
    return str(tmp_path)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("few"), "llama", max_position_embeddings=4096)


def parts_of(folder: str, decoder: Path, knowledge: Path | None = None, **changes: Any) -> Parts:
    task = {**SMALL, "episodes": 1, "ask": "name", **changes.pop("task", {})}
    limit = changes.pop("limit", None)
    values = {
        "task": "fewrel",
        "data": folder,
        "backbone": str(decoder),
        "tuning": "prompted",
        "method": "map-tuning" if knowledge else "none",
        "setting": Setting.TASK_SPECIFIC if knowledge else Setting.GENERAL,
        "knowledge": str(knowledge) if knowledge else None,
        "control": Control.NONE,
        "seed": 0,
        "limit": limit,
        "options": {"task": {"fewrel": task}, "tuning": {"prompted": changes}},
    }
    return Parts(RunSpec.model_validate(values))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(Artifacts(tmp_path / "artifacts"), CPU)


def test_an_episode_is_a_prompt_that_its_queries_share(
    folder: str, decoder: Path, session: Session
) -> None:
    parts = parts_of(folder, decoder)
    model, _ = tune(session, parts)
    prepared = session.prepared(parts, Split.TEST, model, injected=False)
    inputs = prepared.inputs
    assert isinstance(inputs, Ranked)
    tokenizer = model.lm.tokenizer
    texts = [
        tokenizer.decode(inputs.inputs.ids[slice(*inputs.inputs.bounds[n : n + 2])])
        for n in range(len(inputs))
    ]
    for number, example in enumerate(prepared.examples):
        own = [candidate.label for candidate in example.candidates]
        assert inputs.candidates[number] == tuple(own)
        *shown, query = texts[number].split("\n\n")
        shots = len(example.candidates[0].support)
        assert len(shown) == len(own) * shots
        # One of each relation, then a second of each, with its name behind it.
        for at, text in enumerate(shown):
            candidate = example.candidates[at % len(own)]
            support = candidate.support[at // len(own)]
            assert support.text in text
            assert text.endswith(f" is {NAMED.words[candidate.label]}")
        assert example.text in query
        assert query.endswith(" is")
    first = [
        t.rpartition("\n\n")[0]
        for t, e in zip(texts, prepared.examples, strict=True)
        if "5w1s/0/" in e.id
    ]
    assert len(first) == 10
    assert len({*first}) == 1
    assert prepared.counts["test_demonstrations_without_room"] == 0


def test_supports_carry_the_plug_as_the_query_does(
    folder: str, decoder: Path, toy_folder: Path, session: Session
) -> None:
    parts = parts_of(folder, decoder, toy_folder / "kb")
    model, _ = tune(session, parts)
    prepared = session.prepared(parts, Split.TEST, model, injected=True)
    base = parts.base_knowledge
    assert base is not None
    assert isinstance(prepared.inputs, Ranked)
    inputs = prepared.inputs.inputs
    for number, example in enumerate(prepared.examples):
        shots = range(len(example.candidates[0].support))
        texts = [c.support[shot] for shot in shots for c in example.candidates] + [example]
        rows = base.rows([m.entity for text in texts for m in text.mentions])
        own = slice(*inputs.slot_bounds[number : number + 2])
        assert inputs.slot_rows[own].tolist() == [row for row in rows.tolist() if row >= 0]


def test_the_candidates_are_those_of_the_episode(
    folder: str, decoder: Path, session: Session
) -> None:
    said = {}
    for scorer in SCORERS:
        parts = parts_of(folder, decoder, scorer=scorer, limit=6)
        model, _ = tune(session, parts)
        prepared = session.prepared(parts, Split.TEST, model, injected=False)
        said[scorer] = predict(model, prepared.inputs, CPU)
        for label, example in zip(said[scorer].labels, prepared.examples, strict=True):
            assert label in {candidate.label for candidate in example.candidates}
    for one in said.values():
        assert one.likelihoods is not None
        for scorer, other in said.items():
            assert one.likelihoods.by(scorer).predicted() == other.labels
    assert len({tuple(each.labels) for each in said.values()}) > 1


@pytest.mark.parametrize("ask", ["name", "statement"])
def test_the_supports_of_an_episode_are_read_once_for_its_queries(
    folder: str,
    decoder: Path,
    toy_folder: Path,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    ask: str,
) -> None:
    parts = parts_of(folder, decoder, toy_folder / "kb", task={"ask": ask})
    model, _ = tune(session, parts)
    prepared = session.prepared(parts, Split.TEST, model, injected=True)
    plug, _ = fit(session, parts, parts.spec.setting, model)
    episodes = {example.id.rpartition("/")[0] for example in prepared.examples}
    begun: list[int] = []
    tokens: list[int] = []
    first, whole = beginnings._begun, LanguageModel.forward

    def counted(lm: LanguageModel, batch: Batch, *more: Any) -> Any:
        tokens.append(batch.ids.numel())
        return whole(lm, batch, *more)

    monkeypatch.setattr(
        beginnings, "_begun", lambda *given: begun.append(given[-1]) or first(*given)
    )
    monkeypatch.setattr(LanguageModel, "forward", counted)
    with plug.attach(model.lm):
        once = predict(model, prepared.inputs, CPU).likelihoods
        assert len({*begun}) == len(begun) == len(episodes)
        shared, tokens[:] = sum(tokens), []
        monkeypatch.setattr(beginnings, "beginning_of", lambda *_: None)
        monkeypatch.setattr("kbench.pipeline.prediction.sharing", lambda _: nullcontext())
        each = predict(model, prepared.inputs, CPU).likelihoods
    assert once is not None
    assert each is not None
    assert np.allclose(once.said, each.said, rtol=1e-5, atol=1e-5)
    assert np.allclose(once.nothing, each.nothing, rtol=1e-5, atol=1e-5)
    assert shared < sum(tokens)


def test_what_is_said_of_a_candidate_is_what_a_text_of_its_own_says(
    folder: str, decoder: Path, session: Session
) -> None:
    parts = parts_of(folder, decoder, limit=2)
    model, _ = tune(session, parts)
    inputs = session.prepared(parts, Split.TEST, model, injected=False).inputs
    assert isinstance(inputs, Ranked)
    found = predict(model, inputs, CPU).likelihoods
    assert found is not None
    text = inputs.inputs.ids[slice(*inputs.inputs.bounds[:2])].tolist()
    head = model.head
    assert isinstance(head, EpisodeHead)
    tokens = dict(zip(head.labels, head.spelled(model.lm.tokenizer), strict=True))
    for at, name in enumerate(inputs.candidates[0]):
        wanted = alone(model.lm, text, tokens[name])
        assert found.said[0, at] == pytest.approx(wanted, abs=1e-3)


def test_none_of_the_above_is_a_candidate_where_it_is_an_answer(
    folder: str, decoder: Path, session: Session
) -> None:
    parts = parts_of(folder, decoder, task={"none_rate": 0.5})
    model, _ = tune(session, parts)
    prepared = session.prepared(parts, Split.TEST, model, injected=False)
    assert all(own[-1] == NONE_OF_THE_ABOVE for own in prepared.inputs.candidates)
    gold = prepared.gold.targets
    none = [label == NONE_OF_THE_ABOVE for label in prepared.gold.labels]
    ways = [len(example.candidates) for example in prepared.examples]
    assert any(none)
    assert np.array_equal(gold[none, 0], np.array(ways)[none])


def test_runs_with_a_plug_and_tuned(
    folder: str, decoder: Path, toy_folder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    few = {**SMALL, "episodes": 1, "ask": "name", "train_episodes": 1, "dev_episodes": 1}
    light = {"learning_rate": 1e-3, "epochs": 1, "batch_size": 8}
    values = {
        "task": "fewrel",
        "data": folder,
        "limit": 8,
        "backbone": str(decoder),
        "options": {
            "task": {"fewrel": few},
            "tuning": {"lora": {**light, "scorer": "pmi"}},
            "method": {"map-tuning": {"start": "scratch", "task-specific": light}},
        },
    }
    for tuning in ("prompted", "lora"):
        results = run(grid(toy_folder, **values, tuning=tuning, control="none"), place)
        for result in results:
            assert result.status == Status.OK, result.reason
            assert sum(result.metrics[f"accuracy_{form}"].n for form in FORMS) == 8
            assert result.coverage is None or result.coverage.examples > 0
            found = Results(place.out).predictions(result)
            assert found is not None
            assert found.by("sum").likelihoods is not None


STATEMENT = {"ask": "statement"}
NAMES = {"task": {"fewrel": {**SMALL, "ask": "name"}}}


def test_statements_are_shown_and_compared(folder: str, decoder: Path, session: Session) -> None:
    said = {}
    for scorer in ("sum", "pmi"):
        parts = parts_of(folder, decoder, task=STATEMENT, scorer=scorer, limit=4)
        model, _ = tune(session, parts)
        prepared = session.prepared(parts, Split.TEST, model, injected=False)
        said[scorer] = predict(model, prepared.inputs, CPU)
    inputs = prepared.inputs
    assert isinstance(inputs, Ranked)
    tokenizer = model.lm.tokenizer
    for number, example in enumerate(prepared.examples):
        text = inputs.inputs.ids[slice(*inputs.inputs.bounds[number : number + 2])].tolist()
        *shown, query = tokenizer.decode(text).split("\n\n")
        candidate = example.candidates[0]
        assert shown[0].endswith(STATED.answer(candidate.support[0], candidate.label))
        assert query == example.text
        own = [STATED.answer(example, c.label) for c in example.candidates]
        assert all(example.text[m.start : m.end] in own[0] for m in example.mentions)
        found = said["pmi"].likelihoods
        assert found is not None
        begin = tokenizer("a")["input_ids"][:1]
        for at, tokens in enumerate(inner_tokens(tokenizer, own)):
            assert found.said[number, at] == pytest.approx(alone(model.lm, text, tokens), abs=1e-3)
            bare = alone(model.lm, begin, tokens)
            assert found.nothing[number, at] == pytest.approx(bare, abs=1e-3)
    for one in said.values():
        assert one.likelihoods is not None
        assert one.likelihoods.scorers == ("sum", "pmi")
        for scorer, other in said.items():
            assert one.likelihoods.by(scorer).predicted() == other.labels
    with pytest.raises(UsageError, match="scorer mean wants what was not stored"):
        found.by("mean")
    with pytest.raises(UsageError, match="scorer is mean, and relations are told by statements"):
        tune(session, parts_of(folder, decoder, task=STATEMENT, scorer="mean"))


@pytest.mark.parametrize("method", ["k-adapter", "adapter-no-knowledge"])
def test_a_plug_that_works_on_every_token_has_no_say_in_what_comes_after_nothing(
    folder: str, decoder: Path, toy_folder: Path, session: Session, method: str
) -> None:
    spec = parts_of(folder, decoder, toy_folder / "kb", task=STATEMENT, scorer="pmi", limit=2).spec
    parts = Parts(spec.model_copy(update={"method": method}))
    model, _ = tune(session, parts)
    inputs = session.prepared(parts, Split.TEST, model, injected=True).inputs
    plug = parts.method.build(model.lm, parts.base_knowledge).eval()
    torch.manual_seed(0)
    for parameter in plug.parameters():  # far from the identity
        torch.nn.init.normal_(parameter, std=0.3)
    bare = predict(model, inputs, CPU).likelihoods
    with plug.attach(model.lm):
        attached = predict(model, inputs, CPU).likelihoods
    again = predict(model, inputs, CPU).likelihoods
    assert bare is not None
    assert attached is not None
    assert again is not None
    assert np.abs(attached.said - bare.said).max() > 0.1
    assert np.array_equal(attached.nothing, bare.nothing)
    assert np.array_equal(again.said, bare.said)
    # Such runs were others before; those of other methods are what they were.
    by_name = Parts(spec.model_copy(update={"method": method, "options": NAMES}))
    slots = Parts(spec)
    keys = [plug_inputs(each, Setting.TASK_SPECIFIC).keys() for each in (parts, by_name, slots)]
    assert ["nothing" in each for each in keys] == [True, False, False]


def alone(lm: LanguageModel, text: list[int], tokens: list[int]) -> float:
    """What a model says of tokens after a text, in a row of their own."""
    with torch.no_grad():
        logits = lm.network(torch.tensor([text + tokens])).logits[0].log_softmax(-1)
    return sum(logits[len(text) - 1 + n, token].item() for n, token in enumerate(tokens))


def test_a_run_of_statements_is_stored_and_scored_again(
    folder: str, decoder: Path, toy_folder: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu")
    light = {"learning_rate": 1e-3, "epochs": 1, "batch_size": 4}
    values = {
        "task": "fewrel-supervised",
        "data": folder,
        "limit": 6,
        "backbone": str(decoder),
        "control": "none",
        "options": {
            "tuning": {"prompted": {"shots": 2}, "lora": light},
            "method": {"map-tuning": {"start": "scratch", "task-specific": light}},
        },
    }
    for tuning in ("prompted", "lora"):
        for result in run(grid(toy_folder, **values, tuning=tuning), place):
            assert result.status == Status.OK, result.reason
            found = Results(place.out).predictions(result)
            assert found is not None
            assert not any(each.differs for each in again(result, found))
            assert found.likelihoods is not None
            assert found.likelihoods.nothing.shape == found.likelihoods.said.shape
            assert by_scorer(result, found, "sum")
            assert np.array_equal(found.at([2]).likelihoods.said, found.likelihoods.said[2:3])


def test_a_label_without_a_statement_is_refused(folder: str, decoder: Path) -> None:
    with pytest.raises(InputError, match="1 of 2 labels have no statement, such as 'P99'"):
        StatementHead(["P17", "P99"], STATED, "sum")


def test_shots_are_those_of_the_episode(folder: str, decoder: Path) -> None:
    with pytest.raises(UsageError, match="every example of task fewrel brings demonstrations"):
        _ = parts_of(folder, decoder, shots=2).demonstrations


def test_labels_that_are_ids_are_refused(
    write: Write, tmp_path: Path, decoder: Path, session: Session
) -> None:
    write("fewrel/train_wiki.json", relations(["P99998", *RELATIONS[:14]]))
    write("fewrel/val_wiki.json", relations(RELATIONS[20:31]))
    with pytest.raises(
        InputError, match=r"1 of 26 labels are ids, such as 'P99998'.*Prompt\(words"
    ):
        tune(session, parts_of(str(tmp_path), decoder))
