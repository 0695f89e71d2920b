"""The names of an entity, and where a name stands in a text: one rule for all who ask.

An entity is called by its label; without one by its id, where that is words; else by its first
alias. Ids that are words are those of triples alone: ``New_York``, ``River12``, ``柏林``, with
underscores for blanks. Ids that are codes are not: ``Q42``, ``/m/0abc``, ``00260881``,
``MESH:D0001``. An entity may have no name at all; then nothing can be told of it by name.

A name stands in a text as a whole word: no letter or digit stands beside it. Where a script puts
no blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) any neighbour will do, but
that a run of katakana is one word. A Korean particle may follow (``서울은``), another word of
Hangul may not (``서울대학교``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from kbench.knowledge.folding import Folded, folded, is_mark

__all__ = [
    "DENSE",
    "begins_with",
    "find_word",
    "first_place",
    "id_name",
    "is_capitals",
    "names_of",
    "shortest",
    "stands",
]

DENSE = (
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u19e0-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f"
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua980-\ua9df\uaa60-\uaadf\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U0003fffd]"
)
"""A sign of a script that puts no blanks between words, as a regular expression."""
_DENSE_SIGN = re.compile(DENSE)
_KATAKANA = re.compile("[\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff]")
_HANGUL = re.compile("[\u1100-\u11ff\uac00-\ud7a3]")
_LATER = frozenset("々ゝゞーぁぃぅぇぉゃゅょゎะาๅະາ")
"""Characters that no word of their script begins with."""
_EARLIER = frozenset("เแโใไເແໂໃໄ\u1039\u17d2")
"""Vowels written before their consonant, and signs that stack two: no word ends with them."""
_PARTICLES = re.compile(
    "(?:들|은|는|이|가|을|를|의|에|에서|에게|에게서|께|께서|한테|한테서|로|으로|로서|으로서|로써|으로써|"
    "로부터|으로부터|와|과|랑|이랑|하고|도|만|까지|부터|조차|마저|밖에|뿐|처럼|같이|만큼|보다|마다|이나|나|"
    "이든|든|이라도|라도|이라|라|이란|란|이라고|라고|이라는|라는|이라며|라며|이며|며|이고|고|이자|자|인|"
    "이다|다|입니다|이었다|였다|이었던|였던|이라면|라면|야|아|여|이여|씨|님){1,3}(?![\u1100-\u11ff\uac00-\ud7a3])"
)
"""What is written behind a Korean noun without a blank, up to three in a row."""
_CODE = re.compile(
    r"[/<#].*|.*(?:://|:(?=\S)).*|[mg]\.\w+|[0-9a-fA-F]{16,}"
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
)
_LETTERS = re.compile(r"(?<!\w)[^\W\d_]+")


@lru_cache(maxsize=1 << 10)
def id_name(entity: str) -> str:
    """Returns an id as a name, empty where it is no words but a code.

    An id is a code if it is a path, a URI or has a prefix (``MESH:D0001``), if it is a long
    hexadecimal number, or if none of its words begins with three letters, one of them in lower
    case. Words of a script without case need no more than one letter, and ids without digits two.

    Args:
        entity: the id.
    """
    text = " ".join(entity.replace("_", " ").split())
    if _CODE.fullmatch(text):
        return ""
    words = _LETTERS.findall(text)
    if not any(sign.isdigit() for sign in text):
        return text if any(_is_word(word, 2) for word in words) else ""
    return text if any(_is_word(word, 3) and not word.isupper() for word in words) else ""


def _is_word(letters: str, least: int) -> bool:
    caseless = any(unicodedata.category(sign) == "Lo" for sign in letters)
    return caseless or len(letters) >= least


def names_of(entity: str, label: str, aliases: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of an entity, each once: first how it is called, then the others.

    Args:
        entity: its id, which is a name where there is no label and the id is words.
        label: may be empty.
        aliases: may be empty, as well as each of them.
    """
    first = label.strip() or id_name(entity)
    if not aliases:
        return (first,) if first else ()
    return tuple(filter(None, dict.fromkeys([first, *map(str.strip, aliases)])))


def shortest(name: str) -> int:
    """Returns how many characters a name must have to be looked for in running text.

    Three, for shorter ones are mostly other words; two in scripts whose characters are syllables
    or words: Chinese, Japanese, Korean, Thai and those like them.

    Args:
        name: folded.
    """
    if name.isascii():
        return 3
    return 2 if _DENSE_SIGN.search(name) or _HANGUL.search(name) else 3


def is_capitals(name: str) -> bool:
    """Returns whether a name is two or three capitals, and found where it is written so (EU, USA).

    In lower case most of these are other words: Wikidata has CAN for Canada, WHO, THE and IT.
    """
    return 2 <= len(name) <= 3 and name.isalpha() and name.isupper()


def stands(text: str, start: int, end: int) -> bool:
    """Returns whether a part of a text is whole words of it."""
    if start and _continues(text, start):
        return False
    if end >= len(text):
        return True
    after = text[end]
    if after.isascii():
        return not (after.isalnum() and _joined(text[end - 1], after))
    if is_mark(after) or after in _LATER:
        return False
    if _HANGUL.match(after):
        return bool(_PARTICLES.match(text, end))
    return not _joined(text[end - 1], after)


def _continues(text: str, start: int) -> bool:
    """Whether the word before a place goes on there."""
    before = text[start - 1]
    if before.isascii():
        return before.isalnum() and _joined(text[start], before)
    if before in _EARLIER:
        return True
    at = start - 1
    while at and is_mark(text[at]):
        at -= 1
    return _joined(text[start], text[at])


def _joined(inner: str, outer: str) -> bool:
    """Whether a character belongs to the word of the one beside it, which may be a mark of it."""
    if not outer.isalnum():
        return False
    if _KATAKANA.match(inner) and _KATAKANA.match(outer):
        return True
    return not (_DENSE_SIGN.match(inner) or _DENSE_SIGN.match(outer))


def first_place(names: Iterable[str], text: str) -> tuple[int, int] | None:
    """Returns where an entity is named in a text that is about it: start and end, or None.

    The names are tried in their order, each as it is spelled and then folded; of each the first
    place counts where it stands as whole words. A name too short to be looked for in any text
    counts as it is spelled; so does an alias of two capitals, and a shorter one does not.

    Args:
        names: of the entity, first how it is called.
        text: what is said of it.
    """
    whole: Folded | None = None
    for at, name in enumerate(names):
        key = folded(name)
        short = len(key) < shortest(key)
        if short and at and not is_capitals(name):
            continue
        if (start := find_word(name, text)) >= 0:
            return start, start + len(name)
        if short:
            continue
        whole = whole or Folded.of(text)
        start = -1
        while (start := find_word(key, whole.text, start + 1)) >= 0:
            if place := whole.span(start, start + len(key)):
                return place
    return None


def begins_with(text: str, name: str) -> bool:
    """Returns whether a text begins with a name, as whole words, whatever its form and case."""
    whole, key = folded(text), folded(name)
    return bool(key) and whole.startswith(key) and stands(whole, 0, len(key))


def find_word(name: str, text: str, start: int = 0) -> int:
    """Returns where a name first stands in a text as whole words, -1 if it does not.

    Args:
        name: as the text spells it.
        text: may be folded, as the name is then.
        start: where to look from.
    """
    start = text.find(name, start) if name else -1
    while start >= 0 and not stands(text, start, start + len(name)):
        start = text.find(name, start + 1)
    return start
