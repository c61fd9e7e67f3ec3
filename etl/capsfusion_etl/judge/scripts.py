"""Words and ends of sentences in every script, for the judge and the filters."""

import re
import unicodedata

# Blocks with combining marks, of which \w knows none: without them every vowel sign would split a Hindi or Thai word.
_BLOCKS = ((0x0300, 0x1DFF), (0x20D0, 0x20FF), (0x3099, 0x309A), (0xA66F, 0xABFF), (0xFE20, 0xFE2F))
_MARKS = "".join(
    chr(c) for low, high in _BLOCKS for c in range(low, high + 1) if unicodedata.category(chr(c))[0] == "M"
)
_JOINERS = "\u200c\u200d"
OTHER_SCRIPT = re.compile(r"[\u0370-\u1cff\u3040-\u9fff\uac00-\ud7af]")  # a letter that is not Latin
WORD = re.compile(rf"[\w{_MARKS}{_JOINERS}]+")

# What ends a sentence: Latin; Greek; Chinese and Japanese; Arabic and Urdu; Indic; Burmese; Khmer; Ethiopic; Armenian;
# Tibetan; Mongolian.
_ENDS = ".!?…‼⁇⁈⁉\u037e。．｡！？؟۔।॥။។៕።፧፨։།༎᠃᠉"
_CLOSERS = "\"'”’)\\]»›」』）］】》〉"
# Thai and Lao put no mark at the end of a sentence: any letter of theirs ends it.
_END = re.compile(rf"(?:[{_ENDS}][{_CLOSERS}]*|[\u0e01-\u0eff])(?:\s*[(（][^()（）]*[)）]|(?:\s+#\w+)+)?$")


def ends_sentence(text: str) -> bool:
    """Return whether `text` ends as a sentence does, in any script; brackets or hashtags may follow."""
    return _END.search(text.rstrip()) is not None


def normalize(text: str) -> str:
    """Return the words of `text` in lower case, separated by single spaces and without punctuation."""
    return " ".join(WORD.findall(text.lower()))
