"""Filters: pure functions of one pair, in a literal list that reads like a recipe.

A filter returns what it saw where the pair should go, or None where it stays; its name is the reason in `rejects`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from capsfusion_etl.language import language_of

# The prompt-injection patterns: alt-text that addresses a model. Neutral words ("instructions") alone do not count.
_INSTRUCTIONS = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,30}\b(?:previous|above|prior|earlier|all|your|the|these)\b.{0,30}"
    r"\b(?:instruction|prompt|sentence|rule|text|message)s?\b"
    r"|\byou are (?:now )?(?:an? )?(?:ai|assistant|language model|chatbot|gpt)\b|\bas an ai\b"
    r"|\bsystem prompt\b|<\|(?:im_start|im_end|system|endoftext)\|>|\[/?INST\]"
    r"|\b(?:reply|respond|answer|output)\b (?:only |just )?(?:with|by)\b",
    re.IGNORECASE | re.DOTALL,
)
_FILE_NAME = re.compile(
    r"^[\w().%+-]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic)$|^(?:img|dsc[nf]?|image|photo)[_-]?\d+$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class FilterConfig:
    """Thresholds. `language` is an ISO 639-1 code, or null for any; a foreign text goes only if the detector is at
    least `language_confidence` sure of it, as names and brands look foreign in short texts."""

    max_chars: int = 1_000
    language: str | None = "en"
    language_confidence: float = 0.7
    min_side: int = 64
    max_aspect_ratio: float = 5.0
    min_contrast: float = 2.0


@dataclass(frozen=True, slots=True)
class Pair:
    """What a filter sees. Width and height in pixels, contrast as in `images`; None in a lake without pictures."""

    raw_caption: str
    width: int | None
    height: int | None
    contrast: float | None
    config: FilterConfig


def empty_caption(pair: Pair) -> str | None:
    """No word at all."""
    return None if re.search(r"\w", pair.raw_caption) else "no word"


def too_long(pair: Pair) -> str | None:
    """Longer than `max_chars`: a page, not a caption."""
    length = len(pair.raw_caption)
    return f"{length} characters" if length > pair.config.max_chars else None


def file_name(pair: Pair) -> str | None:
    """A file name and nothing else."""
    return pair.raw_caption if _FILE_NAME.match(pair.raw_caption.strip()) else None


def instructions(pair: Pair) -> str | None:
    """Talks to the model that would read it (prompt injection)."""
    found = _INSTRUCTIONS.search(pair.raw_caption)
    return found.group() if found else None


def language(pair: Pair) -> str | None:
    """Another language than `language`, if the detector is sure."""
    if pair.config.language is None:
        return None
    found, score = language_of(pair.raw_caption)
    foreign = found != pair.config.language and score >= pair.config.language_confidence
    return f"{found} ({score:.2f})" if foreign else None


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


Filter = Callable[[Pair], str | None]
# In order, the cheap ones first: the first that speaks names the reason.
FILTERS: list[Filter] = [
    empty_caption,
    too_long,
    file_name,
    instructions,
    too_small,
    aspect_ratio,
    placeholder,
    language,
]


def screen(pair: Pair) -> tuple[str, str] | None:
    """Reason and detail of the first filter that would take the pair; None if it stays."""
    for check in FILTERS:
        detail = check(pair)
        if detail is not None:
            return check.__name__, detail
    return None


def screen_batches(batches: Iterator[pa.RecordBatch], config: FilterConfig) -> Iterator[pa.RecordBatch]:
    """mapInArrow: pairs with their picture's size in; pair_id, reason, detail of those that go out."""
    schema = pa.schema([("pair_id", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
    for batch in batches:
        gone: list[dict[str, Any]] = []
        for row in batch.to_pylist():
            found = screen(Pair(row["raw_caption"], row["width"], row["height"], row["contrast"], config))
            if found:
                gone.append({"pair_id": row["pair_id"], "reason": found[0], "detail": found[1][:200]})
        yield pa.RecordBatch.from_pylist(gone, schema=schema)


def bind(config: FilterConfig) -> Any:
    """`screen_batches` with its thresholds, ready for mapInArrow."""
    return partial(screen_batches, config=config)
