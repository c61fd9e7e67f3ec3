"""Filter rules: pure functions of one pair, and the list FILTERS in which they run.

A filter returns None if the pair passes, else a detail for `rejects`. The name of the function is the reject reason.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from capsfusion_etl.judge.scripts import WORD
from capsfusion_etl.stages.filters.foreign import other_language
from capsfusion_etl.stages.filters.pii import find_pii

# Prompt injection: alt-text that addresses a model. A neutral word ("instructions") alone does not match.
_INSTRUCTIONS = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,30}\b(?:previous|above|prior|earlier|all|your|the|these)\b.{0,30}"
    r"\b(?:instruction|prompt|sentence|rule|text|message)s?\b"
    r"|\byou are (?:now )?(?:an? )?(?:ai|assistant|language model|chatbot|gpt)\b|\bas an ai\b"
    r"|\bsystem prompt\b|<\|(?:im_start|im_end|system|endoftext)\|>|\[/?inst\]"
    r"|\b(?:reply|respond|answer|output)\b (?:only |just )?(?:with|by)\b",
    re.DOTALL,
)
# _INSTRUCTIONS cannot match without one of these words; looking them up spares most texts the regular expression.
_TRIGGERS = frozenset(
    {"ignore", "disregard", "forget", "you", "ai", "system", "reply", "respond", "answer", "output", "inst", "im_start",
     "im_end", "endoftext"}
)  # fmt: skip
_FILE_NAME = re.compile(
    r"^[\w().%+-]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic)$|^(?:img|dsc[nf]?|image|photo)[_-]?\d+$"
)
# Captions that belong to the page, not to the image. They must match as a whole, ignoring punctuation.
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
# Words any of which marks a caption as not safe for work; `unsafe_words` adds more.
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
    """Thresholds of the filters.

    Attributes:
        min_chars: fewest characters of a caption, surrounding whitespace aside.
        max_chars: most characters of a caption.
        max_symbols: largest share of characters that are neither letter, digit, underscore nor space.
        max_repetition: largest share of the most frequent word in captions of six words or more.
        stop_words: single words in lower case; a caption with one of them is rejected.
        unsafe_words: further words like those in UNSAFE, in lower case.
        phone_region: ISO 3166 region of phone numbers without a country code; null finds only international numbers.
        language: language of the captions (ISO 639-1); null accepts any.
        language_confidence: least confidence of the detector, 0 to 1, to reject another language; names and brands
            look foreign in short texts.
        min_side: least pixels of the shorter side of an image.
        max_aspect_ratio: largest ratio of the longer to the shorter side.
        min_contrast: least standard deviation of the grey values, 0 to 127.5.
        max_images_per_caption: most images that share a caption; null: no limit.
        max_hosts_per_picture: most hosts that serve the same image, by perceptual hash; null: no limit.
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
    """Input of a filter. Width and height in pixels, contrast as in `images`; None in a lake without images.

    Derived: `lower` is the caption in lower case, `words` its words, `bag` its distinct words.
    """

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
        self.words = WORD.findall(self.lower)
        self.bag = frozenset(self.words)


def empty_caption(pair: Pair) -> str | None:
    """Reject a caption without any word."""
    return None if pair.words else "no word"


def too_short(pair: Pair) -> str | None:
    """Reject fewer than `min_chars` characters, such as a single letter or a size."""
    length = len(pair.raw_caption.strip())
    return f"{length} characters" if length < pair.config.min_chars else None


def too_long(pair: Pair) -> str | None:
    """Reject more than `max_chars` characters: the text of a page, not a caption."""
    length = len(pair.raw_caption)
    return f"{length} characters" if length > pair.config.max_chars else None


def file_name(pair: Pair) -> str | None:
    """Reject a caption that is only a file name."""
    return pair.raw_caption if len(pair.words) < 12 and _FILE_NAME.match(pair.lower.strip()) else None


def boilerplate(pair: Pair) -> str | None:
    """Reject text of the page around the image (BOILERPLATE)."""
    return pair.raw_caption if len(pair.words) < 6 and " ".join(pair.words) in BOILERPLATE else None


def symbols(pair: Pair) -> str | None:
    """Reject a share of symbols above `max_symbols`."""
    if not pair.raw_caption:
        return None
    plain = sum(map(len, pair.words)) + pair.raw_caption.count(" ")
    share = 1 - plain / len(pair.raw_caption)
    return f"{share:.0%} symbols" if share > pair.config.max_symbols else None


def repetition(pair: Pair) -> str | None:
    """Reject a caption of six words or more of which one word exceeds the share `max_repetition`."""
    if len(pair.words) < 6 or len(pair.bag) > len(pair.words) * (1 - pair.config.max_repetition) + 1:
        return None  # with so many distinct words, none can be that frequent
    word, count = Counter(pair.words).most_common(1)[0]
    return f"{word} {count} times" if count / len(pair.words) > pair.config.max_repetition else None


def instructions(pair: Pair) -> str | None:
    """Reject a caption that addresses the model which would read it (prompt injection)."""
    if pair.bag.isdisjoint(_TRIGGERS):
        return None
    found = _INSTRUCTIONS.search(pair.lower)
    return found.group() if found else None


def personal(pair: Pair) -> str | None:
    """Reject an e-mail address, phone number or card number."""
    return find_pii(pair.raw_caption, pair.config.phone_region)


def unsafe(pair: Pair) -> str | None:
    """Reject a word of UNSAFE or `unsafe_words`."""
    if pair.bag.isdisjoint(UNSAFE) and pair.bag.isdisjoint(pair.config.unsafe_words):
        return None
    return ", ".join(sorted(pair.bag & (UNSAFE | set(pair.config.unsafe_words))))


def stop_word(pair: Pair) -> str | None:
    """Reject a word of `stop_words`."""
    if pair.bag.isdisjoint(pair.config.stop_words):
        return None
    return ", ".join(sorted(pair.bag & set(pair.config.stop_words)))


def too_small(pair: Pair) -> str | None:
    """Reject a shorter side below `min_side`, such as tracking pixels and icons."""
    if pair.width is None or pair.height is None:
        return None
    return f"{pair.width} x {pair.height} pixels" if min(pair.width, pair.height) < pair.config.min_side else None


def aspect_ratio(pair: Pair) -> str | None:
    """Reject an aspect ratio above `max_aspect_ratio`, such as banners and dividers."""
    if not pair.width or not pair.height:
        return None
    ratio = max(pair.width / pair.height, pair.height / pair.width)
    return f"{ratio:.1f} : 1" if ratio > pair.config.max_aspect_ratio else None


def placeholder(pair: Pair) -> str | None:
    """Reject a contrast below `min_contrast`: an image of a single colour."""
    if pair.contrast is None:
        return None
    return f"contrast {pair.contrast:g}" if pair.contrast < pair.config.min_contrast else None


def language(pair: Pair) -> str | None:
    """Reject another language than `language`, if the detector reaches `language_confidence`."""
    wanted = pair.config.language
    if wanted is None or (wanted == "en" and len(pair.bag & _ENGLISH) > 1):  # English: skip the detector
        return None
    return other_language(pair.raw_caption, wanted, pair.config.language_confidence)


Filter = Callable[[Pair], str | None]
# In this order, roughly from cheap to expensive; the first filter that rejects a pair gives the reason.
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
    """Return reason and detail of the first filter that rejects the pair; None if it passes all of them."""
    for check in FILTERS:
        detail = check(pair)
        if detail is not None:
            return check.__name__, detail
    return None
