"""Profile of the pairs to publish, and its drift from the previous snapshot.

A profile is small and becomes a part of the snapshot's manifest, so that the next gate need not read the rows of that
snapshot. With millions of rows every difference is statistically significant, so the rules bound its size. A difference
in lengths that is not even significant counts as 0.
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

LONGEST = 80  # words; longer captions share this bucket
DOMAINS = 50  # most frequent domains in a profile
SAMPLE = 1_000  # captions whose language is detected, about
FEWEST = 30  # fewest rows on each side for a comparison
SIGNIFICANT = 0.001  # p-value below which a difference in lengths counts
Profile = dict[str, Any]


def profile(published: DataFrame, fused: DataFrame, pairs: DataFrame) -> Profile:
    """Return the profile of the candidate for a snapshot.

    Args:
        published: pair_id, caption.
        fused: pair_id, ledger.
        pairs: pair_id, url.

    Returns:
        `rows`; `entities`, the mean number of kept facts per caption; `recall`, its mean; `words`, captions by length
        in words; `domains` and `languages`, captions by name (of the top domains, and of a sample).
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
    """Count languages in a sample: the pair_ids below a bound. They are hashes, so it is random, yet reproducible."""
    bound = min(1.0, SAMPLE / max(count, 1))
    # `g` sorts after every hex digit, so that the bound includes all ids with this prefix.
    sample = published.where(F.col("pair_id") <= f"{int(bound * 0xFFFFFFFF):08x}g").select("caption").limit(2 * SAMPLE)
    return dict(Counter(language_of(row["caption"])[0] for row in sample.collect()).most_common())


def spread(now: Profile) -> dict[str, Fact]:
    """Return the facts of the suite `shape`: percentiles of the length, and the share of the main language."""
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
    """Return the facts of the suite `drift`: distances of `now` from `before`, 0 if they cannot be compared."""
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
    """Return the Kolmogorov-Smirnov distance of two histograms over the same bins, and its asymptotic p-value.

    Binning can only reduce the distance of the values, so the test is conservative.
    """
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
    """Return the total variation distance of two distributions: 0 if they are equal, 1 if they have nothing in common.

    Args:
        now: name -> count.
        before: name -> count.
        n: total of `now`, if it lacks rare names; these count as one name.
        m: total of `before`, likewise.
    """
    n, m = n or sum(now.values()) or 1, m or sum(before.values()) or 1
    shares = [(now.get(k, 0) / n, before.get(k, 0) / m) for k in {*now, *before}]
    rest = (1 - sum(now.values()) / n, 1 - sum(before.values()) / m)
    moved = sorted({*now, *before}, key=lambda k: -abs(now.get(k, 0) / n - before.get(k, 0) / m))
    names = ", ".join(f"{k or 'none'} {before.get(k, 0) / m:.1%} to {now.get(k, 0) / n:.1%}" for k in moved[:3])
    return Fact(_half_sum([*shares, rest]), names)


def _half_sum(shares: Iterable[tuple[float, float]]) -> float:
    return sum(abs(a - b) for a, b in shares) / 2
