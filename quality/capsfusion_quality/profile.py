"""The shape of what is published, and how far it drifted from the snapshot before.

A profile is small and goes into the snapshot's manifest, so that the next gate need not read that snapshot's rows. Over
millions of rows any difference is significant: what counts is its size, if it is significant at all.
"""

import math
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from capsfusion_etl.ids import host_sql
from capsfusion_etl.language import language_of
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_quality.measure import Fact
from capsfusion_quality.rules import DRIFT_WORDS, SHAPE_WORDS

LONGEST = 80  # words; longer ones share a bucket
DOMAINS = 50
SAMPLE = 1_000  # captions whose language is looked at
FEWEST = 30  # rows below which nothing is compared
SIGNIFICANT = 0.001
Profile = dict[str, Any]


def profile(published: DataFrame, fused: DataFrame, pairs: DataFrame) -> Profile:
    """Of the candidate for a snapshot: rows, lengths in words, kept entities and recall, domains, languages.

    Args:
        published: pair_id, caption.
        fused: pair_id, ledger.
        pairs: pair_id, url.
    """
    captions = published.select("pair_id", "caption").join(fused.select("pair_id", "ledger"), "pair_id", "left")
    words = captions.groupBy(F.least(F.lit(LONGEST), F.size(F.split(F.trim("caption"), r"\s+"))).alias("words")).agg(
        F.count("*").alias("rows"),
        F.sum(F.size("ledger.kept")).alias("entities"),
        F.count("ledger.recall").alias("recalled"),
        F.sum("ledger.recall").alias("recall"),
    )
    places = published.select("pair_id").join(pairs.select("pair_id", "url"), "pair_id", "left")
    domain = F.expr(host_sql("url"))
    domains = places.groupBy(domain.alias("domain")).count().orderBy(F.desc("count"), "domain").limit(DOMAINS)
    found = sorted(words.collect())
    rows, recalled = sum(r["rows"] for r in found), sum(r["recalled"] for r in found)
    return {
        "rows": rows,
        "entities": sum(r["entities"] or 0 for r in found) / rows if rows else None,
        "recall": sum(r["recall"] or 0.0 for r in found) / recalled if recalled else None,
        "words": {str(r["words"]): r["rows"] for r in found},
        "domains": {r["domain"] or "": r["count"] for r in domains.collect()},
        "languages": _languages(published, rows),
    }


def _languages(published: DataFrame, count: int) -> dict[str, int]:
    """Of a sample: pair_ids are hashes, so that those below a bound are one, and the same one each time."""
    bound = min(1.0, SAMPLE / max(count, 1))
    sample = published.where(F.col("pair_id") <= f"{int(bound * 0xFFFFFFFF):08x}g").select("caption").limit(2 * SAMPLE)
    return dict(Counter(language_of(row["caption"])[0] for row in sample.collect()).most_common())


def spread(now: Profile) -> dict[str, Fact]:
    """Rule name -> how long captions are, and how many are in the commonest language."""
    if not now["rows"]:
        return dict.fromkeys(SHAPE_WORDS, Fact(None, "no rows"))
    lengths = sorted(((int(n), count) for n, count in now["words"].items()))
    up_to = list(accumulate(count for _, count in lengths))
    short, long = (
        next(n for (n, _), c in zip(lengths, up_to, strict=True) if c > q * now["rows"]) for q in (0.05, 0.95)
    )
    languages = now["languages"]
    main = max(languages, key=languages.__getitem__)
    share = languages[main] / sum(languages.values())
    return {
        "short_twentieth": Fact(float(short), f"{short} words"),
        "long_twentieth": Fact(float(long), f"{long} words"),
        "main_language": Fact(share, f"{main}, {share:.1%} of {sum(languages.values()):,} captions"),
    }


def drift(now: Profile, before: Profile | None) -> dict[str, Fact]:
    """Rule name -> how far `now` is from `before`; 0 where there is nothing to compare."""
    if before is None or min(now["rows"], before["rows"]) < FEWEST:
        why = "no snapshot to compare with" if before is None else f"fewer than {FEWEST} rows"
        return dict.fromkeys(DRIFT_WORDS, Fact(0.0, why))
    distance, chance = two_sample(_bins(now["words"]), _bins(before["words"]))
    lengths = Fact(distance if chance < SIGNIFICANT else 0.0, f"{distance:.3f}, p = {chance:.2g}")
    old, new = before["entities"] or 0.0, now["entities"] or 0.0
    recalls = (before["recall"] or 0.0, now["recall"] or 0.0)
    return {
        "lengths": lengths,
        "entities": Fact(abs(new - old) / max(old, 1e-9) if old else 0.0, f"{old:.2f} before, {new:.2f} now"),
        "recall": Fact(abs(recalls[1] - recalls[0]), f"{recalls[0]:.3f} before, {recalls[1]:.3f} now"),
        "domains": _variation(now["domains"], before["domains"], now["rows"], before["rows"]),
        "languages": _variation(now["languages"], before["languages"]),
    }


def two_sample(first: list[int], second: list[int]) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance of two histograms over the same bins, and its p-value (asymptotic; bins make it
    smaller than that of the values, so that it errs on the quiet side)."""
    from scipy.stats import kstwobign

    n, m = sum(first), sum(second)
    a = b = distance = 0.0
    for x, y in zip(first, second, strict=True):
        a, b = a + x / n, b + y / m
        distance = max(distance, abs(a - b))
    return distance, float(kstwobign.sf(math.sqrt(n * m / (n + m)) * distance))


def _bins(words: dict[str, int]) -> list[int]:
    return [words.get(str(i), 0) for i in range(LONGEST + 1)]


def _variation(now: dict[str, int], before: dict[str, int], n: int | None = None, m: int | None = None) -> Fact:
    """Half the sum of differences of shares: 0 for the same, 1 for nothing in common. Names below the top ones count
    as one."""
    n, m = n or sum(now.values()) or 1, m or sum(before.values()) or 1
    shares = [(now.get(k, 0) / n, before.get(k, 0) / m) for k in {*now, *before}]
    rest = (1 - sum(now.values()) / n, 1 - sum(before.values()) / m)
    moved = sorted({*now, *before}, key=lambda k: -abs(now.get(k, 0) / n - before.get(k, 0) / m))
    names = ", ".join(f"{k or 'none'} {before.get(k, 0) / m:.1%} to {now.get(k, 0) / n:.1%}" for k in moved[:3])
    return Fact(_half_sum([*shares, rest]), names)


def _half_sum(shares: Iterable[tuple[float, float]]) -> float:
    return sum(abs(a - b) for a, b in shares) / 2
