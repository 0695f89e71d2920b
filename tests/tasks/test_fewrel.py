from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.data import NONE_OF_THE_ABOVE, Example, Split
from kbench.errors import DataError, UsageError
from kbench.grid.plan import Place
from kbench.parts.find import normalised
from kbench.parts.run_parts import Parts
from kbench.pipeline.addresses import model_inputs
from kbench.results.tables import rows
from kbench.spec import RunSpec, Setting
from kbench.store import Results, Status
from kbench.testing.toys import CLASSES
from kbench_tasks.fewrel import FORMS, FewRel, FewRelPubMed
from tests.grid.toygrid import grid, run

Write = Callable[[str, Any], Path]
KNOWN = tuple(f"class:{name}" for name in CLASSES)
SMALL = {"episodes": 4, "train_episodes": 3, "dev_episodes": 2, "queries": 2}


def sentence(relation: str, number: int) -> dict[str, Any]:
    tokens = ["Town", str(number), "is", "in", relation, "."]
    return {
        "tokens": tokens,
        "h": ["town", KNOWN[number % len(KNOWN)], [[0, 1]]],
        "t": [relation, "I0", [[4]]],
    }


def relations(prefix: str, many: int, sentences: int = 9) -> dict[str, list[dict[str, Any]]]:
    return {
        f"{prefix}{r}": [sentence(f"{prefix}{r}", n) for n in range(sentences)] for r in range(many)
    }


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> str:
    write("fewrel/train_wiki.json", relations("P1", 14))
    write("fewrel/val_wiki.json", relations("P2", 11))
    return str(tmp_path)


def names(found: list[Example]) -> set[str]:
    return {candidate.label for example in found for candidate in example.candidates}


def test_an_episode(folder: str) -> None:
    task = FewRel(folder, SMALL)
    test = task.examples(Split.TEST)
    counts = {form: sum(example.stratum == form for example in test) for form in FORMS}
    assert counts == {"5w1s": 4 * 10, "5w5s": 4 * 10, "10w1s": 2 * 20, "10w5s": 2 * 20}
    for form, (ways, shots) in FORMS.items():
        first = [example for example in test if example.id.startswith(f"test/{form}/0/")]
        assert len(first) == ways * 2
        assert len({id(example.candidates) for example in first}) == 1
        candidates = first[0].candidates
        assert len({candidate.label for candidate in candidates}) == ways
        supports = [e for candidate in candidates for e in candidate.support]
        assert len({e.id for e in supports}) == ways * shots == len(supports)
        assert all(e.label == c.label for c in candidates for e in c.support)
        # Queries are none of the supports, and none comes twice.
        texts = [e.text for e in first]
        assert not {e.text for e in supports} & {*texts}
        assert len({*texts}) == len(texts)
        assert [e.label for e in first] == [c.label for c in candidates for _ in range(2)]
    assert len({example.id for example in test}) == len(test)


def test_relations_of_a_split_are_seen_in_no_other(folder: str) -> None:
    task = FewRel(folder, {**SMALL, "episodes": 40, "train_episodes": 40, "dev_episodes": 40})
    train, dev, test = (names(list(task.examples(split))) for split in Split)
    assert test == {f"P2{n}" for n in range(11)}
    assert not train & dev
    assert train | dev == {f"P1{n}" for n in range(14)}
    assert len(dev) == 7  # half of a small train; ten of a large one
    assert task.counts["train_relations"] == 7
    assert task.counts["test_episodes_10w5s"] == 20


def test_a_third_file_is_the_test_split(write: Write, folder: str) -> None:
    write("fewrel/test_wiki.json", relations("P3", 10))
    task = FewRel(folder, SMALL)
    assert names(list(task.examples(Split.TEST))) == {f"P3{n}" for n in range(10)}
    assert names(list(task.examples(Split.DEV))) <= {f"P2{n}" for n in range(11)}
    assert names(list(task.examples(Split.TRAIN))) <= {f"P1{n}" for n in range(14)}
    assert task.counts["train_relations"] == 14


def test_one_file_is_enough_for_trying(write: Write, tmp_path: Path) -> None:
    write("val_wiki.json", relations("P2", 16, 40))
    task = FewRel(str(tmp_path), {**SMALL, "train_episodes": 30, "dev_episodes": 30})
    train, dev, test = (list(task.examples(split)) for split in Split)
    assert len(names(test)) == 10
    assert names(train) == names(dev)
    assert not names(train) & names(test)
    texts = [{e.text for e in found} | _supports(found) for found in (train, dev)]
    assert not texts[0] & texts[1]


def _supports(found: list[Example]) -> set[str]:
    return {s.text for e in found for candidate in e.candidates for s in candidate.support}


def test_episodes_are_the_same_everywhere(folder: str) -> None:
    ids = [e.label for e in FewRel(folder, SMALL).examples(Split.TEST)][:10:2]
    assert ids == ["P21", "P29", "P24", "P27", "P25"]
    assert FewRel(folder, SMALL).digest == FewRel(folder, SMALL).digest
    # More episodes begin with the same ones.
    more = {e.id: e for e in FewRel(folder, {**SMALL, "episodes": 6}).examples(Split.TEST)}
    assert all(more[e.id] == e for e in FewRel(folder, SMALL).examples(Split.TEST))


def test_none_of_the_above(write: Write, tmp_path: Path) -> None:
    write("train_wiki.json", relations("P1", 14))
    write("val_wiki.json", relations("P2", 11))
    task = FewRel(str(tmp_path), {**SMALL, "none_rate": 1.5})
    first = [e for e in task.examples(Split.TEST) if e.id.startswith("test/5w1s/0/")]
    others = [e for e in first if e.label == NONE_OF_THE_ABOVE]
    assert len(first) == 10 + 3
    assert len(others) == 3
    for example in others:
        assert example.text.split()[4] not in names(first)
    assert task.head(8).none  # type: ignore[attr-defined]
    assert not FewRel(str(tmp_path), SMALL).head(8).none  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"none_rate is 0.4, which of 2 queries is none; expec"):
        FewRel(str(tmp_path), {**SMALL, "none_rate": 0.4})
    assert FewRel(str(tmp_path), {"queries": 100, "none_rate": 0.29})._none_of_the_above == 29
    for wrong in (-1, "many", float("nan")):
        with pytest.raises(UsageError, match=r"none_rate is .*expected a number"):
            FewRel(str(tmp_path), {"none_rate": wrong}).examples(Split.TEST)


@pytest.mark.parametrize("option", ["episodes", "train_episodes", "dev_episodes", "queries"])
def test_numbers_that_make_no_sense(folder: str, option: str) -> None:
    for wrong in (0, -1, 1.5, "some"):
        with pytest.raises(UsageError, match=f"{option} is .*expected a whole number"):
            FewRel(folder, {**SMALL, option: wrong})


def test_too_few_relations_or_sentences(write: Write, tmp_path: Path) -> None:
    write("train_wiki.json", relations("P1", 14))
    write("val_wiki.json", relations("P2", 9))
    with pytest.raises(DataError, match=r"has 9 of 9 relations .*expected at least 10 relations"):
        FewRel(str(tmp_path), SMALL).examples(Split.TEST)
    write("val_wiki.json", relations("P2", 12, sentences=6))
    with pytest.raises(DataError, match="has 0 of 12 relations with 7 sentences"):
        FewRel(str(tmp_path), SMALL).examples(Split.TEST)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"P1": [{"tokens": ["a"', "is not JSON, or is cut off"),
        ("", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        ("[]", "is not a JSON object with content"),
        ({"P1": [{"tokens": ["a"], "h": ["a", "Q1", [[0]]]}]}, "has no key 't'"),
        ({"P1": [{**sentence("x", 1), "t": ["x", "Q1", [[9]]]}]}, "the tail is tokens 9 to 9 of 6"),
    ],
)
def test_malformed_files(write: Write, folder: str, content: Any, problem: str) -> None:
    write("fewrel/train_wiki.json", content)
    with pytest.raises(DataError, match=problem) as error:
        FewRel(folder, SMALL).examples(Split.TRAIN)
    assert "\n" not in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no file of relations; expected the data folder"):
        FewRel(str(tmp_path)).examples(Split.TRAIN)
    (tmp_path / "train_wiki.json").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        FewRel(str(tmp_path)).examples(Split.TRAIN)


def test_pubmed_shares_the_model_of_wikipedia(write: Write, folder: str) -> None:
    with pytest.raises(DataError, match=r"has no val_pubmed\.json"):
        FewRelPubMed(folder, SMALL).examples(Split.TEST)
    write("fewrel/val_pubmed.json", relations("biolink_", 10))
    wiki, med = FewRel(folder, SMALL), FewRelPubMed(folder, SMALL)
    assert names(list(med.examples(Split.TEST))) == {f"biolink_{n}" for n in range(10)}
    assert wiki.training_digest == med.training_digest
    assert wiki.digest != med.digest
    models = []
    for task in ("fewrel", "fewrel-pubmed"):
        spec = RunSpec(
            task=task, backbone="kbench-tiny", tuning="lora", method="none", knowledge=None,
            setting=Setting.GENERAL, control="none", seed=0, data=folder,
            options={"task": {task: SMALL}},
        )  # fmt: skip
        models.append(model_inputs(Parts(normalised(spec))))
    assert models[0] == models[1]


@pytest.mark.usefixtures("hub")
def test_the_hub_has_the_same_columns(write: Write, tmp_path: Path) -> None:
    for stem, many in (("train_wiki", 14), ("val_wiki", 11)):
        records = [
            {
                "relation": name,
                "tokens": row["tokens"],
                "head": {"text": row["h"][0], "type": row["h"][1], "indices": row["h"][2]},
                "tail": {"text": row["t"][0], "type": row["t"][1], "indices": row["t"][2]},
            }
            for name, own in relations("P", many).items()
            for row in own
        ]
        write(f"hub/{stem}.jsonl", "\n".join(map(json.dumps, records)))
    write(
        "hub/README.md",
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - {split: train_wiki, path: train_wiki.jsonl}\n"
        "  - {split: val_wiki, path: val_wiki.jsonl}\n---\n",
    )
    task = FewRel(f"hf:{tmp_path / 'hub'}", SMALL)
    assert len(task.examples(Split.TEST)) == 160


def test_a_grid_on_episodes(write: Write, toy_folder: Path, tmp_path: Path) -> None:
    write("data/fewrel/train_wiki.json", relations("P1", 14))
    write("data/fewrel/val_wiki.json", relations("P2", 10))
    place = Place(tmp_path / "out", tmp_path / "artifacts", "cpu", 1)
    chosen = grid(
        toy_folder,
        task="fewrel",
        method="none,map-tuning,ra,adapter-no-knowledge,ernie",
        setting="task-specific,general",
        data=str(tmp_path / "data"),
        options={
            "task": {"fewrel": {**SMALL, "episodes": 2, "queries": 1}},
            "tuning": {"full": {"epochs": 1, "batch_size": 10}},
            "method": {
                name: {"start": "scratch", "task-specific": {"epochs": 1, "batch_size": 10}}
                for name in ("map-tuning", "ernie")
            }
            | {"adapter-no-knowledge": {"task-specific": {"epochs": 1, "batch_size": 10}}},
        },
    )
    results = run(chosen, place)
    found = {(r.spec.method, str(r.spec.setting), str(r.spec.control)): r for r in results}
    for key in (
        ("none", "general", "none"),
        ("map-tuning", "task-specific", "none"),
        ("map-tuning", "task-specific", "foreign"),
        ("adapter-no-knowledge", "task-specific", "none"),
        ("ernie", "task-specific", "none"),
        ("ra", "general", "none"),
    ):
        result = found[key]
        assert result.status == Status.OK, result.reason
        sizes = {name: score.n for name, score in result.metrics.items()}
        assert sizes == {
            "accuracy_5w1s": 10, "accuracy_5w5s": 10, "accuracy_10w1s": 10, "accuracy_10w5s": 10
        }  # fmt: skip
        assert result.main_metric == "accuracy_5w1s"
    mapped = found["map-tuning", "task-specific", "none"]
    assert mapped.coverage is not None
    assert mapped.coverage.examples == 1.0
    store = Results(place.out)
    predictions = store.predictions(mapped)
    assert predictions is not None
    assert {*predictions.strata} == {*FORMS}
    for metric in FewRel.metrics:
        again = metric.score_of(predictions)
        assert again == pytest.approx(mapped.metrics[metric.name].value)
    row = next(r for r in rows(results, store) if r.first is mapped)
    assert row.gain is not None
    assert row.delta is not None


def test_the_real_file(real_data: Callable[[str], str]) -> None:
    task = FewRel(real_data("fewrel"))
    assert len(task.examples(Split.TEST)) == 200 * 25 * 2 + 100 * 50 * 2
    assert len(task.examples(Split.TRAIN)) == 3000 * 25
    task.examples(Split.DEV)
    assert task.counts["test_sentences"] == 7000
    assert task.counts["train_sentences"] + task.counts["dev_sentences"] == 4200
