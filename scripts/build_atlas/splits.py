"""The file of the split: which leaves are dev and test, and which names nobody may train on."""

from __future__ import annotations

import json
from pathlib import Path

from scripts.build_atlas.assemble import Split, unseen_names
from scripts.build_atlas.draft import Atlas
from scripts.build_atlas.lists import LANGUAGES
from scripts.wordnet_text import words_of


def hub_words(atlas: Atlas) -> list[str]:
    """All words of hub labels and of types: what answers and contexts are made of."""
    hubs = [d for d in atlas.entities.values() if not d.leaf and d.group != "timezone"]
    texts = [d.label for d in hubs] + [t for d in atlas.leaves() for t in d.types]
    return sorted(
        {w for text in [*texts, *LANGUAGES.values()] for w in words_of(text) if len(w) > 1}
    )


def write_splits(path: Path, atlas: Atlas, split: Split, seed: int) -> None:
    """Writes the split as JSON; the pre-training script and the tests read it."""
    content = {
        "seed": seed,
        "dev": sorted(id for id, part in split.items() if part == "dev"),
        "test": sorted(id for id, part in split.items() if part == "test"),
        "unseen_names": unseen_names(atlas, split),
        "hub_words": hub_words(atlas),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=0, ensure_ascii=False) + "\n", "utf-8")
