"""Sentences that no person would write: no finite verb, a clause twice, a thing that is its own object. Pure."""

import re

from capsfusion_etl.judge.lexicon import free_words, is_english, lemmas, verb_tags, words

_FINITE = frozenset(
    {
        "am", "is", "are", "was", "were", "has", "have", "had", "do", "does", "did", "can", "could", "may", "might",
        "must", "shall", "should", "will", "would",
    }
)  # fmt: skip
# Words after which a word is no finite verb, and words that make a subject plural.
_DETERMINERS = frozenset(
    {
        "a", "an", "the", "his", "her", "its", "their", "of", "in", "on", "with", "and", "for", "to", "some", "several",
        "two", "three", "four", "five", "many", "few",
    }
)  # fmt: skip
_PLURAL = frozenset(
    {
        "and", "people", "men", "women", "children", "police", "group", "couple", "team", "sheep", "deer", "fish",
        "they", "we", "you", "two", "three", "four", "five", "many", "several",
    }
)  # fmt: skip
_CONTRACTION = re.compile(r"\b(?:it|there|that|here|he|she|who|what)['’]s\b|n['’]t\b|['’](?:re|ve|ll|d|m)\b")
_SELF = re.compile(
    r"\b([a-z]+)(?:,? (?:that|which))? (features?|featuring|includes?|including|contains?|containing|has|have|made of) "
    r"(?:an?|the|one|two|three|its|their|another) ([a-z]+)\b(?! [a-z]+ (?:is|are|has))"
)
_RUN = 5  # words of a clause that may not occur twice


def has_finite_verb(text: str) -> bool:
    """Return whether a word of `text` may be a finite verb; in doubt true: many nouns look like verbs."""
    if not is_english(text) or _CONTRACTION.search(text.lower()):
        return True
    found, plural = re.findall(r"\w+", text.lower()), False
    for before, word, after in zip(["the", *found], found, [*found[1:], ""], strict=False):
        tags = verb_tags(word) if before not in _DETERMINERS else frozenset()
        if word in _FINITE or "VBZ" in tags or ("VBP" in tags and plural) or ("VBD" in tags and after != "by"):
            return True
        plural = plural or word in _PLURAL or word.endswith("s") or word.isdigit()
    return False


def said_twice(text: str, source: str) -> str | None:
    """Return five consecutive words that `text` has twice and `source` at most once, or None."""
    found = words(text)
    runs = list(zip(*(found[i:] for i in range(_RUN)), strict=False))
    if len(set(runs)) == len(runs):
        return None
    said, before = " ".join(words(source)), set[tuple[str, ...]]()
    for run in runs:
        phrase = " ".join(run)
        if run in before and said.count(phrase) < 2 and sum(word not in free_words() for word in run) > 1:
            return phrase
        before.add(run)
    return None


def own_object(text: str, source: str) -> str | None:
    """Return words in which a noun is its own object, such as "car that features a car", if `source` lacks them."""
    for match in _SELF.finditer(text.lower()):
        noun = match.group(1)
        if len(noun) > 2 and noun not in free_words() and lemmas(noun) & lemmas(match.group(3)):
            return None if match.group() in source.lower() else match.group()
    return None
