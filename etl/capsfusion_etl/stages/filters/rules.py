"""Filters: pure functions of one pair, in a literal list that reads like a recipe.

A filter returns what it saw where the pair should go, or None where it stays; its name is the reason in `rejects`.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from capsfusion_etl.language import language_of
from capsfusion_etl.stages.filters.pii import find_pii

_WORD = re.compile(r"\w+")
# The prompt-injection patterns: alt-text that addresses a model. Neutral words ("instructions") alone do not count.
_INSTRUCTIONS = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,30}\b(?:previous|above|prior|earlier|all|your|the|these)\b.{0,30}"
    r"\b(?:instruction|prompt|sentence|rule|text|message)s?\b"
    r"|\byou are (?:now )?(?:an? )?(?:ai|assistant|language model|chatbot|gpt)\b|\bas an ai\b"
    r"|\bsystem prompt\b|<\|(?:im_start|im_end|system|endoftext)\|>|\[/?inst\]"
    r"|\b(?:reply|respond|answer|output)\b (?:only |just )?(?:with|by)\b",
    re.DOTALL,
)
# None of the patterns fits without one of these words: they are looked up, the patterns are not tried on every text.
_TRIGGERS = frozenset(
    {"ignore", "disregard", "forget", "you", "ai", "system", "reply", "respond", "answer", "output", "inst", "im_start",
     "im_end", "endoftext"}
)  # fmt: skip
_FILE_NAME = re.compile(
    r"^[\w().%+-]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic)$|^(?:img|dsc[nf]?|image|photo)[_-]?\d+$"
)
# Words of a page, not of a picture: the whole caption, punctuation aside.
BOILERPLATE = frozenset(
    {
        "advertisement", "avatar", "background image", "banner", "click here", "click to enlarge",
        "click to view larger image", "close", "default image", "featured image", "image", "image coming soon",
        "image not available", "image not found", "image placeholder", "loading", "logo", "menu", "next", "no image",
        "no image available", "no photo", "no photo available", "no thumbnail", "photo", "photo coming soon", "picture",
        "placeholder", "placeholder image", "previous", "product image", "screenshot", "search", "share",
        "share on facebook", "share on twitter", "slide", "thumbnail", "untitled", "user avatar", "view larger", "zoom",
    }
)  # fmt: skip
# Words that alone say that a caption is not safe for work; more with `unsafe_words`.
UNSAFE = frozenset(
    {
        "anal", "blowjob", "bukkake", "camgirl", "camgirls", "creampie", "cumshot", "deepthroat", "dildo", "fuck",
        "fucked", "fucking", "gangbang", "handjob", "hentai", "hardcoreporn", "milf", "milfs", "nsfw", "nudes", "orgy",
        "porn", "porno", "pornhub", "pornography", "pornstar", "sexcam", "threesome", "upskirt", "xhamster", "xnxx",
        "xvideos", "xxx",
    }
)  # fmt: skip
_ENGLISH = frozenset({"the", "of", "and", "with", "from", "for", "by", "this", "that", "was"})


@dataclass(frozen=True, slots=True)
class FilterConfig:
    """Thresholds; null turns a filter off where it may be null.

    `language`: ISO 639-1; a foreign text goes only if the detector is at least `language_confidence` sure of it, as
    names and brands look foreign in short texts. `max_symbols`: share of characters that are neither letter, digit nor
    space. `max_repetition`: share of the most frequent word, from six words on. `stop_words` and `unsafe_words`: a
    caption with one of them goes. `phone_region`: see `find_pii`; null for international numbers only.
    `min_side`, `max_aspect_ratio`, `min_contrast`: of the picture. `max_images_per_caption`: pictures that one caption
    may have; `max_hosts_per_picture`: hosts that may show the same picture.
    """

    min_chars: int = 2
    max_chars: int = 1_000
    max_symbols: float = 0.5
    max_repetition: float = 0.5
    stop_words: tuple[str, ...] = ()
    unsafe_words: tuple[str, ...] = ()
    phone_region: str | None = "US"
    language: str | None = "en"
    language_confidence: float = 0.7
    min_side: int = 64
    max_aspect_ratio: float = 5.0
    min_contrast: float = 2.0
    max_images_per_caption: int | None = 200
    max_hosts_per_picture: int | None = 20


@dataclass(slots=True)
class Pair:
    """What a filter sees. Width and height in pixels, contrast as in `images`; None in a lake without pictures."""

    raw_caption: str
    width: int | None
    height: int | None
    contrast: float | None
    config: FilterConfig
    lower: str = field(init=False)
    words: list[str] = field(init=False)
    bag: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lower = self.raw_caption.lower()
        self.words = _WORD.findall(self.lower)
        self.bag = frozenset(self.words)


def empty_caption(pair: Pair) -> str | None:
    """No word at all."""
    return None if pair.words else "no word"


def too_short(pair: Pair) -> str | None:
    """Fewer than `min_chars`: a letter, a size."""
    length = len(pair.raw_caption.strip())
    return f"{length} characters" if length < pair.config.min_chars else None


def too_long(pair: Pair) -> str | None:
    """Longer than `max_chars`: a page, not a caption."""
    length = len(pair.raw_caption)
    return f"{length} characters" if length > pair.config.max_chars else None


def file_name(pair: Pair) -> str | None:
    """A file name and nothing else."""
    return pair.raw_caption if len(pair.words) < 12 and _FILE_NAME.match(pair.lower.strip()) else None


def boilerplate(pair: Pair) -> str | None:
    """Words of the page around the picture."""
    return pair.raw_caption if len(pair.words) < 6 and " ".join(pair.words) in BOILERPLATE else None


def symbols(pair: Pair) -> str | None:
    """More signs than letters."""
    plain = sum(map(len, pair.words)) + pair.raw_caption.count(" ")
    share = 1 - plain / len(pair.raw_caption)
    return f"{share:.0%} symbols" if share > pair.config.max_symbols else None


def repetition(pair: Pair) -> str | None:
    """One word over and over."""
    if len(pair.words) < 6 or len(pair.bag) > len(pair.words) * (1 - pair.config.max_repetition) + 1:
        return None  # with so many words apart none can be so frequent
    word, count = Counter(pair.words).most_common(1)[0]
    return f"{word} {count} times" if count / len(pair.words) > pair.config.max_repetition else None


def instructions(pair: Pair) -> str | None:
    """Talks to the model that would read it (prompt injection)."""
    if pair.bag.isdisjoint(_TRIGGERS):
        return None
    found = _INSTRUCTIONS.search(pair.lower)
    return found.group() if found else None


def personal(pair: Pair) -> str | None:
    """An e-mail address, a phone or a card number."""
    return find_pii(pair.raw_caption, pair.config.phone_region)


def unsafe(pair: Pair) -> str | None:
    """A word that no caption for learning should have."""
    if pair.bag.isdisjoint(UNSAFE) and pair.bag.isdisjoint(pair.config.unsafe_words):
        return None
    return ", ".join(sorted(pair.bag & (UNSAFE | set(pair.config.unsafe_words))))


def stop_word(pair: Pair) -> str | None:
    """A word of the recipe's own list."""
    if pair.bag.isdisjoint(pair.config.stop_words):
        return None
    return ", ".join(sorted(pair.bag & set(pair.config.stop_words)))


def too_small(pair: Pair) -> str | None:
    """A pixel that counts visitors, an icon."""
    if pair.width is None or pair.height is None:
        return None
    return f"{pair.width} x {pair.height} pixels" if min(pair.width, pair.height) < pair.config.min_side else None


def aspect_ratio(pair: Pair) -> str | None:
    """A banner or a divider."""
    if not pair.width or not pair.height:
        return None
    ratio = max(pair.width / pair.height, pair.height / pair.width)
    return f"{ratio:.1f} : 1" if ratio > pair.config.max_aspect_ratio else None


def placeholder(pair: Pair) -> str | None:
    """Of one colour: "image not available" without the words."""
    if pair.contrast is None:
        return None
    return f"contrast {pair.contrast:g}" if pair.contrast < pair.config.min_contrast else None


def language(pair: Pair) -> str | None:
    """Another language than `language`, if the detector is sure."""
    wanted = pair.config.language
    if wanted is None or (wanted == "en" and len(pair.bag & _ENGLISH) > 1):  # two such words: not worth a model
        return None
    found, score = language_of(pair.raw_caption)
    return f"{found} ({score:.2f})" if found != wanted and score >= pair.config.language_confidence else None


Filter = Callable[[Pair], str | None]
# In order, the cheap ones first: the first that speaks names the reason.
FILTERS: list[Filter] = [
    empty_caption,
    too_short,
    too_long,
    file_name,
    boilerplate,
    symbols,
    repetition,
    instructions,
    unsafe,
    stop_word,
    too_small,
    aspect_ratio,
    placeholder,
    personal,
    language,
]


def first_rejection(pair: Pair) -> tuple[str, str] | None:
    """Reason and detail of the first filter that would take the pair; None if it stays."""
    for check in FILTERS:
        detail = check(pair)
        if detail is not None:
            return check.__name__, detail
    return None
