"""Why an answer of only its sources' words is probably false or broken. Pure.

A small model joins such words into sentences that pass the judge, as all of their words have a source. These rules were
made by reading such answers (docs/decisions/0017); large models, which rewrite, break them without harm.
"""

import re

from capsfusion_etl.judge.copying import overused, pieces, rebound, share_said

MAX_PIECES = 2  # of the raw caption, that an answer without a title may join
MIN_SAID = 0.5  # share of the words of the raw caption, below which an answer without a title is doubted
_FRAME = re.compile(r"\b(?:picture|image|photo|photograph|illustration|screenshot)\b", re.IGNORECASE)
# Things that have titles; the last word before "titled" must be one, or a comma, or the subject of "is titled".
_ENTITLED = frozenset(
    {
        "ad", "advertisement", "album", "art", "article", "artwork", "banner", "book", "brochure", "calendar", "card",
        "cartoon", "chart", "close-up", "comic", "cover", "diagram", "document", "drawing", "film", "flyer", "game",
        "graph", "graphic", "illustration", "image", "infographic", "invitation", "label", "list", "logo", "magazine",
        "map", "menu", "movie", "newspaper", "page", "painting", "photo", "photograph", "picture", "poem", "postcard",
        "poster", "presentation", "print", "recipe", "resume", "screen", "screenshot", "sheet", "sign", "silhouette",
        "sketch", "song", "template", "video", "view", "wallpaper", "website", "worksheet",
    }
)  # fmt: skip
_TITLE_OF = re.compile(r"([\w-]+)(,?)( (?:is|are))? titled\.$")
_ON_PICTURE = re.compile(r"\b(?!in\b)\w+ (?:an?|the) (?:picture|image|photo|photograph) titled\b", re.IGNORECASE)
_DANGLING = re.compile(r"\bwith (?:the |a )?(?:text|words?|title|picture)[.]?$", re.IGNORECASE)
_QUOTE = re.compile(r"\b(?:words?|text|says|saying|reads|reading) (.+?)(?: (?:is|are|on|in)\b.*)?[.!]*$", re.IGNORECASE)
_WORD = re.compile(r"[\w-]+")
_STUTTER = re.compile(r"\b(\w+),? \1\b", re.IGNORECASE)


def doubt(raw: str, synthetic: str, text: str, title: str = "") -> str | None:
    """Return why the answer `text` is doubted, or None.

    Args:
        raw: the raw caption.
        synthetic: the synthetic caption; empty if the answer rewrites the raw one alone.
        text: the answer.
        title: title that the answer should attach; empty if it may use the words of `raw` as it likes.
    """
    titled = bool(title) and text.endswith(f"titled {title}.")
    rest = f"{text.removesuffix(f'{title}.').rstrip()}." if titled else text
    repeated = overused(rest, "" if titled else raw, synthetic)
    if repeated:
        return f"says too often: {', '.join(repeated)}"
    if titled:
        return _beside_title(rest, synthetic)
    joined = pieces(text, raw, synthetic)
    if joined > MAX_PIECES:
        return f"joins {joined} pieces of the raw caption"
    return "says little of the raw caption" if title and share_said(text, raw) <= MIN_SAID else None


def _beside_title(rest: str, synthetic: str) -> str | None:
    """Return what is wrong with an answer, apart from its title, as a rewording of the synthetic caption."""
    frames = _FRAME.findall(rest)
    if len(frames) > max(1, len(_FRAME.findall(synthetic))):
        return f"is about a picture of a picture: {', '.join(frames)}"
    stutter = _STUTTER.search(rest)
    if stutter and stutter.group().lower() not in synthetic.lower():
        return f"repeats: {stutter.group()}"
    bound = rebound(rest, synthetic)
    if bound:
        return f"binds other words than its source: {', '.join(bound)}"
    odd = _ON_PICTURE.search(rest) or _DANGLING.search(rest)
    if odd:
        return f"says {odd.group()!r}"
    owner = _TITLE_OF.search(rest)
    known = _ENTITLED.intersection(_WORD.findall(rest.lower()) if owner and owner.group(3) else [])
    if owner and not owner.group(2) and not known and owner.group(1).lower() not in _ENTITLED:
        return f"gives a title to {owner.group(1)}"
    quote, said = _QUOTE.search(synthetic), _QUOTE.search(rest)
    if quote and said and quote.group(1).lower().strip(" .") not in rest.lower():
        return f"cuts the words {quote.group(1)}"
    return None
