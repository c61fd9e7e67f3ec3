"""Whether a caption is in another language; titles of products look foreign to the detector, but are not."""

from capsfusion_etl.judge.lexicon import in_dictionary, words
from capsfusion_etl.language import language_of

_SURE = 0.5  # least confidence of the detector in the lower-case text
_KNOWN = 0.75  # share of the words in the English dictionary that makes a text English


def other_language(text: str, wanted: str, least: float) -> str | None:
    """Return the language of `text`, with the confidence of the detector, if it is another than `wanted`.

    Brands and capitals mislead the detector. So it must find the same language without capitals, and a text in ASCII
    is English if most of its words are in a dictionary.

    Args:
        text: the caption.
        wanted: ISO 639-1 code.
        least: least confidence, 0 to 1.
    """
    found, score = language_of(text)
    if found == wanted or score < least:
        return None
    again, sure = language_of(text.lower())
    if again != found or sure < _SURE or (wanted == "en" and _is_english(text)):
        return None
    return f"{found} ({score:.2f})"


def _is_english(text: str) -> bool:
    found = words(text)
    return text.isascii() and sum(map(in_dictionary, found)) >= _KNOWN * len(found)
