from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kbench.errors import DataError, UsageError
from kbench.knowledge import Bundle, Entity, write_bundle, write_vectors
from kbench.knowledge.importing import (
    Importer,
    ImporterCard,
    Option,
    Options,
    Report,
    fields,
    read_lines,
    read_rows,
)
from kbench.knowledge.merging import merge
from tests.faults.limits import within


class Listing(Importer):
    """One id a line."""

    card = ImporterCard("Listing", "ids.txt", "a test", "CC0-1.0")
    options = {  # noqa: RUF012
        "language": Option("of labels", default="en", choices=("en", "de")),
        "extra": Option("more ids", path=True, repeatable=True),
        "fail": Option("where to stop"),
    }

    def convert(self, source: Path, target: Path, options: Options, report: Report) -> Bundle:
        entities = []
        for path in [source / "ids.txt", *options.paths("extra")]:
            for _, (name,) in read_rows(path, "ids", lambda s: fields(s, ["id"]), report, "an id"):
                entities.append(Entity(name, str(options.text("language"))))
                report.kept["ids"] += 1
        card = {"name": "listing", "version": "1", "licence": "CC0-1.0", "source": "a test"}
        bundle = write_bundle(target, card, entities)
        if options.text("fail"):
            raise KeyboardInterrupt
        return bundle


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "ids.txt").write_bytes(b"\xef\xbb\xbfQ1\r\nQ2\n\n  \nQ3")
    return folder


def test_options_and_rows(source: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.txt"
    extra.write_bytes(b"Q4\nQ5\tQ6\n\xff\nQ\0\nQ7\nQ8\n")
    bundle, report = Listing().run(
        source, tmp_path / "kb", [("language", "de"), ("extra", str(extra))]
    )
    assert [bundle.entity(row).id for row in range(len(bundle))] == [
        "Q1", "Q2", "Q3", "Q4", "Q7", "Q8",
    ]  # fmt: skip
    assert bundle.entity(0).label == "de"
    assert report.as_json()["rows"] == {"ids": {"read": 9, "kept": 6, "dropped": {"malformed": 3}}}
    assert [line.split(": ")[0] for line in report.examples] == [
        f"{extra}, line {number}" for number in (2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([("langage", "en")], "no option 'langage'; did you mean language"),
        ([("language", "fr")], "language='fr' is not allowed; known: de, en"),
        ([("language", "en"), ("language", "de")], "more than once"),
    ],
)
def test_wrong_options(source: Path, tmp_path: Path, given: list[tuple[str, str]],
                       problem: str) -> None:  # fmt: skip
    with pytest.raises(UsageError, match=problem):
        Listing().run(source, tmp_path / "kb", given)


def test_missing_files(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no file"):
        Listing().run(source, tmp_path / "kb", [("extra", str(tmp_path / "none.txt"))])
    with pytest.raises(DataError, match="is no folder"):
        Listing().run(tmp_path / "none", tmp_path / "kb")
    (source / "ids.txt").unlink()
    with pytest.raises(DataError, match="is missing"):
        Listing().run(source, tmp_path / "kb")
    assert not (tmp_path / "kb").exists()


def test_only_bundles_are_replaced_and_only_when_asked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "kb"
    Listing().run(source, target)
    with pytest.raises(UsageError, match="--replace"):
        Listing().run(source, target)
    (source / "ids.txt").write_text("Q9\n")
    bundle, _ = Listing().run(source, target, replace=True)
    assert bundle.entity(0).id == "Q9"
    with pytest.raises(UsageError, match="no knowledge bundle"):
        Listing().run(source, source, replace=True)
    assert (source / "ids.txt").exists()


def test_what_else_lies_in_a_bundle_is_not_lost_with_it(source: Path, tmp_path: Path) -> None:
    """Neither a file of one's own, nor the source of what is imported."""
    target = tmp_path / "kb"
    Listing().run(source, target)
    shutil.copytree(source, target / "raw")
    with pytest.raises(DataError, match="holds 'raw', which is no part of a bundle"):
        Listing().run(target / "raw", target, replace=True)
    (target / "thesis.txt").write_text("years of it")
    with pytest.raises(DataError, match="holds 'raw' and 1 more"):
        write_vectors(target, np.zeros((3, 2), np.float32), {"model": "none"})
    with pytest.raises(DataError, match="would be lost"):
        write_bundle(target, Bundle(target).card, [Entity("Q1", "")])
    assert sorted(path.name for path in (target / "raw").iterdir()) == ["ids.txt"]
    assert (target / "thesis.txt").read_text() == "years of it"


def test_an_id_longer_than_any_is_a_malformed_row(source: Path, tmp_path: Path) -> None:
    """All ids are stored at the width of the longest."""
    (source / "ids.txt").write_text("Q1\nQ2\n" + "x" * 100_000 + "\n")
    bundle, report = Listing().run(source, tmp_path / "kb")
    assert (len(bundle), report.read["ids"]) == (2, 3)
    with pytest.raises(ValueError, match="has 100,000 letters"):
        write_bundle(tmp_path / "own", bundle.card, [Entity("x" * 100_000, "")])


def test_a_name_that_cannot_be_written_is_refused_before_anything_is(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="half a surrogate"):
        Listing().run(source, tmp_path / "\udcff")
    bundles = []
    for name in "ab":
        (source / "ids.txt").write_text(f"Q{name}\n")
        bundles.append(Listing().run(source, tmp_path / name)[0])
    with pytest.raises(UsageError, match="half a surrogate"):
        merge(bundles, tmp_path / "both", "\udcff")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"a", "b", "source"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name here")
def test_a_pipe_is_not_waited_for(source: Path, tmp_path: Path) -> None:
    (source / "ids.txt").unlink()
    os.mkfifo(source / "ids.txt")
    with within(10), pytest.raises(DataError, match="no regular file"):
        Listing().run(source, tmp_path / "kb")


def test_a_line_of_separators_alone_is_not_taken_to_pieces() -> None:
    with within(10, 100), pytest.raises(ValueError, match="has 2000001 fields"):
        fields("a\t" * 2_000_000, ["head", "relation", "tail"])


def test_an_interrupted_import_leaves_the_old_bundle(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "kb"
    before, _ = Listing().run(source, target)
    (source / "ids.txt").write_text("Q9\n")
    with pytest.raises(KeyboardInterrupt):
        Listing().run(source, target, [("fail", "yes")], replace=True)
    after = Bundle(target)
    after.verify()
    assert after.digest == before.digest
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"kb", "source"}


def test_a_file_of_another_format_is_an_error(source: Path, tmp_path: Path) -> None:
    (source / "ids.txt").write_text("Q1\na\tb\nc\td\n")
    with pytest.raises(DataError, match=r"ids\.txt, line 2: .*\(2 of 3 rows\); expected an id"):
        Listing().run(source, tmp_path / "kb")


def test_only_the_first_bad_rows_are_spelled_out(source: Path, tmp_path: Path) -> None:
    (source / "ids.txt").write_text("Q1\n" * 100 + "a\tb\n" * 50)
    report = Report()
    path = source / "ids.txt"
    assert len(list(read_rows(path, "ids", lambda s: fields(s, ["id"]), report, "ids"))) == 100
    assert len(report.examples) == 5
    assert report.dropped["ids"]["malformed"] == 50


def test_who_watches_is_told_of_rows_now_and_then(source: Path, tmp_path: Path) -> None:
    (source / "ids.txt").write_text("".join(f"Q{number}\n" for number in range(45_000)))
    seen: list[tuple[str, int]] = []
    Listing().run(source, tmp_path / "kb", watch=lambda kind, rows: seen.append((kind, rows)))
    assert seen == [("ids", 20_000), ("ids", 40_000)]


def test_packed_rows_and_damaged_archives(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.txt.gz"
    packed = gzip.compress(b"\xef\xbb\xbfQ7\nQ8\n")
    path.write_bytes(packed)
    bundle, _ = Listing().run(source, tmp_path / "kb", [("extra", str(path))])
    assert bundle.rows(["Q7", "Q8"]).min() >= 0
    path.write_bytes(packed[:-9])
    with pytest.raises(DataError, match=r"more\.txt\.gz: cannot be read"):
        Listing().run(source, tmp_path / "kb2", [("extra", str(path))])


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["more.txt.gz", "more.txt.bz2", "more.txt.xz", "more.txt"])
def test_what_is_packed_is_seen_by_its_bytes(
    source: Path, tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / name
    path.write_bytes(pack(b"\xef\xbb\xbfQ7\nQ8\n") + pack(b"Q9\n"))
    bundle, _ = Listing().run(source, tmp_path / "kb", [("extra", str(path))])
    assert bundle.rows(["Q7", "Q8", "Q9"]).min() >= 0
    path.write_bytes(pack(b"Q7\nQ8\n" * 9)[:-6])
    with pytest.raises(DataError, match=r"more\.txt.*: cannot be read"):
        Listing().run(source, tmp_path / "kb2", [("extra", str(path))])
    path.write_bytes(pack(b""))
    assert len(Listing().run(source, tmp_path / "kb3", [("extra", str(path))])[0]) == 3


def test_text_that_looks_packed(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.txt"
    path.write_text("BZh91\n")
    assert len(Listing().run(source, tmp_path / "kb", [("extra", str(path))])[0]) == 4
    path = path.rename(tmp_path / "more.txt.xz")
    with pytest.raises(DataError, match=r"its name ends in \.xz, and it is not packed"):
        Listing().run(source, tmp_path / "kb2", [("extra", str(path))])


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kbench.knowledge.importing._LONGEST", 1000)
    path = tmp_path / "rows.tsv.gz"
    path.write_bytes(gzip.compress(b"a\tb\n" + b"0" * 100_000))
    with pytest.raises(DataError, match=r"rows.tsv.gz, line 2: is longer than"):
        list(read_lines(path, "one row a line"))
