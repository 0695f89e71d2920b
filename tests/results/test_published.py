from __future__ import annotations

import pytest
from pydantic import ValidationError

from kbench.parts import registry
from kbench.parts.catalogue import Kind
from kbench.results.published import Figure, _Table, figures
from kbench.training import Tuning

FOUR = ("accuracy_5w1s", "accuracy_5w5s", "accuracy_10w1s", "accuracy_10w5s")


def found(**wanted: str | None) -> list[Figure]:
    return [f for f in figures() if all(getattr(f, name) == v for name, v in wanted.items())]


def test_every_row_of_the_specification_is_there() -> None:
    """Counted by hand in the tables of section 4, a number each."""
    counts = {
        "map-tuning.json": 11 * (4 + 1 + 3 + 1) + 1 + 2 * 4,
        "secondary": 4 * 2 + 1,
        "ernie": 4 * 2,
        "k-adapter": 3 * 3 * 2 + 2,
        "luke": 3 + 1,
        "fewrel": 2 * 4 + 3 * 4 + 4,
        "memory-decoder": 8,
        "codex": 5 * 3,
    }
    assert len(figures()) == sum(counts.values())
    assert sum(f.source.kind == "repository" for f in figures()) == counts["map-tuning.json"]
    assert sum(not f.source.verified for f in figures()) == counts["secondary"]


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ({"task": "fewrel", "tuning": "lora", "setting": "general", "metric": FOUR[2]}, 0.874),
        ({"task": "wiki-et", "tuning": "full", "setting": "general", "metric": "micro_f1"}, 0.766),
        ({"task": "wiki-et", "tuning": "bitfit", "method": "none", "metric": "micro_recall"}, 0.78),
        ({"task": "entity-questions", "setting": "task-specific"}, 0.589),
        ({"task": "open-entity", "method": "luke", "metric": "micro_f1"}, 0.782),
        ({"task": "tacred", "method": "ernie"}, 0.6797),
        ({"task": "figer", "method": "none"}, 0.5204),
        ({"task": "codex-m", "method": "ComplEx"}, 0.337),
        ({"task": "wikitext-103", "method": "memory-decoder", "backbone": "gpt2-xl"}, 10.93),
        ({"task": "fewrel", "split": "val", "metric": FOUR[0]}, 0.8566),
    ],
)  # fmt: skip
def test_some_of_them(wanted: dict[str, str], value: float) -> None:
    (figure,) = found(**wanted)
    assert figure.value == value


def test_names_are_kbenchs_where_it_has_them() -> None:
    ours = {"e-bert", "ernie", "k-adapter", "map-tuning", "none", "pelt"}
    assert ours <= {*registry.names(Kind.METHODS)}
    published = {f.method for f in figures()}
    assert ours <= published
    assert published - ours == {
        "ComplEx", "ConvE", "RESCAL", "TransE", "TuckER", "luke", "memory-decoder"
    }  # fmt: skip
    assert {f.tuning for f in figures()} - {None} <= {*registry.names(Kind.TUNINGS)}
    assert issubclass(registry.get(Kind.TUNINGS, "full"), Tuning)


def test_a_table_that_does_not_fit_is_refused() -> None:
    row = {"method": "m", "backbone": "b", "tuning": None, "setting": None, "values": [0.5]}
    table = {"task": "t", "split": "test", "unit": "fraction", "metrics": ["a"], "variants": ["a"]}
    _Table.model_validate({**table, "rows": [row]})
    for wrong in ([0.5, 0.5], [50.0], []):
        with pytest.raises(ValidationError):
            _Table.model_validate({**table, "rows": [{**row, "values": wrong}]})
