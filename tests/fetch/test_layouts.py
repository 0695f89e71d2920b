"""What is fetched lies as the readers want it: each published layout, from a server to a reader."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kbench.data import Split
from kbench.fetch.folder import State, fetch, plan
from kbench.fetch.listing import Part, Published, find
from kbench.fetch.transfer import Transfer
from kbench_tasks.entity_questions import EntityQuestions
from kbench_tasks.fewrel_supervised import FewRelSupervised
from kbench_tasks.knowledge.codex import CodexImporter
from kbench_tasks.knowledge.fb15k_237 import FB15k237Importer
from kbench_tasks.knowledge.metaqa import MetaQAImporter
from kbench_tasks.knowledge.wikidata5m import Wikidata5MImporter
from kbench_tasks.lama import Lama
from kbench_tasks.metaqa import MetaQA, MetaQA2Hop
from kbench_tasks.popqa import PopQA
from kbench_tasks.wiki80 import Wiki80
from tests.fetch_server import Served, serving
from tests.tasks.test_lama import ADA, BORN, FRANCE, PAUL
from tests.tasks.test_popqa import RANKIN
from tests.tasks.test_wiki80 import TRAIN, VAL, lines

QUICK = Transfer(5, ())


def brought(name: str, root: Path, contents: dict[str, bytes], exact: bool = False) -> Published:
    """Fetches a data set of our list from a server of this machine that has these contents.

    Args:
        name: of the data set.
        root: the data folder.
        contents: of its parts, by their names where they lie; other parts are left out.
        exact: whether the contents are the published ones, of the recorded digest.
    """
    real = find(name)
    parts: list[Part] = []
    files: dict[str, Served] = {}
    with serving() as server:
        for number, part in enumerate(real.parts):
            key = part.to or part.name
            if key in contents:
                files[str(number)] = Served(contents[key])
                here = replace(part, url=f"{server.url}/{number}", hub="", revision="", file="")
                if not exact:
                    here = replace(here, bytes=None, sha256=None)
                parts.append(here)
        server.files.update(files)
        assert len(parts) == len(contents)
        published = replace(real, parts=tuple(parts), files=() if not exact else real.files)
        fetch(root, published, QUICK)
        return published


def tarred(**files: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, inner in files.items():
            info = tarfile.TarInfo(f"{name}.txt")
            info.size = len(inner)
            archive.addfile(info, io.BytesIO(inner))
    return content.getvalue()


def test_lama(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, rows in {
            "relations.jsonl": [BORN],
            "TREx/P19.jsonl": [ADA, FRANCE],
            "Google_RE/place_of_birth_test.jsonl": [PAUL],
            "ConceptNet/test.jsonl": [],
        }.items():
            archive.writestr(f"data/{name}", "".join(json.dumps(row) + "\n" for row in rows))
    words = b"London\nParis\nRome\n"
    contents = {"data.zip": content.getvalue(), "common_vocab_cased.txt": words}
    brought("lama", tmp_path, contents)
    assert not (tmp_path / "lama" / "ConceptNet").exists()
    assert len(Lama(str(tmp_path), {"dev_share": 0}).examples(Split.TEST)) == 2
    google = {"dev_share": 0, "corpus": "google-re"}
    assert len(Lama(str(tmp_path), google).examples(Split.TEST)) == 1


def test_wiki80(tmp_path: Path) -> None:
    contents = {"wiki80_train.txt": lines(TRAIN).encode(), "wiki80_val.txt": lines(VAL).encode()}
    brought("wiki80", tmp_path, contents)
    assert len(Wiki80(str(tmp_path)).examples(Split.TEST)) == len(VAL)


def test_popqa(tmp_path: Path) -> None:
    quoted = ['"' + value.replace('"', '""') + '"' for value in RANKIN.values()]
    table = "\t".join(RANKIN) + "\n" + "\t".join(quoted) + "\n"
    brought("popqa", tmp_path, {"popQA.tsv": table.encode()})
    task = PopQA(str(tmp_path))
    assert sum(len(task.examples(split)) for split in (Split.DEV, Split.TEST)) == 1


def test_metaqa(tmp_path: Path) -> None:
    asked = {
        "train": "who directed [Up]\tAda\n",
        "dev": "who shot [Up]\tDi\n",
        "test": "who wrote [Up]\tBen|Cy\n",
    }
    questions = {
        f"{hops}-hop/vanilla/qa_{split}.txt": content.encode() * hops
        for hops in (1, 2)
        for split, content in asked.items()
    }
    facts = b"Up|directed_by|Ada\nUp|written_by|Ben\n"
    brought("metaqa", tmp_path, {"kb.txt": facts, **questions})
    assert len(MetaQA(str(tmp_path)).examples(Split.TEST)) == 1
    assert len(MetaQA2Hop(str(tmp_path)).examples(Split.TRAIN)) == 2
    bundle, _ = MetaQAImporter().run(tmp_path / "metaqa", tmp_path / "kb")
    assert len(bundle.triples) == 2


def test_wikidata5m(tmp_path: Path) -> None:
    triples = {
        f"wikidata5m_transductive_{split}": f"Q{n}\tP1\tQ9\n".encode()
        for n, split in enumerate(("train", "valid", "test"))
    }
    names = {"wikidata5m_entity": b"Q0\tZero\nQ9\tNine\n", "wikidata5m_relation": b"P1\tis\n"}
    contents = {
        "wikidata5m_transductive.tar.gz": tarred(**triples),
        "wikidata5m_alias.tar.gz": tarred(**names),
    }
    brought("wikidata5m", tmp_path, contents)
    brought("wikidata5m-text", tmp_path, {"wikidata5m_text.txt.gz": b""})
    (tmp_path / "wikidata5m" / "wikidata5m_text.txt.gz").unlink()
    bundle, _ = Wikidata5MImporter().run(tmp_path / "wikidata5m", tmp_path / "kb")
    assert len(bundle) == 4
    record = json.loads((tmp_path / "wikidata5m" / ".fetched.json").read_text())
    assert len(record["files"]) == 6


@pytest.mark.parametrize(
    ("name", "folder", "read"),
    [
        ("entity-questions", "entityquestions", EntityQuestions),
        ("fewrel", "fewrel", FewRelSupervised),
        ("codex", "codex", CodexImporter),
        ("fb15k-237", "fb15k-237", FB15k237Importer),
    ],
)
def test_the_published_files_come_as_recorded(
    name: str, folder: str, read: Any, tmp_path: Path, real_data: Callable[[str], str]
) -> None:
    copy = Path(real_data(folder))
    contents = {
        part.to: (copy / part.to).read_bytes()
        for part in find(name).parts
        if part.sha256 and (copy / part.to).is_file()
    }
    published = brought(name, tmp_path, contents, exact=True)
    assert {step.state for step in plan(tmp_path, published)} == {State.RIGHT}
    if read is CodexImporter:
        bundle, _ = CodexImporter().run(tmp_path / "codex", tmp_path / "kb", [("size", "s")])
        assert len(bundle) == 2034
    elif read is FB15k237Importer:
        bundle, _ = FB15k237Importer().run(tmp_path / "fb15k-237", tmp_path / "kb")
        assert len(bundle) == 14540
    else:
        assert len(read(str(tmp_path)).examples(Split.TEST)) > 2000
