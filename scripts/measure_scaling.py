"""What it costs to find a fact among more and more: a text retrieved, against all facts looked at.

    pip install 'knowledge-bench[retrieval,leaderboard]'
    python -m scripts.measure_scaling scaling                 # both, from 64 to all
    python -m scripts.measure_scaling scaling --method ra     # what needs no training

`ra` has the description that BM25 finds likeliest for the words of a question, among those of so
many entities, the question's own among them; it needs no linker. `kblam` in its mode `global` looks
at as many facts, those of the question's own entity among them, and is trained anew for each
number. Runs are stored in the folder and made once; accuracy and seconds go into a table,
`scaling.csv` and `scaling.svg` there. The questions are those of atlas-qa; the backbone is
`kbench-tiny-lm`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import kbench
from kbench.data import Example, Split, TaskCard
from kbench.knowledge import Bundle
from kbench.parts.catalogue import Kind
from kbench.store import Result, Results, Status
from kbench.task import QuestionTask
from kbench.testing import registered
from kbench_tasks.atlas import AtlasQuestions
from kbench_tasks.knowledge.atlas import Atlas

COUNTS = (64, 512, 4096, 1_000_000)
"""Of texts, or of facts; the last is all there are."""
KBLAM: Mapping[str, Any] = {
    "mode": "global",
    "every": 1,
    "source": "words",
    "start": "scratch",
    "shown": 200,
    "pointing": 1.0,
    "task-specific": {"learning_rate": 0.01, "epochs": 10, "decay": "linear", "select": False},
}
"""While it learns 1 to 200 facts, as the release; so it is one training, and dev is not asked."""


class RetrievedQuestions(QuestionTask):
    """The questions of atlas-qa, linked to what is retrieved.

    Attributes:
        among: how many texts, the question's own among them.
    """

    among: ClassVar[int] = 0
    max_length = AtlasQuestions.max_length
    card: ClassVar[TaskCard] = replace(AtlasQuestions.card, title="atlas questions, retrieved")

    def load(self, split: Split) -> Sequence[Example]:
        examples = AtlasQuestions().load(split)
        return [*retrieved(examples, self.among)]


def retrieved(examples: Sequence[Example], among: int) -> Iterator[Example]:
    """Links each example's mentions to the entity whose text is likeliest for its words."""
    knowledge = base()
    own = knowledge.rows([example.mentions[0].entity for example in examples])
    scores = likeliness(tuple(example.text for example in examples))
    total = scores.shape[1]
    some = np.arange(min(among, total)) * total // min(among, total)
    for example, row, likely in zip(examples, own.tolist(), scores, strict=True):
        found = some[int(likely[some].argmax())]
        if row >= 0 and likely[row] >= likely[found]:
            found = row
        mentions = (replace(m, entity=knowledge.ids[int(found)]) for m in example.mentions)
        yield replace(example, mentions=tuple(mentions))


@cache
def base() -> Bundle:
    """The knowledge base."""
    return Bundle(Atlas().folder())


@cache
def likeliness(texts: tuple[str, ...]) -> NDArray[np.float32]:
    """How well each entity's text fits to some texts, by BM25. ``[texts, entities]``."""
    import bm25s

    knowledge = base()
    told = [knowledge.describe(row) for row in range(len(knowledge))]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(told, show_progress=False), show_progress=False)
    asked = bm25s.tokenize(list(texts), return_ids=False, show_progress=False)
    found: NDArray[np.float32] = np.stack([index.get_scores(words) for words in asked])
    return found


@dataclass(frozen=True)
class Point:
    """A line of the table.

    Attributes:
        method: ``ra`` or ``kblam``.
        among: texts or facts.
        accuracy: on test, in per cent.
        low: of its interval.
        high: of its interval.
        seconds: of evaluation, of the processor.
        training: seconds of it, too.
    """

    method: str
    among: int
    accuracy: float
    low: float
    high: float
    seconds: float
    training: float


def measured(out: Path, method: str, count: int, limit: int | None) -> Point:
    """Runs one, or reads it."""
    knowledge = base()
    among = min(count, len(knowledge) if method == "ra" else len(knowledge.triples))
    name = f"retrieved-{among}"
    task = type(f"Among{among}", (RetrievedQuestions,), {"among": among})
    globals()[task.__name__] = task
    place = f"{__name__}:{task.__name__}"
    with registered(Kind.TASKS, **{name: place}):
        kbench.run(
            task=name if method == "ra" else "atlas-qa",
            backbone="kbench-tiny-lm",
            tuning="prompted",
            method=method,
            setting="general" if method == "ra" else "task-specific",
            control="none",
            seed=0,
            limit=limit,
            options={} if method == "ra" else {"method": {"kblam": {**KBLAM, "facts": among}}},
            out=str(out / f"{method}-{among}"),
            tell=print,
        )
    (result,) = Results(out / f"{method}-{among}")
    return _point(method, among, result)


def _point(method: str, among: int, result: Result) -> Point:
    if result.status != Status.OK or result.score is None:
        raise SystemExit(f"{method}, {among}: {result.reason}")
    score, cost = result.score, result.cost
    return Point(
        method,
        among,
        accuracy=round(100 * score.value, 1),
        low=round(100 * score.low, 1),
        high=round(100 * score.high, 1),
        seconds=round(cost["evaluate_processor_seconds"], 1),
        training=round(cost["train_processor_seconds"], 1),
    )


def draw(points: Sequence[Point], path: Path) -> None:
    """Writes accuracy and seconds over the number, side by side, as SVG."""
    import altair as alt
    import vl_convert

    data: Any = {"values": [asdict(point) for point in points]}
    across = alt.X("among:Q", title="texts or facts", scale=alt.Scale(type="log"))
    colour = alt.Color("method:N", scale=alt.Scale(range=["#0072B2", "#D55E00"]), title=None)
    panels = [
        alt.Chart(data, width=240, height=140)
        .mark_line(point=True)
        .encode(across, alt.Y(f"{value}:Q", title=title), colour, alt.Shape("method:N", title=None))
        for value, title in (("accuracy", "accuracy"), ("seconds", "processor s of evaluation"))
    ]
    picture = alt.hconcat(*panels).configure(font="sans-serif", background="white")
    path.write_text(vl_convert.vegalite_to_svg(picture.to_dict(), allowed_base_urls=[]))


def main() -> None:
    """Measures, prints a table and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--method", choices=("ra", "kblam"))
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    points = [
        measured(given.out, method, count, given.limit)
        for method in ([given.method] if given.method else ["ra", "kblam"])
        for count in COUNTS
    ]
    with (given.out / "scaling.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(points[0])))
        writer.writeheader()
        writer.writerows(map(asdict, points))
    draw(points, given.out / "scaling.svg")
    for point in points:
        print(*asdict(point).values(), sep="\t")


if __name__ == "__main__":
    main()
