"""No address moves unless a revision is raised."""

from __future__ import annotations

import json
from pathlib import Path

from kbench.model import Head
from kbench.model.heads import RelationHead
from kbench.task import RelationTask
from kbench.testing.toys import ToyRelations
from tests.run.golden import PATH, addresses


def test_addresses_are_those_written_out(tmp_path: Path) -> None:
    written = json.loads(PATH.read_text(encoding="utf-8"))
    found = addresses(tmp_path)
    assert len(found["demo"]) == 18
    assert len(found["demo-decoder"]) == 13
    assert found == written


def test_a_head_of_ones_own_has_a_name_of_its_own() -> None:
    class Kept(ToyRelations):
        pass

    class Own(ToyRelations):
        def head(self, width: int) -> Head:
            return RelationHead(width, self.labels)

    assert Kept().form["head"] == RelationTask.head_name == "kbench.task:RelationTask"
    assert Own().form["head"] == f"{__name__}:{Own.__qualname__}"
