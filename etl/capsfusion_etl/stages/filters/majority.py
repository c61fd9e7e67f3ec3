"""Name the filters that reject most pairs, with their thresholds: one of them may be wrong for this source. Pure."""

from collections.abc import Mapping

from capsfusion_etl.stages.filters.rules import FilterConfig

# reject reason -> its threshold, a setting of FilterConfig; the others have none.
_THRESHOLDS = {
    "too_short": "min_chars", "too_long": "max_chars", "symbols": "max_symbols", "repetition": "max_repetition",
    "stop_word": "stop_words", "personal": "phone_region", "too_small": "min_side", "aspect_ratio": "max_aspect_ratio",
    "placeholder": "min_contrast", "language": "language", "common_caption": "max_images_per_caption",
    "shared_picture": "max_hosts_per_picture",
}  # fmt: skip


def most_of(rows: int, rejects: Mapping[str, int], config: FilterConfig) -> str:
    """Name the filters that reject more than half of `rows`: a threshold may be wrong. Empty if there are none."""
    told = (
        f"{'all' if count == rows else f'{count} of'} {rows} rows: {_with_threshold(reason, config)}"
        for reason, count in sorted(rejects.items())
        if count > rows / 2
    )
    return "; ".join(told)


def _with_threshold(reason: str, config: FilterConfig) -> str:
    """Return a reject reason with its threshold: "too_small (min_side 64)"."""
    setting = _THRESHOLDS.get(reason)
    return f"{reason} ({setting} {getattr(config, setting)})" if setting else reason
