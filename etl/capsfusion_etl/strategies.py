"""Caption strategies (paper section 4): where a training caption comes from. Pure."""

# strategy -> where its captions come from
STRATEGIES = {
    "fused": "a model merges the raw and the synthetic caption",
    "language-rewrite": "a model rewrites the raw caption and sees nothing else (LaCLIP)",
    "raw": "the raw caption as it is",
    "synthetic": "the synthetic caption as it is",
    "mixed": "raw for a fixed share of the pairs, chosen by hash, else synthetic",
}


def copies_caption(strategy: str) -> bool:
    """Return whether this strategy copies a caption instead of asking a model."""
    return strategy in ("raw", "synthetic", "mixed")


def source_of(strategy: str, pair_id: str, mixed_raw: float) -> str:
    """Return which caption, `raw` or `synthetic`, a copying strategy takes for this pair.

    Args:
        strategy: raw, synthetic or mixed.
        pair_id: sha256 in hex; `mixed` uses its last 8 digits as a uniform number.
        mixed_raw: share of the pairs for which `mixed` takes the raw caption.
    """
    if strategy != "mixed":
        return strategy
    return "raw" if int(pair_id[-8:], 16) / 16**8 < mixed_raw else "synthetic"
