"""Other spellings of a source's numbers and names: a fact that is only spelled differently is not invented.

Every rule covers rows of CapsFusion's release that exact comparison flags although they are correct: Oct -> October,
9/25/08 -> September 25, 2008, Mothers -> Mother's, Italian -> Italy, malasia -> Malaysia, IMG091911 -> 2011.
"""

import os.path
import re
import unicodedata
from difflib import get_close_matches
from functools import cached_property

from capsfusion_etl.judge.scripts import OTHER_SCRIPT

_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ALIASES = {
    "christmas": {"xmas"}, "saint": {"st"}, "mount": {"mt"}, "versus": {"vs"}, "doctor": {"dr"}, "street": {"st"},
    "national": {"nat", "natl"}, "twitter": {"tweet", "tweets"}, "may": {"maggio", "mai", "mayo", "mei"},
}  # fmt: skip
# Postal codes of states, provinces and countries, which count only in capitals, and abbreviations.
_PLACES = {
    "alabama": {"al", "ala"}, "alaska": {"ak"}, "arizona": {"ariz", "az"}, "arkansas": {"ar", "ark"},
    "california": {"ca", "calif"}, "colorado": {"co", "colo"}, "connecticut": {"conn", "ct"}, "delaware": {"de"},
    "florida": {"fl", "fla"}, "georgia": {"ga"}, "hawaii": {"hi"}, "idaho": {"id"}, "illinois": {"il", "ill"},
    "indiana": {"in", "ind"}, "iowa": {"ia"}, "kansas": {"kan", "ks"}, "kentucky": {"ky"}, "louisiana": {"la"},
    "maine": {"me"}, "maryland": {"md"}, "massachusetts": {"ma", "mass"}, "michigan": {"mi", "mich"},
    "minnesota": {"minn", "mn"}, "mississippi": {"miss", "ms"}, "missouri": {"mo"}, "montana": {"mont", "mt"},
    "nebraska": {"ne", "neb"}, "nevada": {"nev", "nv"}, "ohio": {"oh"}, "oklahoma": {"ok", "okla"},
    "oregon": {"or", "ore"}, "pennsylvania": {"pa", "penn"}, "tennessee": {"tenn", "tn"}, "texas": {"tex", "tx"},
    "utah": {"ut"}, "vermont": {"vt"}, "virginia": {"va"}, "washington": {"wa", "wash"}, "wisconsin": {"wi", "wis"},
    "wyoming": {"wy", "wyo"}, "alberta": {"ab", "alta"}, "manitoba": {"man", "mb"}, "ontario": {"on", "ont"},
    "quebec": {"qc", "que"}, "saskatchewan": {"sask", "sk"}, "queensland": {"qld"}, "victoria": {"vic"},
    "tasmania": {"tas"}, "australia": {"aus"}, "canada": {"can"}, "germany": {"de", "ger"}, "france": {"fr", "fra"},
}  # fmt: skip
# Common words that are often capitalised: they are never invented names.
_KINDS = frozenset({"apt", "diy", "dvd", "faq", "gps", "isbn", "led", "pdf", "ram", "school", "tv", "unit", "usb"})
_COUNTED = {
    word: str(i + 1)
    for words in (
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    )
    for i, word in enumerate(words)
} | {"twenty": "20", "thirty": "30", "forty": "40", "fifty": "50", "hundred": "100", "dozen": "12", "half": "2"}
COUNTED_WORDS = {number: word for word, number in reversed(_COUNTED.items())}  # 3 -> three
_DATE = re.compile(r"(?<!\d)(?:\d{1,4}[-/._ ]\d{1,2}[-/._ ]\d{1,4}|\d{1,2}[-/]\d{1,2}|\d{6}|\d{8})(?!\d)")
# Consecutive capitalised words, with small words allowed between them.
_CAPITALS = re.compile(r"[A-Z][^\W\d_]*(?:(?:[\s-]+(?:of|for|and|the|in))?[\s-]+[A-Z][^\W\d_]*)+")
_MAX_INITIALS = 7
MAX_WORDS = 500  # longer sources are not captions, and comparing all their words would take minutes
_ENDINGS = {"", "s", "es", "n", "an", "ian", "ese", "y", "ern", "ic", "ics", "al", "ish", "ism", "sm", "i", "is"}
_MIN_STEM, _MIN_TYPO, _TYPO = 4, 6, 0.82


def plain(text: str) -> str:
    """Return `text` in lower case without accents."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in decomposed if not unicodedata.combining(c))


class Sources:
    """The sources of a fused caption, indexed for look-ups; each index is built at its first use."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        self._text = plain(" \n ".join(texts))

    @cached_property
    def words(self) -> set[str]:
        """Words of the sources in lower case, without accents."""
        return set(re.findall(r"[^\W\d_]+", self._text))

    @cached_property
    def _abbreviations(self) -> set[str]:
        return {w for w in self.words if len(w) > 2} | {
            code.lower() for text in self._texts for code in re.findall(r"\b[A-Z]{2}\b", text)
        }

    @cached_property
    def _letters(self) -> str:
        return re.sub(r"[\W\d_]+", "", self._text)

    @cached_property
    def _ends(self) -> set[str]:
        """Last word of each source if it has three letters or more: it may have been cut off."""
        found = (re.findall(r"[^\W\d_]+", plain(text))[-1:] for text in self._texts)
        return {words[0] for words in found if words and len(words[0]) > 2}

    @cached_property
    def _runs(self) -> set[str]:
        """Runs of digits without leading zeros, the parts of runs that may be dates, and the values of number words."""
        runs = re.findall(r"\d+", self._text)
        runs += [part for run in runs if len(run) in (6, 8) for part in (run[:2], run[2:4], run[4:], run[:4], run[6:])]
        return {run.lstrip("0") or "0" for run in runs} | {_COUNTED[w] for w in self.words & _COUNTED.keys()}

    @cached_property
    def _digits(self) -> str:
        """Digits of each stretch of digits, dots, commas and spaces, joined, so that 62 700 equals 62,700."""
        return " ".join(re.sub(r"\D", "", stretch) for stretch in re.findall(r"\d[\d., ]*", self._text))

    def have_number(self, number: str) -> bool:
        """Return whether a source contains `number`: as written, in parts, as a word, or as a two-digit year."""
        parts = [part.lstrip("0") or "0" for part in re.findall(r"\d+", number)]
        if all(part in self._runs or self._is_short_year(part) for part in parts):
            return True
        joined = re.sub(r"\D", "", number)
        return len(joined) > 2 and joined in self._digits.split()

    def _is_short_year(self, part: str) -> bool:
        return len(part) == 4 and part[:2] in ("19", "20") and (part[2:].lstrip("0") or "0") in self._runs

    def have_name(self, name: str) -> bool:
        """Return whether a source contains `name`: as a word, inside one, cut off, inflected, abbreviated or misspelt.

        If a source is in another script, the result is always true, because only a translator could decide.
        """
        name = plain(name)
        if name in self.words or name in _KINDS or (len(name) > 2 and name in self._letters):
            return True
        if _ALIASES.get(name, set()) & self.words or _PLACES.get(name, set()) & self._abbreviations:
            return True
        if OTHER_SCRIPT.search(self._text):
            return True
        if name in _MONTHS or name in _DAYS:
            return self._has_calendar(name)
        if any(name.startswith(end) for end in self._ends) or name.removesuffix("s") in self.words:
            return True
        if len(self.words) > MAX_WORDS:
            return False
        if any(same_stem(name, word) or _swapped(name, word) for word in self.words):
            return True
        return len(name) >= _MIN_TYPO and bool(get_close_matches(name, self.words, 1, _TYPO))

    def spelt_out(self, fused: str) -> set[str]:
        """Return the words of `fused` that spell out initials in a source, such as New York City for NYC."""
        found: set[str] = set()
        for stretch in _CAPITALS.findall(fused):
            words = re.findall(r"[A-Z][^\W\d_]*", stretch)
            for start in range(len(words)):
                for end in range(start + 2, min(start + _MAX_INITIALS, len(words)) + 1):
                    if "".join(w[0] for w in words[start:end]).lower() in self.words:
                        found |= {plain(w) for w in words[start:end]}
        return found

    def _has_calendar(self, name: str) -> bool:
        if name[:3] in self.words or name[:4] in self.words:
            return True
        return name in _MONTHS and str(_MONTHS.index(name) + 1) in self._runs and bool(_DATE.search(self._text))


def same_stem(a: str, b: str) -> bool:
    """Return whether `a` and `b` share a stem of at least four letters and differ only in endings: Italy, Italian."""
    length = len(os.path.commonprefix((a, b)))  # noqa: RUF071  characters are what is compared here
    return length >= _MIN_STEM and a[length:] in _ENDINGS and b[length:] in _ENDINGS


def _swapped(a: str, b: str) -> bool:
    """Return whether `a` and `b` have the same letters, the first in the same place: Strom, Storm."""
    return len(a) > _MIN_STEM and a[0] == b[:1] and sorted(a) == sorted(b)
