"""Grounding of a fused caption: facts of the raw caption that it keeps or loses, and facts that it invents.

A fact is a number, or a capitalised word that is not merely the first word of a sentence. Plain
regular expressions instead of a tagger, so that another team can compute the same figures.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from capsfusion_etl.judge.scripts import LETTERS
from capsfusion_etl.judge.spelling import Sources

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
# The matches of LETTERS that begin with a capital, for ASCII text only: faster, because it skips most words.
_CAPITAL = re.compile(r"(?<![A-Za-z])(?<![A-Za-z]')[A-Z][A-Za-z]*(?:'[A-Za-z]+)*")
_I = re.compile(r"I['’]")  # I'm, I've: not names
_SENTENCE_START = re.compile(r"(?:^|[.!?:]\s+|[\"“(]\s*)$")


def numbers(text: str) -> set[str]:
    """Return the numbers in `text` without commas, so that 1,000 equals 1000; dates and times keep their separators.

    Digits of other scripts are those of ours: ١٩٩٨ is 1998.
    """
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    return {found.replace(",", "") for found in _NUMBER.findall(text)}


def words_and_names(text: str) -> tuple[set[str], set[str]]:
    """Return the lower-cased words of `text` without possessive 's, and those of them that are names.

    Names are capitalised words of three letters or more that do not begin a sentence. In a title, where most words are
    capitalised, all of them count as names: the published recall figure is computed the same way.
    """
    words = [word.lower() for word in LETTERS.findall(text)]
    if "'" in text or "’" in text:
        words = [_without_s(word) for word in words]
    return set(words), {_without_s(m.group().lower()) for m in _capitalised(text) if is_name(text, m)}


def _capitalised(text: str) -> Iterator[re.Match[str]]:
    if text.isascii():
        return _CAPITAL.finditer(text)
    return (m for m in LETTERS.finditer(text) if m.group()[0].isupper())


def _without_s(word: str) -> str:
    return word.removesuffix("'s").removesuffix("’s")


def is_name(text: str, word: re.Match[str]) -> bool:
    """Return whether the match `word`, a capitalised word of `text`, is a name (see `words_and_names`)."""
    found, start = word.group(), word.start()
    if len(found) < 3 or _I.match(found):
        return False
    if start > 1 and text[start - 1] == " " and text[start - 2].isalnum():  # follows a word: the fast path
        return True
    return not _SENTENCE_START.search(text[max(0, start - 3) : start])


def facts_of(text: str) -> list[str]:
    """Return the names and numbers in `text` as written, in order of appearance: the facts that `ground` counts."""
    matches = [m for m in _capitalised(text) if is_name(text, m)] + list(_NUMBER.finditer(text))
    return [m.group() for m in sorted(matches, key=lambda m: m.start())]


@dataclass(frozen=True, slots=True)
class Grounding:
    """Facts of the raw caption kept and lost, and facts of the fused caption that neither source contains; sorted."""

    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    invented_numbers: tuple[str, ...] = ()
    invented_names: tuple[str, ...] = ()

    @property
    def recall(self) -> float | None:
        """Share of the raw caption's facts that the fused caption keeps, 0 to 1; None if it states no fact."""
        total = len(self.kept) + len(self.lost)
        return len(self.kept) / total if total else None


def ground(raw: str, synthetic: str, fused: str) -> Grounding:
    """Compare `fused` with its two sources. Never raises; any text may be empty."""
    raw_words, raw_names = words_and_names(raw)
    fused_words, fused_names = words_and_names(fused)
    raw_numbers, fused_numbers = numbers(raw), numbers(fused)
    facts = raw_names | raw_numbers
    kept = facts & (fused_words | fused_numbers)
    unknown_numbers = fused_numbers - raw_numbers - numbers(synthetic)
    unknown_names = fused_names - raw_words
    if unknown_names:
        unknown_names -= words_and_names(synthetic)[0]
    if not unknown_numbers and not unknown_names:
        return Grounding(tuple(sorted(kept)), tuple(sorted(facts - kept)), (), ())
    sources = Sources(raw, synthetic)
    spelt_out = sources.spelt_out(fused) if unknown_names else set()
    return Grounding(
        kept=tuple(sorted(kept)),
        lost=tuple(sorted(facts - kept)),
        invented_numbers=tuple(sorted(n for n in unknown_numbers if not sources.have_number(n))),
        invented_names=tuple(sorted(n for n in unknown_names - spelt_out if not sources.have_name(n))),
    )
