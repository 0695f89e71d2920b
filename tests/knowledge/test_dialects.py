"""Headers and quotation marks of tables: followed where certain, else refused or said."""

from __future__ import annotations

from pathlib import Path

import pytest

from kbench.errors import DataError
from kbench.knowledge import Bundle
from kbench.knowledge.importing import Report
from kbench_tasks.knowledge.tsv import TsvImporter
from kbench_tasks.knowledge.wikidata5m import Wikidata5MImporter

TRIPLES = "Q1\tP1\tQ2\nQ2\tP1\tQ3\nQ3\tP2\tQ1\n"
FACTS = [("Q1", "P1", "Q2"), ("Q2", "P1", "Q3"), ("Q3", "P2", "Q1")]


def read(
    folder: Path, files: dict[str, str], given: list[tuple[str, str]] | None = None
) -> tuple[Bundle, Report]:
    source = folder / "source"
    source.mkdir()
    for name, text in {"triples.tsv": TRIPLES, **files}.items():
        (source / name).write_text(text)
    return TsvImporter().run(source, folder / "kb", given or [])


def facts(bundle: Bundle) -> list[tuple[str, str, str]]:
    names = list(bundle.relations)
    return [
        (bundle.entity(head).id, names[relation], bundle.entity(tail).id)
        for head, relation, tail in bundle.triples.tolist()
    ]


def label(bundle: Bundle, entity: str) -> str:
    return bundle.entity(int(bundle.rows([entity])[0])).label


@pytest.mark.parametrize(
    "header",
    ["head\trelation\ttail", "Subject\tPredicate\tObject", "#h\tr\tt", "\ufeffsource\ttype\ttarget",
     "head_id\trelation_id\ttail_id", '"head"\t"relation"\t"tail"', "from\trel\tto",
     ":START_ID\t:TYPE\t:END_ID", "?item\t?property\t?value", "?s\t?p\t?o"],
)  # fmt: skip
def test_a_header_of_triples_is_no_fact(tmp_path: Path, header: str) -> None:
    bundle, report = read(tmp_path, {"triples.tsv": f"{header}\n{TRIPLES}"})
    assert facts(bundle) == FACTS
    assert len(bundle) == 3
    assert report.read["triples"] == 3
    assert any("line 1" in note and "header" in note for note in report.notes)


def test_a_header_says_the_order_of_the_columns(tmp_path: Path) -> None:
    rows = "head\ttail\trelation\n" + "".join(f"{h}\t{t}\t{r}\n" for h, r, t in FACTS)
    assert facts(read(tmp_path, {"triples.tsv": rows})[0]) == FACTS


def test_what_may_be_a_header_is_refused_until_someone_says(tmp_path: Path) -> None:
    files = {"triples.tsv": f"head\tverb\ttail\n{TRIPLES}"}
    with pytest.raises(DataError, match=r"line 1: may begin with a header .*-o header=yes"):
        read(tmp_path, files)
    for said, entities in (("yes", 3), ("no", 5)):
        (tmp_path / said).mkdir()
        assert len(read(tmp_path / said, files, [("header", said)])[0]) == entities


def test_a_first_triple_that_stands_apart_is_said(tmp_path: Path) -> None:
    _, report = read(tmp_path, {"triples.tsv": f"Kopf\tBeziehung\tEnde\n{TRIPLES}"})
    assert any("Kopf, Beziehung, Ende" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [
        ("labels.tsv", "id\tlabel\talias", "Q1\tAda"),
        ("labels.tsv", "QID\tTitle", "Q1\tAda"),
        ("labels.tsv", "entity_id\tname", "Q1\tAda"),
        ("labels.tsv", "?item\t?itemLabel", "Q1\tAda"),
        ("labels.tsv", "id\tlabel@en", "Q1\tAda"),
        ("labels.tsv", "qid\tlabel_de", "Q1\tAda"),
        ("labels.tsv", "uri\trdfs:label", "Q1\tAda"),
        ("labels.tsv", "id:ID\tname:string", "Q1\tAda"),
        ("descriptions.tsv", "id\tdescription", "Q1\ta text"),
        ("types.tsv", "id\ttype\ttype", "Q1\thuman"),
        ("relations.tsv", "relation\tlabel", "P1\tlives in"),
    ],
)
def test_headers_of_the_files_beside(tmp_path: Path, name: str, header: str, row: str) -> None:
    bundle, report = read(tmp_path, {name: f"{header}\n{row}\n"})
    assert len(bundle) == 3
    assert report.notes == [f"{name}, line 1: {header.replace(chr(9), ', ')} is read as a header"]
    assert sum(sum(counts.values()) for counts in report.dropped.values()) == 0


def test_a_first_name_that_stands_apart_is_said(tmp_path: Path) -> None:
    rows = "Q1\tAda\nQ2\tBo\nQ3\tCy\n"
    bundle, report = read(tmp_path, {"labels.tsv": f"Kennung\tBezeichnung\n{rows}"})
    assert len(bundle) == 4
    assert any("'Kennung', the first id of the names, alone" in note for note in report.notes)
    (tmp_path / "more").mkdir()
    _, report = read(tmp_path / "more", {"labels.tsv": f"{rows}Q4\tDi\n"})
    assert report.notes == []  # an entity without a fact, as many are


def test_an_entity_that_is_called_id_is_none(tmp_path: Path) -> None:
    files = {"triples.tsv": f"{TRIPLES}id\tP1\tQ1\n", "labels.tsv": "id\tname\nQ1\tAda\n"}
    assert label(read(tmp_path, files)[0], "id") == "name"


def test_swapped_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.tsv, line 1: begins with the columns label, id"):
        read(tmp_path, {"labels.tsv": "label\tid\nAda\tQ1\n"})


@pytest.mark.parametrize(
    "text",
    [
        '"Q1"\t"Saint ""John"""\nQ2\t"Acme, Inc."\n',
        'Q1\t"Saint ""John"""\nQ2\t"Acme, Inc."\n',
        '"Q1"\t"Saint ""John"""\n"Q2"\t"Acme, Inc."\n',
        '"id"\t"label"\n"Q1"\t"Saint ""John"""\n"Q2"\t"Acme, Inc."\n',
    ],
)
def test_quotation_marks_of_csv(tmp_path: Path, text: str) -> None:
    bundle, report = read(tmp_path, {"labels.tsv": text})
    assert len(bundle) == 3
    assert (label(bundle, "Q1"), label(bundle, "Q2")) == ('Saint "John"', "Acme, Inc.")
    assert "labels.tsv: quotation marks are read by the rules of csv" in report.notes


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "labels.tsv",
            '"Q1"\tthe "Saint" John\n',
            r"labels\.tsv, line 1: has ids in quotation marks",
        ),
        ("triples.tsv", 'Q1\tP1\tQ2\nQ1\t"P1"\ta "b"\n', r"triples\.tsv, line 2: has ids in quo"),
    ],
)
def test_marks_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    with pytest.raises(DataError, match=problem + ".*-o quotes=csv or quotes=none"):
        read(tmp_path, {name: text})


def test_marks_that_may_belong_to_a_name_are_kept_and_said(tmp_path: Path) -> None:
    files = {"labels.tsv": 'Q1\t"Heroes"\nQ2\tLow\nQ3\t"Weird Al" Yankovic\n'}
    bundle, report = read(tmp_path, files)
    assert label(bundle, "Q1") == '"Heroes"'
    assert label(bundle, "Q3") == '"Weird Al" Yankovic'
    assert any("around the fields of 1 rows are kept" in note for note in report.notes)


@pytest.mark.parametrize("name", ["'{}'", r'"the \"{}\""'])
def test_marks_of_other_dialects_are_kept_and_said(tmp_path: Path, name: str) -> None:
    """As some databases write them, and with marks inside after a backslash."""
    rows = "".join(f"Q{n}\t{name.format('Ada')}\n" for n in (1, 2, 3))
    bundle, report = read(tmp_path, {"labels.tsv": rows})
    assert label(bundle, "Q1") == name.format("Ada")
    assert any("labels.tsv: marks around the fields of 3 rows" in note for note in report.notes)
    (tmp_path / "few").mkdir()
    _, report = read(tmp_path / "few", {"labels.tsv": "Q1\t'Heroes'\nQ2\tLow\nQ3\tO'Hara\n"})
    assert report.notes == []


def test_a_tab_inside_quotation_marks(tmp_path: Path) -> None:
    files = {"labels.tsv": 'Q1\t"Ada\tKing"\nQ2\tLow\n'}
    bundle, _ = read(tmp_path, files)
    assert bundle.entity(int(bundle.rows(["Q1"])[0])).label == "Ada King"


def test_quotes_as_said(tmp_path: Path) -> None:
    files = {"labels.tsv": '"Q1"\t"Ada"\nQ2\t"Low"\n'}
    for said, expected in (("csv", "Ada"), ("none", "")):
        (tmp_path / said).mkdir()
        assert label(read(tmp_path / said, files, [("quotes", said)])[0], "Q1") == expected


def test_a_field_of_several_lines_is_said(tmp_path: Path) -> None:
    _, report = read(tmp_path, {"descriptions.tsv": 'Q1\t"one\nQ2\ttwo"\n'})
    assert any("1 lines open a quotation mark" in note for note in report.notes)


def test_names_that_fit_no_triple_are_said(tmp_path: Path) -> None:
    """As pandas writes them with its index before the id."""
    _, report = read(tmp_path, {"labels.tsv": "0\tQ1\tAda\n1\tQ2\tLondon\n"})
    assert report.notes == ["none of the ids of the names is in a triple"]


def test_blanks_around_the_ids_of_triples_are_counted(tmp_path: Path) -> None:
    bundle, report = read(tmp_path, {"triples.tsv": f"{TRIPLES}Q1 \tP2\tQ3\n"})
    assert len(bundle) == 3
    assert report.facts["triples with blanks around a field"] == 1


def test_wikidata5m_with_a_header(tmp_path: Path) -> None:
    source = tmp_path / "w5m"
    source.mkdir()
    (source / "wikidata5m_all_triplet.txt").write_text(f"head\trelation\ttail\n{TRIPLES}")
    (source / "wikidata5m_entity.txt").write_text("id\tlabel\nQ1\tAda\n")
    bundle, _ = Wikidata5MImporter().run(source, tmp_path / "kb")
    assert (facts(bundle), len(bundle)) == (FACTS, 3)


OPENKE = [(0, 1, 0), (1, 2, 1), (2, 3, 0), (3, 4, 1)]
HTR = "".join(f"{head}\t{tail}\t{relation}\n" for head, tail, relation in OPENKE)
RHT = "".join(f"{relation}\t{head}\t{tail}\n" for head, tail, relation in OPENKE)
HRT = "".join(f"{head}\t{relation}\t{tail}\n" for head, tail, relation in OPENKE)


@pytest.mark.parametrize(
    ("text", "order", "problem"),
    [
        (f"4\n{HTR}", "htr", r"line 1: begins with the number 4 alone.*-o order=htr"),
        (HTR, "htr", r"relations in its third column \(2 values\).*-o order=htr"),
        (RHT, "rht", r"relations in its first column \(2 values\).*order=rht"),
    ],
)
def test_columns_in_another_order_are_refused_until_someone_says(
    tmp_path: Path, text: str, order: str, problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        read(tmp_path, {"triples.tsv": text})
    (tmp_path / "said").mkdir()
    said, _ = read(tmp_path / "said", {"triples.tsv": text}, [("order", order)])
    (tmp_path / "right").mkdir()
    right, report = read(tmp_path / "right", {"triples.tsv": HRT})
    assert said.digest == right.digest
    assert report.notes == []


def test_properties_as_tails_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"Q{at}\tQ{at + 100}\tP{at}\n" for at in range(9))
    with pytest.raises(DataError, match=r"items \(Q…\) in its second column.*in its third"):
        read(tmp_path, {"triples.tsv": rows})
    (tmp_path / "first").mkdir()
    rows = "".join(f"P{at}\tQ{at}\tQ{at + 100}\n" for at in range(9))
    with pytest.raises(DataError, match=r"items \(Q…\) in its second column.*in its first"):
        read(tmp_path / "first", {"triples.tsv": rows})


def test_ten_relations_a_tail_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"man{at}\ttown{at}\tlives in\n" for at in range(10))
    with pytest.raises(DataError, match=r"10 relations, and 1 tails alone.*-o order=htr"):
        read(tmp_path, {"triples.tsv": rows})


def test_more_relations_than_tails_are_said(tmp_path: Path) -> None:
    rows = "".join(f"man{at}\ttown{at % 5}\tlives in\n" for at in range(9))
    _, report = read(tmp_path, {"triples.tsv": rows})
    assert any("5 relations and 1 tails" in note for note in report.notes)


def test_a_stated_number_of_triples_is_held_to(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 4 rows and states 5"):
        read(tmp_path, {"triples.tsv": f"5\n{HTR}"}, [("order", "htr")])


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    _, report = read(tmp_path, {"label.tsv": "Q1\tAda\n", "train2id.txt": "0\n"})
    assert report.notes == ["not read: label.tsv, train2id.txt"]
