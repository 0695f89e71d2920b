from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kbench.errors import DataError
from kbench_tasks.knowledge.fb15k_237 import FB15k237Importer, relation_texts

CAPITAL, FILM, SHOW = "/location/country/capital", "/film/film/genre", "/tv/tv_program/genre"
SPLITS = {
    "train": [("/m/a", CAPITAL, "/m/b"), ("/m/c", FILM, "/m/d"), ("/m/a2", CAPITAL, "/m/b")],
    "valid": [("/m/e", SHOW, "/m/d")],
    "test": [("/m/a", CAPITAL, "/m/d"), ("/m/a2", SHOW, "/m/d")],
}
LAND = {"label": "Wales", "alternatives": ["Cymru", "wales"], "description": "land  of song",
        "wikidata_id": "Q25", "wikipedia": None}  # fmt: skip
WIKIDATA: dict[str, Any] = {
    "/m/a": LAND,
    "/m/a2": {**LAND, "alternatives": ["Kymry"]},
    "/m/b": {"label": "Cardiff", "alternatives": [], "description": None, "wikidata_id": "Q10690"},
    "/m/c": {"label": "half \ud83d pair", "alternatives": None, "wikidata_id": "none"},
    "/m/z": {"label": "Nowhere", "wikidata_id": "Q1"},
}


def as_text(folder: Path) -> None:
    for split, triples in SPLITS.items():
        rows = "".join("\t".join(triple) + "\n" for triple in triples)
        (folder / f"{split}.txt").write_text(rows)


def as_numbers(folder: Path) -> None:
    """The integers of OpenKE, with an entity and a relation that are in no triple."""
    entities = ["/m/z", "/m/e", "/m/d", "/m/c", "/m/b", "/m/a2", "/m/a"]
    relations = [SHOW, "/a/b/unused", FILM, CAPITAL]
    for name, ids in (("entity", entities), ("relation", relations)):
        rows = "".join(f"{known}\t{at}\n" for at, known in enumerate(ids))
        (folder / f"{name}2id.txt").write_text(f"{len(ids)}\n{rows}")
    for split, triples in SPLITS.items():
        rows = "".join(
            f"{entities.index(head)} {entities.index(tail)} {relations.index(relation)}\n"
            for head, relation, tail in triples
        )
        (folder / f"{split}2id.txt").write_text(f"{len(triples)}\n{rows}")


@pytest.fixture(params=[as_text, as_numbers])
def release(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return laid(tmp_path, request.param)


def laid(tmp_path: Path, form: Callable[[Path], None]) -> Path:
    folder = tmp_path / form.__name__
    folder.mkdir()
    form(folder)
    (folder / "entity2wikidata.json").write_text(json.dumps(WIKIDATA))
    return folder


def test_entities_go_by_wikidata(release: Path, tmp_path: Path) -> None:
    bundle, report = FB15k237Importer().run(release, tmp_path / "kb")
    assert list(bundle.ids) == ["/m/c", "/m/d", "/m/e", "Q10690", "Q25"]
    wales = bundle.entity(int(bundle.rows(["Q25"])[0]))
    assert (wales.label, wales.description) == ("Wales", "land of song")
    assert wales.aliases == ("Cymru", "Kymry")
    assert bundle.entity(0).label == "half pair"
    assert report.facts["mids without a Wikidata id, which are kept"] == 3
    assert report.facts["mids joined with another of the same Wikidata id"] == 1
    assert report.facts["entities with a label"] == 3
    assert "/m/a and /m/a2 are one entity of Wikidata: Q25" in report.notes
    assert report.dropped["names"] == {"entity without a triple": 1}
    assert bundle.card["import"]["format"] == "fb15k-237"


def test_facts_of_two_mids_are_one_and_splits_are_known(release: Path, tmp_path: Path) -> None:
    bundle, report = FB15k237Importer().run(release, tmp_path / "kb")
    assert report.dropped["triples"] == {"seen before, of another mid": 1}
    assert (report.read["triples"], report.kept["triples"]) == (6, 5)
    counts = bundle.card["counts"]
    assert [counts[f"{split}_triples"] for split in SPLITS] == [2, 1, 2]
    assert bundle.splits is not None
    ids, names = list(bundle.ids), list(bundle.relations)
    held = {
        (ids[h], names[r], ids[t])
        for (h, r, t), split in zip(bundle.triples.tolist(), bundle.splits.tolist(), strict=True)
        if split == 2
    }
    assert held == {("Q25", CAPITAL, "/m/d"), ("Q25", SHOW, "/m/d")}
    assert {figure["model"] for figure in bundle.card["published"]} >= {"TransE", "ComplEx"}


def test_both_forms_are_one_graph(tmp_path: Path) -> None:
    made = [
        FB15k237Importer().run(laid(tmp_path, form), tmp_path / f"kb-{form.__name__}")[0].digest
        for form in (as_text, as_numbers)
    ]
    assert made[0] == made[1]


def test_one_split_alone_has_no_published_figures(release: Path, tmp_path: Path) -> None:
    bundle, report = FB15k237Importer().run(release, tmp_path / "kb", [("split", "train")])
    assert len(bundle.triples) == 2
    assert "published" not in bundle.card
    assert any(note.startswith("not read: ") for note in report.notes)


def test_types_of_codex_and_names_of_sentences(release: Path, tmp_path: Path) -> None:
    types = tmp_path / "types" / "mine.json"
    (types.parent / "en").mkdir(parents=True)
    types.write_text(json.dumps({"Q25": ["Q6", "Q7"], "Q9": ["Q6"]}))
    (types.parent / "en" / "types.json").write_text(json.dumps({"Q6": {"label": "country"}}))
    said = tmp_path / "said.jsonl"
    mentions = [
        {"start": 3, "end": 12, "entity": "Q25"},
        {"start": 16, "end": 21, "entity": "/m/e"},
    ]
    said.write_text(json.dumps({"text": "in the hills of songs", "mentions": mentions}))
    given = [("types", str(types)), ("sentences", str(said))]
    bundle, report = FB15k237Importer().run(release, tmp_path / "kb", given)
    wales = bundle.entity(int(bundle.rows(["Q25"])[0]))
    assert wales.types == ("country", "Q7")
    assert "the hills" in wales.aliases
    assert (report.read["types"], report.kept["types"]) == (2, 1)
    assert bundle.labels[bundle.rows(["/m/e"])[0]] == "songs"
    assert report.facts["entities with a label"] == 4
    assert report.facts["entities with a type"] == 1
    assert len(bundle.sentences) == 1


def test_packed_and_without_wikidata(release: Path, tmp_path: Path) -> None:
    plain, _ = FB15k237Importer().run(release, tmp_path / "plain")
    for path in list(release.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed, _ = FB15k237Importer().run(release, tmp_path / "packed")
    assert packed.digest == plain.digest
    (release / "entity2wikidata.json.gz").unlink()
    bare, report = FB15k237Importer().run(release, tmp_path / "bare")
    assert "/m/a2" in list(bare.ids)
    assert any("no entity2wikidata.json" in note for note in report.notes)


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    release = laid(tmp_path, as_numbers)
    (release / "valid2id.txt").write_text("3\n1 2 0\n1 2\n1 77 0\n")
    _, report = FB15k237Importer().run(release, tmp_path / "kb")
    assert report.dropped["triples"]["malformed"] == 1
    assert report.dropped["triples"]["entity without a mid"] == 1


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("train2id.txt", None, "is missing"),
        ("relation2id.txt", None, "is missing"),
        ("test2id.txt", "9\n1 2 0\n", "holds 1 rows and states 9"),
        ("entity2wikidata.json", "[]", "is a JSON list"),
        ("entity2wikidata.json", '{"/m/a": "Q25"}', "wikidata_id"),
    ],
)
def test_a_release_that_is_none(
    tmp_path: Path, name: str, content: str | None, problem: str
) -> None:
    release = laid(tmp_path, as_numbers)
    (release / name).unlink()
    if content is not None:
        (release / name).write_text(content)
    with pytest.raises(DataError, match=problem):
        FB15k237Importer().run(release, tmp_path / "kb")
    assert not (tmp_path / "kb").exists()


def test_a_folder_without_triples(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no triples"):
        FB15k237Importer().run(tmp_path / "empty", tmp_path / "kb")


def test_relations_are_words() -> None:
    texts = relation_texts(
        iter(
            [
                "/people/person/nationality",
                FILM,
                SHOW,
                "/people/person/spouse_s./people/marriage/spouse",
                "/award/award_nominee/award_nominations./award/award_nomination/nominated_for",
                "/x/team/roster./football/entry/position",
                "/y/team/roster./rugby/entry/position",
                "P17",
            ]
        )
    )
    assert list(texts.values()) == [
        "nationality",
        "film genre",
        "tv program genre",
        "spouse",
        "award nominations nominated for",
        "x team roster football entry position",
        "y team roster rugby entry position",
        "P17",
    ]


def test_real_release(test_data: Path, tmp_path: Path) -> None:
    if not (test_data / "fb15k-237").is_dir():
        pytest.skip(f"no real data in {test_data / 'fb15k-237'}")
    types = str(test_data / "codex" / "types" / "entity2types.json")
    bundle, report = FB15k237Importer().run(
        test_data / "fb15k-237", tmp_path / "kb", [("types", types)]
    )
    counts = bundle.card["counts"]
    assert (counts["entities"], counts["relations"], counts["triples"]) == (14540, 237, 310113)
    assert [counts[f"{split}_triples"] for split in SPLITS] == [272113, 17535, 20465]
    assert report.facts["entities with a label"] == 14514
    assert report.facts["entities with a description"] == 13665
    assert report.facts["entities with a type"] == 6938
    assert len(set(bundle.relations.values())) == 237
