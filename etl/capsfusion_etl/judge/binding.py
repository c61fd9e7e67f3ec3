"""Binding of numbers: a number keeps its currency, its unit, and the noun that it counts. Pure."""

import re
from dataclasses import dataclass

from capsfusion_etl.judge.lexicon import free_words, lemmas, synonyms

# Currency, number, ending of an ordinal, and what is glued to the number: a currency, marks of feet and inches, a unit.
_NUMBER = re.compile(
    r"(?:(?<![\w.,])(?<!\w-)|(?=[$€£¥₹]))((?:[A-Z]{1,3})?[$€£¥₹])?\s?(\d[\d.,:/]*\d|\d)(st|nd|rd|th)?([%$€£¥₹\"”″'’′]|[a-z°]*)",
    re.IGNORECASE,
)
_NEXT = re.compile(r"[\s-]*(?:million|billion|thousand|hundred)?\s*([^\W\d_]+|[%$€£¥₹])")
_TOKEN = re.compile(r"[^\W\d_]+")
_CURRENCIES = {
    "$": "$", "usd": "$", "dollar": "$", "€": "€", "eur": "€", "euro": "€", "£": "£", "gbp": "£", "sterling": "£",
    "¥": "¥", "yen": "¥", "jpy": "¥", "yuan": "¥", "₹": "₹", "rupee": "₹", "inr": "₹", "rs": "₹", "cent": "¢",
    "%": "%", "percent": "%",
}  # fmt: skip
_CODES = {"usd", "eur", "gbp", "jpy", "inr", "rs"}
_GLUED = {'"': "in", "”": "in", "″": "in", "'": "ft", "’": "ft", "′": "ft"}
_UNITS = [
    frozenset(group.split())
    for group in (
        "in inch", "ft foot", "cm centimeter centimetre", "mm millimeter millimetre", "m meter metre",
        "km kilometer kilometre", "lb pound", "oz ounce", "g gr gram", "kg kilogram", "ml milliliter millilitre",
        "l liter litre", "gb gig gigabyte", "mb megabyte", "tb terabyte", "w watt", "v volt", "hr hour h", "min minute",
        "sec second s", "pc pcs piece", "pk pack", "yr year yo y", "p page pg", "bed bedroom br", "bath bathroom ba",
        "px pixel", "mp megapixel", "mph mile", "ct cts carat", "k karat",
    )
]  # fmt: skip
_MONTH = re.compile(r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*$")
YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_MOST = 20  # uses of a number in a source that are compared
_NEAR = 6  # words on either side in which a source may have the noun that a number counts


@dataclass(frozen=True, slots=True)
class _Use:
    number: str
    currency: str
    ordinal: bool
    counted: str  # the unit that is glued to the number, or the word after it
    before: tuple[str, ...]
    after: tuple[str, ...]


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
            if len(known := there.setdefault(use.number, [])) < _MOST:
                known.append(use)
    return next((wrong for use in here if use.number in there and (wrong := _wrong(use, there[use.number]))), None)


def _uses(text: str) -> list[_Use]:
    matches = list(_NUMBER.finditer(text))
    tokens = list(_TOKEN.finditer(text.lower())) if matches else []
    found, passed = [], 0
    for match in matches:
        symbol, number, ordinal, glued = match.groups()
        while passed < len(tokens) and tokens[passed].start() < match.start(2):
            passed += 1
        before = tuple(t.group() for t in tokens[max(0, passed - _NEAR) : passed])
        after = tuple(t.group() for t in tokens[passed : passed + _NEAR] if t.start() >= match.end())
        unit = _GLUED.get(glued, glued.lower())
        following = _NEXT.match(text[match.end() : match.end() + 40].lower())
        word = following.group(1) if following else ""
        code = before[-1] if before and before[-1] in _CODES else ""
        signs = (symbol[-1] if symbol else "", glued.lower(), word, code)  # in this order, the same in each process
        currency = next((_CURRENCIES[form] for sign in signs for form in lemmas(sign) if form in _CURRENCIES), "")
        counted = unit if glued not in _GLUED and unit else word
        found.append(
            _Use(number.replace(",", ""), currency, bool(ordinal), counted, before, ((unit,) if unit else ()) + after)
        )
    return found


def _wrong(use: _Use, known: list[_Use]) -> str | None:
    money = {k.currency for k in known}
    if use.counted.startswith("pound") and "£" in money:
        return None
    if use.currency not in money:
        return f"{use.number}: {use.currency or 'no unit'} instead of {'/'.join(sorted(money)) or 'none'}"
    near = {form for k in known for word in (*k.before, *k.after) for form in lemmas(word)}
    forms = lemmas(use.counted) | synonyms(use.counted)
    same = bool(forms & near) or any(forms & unit and unit & near for unit in _UNITS)
    month = any(_MONTH.match(word) for word in (*use.before[-2:], *use.after[:2]))
    if use.ordinal and not month and not same and not any(k.ordinal for k in known):
        return f"{use.number} became a rank"
    if same or not near or use.currency or not use.counted.isalpha() or use.counted in free_words():
        return None
    if use.before and any(k.before and lemmas(k.before[-1]) & lemmas(use.before[-1]) for k in known):
        return None  # it follows its own word, as in "Lot 24"
    is_unit = any(lemmas(use.counted) & unit for unit in _UNITS)
    is_plural = lemmas(use.counted) != {use.counted} and not YEAR.fullmatch(use.number)
    return f"{use.number} {use.counted}" if is_unit or is_plural else None
