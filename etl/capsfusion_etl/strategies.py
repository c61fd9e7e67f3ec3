"""Caption strategies (paper section 4): what a training caption is made of. Pure."""

# strategy -> where its captions come from
STRATEGIES = {
    "fused": "a model merges the raw and the synthetic caption",
    "language-rewrite": "a model rewrites the raw caption and sees nothing else (LaCLIP)",
    "raw": "the raw caption as it is",
    "synthetic": "the synthetic caption as it is",
    "mixed": "raw for a fixed share of the pairs, chosen by hash, else synthetic",
}


def copies_caption(strategy: str) -> bool:
    """Does this strategy copy one of the captions, without asking a model?"""
    return strategy in ("raw", "synthetic", "mixed")


def source_of(strategy: str, pair_id: str, mixed_raw: float) -> str:
    """`raw` or `synthetic`: which caption a copying strategy takes for this pair; `mixed` goes by the pair_id."""
    if strategy != "mixed":
        return strategy
    return "raw" if int(pair_id[-8:], 16) / 16**8 < mixed_raw else "synthetic"
