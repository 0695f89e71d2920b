from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from kbench.cli import main
from kbench.cli.knowledge import knowledge
from kbench.data import Example, Mention, Role, Split, TaskCard
from kbench.errors import DataError, UsageError
from kbench.knowledge import Bundle, Entity, write_bundle
from kbench.parts.catalogue import Kind
from kbench.task import RelationTask, TypingTask
from kbench.testing import registered


def run(*arguments: object, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(
        knowledge, [str(a) for a in arguments], auto_envvar_prefix="KBENCH_KNOWLEDGE"
    )


def good(*arguments: object, **environment: str) -> Any:
    result = run(*arguments, "--json", **environment)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A CoDEx-S of three entities."""
    root = tmp_path / "codex"
    for name, text in {
        "triples/codex-s/train.txt": "Q1\tP1\tQ2\nQ3\tP1\tQ2\nbad row\n",
        "triples/codex-s/valid.txt": "",
        "triples/codex-s/test.txt": "Q1\tP1\tQ3\n",
        "types/entity2types.json": '{"Q1": ["Q5"]}',
        "types/en/types.json": '{"Q5": {"label": "human"}}',
        "relations/en/relations.json": "{}",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_import_train_info(release: Path, tmp_path: Path) -> None:
    target, labels = tmp_path / "kb", tmp_path / "labels.tsv"
    labels.write_text("Q1\t[bold]Ada\n")
    done = run("import", "codex", release, target, "-o", "size=s", "-o", f"labels={labels}")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "train.txt, line 3: has 1 fields" in done.stderr
    assert "knowledge train" in done.stderr
    trained = good("train", target, "--dimension", 4, "--epochs", 2)
    assert trained["vectors"]["dimension"] == 4
    assert trained["digest"] == Bundle(target).digest
    about = good("info", target, "-n", 1)
    assert about["examples"][0]["label"] == "[bold]Ada"
    assert about["coverage"] == {"entities with a label": 1, "entities with a vector": 3}
    assert about["verified"] is True
    shown = run("info", target)
    assert shown.exit_code == 0
    for part in ("CoDEx-S", "MIT", "TransE", "[bold]Ada", "human", about["digest"][:12]):
        assert part in shown.stdout


def test_link_prediction_is_shown_beside_published_figures(release: Path, tmp_path: Path) -> None:
    target = tmp_path / "kb"
    good("import", "codex", release, target, "-o", "size=s")
    options = ("--dimension", 4, "--epochs", 2, "--train-on", "train")
    trained = good("train", target, *options)["vectors"]["link_prediction"]
    assert (trained["split"], trained["facts_ranked"]) == ("test", 1)
    for shown in (run("info", target).stdout, run("train", target, *options).stderr):
        assert "this bundle, 1 facts of test" in shown
        assert f"{trained['mrr']}" in shown
        assert "0.354" in shown
        assert "test, Safavi" in shown
    none = good("train", target, *options[:4], "--ranked", 0)["vectors"]["link_prediction"]
    assert "not asked for" in none["not_measured"]
    assert "this bundle, " not in run("info", target).stdout


def test_merge(release: Path, world: Bundle, tmp_path: Path) -> None:
    good("import", "codex", release, tmp_path / "kb", "-o", "size=s")
    asked = ("merge", tmp_path / "kb", world.folder, tmp_path / "both")
    made = good(*asked, "--name", "joint")
    assert made["counts"]["entities"] == 3 + 45
    assert made["same"]["facts that another source has too"] == 0
    assert good("info", tmp_path / "both", "-n", 0)["merged"]["sources"][1]["name"] == "world"
    assert "--replace" in str(run(*asked).exception)
    shown = run(*asked, "--replace")
    assert shown.exit_code == 0, shown.output
    assert "knowledge train" in shown.stderr
    assert run("info", tmp_path / "both").exit_code == 0
    assert "two or more" in str(run("merge", world.folder, tmp_path / "x").exception)


def test_import_as_json(release: Path, tmp_path: Path) -> None:
    report = good("import", "codex", release, tmp_path / "kb", "-o", "size=s")
    assert report["rows"]["triples"] == {"read": 4, "kept": 3, "dropped": {"malformed": 1}}
    assert len(report["malformed"]) == 1


def test_environment(world: Bundle) -> None:
    trained = good("train", world.folder, KBENCH_KNOWLEDGE_TRAIN_EPOCHS="1",
                   KBENCH_KNOWLEDGE_TRAIN_DIMENSION="4")  # fmt: skip
    assert (trained["vectors"]["epochs"], trained["vectors"]["dimension"]) == (1, 4)


def test_holdout(release: Path, tmp_path: Path) -> None:
    good("import", "codex", release, tmp_path / "kb", "-o", "size=s")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "card.yaml").write_text("title: t\nfamily: relation classification\nlicence: none\n")
    ends = [{"start": 0, "end": 1, "entity": "Q1", "role": "head"},
            {"start": 2, "end": 3, "entity": "Q2", "role": "tail"}]  # fmt: skip
    strangers = [{**end, "entity": None} for end in ends]
    for split, mentions in {"train": ends, "dev": strangers, "test": ends}.items():
        line = json.dumps({"text": "a b", "mentions": mentions, "label": "x"})
        (mine / f"{split}.jsonl").write_text(line)
    asked = ("holdout", tmp_path / "kb", tmp_path / "rest", "--task", "custom", "--data", mine)
    made = good(*asked)
    assert made["dropped"] == {"triples": 1, "sentences": 0}
    assert (made["examples"], made["examples_with_a_pair"]) == (2, 1)
    assert len(Bundle(tmp_path / "rest").triples) == 2
    assert "--replace" in str(run(*asked).exception)
    shown = run(*asked, "--replace")
    assert shown.exit_code == 0
    assert "knowledge train" in shown.stderr


def test_holdout_is_of_the_examples_and_links_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["Wye", "Monmouth"]
    card = {"name": "rivers", "version": "1", "licence": "none", "source": "test"}
    entities = [Entity(f"Q{n}", name) for n, name in enumerate(names)]
    write_bundle(tmp_path / "kb", card, entities, [("Q0", "in", "Q1")])

    class Parted(RelationTask):
        """A relation task whose option says which split has the fact."""

        card: ClassVar[TaskCard] = TaskCard(
            title="t", revision="1", licence="none", citation="t", source="t"
        )
        linking = "title"
        defaults: ClassVar[Mapping[str, int]] = {"seed": 0}

        def load(self, split: Split) -> list[Example]:
            told = (split == Split.TEST) == (self.options["seed"] == 3)
            text = " ".join(names) if told and split != Split.DEV else "no one"
            start = len(names[0]) + 1 if told and split != Split.DEV else 3
            mentions = (
                Mention(0, start - 1, role=Role.HEAD), Mention(start, len(text), role=Role.TAIL)
            )  # fmt: skip
            return [Example(str(split), text, mentions, "x")]

    class Typed(TypingTask):
        """A typing task: no pair tells its labels."""

        card = Parted.card

        def load(self, split: Split) -> list[Example]:
            return [Example(str(split), names[0], (Mention(0, 2),), ("x",))]

    monkeypatch.setitem(globals(), "Parted", Parted)
    monkeypatch.setitem(globals(), "Typed", Typed)
    parts = {"parted": f"{__name__}:Parted", "typed": f"{__name__}:Typed"}
    with registered(Kind.TASKS, **parts):
        asked = ("holdout", tmp_path / "kb", tmp_path / "rest", "--replace", "--task")
        option = ("--set", "task.parted.seed=3", "--seed", "0-2", "--limit", "5")
        made = good(*asked, "parted", *option)
        assert made["dropped"]["triples"] == 1
        about = Bundle(tmp_path / "rest").card["held_out"]
        assert (about["options"], about["linkers"]) == (
            {"parted": {"seed": 3}},
            {"parted": "title"},
        )
        for refused in (("parted",), ("parted", *option, "--linker", "gold"), ("typed",)):
            problem = run(*asked, *refused).exception
            assert isinstance(problem, UsageError)
            assert "which facts tell its labels cannot be known" in str(problem)
            assert "\n" not in str(problem)
        both = good(*asked, "typed", "--only-sentences")
        assert both["dropped"]["triples"] == 0
        other = run(*asked, "parted", *option, "--set", "tuning.full.epochs=3")
        assert "changes nothing here" in other.stderr
        assert isinstance(run(*asked, "parted", "--linker", "golf").exception, UsageError)
        assert isinstance(run(*asked, "parted", "--set", "seed=3").exception, UsageError)
        # Without its facts the namesake of an entity is linked instead, and is held out too.
        facts = [("Q0", "in", "Q1"), ("Q0", "by", "Q1"), ("Q2", "in", "Q1")]
        write_bundle(tmp_path / "kb", card, [*entities, Entity("Q2", names[0])], facts)
        made = good(*asked, "parted", *option, "--linker", "alias")
        assert (made["dropped"]["triples"], made["examples_with_a_pair"]) == (3, 1)


def test_formats() -> None:
    shown = run("formats")
    assert shown.exit_code == 0
    assert "-o size=s|m|l" in shown.stdout
    names = [json.loads(line)["name"] for line in run("formats", "--json").stdout.splitlines()]
    assert {
        "codex",
        "ernie",
        "fb15k-237",
        "openke",
        "pykeen",
        "tsv",
        "wikidata5m",
        "wikipedia2vec",
    } <= set(names)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["import", "codx", ".", "kb"], "'codx'; did you mean codex"),
        (["import", "codex", ".", "kb", "-o", "size"], "is not KEY=VALUE"),
        (["import", "codex", ".", "kb", "-o", "sise=s"], "did you mean size"),
        (["train", ".", "--epochs", "0"], "epochs is 0"),
    ],
)
def test_usage_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                      arguments: list[str], problem: str) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert isinstance(result.exception, UsageError)
    assert problem in str(result.exception)


def test_one_line_and_status_2(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["knowledge", "import", "codex", str(tmp_path), str(tmp_path / "kb")])
    assert left.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")
    assert "train.txt: is missing" in err


def test_installed_knowledge_by_name() -> None:
    assert good("info", "atlas", "-n", 0)["name"] == "atlas"
    assert "did you mean atlas" in str(run("info", "atls").exception)


def test_damage_fails(world: Bundle) -> None:
    path = world.folder / "triples.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert isinstance(run("info", world.folder).exception, DataError)
    assert run("info", world.folder, "--no-verify").exit_code == 0
