"""Sentences that no person would write: no finite verb, a clause twice, a thing that is its own object. Pure."""

import re

from capsfusion_etl.judge.lexicon import free_words, lemmas, verb_tags, words

_FINITE = frozenset(
    {
        "am", "is", "are", "was", "were", "has", "have", "had", "do", "does", "did", "can", "could", "may", "might",
        "must", "shall", "should", "will", "would",
    }
)  # fmt: skip
# Words that follow a finite verb rather than a participle, words that make a noun of the next one, and plural subjects.
_AFTER = frozenset(
    {
        "a", "an", "the", "this", "that", "these", "those", "his", "her", "its", "their", "it", "him", "them", "two",
        "three", "in", "on", "at", "to", "from", "over", "into", "with", "as", "for", "of", "against", "about", "",
    }
)  # fmt: skip
_DETERMINERS = frozenset(
    {
        "a", "an", "the", "this", "these", "those", "his", "her", "its", "their", "of", "in", "on", "with", "and",
        "for", "two", "three", "four", "five", "some", "many", "several",
    }
)  # fmt: skip
_PLURAL = frozenset({"and", "people", "men", "women", "children", "they", "we", "you"})
_ENGLISH = frozenset({"the", "a", "an", "of", "with", "and", "for", "from"})  # a text without them is not judged
_SELF = re.compile(
    r"\b([a-z]+)(?:,? (?:that|which))? (features?|featuring|includes?|including|contains?|containing|has|have|made of) "
    r"(?:an?|the|one|two|three|its|their|another) (?:[a-z-]+ )?([a-z]+)\b"
)
_RUN = 5  # words of a clause that may not occur twice


def has_finite_verb(text: str) -> bool:
    """Return whether a word of `text` may be a finite verb; in doubt true: many nouns look like verbs."""
    found = words(text)
    if not _FINITE.isdisjoint(found) or _ENGLISH.isdisjoint(found):
        return True
    for i, word in enumerate(found[1:], start=1):
        tags = verb_tags(word)
        if not tags or found[i - 1] in _DETERMINERS:
            continue
        if "VBZ" in tags or ("VBP" in tags and any(w in _PLURAL or w.endswith("s") for w in found[:i])):
            return True
        following = found[i + 1] if i + 1 < len(found) else ""
        if "VBD" in tags and ("VBN" not in tags or following in _AFTER):
            return True
    return False


def said_twice(text: str, source: str) -> str | None:
    """Return five consecutive words that `text` has twice and `source` at most once, or None."""
    found = words(text)
    runs = list(zip(*(found[i:] for i in range(_RUN)), strict=False))
    if len(set(runs)) == len(runs):
        return None
    said = " ".join(words(source))
    for i, run in enumerate(runs):
        phrase = " ".join(run)
        if run in runs[:i] and said.count(phrase) < 2 and sum(word not in free_words() for word in run) > 1:
            return phrase
    return None


def own_object(text: str) -> str | None:
    """Return words in which a noun is its own object, such as "car that features a car", or None."""
    for match in _SELF.finditer(text.lower()):
        noun = match.group(1)
        if len(noun) > 2 and noun not in free_words() and lemmas(noun) & lemmas(match.group(3)):
            return match.group()
    return None
