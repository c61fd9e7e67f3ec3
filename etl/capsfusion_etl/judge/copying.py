"""How a caption that only uses words of its sources puts them together; a fuser doubts answers by it. Pure.

A small model that joins scattered words of a title makes a false or broken sentence more often than not, while a title
that it copies in one piece stays true. For captions of large models, which rewrite, these measures say little.
"""

import re
from collections import Counter
from itertools import pairwise

from capsfusion_etl.judge.lexicon import free_words, lemmas, without_markup, words

_TOKEN = re.compile(r"\w+")
_PART = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|[^\w\s-]")  # words and marks
_JOINS = frozenset({"and", "is", "are", "was", "were"})


def pieces(fused: str, raw: str, synthetic: str) -> int:
    """Return in how many pieces `fused` has the words that only the raw caption has.

    A piece keeps the order of the raw caption. A number alone is no piece.
    """
    source, seen = _TOKEN.findall(without_markup(raw).lower()), set(_TOKEN.findall(synthetic.lower()))
    neighbours, known, free = set(pairwise(source)), set(source), free_words()
    count, before = 0, ""
    for word in _TOKEN.findall(fused.lower()):
        goes_on = (before, word) in neighbours
        if word in known and word not in free and word not in seen:
            count += not goes_on and not word.isdigit()
            before = word
        else:
            before = word if goes_on else ""
    return count


def overused(fused: str, raw: str, synthetic: str) -> list[str]:
    """Return the content words of `fused` that it has more often than both sources together, or thrice than either."""
    here, first, second = (_counts(text) for text in (fused, raw, synthetic))
    return [
        word
        for word, count in here.items()
        if count > 1 and (count > first[word] + second[word] or count > max(2, first[word], second[word]))
    ]


def rebound(fused: str, source: str) -> list[str]:
    """Return neighbouring content words of `fused` that do not belong together in `source`: "black page".

    Words belong together if only content words, "and" or a form of "be" stand between them; "a page is black" also
    makes a black page.
    """
    free, seen = free_words(), _PART.findall(source.lower())
    together: set[tuple[str, str]] = set()
    for i, first in enumerate(seen):
        for j in range(i + 1, len(seen)):
            pair = [(a, b) for a in lemmas(first) for b in lemmas(seen[j])]
            together.update(pair)
            if j > i + 1:
                together.update((b, a) for a, b in pair)
            if (seen[j] in free and seen[j] not in _JOINS) or not seen[j][0].isalnum():
                break
    return [
        f"{first} {second}"
        for first, second in pairwise(_PART.findall(fused.lower()))
        if {first, second}.isdisjoint(free)
        and first[0].isalnum()
        and second[0].isalnum()
        and not any((a, b) in together for a in lemmas(first) for b in lemmas(second))
    ]


def share_said(fused: str, raw: str) -> float:
    """Return the share of the content words of `raw` that `fused` has; 1 if it has none."""
    source = _counts(raw)
    return len(source.keys() & _counts(fused).keys()) / len(source) if source else 1.0


def _counts(text: str) -> Counter[str]:
    """Return how often `text` has each content word of three letters or more, by its shortest dictionary form."""
    free = free_words()
    found = (word for word in words(text) if word not in free and len(word) > 2)
    return Counter(min(lemmas(word), key=lambda form: (len(form), form)) for word in found)
