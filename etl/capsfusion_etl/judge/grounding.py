"""The grounding ledger of a fused caption: facts of the raw caption that survived, facts that are in neither source.

A fact is a number or a capitalised word that does not merely open a sentence (design section 5). Plain regular
expressions rather than a tagger, so that another team can compute the same figures.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from capsfusion_etl.judge.spelling import Sources

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# Those of _WORD that begin with a capital, in a text of ASCII: most words do not, and passing them over is cheap.
_CAPITAL = re.compile(r"(?<![A-Za-z])(?<![A-Za-z]')[A-Z][A-Za-z]*(?:'[A-Za-z]+)*")
_I = re.compile(r"I['’]")  # I'm, I've: no names
_SENTENCE_START = re.compile(r"(?:^|[.!?:]\s+|[\"“(]\s*)$")


def numbers(text: str) -> set[str]:
    """Numbers of `text`, thousands separators removed: 1,000 and 1000 are one; a date keeps its separators."""
    return {found.replace(",", "") for found in _NUMBER.findall(text)}


def words_and_names(text: str) -> tuple[set[str], set[str]]:
    """Lower-cased words of `text`, a possessive 's cut off, and those of them that are names.

    Names are capitalised words of three letters or more that do not open a sentence. A text in which most words are
    capitalised (a title) tells nothing about names by its capitals alone, but all of them still count: the published
    recall figure is computed the same way.
    """
    words = _WORD.findall(text.lower()) if text.isascii() else [m.group().lower() for m in _WORD.finditer(text)]
    if "'" in text or "’" in text:
        words = [_without_s(word) for word in words]
    return set(words), {_without_s(m.group().lower()) for m in _capitalised(text) if is_name(text, m)}


def _capitalised(text: str) -> Iterator[re.Match[str]]:
    if text.isascii():
        return _CAPITAL.finditer(text)
    return (m for m in _WORD.finditer(text) if m.group()[0].isupper())


def _without_s(word: str) -> str:
    return word.removesuffix("'s").removesuffix("’s")


def is_name(text: str, word: re.Match[str]) -> bool:
    """Is this capitalised word of `text` a name?"""
    found, start = word.group(), word.start()
    if len(found) < 3 or _I.match(found):
        return False
    if start > 1 and text[start - 1] == " " and text[start - 2].isalnum():  # in most cases, and far cheaper
        return True
    return not _SENTENCE_START.search(text[max(0, start - 3) : start])


def facts_of(text: str) -> list[str]:
    """Names and numbers of `text` as they are written there, in their order: what `ground` counts."""
    matches = [m for m in _capitalised(text) if is_name(text, m)] + list(_NUMBER.finditer(text))
    return [m.group() for m in sorted(matches, key=lambda m: m.start())]


@dataclass(frozen=True, slots=True)
class Grounding:
    """Facts of the raw caption kept and lost, and facts of the fused caption that neither source holds; all sorted."""

    kept: tuple[str, ...]
    lost: tuple[str, ...]
    invented_numbers: tuple[str, ...]
    invented_names: tuple[str, ...]

    @property
    def recall(self) -> float | None:
        """Share of the raw caption's facts that survived; None where it states none."""
        total = len(self.kept) + len(self.lost)
        return len(self.kept) / total if total else None


def ground(raw: str, synthetic: str, fused: str) -> Grounding:
    """Compare `fused` with its two sources. Never raises; the texts may be empty."""
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
