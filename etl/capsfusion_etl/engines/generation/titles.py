"""The raw caption as titles that an answer attaches whole: "in a picture titled Barley Fields Sunset". Pure.

A small model that builds a sentence of a title's words makes something false of them one time in three; a title that
it attaches in one piece stays true (docs/decisions/0017).
"""

import re

from capsfusion_etl.judge.checks import RESIDUE
from capsfusion_etl.judge.lexicon import without_markup

_MOST = 5  # segments of a raw caption that are looked at
_LONG = 200  # characters
_SEPARATOR = re.compile(r"\s*(?:[|•·»~;]|>>|::|–|—|\.{2,}|…|\s-+\s|--|\s/\s|\s:\s|(?<=\w{3})[.!?]\s+(?=[A-Z]))\s*")
_FILE = re.compile(r"\.(?:jpe?g|png|gif|webp|html?)\b", re.IGNORECASE)
_SLUG = re.compile(r"\w+(?:[-_+]\w+){2,}")
_INCHES = re.compile(r"(?<=\d)(?:\"{1,2}|''|”)")
_QUOTES = re.compile(r"(?<!\d)\"+|[“”„«»`]+|'{2,}")
_BEFORE = re.compile(r"^(?:(?:an? )?(?:image|photo|picture)s? (?:of|for)|buy|shop|download|free)\s+", re.IGNORECASE)
_AFTER = re.compile(
    r"[\s,(]*\b(?:royalty[- ]free|free|stock|news|product|pictures &|getty)?\s*\b(?:stock|vector|free)?\s*"
    r"(?:photos?|images?|photography|pictures?|pic|footage|wallpapers?|for sale(?: near)?|free shipping|buy|download|"
    r"(?:(?:buy|shop) )?online(?: at)?|pinterest|youtube|ebay|etsy|amazon|alamy|shutterstock|dreamstime)[\s)]*$",
    re.IGNORECASE,
)  # fmt: skip
_CUT = re.compile(r"(?:\s+(?:an?|and|at|by|for|from|in|of|on|or|the|to|with|&))+$", re.IGNORECASE)  # of a cut-off text
_ID = re.compile(r"(?<!#)\b\d{9,}[\s)]*$")


def title_of(raw: str) -> str:
    """Return the title that a raw caption is, without the noise of shops and files; empty if it says nothing else.

    A title of more than _LONG characters is cut at a separator or a comma.
    """
    found = [t for part in _SEPARATOR.split(_plain(raw)) if (t := _clean(part))][:_MOST]
    runs = [", ".join(found[:i]) for i in range(len(found), 0, -1)]
    if found:
        runs += [found[0][: comma.start()] for comma in re.finditer(r",\s", found[0])][::-1]
    fitting = next((run for run in runs if len(run) <= _LONG), "")
    return fitting.title() if fitting.isupper() else fitting


def _plain(raw: str) -> str:
    text = _INCHES.sub('"', _FILE.sub("", without_markup(raw)))
    text = _QUOTES.sub(" ", text)
    return text if " " in text.strip() else _SLUG.sub(lambda m: re.sub("[-_+]", " ", m.group()), text)


def _clean(part: str) -> str:
    """Return a segment without noise at its ends; empty if it says nothing."""
    address = RESIDUE.search(part)
    text = re.sub(r"\s+", " ", part[: address.start()] if address else part)
    whole, before = text, None
    while text != before:
        before = text
        text = _CUT.sub("", _AFTER.sub("", _ID.sub("", _BEFORE.sub("", text)))).strip(" ,:!?.*_^=#\\/'’-")
        for left, right in ("()", "[]", "{}"):
            if text.count(left) != text.count(right):
                text = text.replace(left, " ").replace(right, " ")
    text = re.sub(r"\s+", " ", text).strip()
    noise = len(text.split()) == 1 < len(whole.split()) - 1  # "Free Cat Pictures"
    return "" if noise or not re.search(r"[^\W\d_]{2}", text) else text
