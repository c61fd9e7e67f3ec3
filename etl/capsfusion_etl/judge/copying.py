"""How a caption that only uses words of its sources puts them together; a fuser doubts answers by it. Pure.

A small model that joins scattered words of a title makes a false or broken sentence more often than not, while a title
that it copies in one piece stays true. For captions of large models, which rewrite, these measures say little.
"""

import re
from collections import Counter
from itertools import pairwise

from capsfusion_etl.judge.lexicon import free_words, lemmas, without_markup, words

_TOKEN = re.compile(r"\w+")


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


def _counts(text: str) -> Counter[str]:
    """Return how often `text` has each content word of three letters or more, by its shortest dictionary form."""
    free = free_words()
    found = (word for word in words(text) if word not in free and len(word) > 2)
    return Counter(min(lemmas(word), key=lambda form: (len(form), form)) for word in found)
