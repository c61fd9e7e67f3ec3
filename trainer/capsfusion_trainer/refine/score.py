"""The scorecard of any (raw, synthetic, fused) data: how often each check fails, and how many facts are kept.

The share of a check counts the rows that fail it, also if they fail others; `accepted` counts the rows that fail none.
`raw_copy` counts the fused captions that contain the raw one verbatim. `recall` is the mean share of the raw caption's
names and numbers that the fused caption contains, over rows with any; `distinct_3` is the share of distinct word
triples; `words` is the mean length. CIDEr-D and ROUGE-L compare with a reference, if given. These definitions,
`capsfusion_etl.judge.checks`, `capsfusion_etl.judge.grounding` and `evaluation.metrics` suffice to recompute every
figure.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from capsfusion_etl.errors import InputError
from capsfusion_etl.judge import CHECKS, Limits, Row, normalize

from capsfusion_trainer.evaluation.metrics import cider_d, rouge_l
from capsfusion_trainer.refine.triplets import Triplet


@dataclass(frozen=True, slots=True)
class Scorecard:
    """The figures, defined in the module docstring; `accepted_recall` is the recall over accepted rows only."""

    rows: int
    shares: dict[str, float]
    accepted: float
    raw_copy: float
    recall: float | None
    accepted_recall: float | None
    words: float
    distinct_3: float
    cider_d: float | None = None
    rouge_l: float | None = None


def score(
    triplets: Iterable[Triplet], limits: Limits | None = None, *, references: Sequence[str] | None = None
) -> Scorecard:
    """Score the `fused_caption` of triplets; `references` are the captions to compare with, one for each of them."""
    triplets = list(triplets)
    counts, recalls, accepted_recalls, lengths = Counter[str](), [], [], []
    triples: Counter[tuple[str, str, str]] = Counter()
    total = 0
    for t in triplets:
        total += 1
        row = Row.of(t.raw_caption, t.synthetic_caption, t.fused_caption, limits)
        speaking = [check.__name__ for check in CHECKS if check(row) is not None]
        counts.update(speaking or ["accepted"])
        counts["raw_copy"] += bool(normalize(t.raw_caption)) and normalize(t.raw_caption) in row.normalized
        if row.grounding.recall is not None:
            recalls.append(row.grounding.recall)
            if not speaking:
                accepted_recalls.append(row.grounding.recall)
        words = row.normalized.split()
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
        **_nearness(triplets, references),
    )


def _nearness(triplets: list[Triplet], references: Sequence[str] | None) -> dict[str, float]:
    if references is None:
        return {}
    known = [(t.fused_caption, [other]) for t, other in zip(triplets, references, strict=True) if other]
    if not known:
        raise InputError("--reference: no row has a reference caption")
    mine, theirs = [m for m, _ in known], [r for _, r in known]
    return {"cider_d": cider_d(mine, theirs), "rouge_l": rouge_l(mine, theirs)}


def as_table(card: Scorecard) -> str:
    """Return the figures as text, one per line."""
    shares = [(f"  {name.replace('_', ' ')}", f"{share:.2%}") for name, share in card.shares.items()]
    figures = [
        ("rows", f"{card.rows:,}"),
        ("accepted", f"{card.accepted:.2%}"),
        *shares,
        ("raw caption verbatim", f"{card.raw_copy:.2%}"),
        ("recall of names and numbers", _plain(card.recall)),
        ("  of accepted captions", _plain(card.accepted_recall)),
        ("words", f"{card.words:.1f}"),
        ("distinct-3", f"{card.distinct_3:.3f}"),
        ("CIDEr-D", _plain(card.cider_d)),
        ("ROUGE-L", _plain(card.rouge_l)),
    ]
    return "\n".join(f"{name:30s} {figure:>10s}" for name, figure in figures)


def _plain(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"
