"""English words for the judge and for decoding: dictionary forms, inflections, and the closed lists in words/.

A fused caption may use the words of its sources, their inflections, and the function words and presenting words ("is
shown", "titled", "in the background"), none of which states a fact.
"""

import re
from functools import lru_cache
from html import unescape
from importlib.resources import files

_WORD = re.compile(r"[^\W\d_]+")
_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
_ENGLISH = frozenset({"the", "of", "with", "and", "for", "from", "this", "that", "it", "is", "are", "was"})


def without_markup(text: str) -> str:
    """Return `text` without HTML tags, and with characters instead of entities."""
    return unescape(_TAG.sub(" ", text))


def words(text: str) -> list[str]:
    """Return the words of `text` in lower case, without digits."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=16)
def groups(name: str) -> tuple[frozenset[str], ...]:
    """Return the lines of the list words/`name`.txt as sets of words; lines that begin with # are comments."""
    text = files("capsfusion_etl.judge").joinpath("words", f"{name}.txt").read_text(encoding="utf-8")
    return tuple(frozenset(line.split()) for line in text.splitlines() if line and not line.startswith("#"))


@lru_cache(maxsize=16)
def listed(name: str) -> frozenset[str]:
    """Return all words of the list words/`name`.txt."""
    return frozenset().union(*groups(name))


@lru_cache(maxsize=10_000)
def synonyms(word: str) -> frozenset[str]:
    """Return the words of the groups in words/synonyms.txt that have a dictionary form of `word`."""
    return frozenset().union(*(group for group in groups("synonyms") if group & lemmas(word)))


def is_english(text: str) -> bool:
    """Return whether `text` has function words that other languages hardly have, or half of its words are English."""
    found = words(text)
    return not _ENGLISH.isdisjoint(found) or sum(map(in_dictionary, found)) * 2 > len(found)


@lru_cache(maxsize=1)
def free_words() -> frozenset[str]:
    """Return the function words and the presenting words with all their inflections, in lower case."""
    return listed("function").union(*(inflections(word) for word in listed("presenting")))


@lru_cache(maxsize=1)
def framing_words() -> frozenset[str]:
    """Return the function words, and the words with which a caption says that a picture shows something."""
    return listed("function").union(*map(inflections, ("show", "see", "picture", "image", "photo")))


@lru_cache(maxsize=100_000)
def lemmas(word: str) -> frozenset[str]:
    """Return the dictionary forms of a lower-case word, and the word itself: stands -> stand, stands."""
    from lemminflect import getAllLemmas

    found = {form for forms in getAllLemmas(word).values() for form in forms}
    if len(word) > 2 and word.endswith("s") and not word.endswith("ss"):
        found.add(word[:-1])  # names and new words, which the dictionary lacks
    return frozenset(found | {word})


@lru_cache(maxsize=100_000)
def inflections(word: str) -> frozenset[str]:
    """Return the forms of a lower-case word as noun and as verb: stands -> stand, stands, stood, standing."""
    from lemminflect import getAllInflections

    found = {word}
    for lemma in lemmas(word):
        found.add(lemma)
        for tag, forms in getAllInflections(lemma).items():
            if tag[0] in "NV":  # comparatives would make "righter" of "right"
                found.update(forms)
    return frozenset(found)


@lru_cache(maxsize=50_000)
def verb_tags(word: str) -> frozenset[str]:
    """Return the tags of the Penn Treebank that a lower-case word has as a verb: holds -> VBZ; hold -> VB, VBP."""
    from lemminflect import getAllInflections, getAllLemmas

    return frozenset(
        tag
        for lemma in getAllLemmas(word, upos="VERB").get("VERB", ())
        for tag, forms in getAllInflections(lemma, upos="VERB").items()
        if word in forms
    )


def in_dictionary(word: str) -> bool:
    """Return whether a lower-case word is an ordinary English word, as opposed to a name."""
    from lemminflect import getAllLemmas

    return word in free_words() or bool(getAllLemmas(word))
