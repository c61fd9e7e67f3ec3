"""Words and ends of sentences in every script, for the judge and the filters."""

import re
import unicodedata
from collections import Counter

# Blocks with combining marks, of which \w knows none: without them every vowel sign would split a Hindi or Thai word.
_BLOCKS = ((0x0300, 0x1DFF), (0x20D0, 0x20FF), (0x3099, 0x309A), (0xA66F, 0xABFF), (0xFE20, 0xFE2F))
_MARKS = "".join(
    chr(c) for low, high in _BLOCKS for c in range(low, high + 1) if unicodedata.category(chr(c))[0] == "M"
)
_RUN = 6  # letters
_JOINERS = "\u200c\u200d"
_SYMBOLS = ("So", "Sk", "Cf", "Mn")
OTHER_SCRIPT = re.compile(r"[\u0370-\u1cff\u3040-\u9fff\uac00-\ud7af]")  # a letter that is not Latin
WORD = re.compile(rf"[\w{_MARKS}{_JOINERS}]+")

# A word of letters and their marks, with apostrophes inside; no digits.
LETTERS = re.compile(rf"[^\W\d_](?:[^\W\d_]|[{_MARKS}{_JOINERS}])*(?:['’](?:[^\W\d_]|[{_MARKS}{_JOINERS}])+)*")
# Thai, Lao, Burmese, Khmer, Chinese and Japanese put no spaces between words.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff]")

# What ends a sentence: Latin; Greek; Chinese and Japanese; Arabic and Urdu; Indic; Burmese; Khmer; Ethiopic; Armenian;
# Tibetan; Mongolian.
_ENDS = ".!?…‼⁇⁈⁉\u037e。．｡！？؟۔।॥။។៕።፧፨։།༎᠃᠉"
_CLOSERS = "\"'”’)\\]»›」』）］】》〉"
_END = re.compile(rf"[{_ENDS}][{_CLOSERS}]*(?:\s*[(（][^()（）]*[)）]|(?:\s+#\w+)+)?$")
_THAI_OR_LAO = re.compile(r"[\u0e01-\u0eff]")


def ends_sentence(text: str) -> bool:
    """Return whether `text` ends as a sentence does, in any script; brackets or hashtags may follow."""
    text = text.rstrip()
    while text and unicodedata.category(text[-1]) in _SYMBOLS:  # emoji, and what joins and varies them
        text = text[:-1].rstrip()
    return _END.search(text) is not None or _is_unmarked(text)


def _is_unmarked(text: str) -> bool:
    """Return whether a text is Thai or Lao, which put no mark at the end; its last words may be Latin or a number."""
    theirs = _THAI_OR_LAO.findall(text)
    others = sum(c.isalpha() for c in text) - sum(c.isalpha() for c in theirs)
    return len(theirs) > others and text.count("(") <= text.count(")")


def repeated(normalized: str) -> str | None:
    """Return a run that `normalized` (see `normalize`) has three times: three words, or six letters without spaces."""
    words = normalized.split()
    runs = [" ".join(run) for run in zip(words, words[1:], words[2:], strict=False)]
    for word in words if _UNSPACED.search(normalized) else ():
        letters = _UNSPACED.findall(word)
        runs += ["".join(run) for run in zip(*(letters[i:] for i in range(_RUN)), strict=False)]
    if len(runs) - len(set(runs)) < 2:
        return None
    return next((run for run, count in Counter(runs).items() if count >= 3), None)


def normalize(text: str) -> str:
    """Return the words of `text` in lower case, separated by single spaces and without punctuation."""
    return " ".join(WORD.findall(text.lower()))
