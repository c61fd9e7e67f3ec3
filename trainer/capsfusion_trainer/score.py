"""The scorecard over any (raw, synthetic, fused) data: how often each check speaks, and what was kept.

Each share counts the rows against which a check speaks, whichever checks speak besides; `accepted` are the rows
against which none does. `recall` is the mean share of the raw caption's names and numbers that the fused one holds,
over rows that state any; `distinct_3` the share of different word triples; lengths are in words.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean

from capsfusion_etl.judge import CHECKS, Limits, Row, fold
from capsfusion_etl.ledger import ground

from capsfusion_trainer.refine.triplets import Triplet


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Shares and means, 0 to 1 but for the length; `accepted_recall` is over accepted rows alone."""

    rows: int
    shares: dict[str, float]
    accepted: float
    raw_copy: float
    recall: float | None
    accepted_recall: float | None
    words: float
    distinct_3: float


def score(triplets: Iterable[Triplet], limits: Limits | None = None) -> Scorecard:
    """Score triplets whose `fused_caption` is what a model made."""
    counts, recalls, accepted_recalls, lengths = Counter[str](), [], [], []
    triples: Counter[tuple[str, str, str]] = Counter()
    total = 0
    for t in triplets:
        total += 1
        ledger = ground(t.raw_caption, t.synthetic_caption, t.fused_caption)
        row = Row(t.raw_caption, t.synthetic_caption, t.fused_caption, ledger, limits or Limits())
        speaking = [check.__name__ for check in CHECKS if check(row) is not None]
        counts.update(speaking or ["accepted"])
        counts["raw_copy"] += bool(fold(t.raw_caption)) and fold(t.raw_caption) in fold(t.fused_caption)
        if ledger.recall is not None:
            recalls.append(ledger.recall)
            if not speaking:
                accepted_recalls.append(ledger.recall)
        words = fold(t.fused_caption).split()
        lengths.append(len(words))
        triples.update(zip(words, words[1:], words[2:], strict=False))
    return Scorecard(
        rows=total,
        shares={check.__name__: counts[check.__name__] / max(total, 1) for check in CHECKS},
        accepted=counts["accepted"] / max(total, 1),
        raw_copy=counts["raw_copy"] / max(total, 1),
        recall=mean(recalls) if recalls else None,
        accepted_recall=mean(accepted_recalls) if accepted_recalls else None,
        words=mean(lengths) if lengths else 0.0,
        distinct_3=len(triples) / max(triples.total(), 1),
    )
