"""FewRel as it was meant: N-way K-shot relation classification in episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, final

from kbench.data import NONE_OF_THE_ABOVE, Candidate, Example, Prompt, Size, Split, TaskCard
from kbench.data.sources import find_file, find_folder, group, hub_records, is_hub, read_groups
from kbench.errors import DataError, UsageError
from kbench.metrics import Accuracy, Metric, Within
from kbench.spec import OptionType
from kbench.task import RelationTask
from kbench_tasks.fewrel_relations import NAMED, STATED
from kbench_tasks.fewrel_supervised import FEW_REL_ROW, ROW, marked_pair

if TYPE_CHECKING:
    from kbench.data.records import Record
    from kbench.model import Head

__all__ = ["FORMS", "FewRel", "FewRelPubMed"]

FORMS: Mapping[str, tuple[int, int]] = {
    "5w1s": (5, 1),
    "5w5s": (5, 5),
    "10w1s": (10, 1),
    "10w5s": (10, 5),
}
"""The four settings: ways (N) and shots (K)."""
_TRAINED = "5w1s"
_TRAINING = {
    # Episodes of 25 queries, each paired with five supports of 33 tokens as long as itself.
    Split.TRAIN: Size(75_000, 69, texts=5),
    Split.DEV: Size(2_500, 69, texts=5),
}
# 200 5-way and 100 10-way episodes: 5,000 queries in each setting, 5, 25, 10 and 50 pairs each.
_TESTED = 20_000
_PAIRS = 22.5
_HELD_OUT = 10
"""Relations kept apart where one file must serve two splits: as many as 10-way episodes need."""

Relations = dict[str, list[Example]]
T = TypeVar("T")


class FewRel(RelationTask):
    """FewRel: which of N relations, each shown by K sentences, does a sentence express?

    An episode draws N relations, and of each K supports and ``queries`` queries that are none of
    them. A model is tuned on 5-way 1-shot episodes and tested, on relations it never saw, in all
    four settings: four metrics of one run, 5-way 1-shot first. Episodes are drawn by digest: the
    same everywhere, for every model and method. ``episodes`` 5-way ones are tested in each
    setting, and half as many 10-way ones, as in the map-tuning release (200 and 100).

    Files as published, ``{relation: [{tokens, h: [name, id, [[index, …], …]], t: …}, …]}``. With
    ``train_wiki.json``, ``val_wiki.json`` and ``test_wiki.json`` in the folder these are the
    splits. The published test set is hidden: without a third file, val is the test split and ten
    relations of train are held out for dev. With a single file, ten of its relations are the test
    split, and of the others a fifth of the sentences is dev; figures are then not comparable with
    others', and only good for trying.

    With ``none_rate`` r each episode has ``r * queries`` queries more, of none of its relations
    ("none of the above", FewRel 2.0); one that comes to no query is refused.
    """

    prompt = STATED
    ways: ClassVar[Mapping[str, Prompt]] = {"name": NAMED}
    card = TaskCard(
        title="FewRel (few-shot)",
        revision="1",
        licence="MIT",
        citation="Xu Han, Hao Zhu, Pengfei Yu, Ziyun Wang, Yuan Yao, Zhiyuan Liu and Maosong "
        "Sun: FewRel: A Large-Scale Supervised Few-Shot Relation Classification "
        "Dataset, EMNLP 2018; Tianyu Gao, Xu Han, Hao Zhu, Zhiyuan Liu, Peng Li, "
        "Maosong Sun and Jie Zhou: FewRel 2.0: Towards More Challenging Few-Shot "
        "Relation Classification, EMNLP 2019",
        source="https://github.com/thunlp/FewRel",
        obtain="the data folder of https://github.com/thunlp/FewRel with train_wiki.json and "
        "val_wiki.json (`kbench fetch fewrel` brings it)",
        sizes={**_TRAINING, Split.TEST: Size(_TESTED, 69, texts=_PAIRS)},
    )
    metrics: tuple[Metric, ...] = tuple(Within(form, Accuracy()) for form in FORMS)
    head_name = "kbench_tasks.fewrel:FewRel"
    max_length = 512
    defaults: ClassVar[Mapping[str, float | int | str]] = {
        "episodes": 200,
        "train_episodes": 3000,
        "dev_episodes": 100,
        "queries": 5,
        "none_rate": 0,
        "ask": "statement",
    }
    option_types: ClassVar[Mapping[str, OptionType]] = {
        "episodes": OptionType("whole number", least=1),
        "train_episodes": OptionType("whole number", least=1),
        "dev_episodes": OptionType("whole number", least=1),
        "queries": OptionType("whole number", least=1),
        "none_rate": OptionType("number", least=0, below=100),
        "ask": OptionType("text", words=("statement", "name")),
    }
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Of the map-tuning release: 3,000 episodes of 25 queries, four a step. It tunes no head
        # alone, which takes here what is published for light tunings.
        "full": {"learning_rate": 2e-5, "batch_size": 100, "epochs": 1},
        "lora": {"learning_rate": 8e-4, "batch_size": 100, "epochs": 1},
        "adapter": {"learning_rate": 5e-4, "batch_size": 100, "epochs": 1},
        "bitfit": {"learning_rate": 8e-4, "batch_size": 100, "epochs": 1},
        "head": {"learning_rate": 8e-4, "batch_size": 100, "epochs": 1},
    }

    def __init__(
        self, data: str | None = None, options: Mapping[str, float | int | str] | None = None
    ) -> None:
        super().__init__(data, options)
        rate, queries = self.options["none_rate"], self.options["queries"]
        if rate and not self._none_of_the_above:
            raise UsageError(
                f"none_rate is {rate}, which of {queries} queries is none; expected 0, or at "
                f"least 1/{queries}"
            )

    def load(self, split: Split) -> Sequence[Example]:
        """Draws the episodes of a split.

        Raises:
            DataError: a file is missing or malformed, or has too few relations or sentences.
        """
        relations = self._relations[split]
        self.counts[f"{split}_relations"] = len(relations)
        self.counts[f"{split}_sentences"] = sum(map(len, relations.values()))
        examples: list[Example] = []
        for form in FORMS if split == Split.TEST else (_TRAINED,):
            number = self._episodes(split, form)
            self.counts[f"{split}_episodes_{form}"] = number
            for episode in range(number):
                examples += self._episode(split, form, episode, relations)
        return examples

    def head(self, width: int) -> Head:
        """Returns a head that compares a sentence with the supports of each relation."""
        from kbench.model.heads import PairHead

        return PairHead(width, none=self._none_of_the_above > 0)

    def prompted_head(self, scorer: str) -> Head | None:
        """Returns the relations of an episode as candidates, behind their supports."""
        from kbench.model import EpisodeHead, StatementHead

        if self.prompt is None:
            return None
        kind = StatementHead if self.prompt.statements else EpisodeHead
        labels = sorted({name for own in self._relations.values() for name in own})
        return kind(labels, self.prompt, scorer, none=self._none_of_the_above > 0)

    @property
    def form(self) -> dict[str, object]:
        return {**super().form, "none": self._none_of_the_above > 0}

    def _episodes(self, split: Split, form: str) -> int:
        if split != Split.TEST:
            return int(self.options[f"{split}_episodes"])
        ways, _ = FORMS[form]
        return max(1, int(self.options["episodes"]) * 5 // ways)

    @property
    def _none_of_the_above(self) -> int:
        """Queries of an episode that are of none of its relations."""
        # A whole number may come out a little less: 0.29 of 100.
        return int(float(self.options["none_rate"]) * int(self.options["queries"]) + 1e-9)

    def _episode(
        self, split: Split, form: str, episode: int, relations: Relations
    ) -> Iterator[Example]:
        (ways, shots), queries = FORMS[form], int(self.options["queries"])
        name = f"{split}/{form}/{episode}"
        draws = _Draws(name)
        self._check_enough(split, ways, shots + queries, relations)
        chosen = draws.sample(sorted(relations), ways)
        drawn = {
            relation: draws.sample(relations[relation], shots + queries) for relation in chosen
        }
        candidates = tuple(Candidate(r, tuple(sentences[:shots])) for r, sentences in drawn.items())
        asked = [(query, relation) for relation in chosen for query in drawn[relation][shots:]]
        for _ in range(self._none_of_the_above):
            (relation,) = draws.sample(sorted(relations.keys() - {*chosen}), 1)
            asked.append((draws.sample(relations[relation], 1)[0], NONE_OF_THE_ABOVE))
        for number, (query, label) in enumerate(asked):
            yield replace(
                query, id=f"{name}/{number}", label=label, candidates=candidates, stratum=form
            )

    def _check_enough(self, split: Split, ways: int, sentences: int, relations: Relations) -> None:
        wanted = ways + (self._none_of_the_above > 0)
        enough = [name for name, examples in relations.items() if len(examples) >= sentences]
        if len(enough) < wanted or len(enough) < len(relations):
            problem = f"has {len(enough)} of {len(relations)} relations with {sentences} sentences"
            expected = f"at least {wanted} relations for {split}, each with as many sentences"
            raise DataError(self.data or "", problem, expected)

    @cached_property
    def _relations(self) -> Mapping[Split, Relations]:
        train, val, test = (self._read(f"{name}_wiki") for name in ("train", "val", "test"))
        if train and val and test:
            return {Split.TRAIN: train, Split.DEV: val, Split.TEST: test}
        if train and val:
            rest, held_out = _parted(train, min(_HELD_OUT, len(train) // 2))
            return {Split.TRAIN: rest, Split.DEV: held_out, Split.TEST: val}
        only = train or val or test
        if not only:
            raise DataError(self.data or "", "has no file of relations", self.card.obtain)
        rest, held_out = _parted(only, _HELD_OUT)
        cut = {name: -(-len(sentences) * 4 // 5) for name, sentences in rest.items()}
        return {
            Split.TRAIN: {name: sentences[: cut[name]] for name, sentences in rest.items()},
            Split.DEV: {name: sentences[cut[name] :] for name, sentences in rest.items()},
            Split.TEST: held_out,
        }

    def _read(self, stem: str) -> Relations:
        """The sentences of a file by relation, in an order by digest; empty if it is absent."""
        records: dict[str, list[Record]] = {}
        if is_hub(self.data):
            if stem != "test_wiki":  # hidden by its publishers
                records = group(hub_records(self.data, stem, FEW_REL_ROW), "relation")
        else:
            path = find_file(find_folder(self.data, self.card, "fewrel"), f"{stem}.json")
            records = read_groups(path, ROW) if path.exists() else {}
        return {
            relation: sorted(
                (
                    marked_pair(f"{stem}/{relation}/{n}", record, relation)
                    for n, record in enumerate(own)
                ),
                key=lambda example: _number(example.id),
            )
            for relation, own in records.items()
        }


@final
class FewRelPubMed(FewRel):
    """FewRel 2.0, domain transfer: tuned on Wikipedia, tested on relations of medical abstracts.

    Train and dev are those of ``fewrel``, and so is the downstream model: the two tasks share it,
    and a general plug for a knowledge base of the new domain (UMLS-like ids ``C…``) is all that
    is new. Test episodes come from ``val_pubmed.json``, ten relations of 100 sentences.
    """

    card = TaskCard(
        title="FewRel 2.0 (PubMed)",
        revision="1",
        licence="MIT",
        citation="Tianyu Gao, Xu Han, Hao Zhu, Zhiyuan Liu, Peng Li, Maosong Sun and Jie Zhou: "
        "FewRel 2.0: Towards More Challenging Few-Shot Relation Classification, EMNLP "
        "2019",
        source="https://github.com/thunlp/FewRel",
        obtain="the data folder of https://github.com/thunlp/FewRel with train_wiki.json, "
        "val_wiki.json and val_pubmed.json (`kbench fetch fewrel` brings it)",
        sizes={**_TRAINING, Split.TEST: Size(_TESTED, texts=_PAIRS)},
    )

    @cached_property
    def _relations(self) -> Mapping[Split, Relations]:
        test = self._read("val_pubmed")
        if not test:
            raise DataError(self.data or "", "has no val_pubmed.json", self.card.obtain)
        return {**super()._relations, Split.TEST: test}


def _parted(relations: Relations, held_out: int) -> tuple[Relations, Relations]:
    """Holds relations out, the same ones always."""
    order = sorted(relations, key=_number)
    return (
        {name: relations[name] for name in order[held_out:]},
        {name: relations[name] for name in order[:held_out]},
    )


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@final
class _Draws:
    """Random draws that are the same in every version of everything: digests of a counter."""

    def __init__(self, name: str) -> None:
        self._numbers = (_number(f"{name}/{at}") for at in count())

    def sample(self, items: Sequence[T], size: int) -> list[T]:
        """Draws different items, in random order."""
        chosen: dict[int, None] = {}
        while len(chosen) < size:
            chosen[next(self._numbers) % len(items)] = None
        return [items[at] for at in chosen]
