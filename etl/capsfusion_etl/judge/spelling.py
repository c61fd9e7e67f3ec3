"""Is a number or a name of the fused caption in a source, only spelled another way? Then nobody invented it.

Every rule here stands for rows of CapsFusion's release that exact comparison flags although they are right: Oct ->
October, 9/25/08 -> September 25, 2008, Mothers -> Mother's, Italian -> Italy, malasia -> Malaysia, IMG091911 -> 2011.
"""

import os.path
import re
import unicodedata
from difflib import get_close_matches
from functools import cached_property

_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ALIASES = {
    "christmas": {"xmas"}, "saint": {"st"}, "mount": {"mt"}, "versus": {"vs"}, "doctor": {"dr"}, "street": {"st"},
    "national": {"nat", "natl"}, "twitter": {"tweet", "tweets"}, "may": {"maggio", "mai", "mayo", "mei"},
}  # fmt: skip
# Of states, provinces and countries: postal codes, which count where they are in capitals, and abbreviations.
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
# Words that name a kind of thing and are written in capitals all the same: nobody invents a name by them.
_KINDS = frozenset({"apt", "diy", "dvd", "faq", "gps", "isbn", "led", "pdf", "ram", "school", "tv", "unit", "usb"})
_OTHER_SCRIPT = re.compile(r"[\u0370-\u1cff\u3040-\u9fff\uac00-\ud7af]")
_COUNTED = {
    word: str(i + 1)
    for words in (
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"),
    )
    for i, word in enumerate(words)
} | {"twenty": "20", "thirty": "30", "forty": "40", "fifty": "50", "hundred": "100", "dozen": "12", "half": "2"}
_DATE = re.compile(r"(?<!\d)(?:\d{1,4}[-/._ ]\d{1,2}[-/._ ]\d{1,4}|\d{1,2}[-/]\d{1,2}|\d{6}|\d{8})(?!\d)")
# Capitalised words in a row, small words between them aside.
_CAPITALS = re.compile(r"[A-Z][^\W\d_]*(?:(?:[\s-]+(?:of|for|and|the|in))?[\s-]+[A-Z][^\W\d_]*)+")
_MAX_INITIALS = 7
_MAX_WORDS = 500  # longer sources are no captions: comparing each word with each would take minutes
_ENDINGS = {"", "s", "es", "n", "an", "ian", "ese", "y", "ern", "ic", "ics", "al", "ish", "ism", "sm", "i", "is"}
_MIN_STEM, _MIN_TYPO, _TYPO = 4, 6, 0.82


def plain(text: str) -> str:
    """Lower case without accents."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in decomposed if not unicodedata.combining(c))


class Sources:
    """The two sentences that a fused caption starts from, prepared for questions; each part only if it is asked for."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        self._text = plain(" \n ".join(texts))

    @cached_property
    def words(self) -> set[str]:
        """Words, accents and case aside."""
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
        """Last word of each sentence: it may have been cut."""
        found = (re.findall(r"[^\W\d_]+", plain(text))[-1:] for text in self._texts)
        return {words[0] for words in found if words and len(words[0]) > 2}

    @cached_property
    def _runs(self) -> set[str]:
        """Runs of digits without leading zeros, also those inside a run that is a date, and words that count."""
        runs = re.findall(r"\d+", self._text)
        runs += [part for run in runs if len(run) in (6, 8) for part in (run[:2], run[2:4], run[4:], run[:4], run[6:])]
        return {run.lstrip("0") or "0" for run in runs} | {_COUNTED[w] for w in self.words & _COUNTED.keys()}

    @cached_property
    def _digits(self) -> str:
        """Digits of each stretch of digits, dots, commas and spaces, joined: 62 700 is 62,700."""
        return " ".join(re.sub(r"\D", "", stretch) for stretch in re.findall(r"\d[\d., ]*", self._text))

    def have_number(self, number: str) -> bool:
        """Does a source hold `number`, as it is or in parts, as a word, or as the year that two digits stand for?"""
        parts = [part.lstrip("0") or "0" for part in re.findall(r"\d+", number)]
        if all(part in self._runs or self._is_short_year(part) for part in parts):
            return True
        joined = re.sub(r"\D", "", number)
        return len(joined) > 2 and joined in self._digits.split()

    def _is_short_year(self, part: str) -> bool:
        return len(part) == 4 and part[:2] in ("19", "20") and (part[2:].lstrip("0") or "0") in self._runs

    def have_name(self, name: str) -> bool:
        """Does a source hold `name`: as it is, inside a word, cut, inflected, abbreviated, or with a typing error?

        A source in another script may hold any name: that is for a translator to say.
        """
        name = plain(name)
        if name in self.words or name in _KINDS or (len(name) > 2 and name in self._letters):
            return True
        if _ALIASES.get(name, set()) & self.words or _PLACES.get(name, set()) & self._abbreviations:
            return True
        if _OTHER_SCRIPT.search(self._text):
            return True
        if name in _MONTHS or name in _DAYS:
            return self._has_calendar(name)
        if any(name.startswith(end) for end in self._ends) or name.removesuffix("s") in self.words:
            return True
        if len(self.words) > _MAX_WORDS:
            return False
        if any(_same_stem(name, word) or _swapped(name, word) for word in self.words):
            return True
        return len(name) >= _MIN_TYPO and bool(get_close_matches(name, self.words, 1, _TYPO))

    def spelt_out(self, fused: str) -> set[str]:
        """Words of `fused` that spell out initials of a source: New York City for NYC."""
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


def _same_stem(a: str, b: str) -> bool:
    """Italy and Italian, East and Eastern: one stem of four letters or more, and an ending of names on each."""
    length = len(os.path.commonprefix((a, b)))  # noqa: RUF071  characters are what is compared here
    return length >= _MIN_STEM and a[length:] in _ENDINGS and b[length:] in _ENDINGS


def _swapped(a: str, b: str) -> bool:
    """Strom and Storm: the same letters, the first one in its place."""
    return len(a) > _MIN_STEM and a[0] == b[:1] and sorted(a) == sorted(b)
