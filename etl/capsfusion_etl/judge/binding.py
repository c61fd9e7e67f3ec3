"""Binding of numbers: a number keeps its currency, its unit, and the noun that it counts. Pure."""

import re
from dataclasses import dataclass

from capsfusion_etl.judge.lexicon import free_words, lemmas

_NUMBER = re.compile(
    r"(?<![\w.,-])([$€£¥₹]|[A-Z]{2,3}\$)?\s?(\d[\d.,:/]*\d|\d)(st|nd|rd|th)?([%$€£¥]|[a-z°]*)", re.IGNORECASE
)
_CURRENCIES = {
    "$": "$", "usd": "$", "dollar": "$", "us$": "$", "€": "€", "eur": "€", "euro": "€", "£": "£", "gbp": "£",
    "sterling": "£", "¥": "¥", "yen": "¥", "jpy": "¥", "yuan": "¥", "₹": "₹", "rupee": "₹", "inr": "₹", "rs": "₹",
    "cent": "¢", "%": "%", "percent": "%",
}  # fmt: skip
_CODES = {"usd", "eur", "gbp", "jpy", "inr", "rs"}
_UNITS = [
    set(group.split())
    for group in (
        "in inch inches", "ft foot feet", "cm centimeter centimetre", "mm millimeter millimetre", "m meter metre",
        "km kilometer kilometre", "lb lbs pound", "oz ounce", "g gr gram", "kg kilogram", "ml milliliter millilitre",
        "l liter litre", "gb gig gigabyte", "mb megabyte", "tb terabyte", "w watt", "v volt", "hr hour h", "min minute",
        "sec second s", "pc pcs piece", "pk pack", "yr year yo y", "p page pg", "bed bedroom br", "bath bathroom ba",
        "mp megapixel", "mph mile", "ct cts carat", "k karat",
    )
]  # fmt: skip
_MONTH = re.compile(r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?$", re.IGNORECASE)
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_NEAR = 6  # words on either side in which a source may have the noun that a number counts


@dataclass(frozen=True, slots=True)
class _Use:
    number: str
    currency: str
    ordinal: bool
    counted: str
    before: tuple[str, ...]
    after: tuple[str, ...]


def _uses(text: str) -> list[_Use]:
    found = []
    for match in _NUMBER.finditer(text):
        symbol, number, ordinal, glued = match.groups()
        before = tuple(re.findall(r"[^\W\d_]+", text[: match.start()].lower()))[-_NEAR:]
        after = tuple(re.findall(r"[^\W\d_]+", text[match.end() :].lower()))[:_NEAR]
        direct = re.match(r"[\s-]*([^\W\d_]+|%)", text[match.end() :].lower())
        counted = glued.lower() or (direct.group(1) if direct else "")
        after = ((glued.lower(),) if glued else ()) + after
        code = before[-1] if before and before[-1] in _CODES else ""
        named = {symbol.upper()[-1] if symbol else "", glued.lower(), direct.group(1) if direct else "", code}
        currency = next((_CURRENCIES[x] for n in named for x in (n, n.rstrip("s")) if x in _CURRENCIES), "")
        found.append(_Use(number.replace(",", ""), currency, bool(ordinal), counted, before, after))
    return found


def misbound(fused: str, *sources: str) -> str | None:
    """Return a number of `fused` with what it was bound to wrongly, or None.

    Only numbers that a source has are compared. A number that has several uses in the sources may follow any of them.
    """
    here = _uses(fused)
    if not here:
        return None
    there: dict[str, list[_Use]] = {}
    for source in sources:
        for use in _uses(source):
            there.setdefault(use.number, []).append(use)
    for use in here:
        known = there.get(use.number)
        wrong = known and _wrong(use, known)
        if wrong:
            return wrong
    return None


def _wrong(use: _Use, known: list[_Use]) -> str | None:
    money = {k.currency for k in known}
    if use.currency not in money:
        return f"{use.number}: {use.currency or 'no unit'} instead of {'/'.join(sorted(money)) or 'none'}"
    month = any(_MONTH.match(word) for word in (*use.before[-2:], *use.after[:2]))
    if use.ordinal and not month and not any(k.ordinal for k in known):
        return f"{use.number} became a rank"
    counted = use.counted
    if not counted.isalpha() or counted in free_words() or _YEAR.fullmatch(use.number) or use.currency:
        return None
    if use.before and any(k.before and lemmas(k.before[-1]) & lemmas(use.before[-1]) for k in known):
        return None  # it follows its own word, as in "Lot 24"
    if lemmas(counted) == {counted} and not any(counted in unit for unit in _UNITS):
        return None  # neither a plural, so nothing that a number counts, nor a unit
    near = {word for k in known for word in (*k.before, *k.after)}
    if not near:  # the source has the number alone
        return None
    same = set().union(*(lemmas(word) for word in near))
    if lemmas(counted) & same or any(lemmas(counted) & unit and unit & near for unit in _UNITS):
        return None
    return f"{use.number} {counted}"
