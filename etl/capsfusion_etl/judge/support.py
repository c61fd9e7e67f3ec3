"""Support of a caption's words: which ones neither source has, and what kind of words these are. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from capsfusion_etl.judge.grounding import numbers, words_and_names
from capsfusion_etl.judge.lexicon import free_words, groups, is_english, lemmas, listed, synonyms, words
from capsfusion_etl.judge.scripts import OTHER_SCRIPT
from capsfusion_etl.judge.spelling import COUNTED_WORDS, MAX_WORDS, same_stem

_OTHER_WORD = re.compile(f"(?:{OTHER_SCRIPT.pattern}){{2}}")  # two letters: one may be a unit, such as Ω
_ENDING = re.compile(r"(?:ly|ness|ment|ing|ed|er|ful|al|ic|y|ion|s)$")
_MIN_STEM = 4


@dataclass(frozen=True, slots=True)
class Support:
    """Words of a caption that no source supports, in order.

    Attributes:
        unsupported: words with content.
        claims: words that claim fame, frequency, purpose or knowledge.
        embellished: words that only praise or fill.
        genders: words that state a gender which no source states.
    """

    unsupported: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    embellished: tuple[str, ...] = ()
    genders: tuple[str, ...] = ()

    @property
    def all_unsupported(self) -> tuple[str, ...]:
        """Words that state something: all but praise."""
        return self.unsupported + self.claims + self.genders


def support(fused: str, *sources: str) -> Support:
    """Compare the words of `fused` with its sources.

    Supported is a word that a source has in any inflection, as part of another word, or as a plain synonym; names are
    compared by `grounding`. If a text is not English, every word counts as supported: only a translator could decide.
    """
    if not is_english(fused) or any(_OTHER_WORD.search(text) for text in (fused, *sources)):
        return Support()
    said = " ".join(sources)
    known: set[str] = set().union(*(lemmas(word) for word in set(words(said))))
    found = dict.fromkeys(words(fused))
    stated = {gender for word in known for gender in _genders(word)}
    genders = tuple(word for word in found if _genders(word) - stated)
    names = words_and_names(fused)[1] | {COUNTED_WORDS[n] for n in numbers(said) if n in COUNTED_WORDS}
    letters = re.sub(r"[\W\d_]+", "", said.lower())
    kinds: dict[str, list[str]] = {"unsupported": [], "claims": [], "embellished": [], "free": []}
    for word in found:
        if (
            len(word) > 2
            and word not in names
            and word not in free_words()
            and not lemmas(word) & known
            and word not in letters
        ):
            kinds["free" if len(known) < MAX_WORDS and _implied(word, known) else _kind(word)].append(word)
    return Support(tuple(kinds["unsupported"]), tuple(kinds["claims"]), tuple(kinds["embellished"]), genders)


def _kind(word: str) -> str:
    forms = lemmas(word)
    if _genders(word) or forms & listed("neutral"):
        return "free"
    if forms & listed("claims"):
        return "claims"
    return "embellished" if forms & listed("praise") else "unsupported"


@lru_cache(maxsize=10_000)
def _genders(word: str) -> frozenset[int]:
    return frozenset(i for i, gender in enumerate(groups("genders")) if gender & lemmas(word))


def _implied(word: str, known: Iterable[str]) -> bool:
    if not synonyms(word).isdisjoint(known):
        return True
    stem = _ENDING.sub("", word)
    return len(stem) >= _MIN_STEM and any(
        (other.startswith(stem) and len(other) - len(stem) < _MIN_STEM) or same_stem(word, other) for other in known
    )
