"""What a fused caption may say: the words of its sources and plain words, as strings that decoding can follow. Pure.

A number is not a word of its own: it keeps the word before or after it, its unit, or its currency, so that "Lot 24"
cannot become "24 people". Decoding that may only use these units invents neither names nor numbers (design, section 4).
"""

import re
from collections.abc import Collection, Iterator

from capsfusion_etl.judge.binding import YEAR
from capsfusion_etl.judge.checks import RESIDUE
from capsfusion_etl.judge.lexicon import inflections, without_markup

_OUTER = "\"'“”‘’«»„()[]{}<>,;:!?…|*_~`^=•·–—-/\\#"
_SLUG = re.compile(r"\S+(?:[-_+]\S+){3,}|\S+_\S+")  # words joined as in a file name: offered whole and apart
_YEARS = re.compile(rf"{YEAR.pattern}(?:[-–/](?:\d\d|{YEAR.pattern}))?")
_BREAK = re.compile(r"[,;:!?|()\[\]•·–—]$")  # after such a character a number belongs to nothing before it
_ALONE = re.compile(r"[^\W\d_]|[$€£¥₹%°]")  # letters, a currency or a sign in the same token: the number keeps it there


def sayable(*sources: str, free: Collection[str]) -> set[str]:
    """Return the units that an answer may consist of: those of the sources and `free`, with their capitalised forms."""
    units = set(free)
    for source in sources:
        plain = without_markup(source)
        tokens = _SLUG.sub(lambda m: f"{m.group()} {re.sub('[-_+]+', ' ', m.group())}", plain).split()
        for i, token in enumerate(tokens):
            bare = _bare(token)
            if not bare or RESIDUE.search(bare):
                continue
            if any(c.isdigit() for c in bare):
                units.update(_numbers(tokens, i, bare))
            else:
                units.update(_words(bare))
    return units | {unit[0].upper() + unit[1:] for unit in units}


def _bare(token: str) -> str:
    bare = token.strip(_OUTER).rstrip(".")
    return re.sub(r"['’]s$", "", bare)


def _words(bare: str) -> Iterator[str]:
    """Yield a token as written, its parts, their lower case, and the inflections of those that are ordinary words."""
    for part in {bare, *re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", bare)}:
        lower = part.lower()
        yield from (part, lower)
        if part.isupper():
            yield part.title()
        if len(lower) > 2 and lower.isascii() and lower.isalpha():
            yield from inflections(lower)


def _numbers(tokens: list[str], i: int, bare: str) -> Iterator[str]:
    """Yield the number at position `i` with the words that it may not lose."""
    for part in re.findall(r"[^\W\d_]{3,}", bare):  # 24-inch, 4K-Monitor
        yield from _words(part)
        yield bare.lower()
    if tokens[i].lstrip("([\"'").startswith("#"):
        yield f"#{bare}"
    if _ALONE.search(bare) or _YEARS.fullmatch(bare):
        yield bare
    before = _neighbour(tokens, i - 1) if i and not _BREAK.search(tokens[i - 1]) else ""
    after = _neighbour(tokens, i + 1) if not _BREAK.search(tokens[i]) else ""
    if not before and not after:
        yield bare
    dot = "." if before and tokens[i - 1].endswith(".") else ""
    yield from (f"{form}{dot} {bare}" for form in {before, before.lower()} if form)
    yield from (f"{bare} {form}" for form in {after, after.lower()} if form)


def _neighbour(tokens: list[str], i: int) -> str:
    """Return the token at position `i` if it is a word, else an empty string."""
    bare = _bare(tokens[i]) if i < len(tokens) else ""
    return "" if any(c.isdigit() for c in bare) else bare
