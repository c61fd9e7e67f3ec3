"""Triplets: read, judged, split. A model learns what it is shown: the echo, the cut-off and the copy are not shown."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import pair_id
from capsfusion_etl.judge import ACCEPTED, judge, normalize

# (raw, synthetic, fused) columns of the layouts that people have; a url beside them makes the pair_id the lake's.
LAYOUTS = (
    ("laion_2b", "laion_coco", "capsfusion"),
    ("raw_caption", "synthetic_caption", "caption"),
    ("raw_caption", "synthetic_caption", "fused_caption"),
)


@dataclass(frozen=True, slots=True)
class Triplet:
    """Two sentences and what a teacher made of them."""

    pair_id: str
    raw_caption: str
    synthetic_caption: str
    fused_caption: str


def read_triplets(path: str, *, fused: str | None = None, accepted_only: bool = True) -> list[Triplet]:
    """Triplets of a Parquet file, a folder of them, or a Delta table (of a lake: its accepted fused_captions).

    `fused` names the third column where it is another one; with `accepted_only` a `verdict` column is obeyed. A
    sentence that is null is an empty one.

    Raises:
        InputError: nothing there, unreadable, or the columns are missing; the message names those that are there.
    """
    table = _load(path)
    layouts = [(raw, synthetic, fused or third) for raw, synthetic, third in LAYOUTS]
    layout = next((names for names in layouts if set(names) <= set(table.column_names)), None)
    if layout is None:
        wanted = " or ".join(", ".join(names) for names in layouts[:2])
        raise InputError(f"{path} has no triplets: it needs {wanted}; it has {', '.join(table.column_names)}")
    if accepted_only and "verdict" in table.column_names:
        table = table.filter(pa.compute.equal(table["verdict"], ACCEPTED))
    url = next((c for c in ("url", "image_url", "URL") if c in table.column_names), None)
    urls = table[url].to_pylist() if url else [""] * len(table)
    ids = table["pair_id"].to_pylist() if "pair_id" in table.column_names else None
    rows = zip(urls, *([value or "" for value in table[c].to_pylist()] for c in layout), strict=True)
    return [
        Triplet(ids[i] if ids else pair_id(u or "", raw), raw, synthetic, text)
        for i, (u, raw, synthetic, text) in enumerate(rows)
    ]


def _load(path: str) -> pa.Table:
    import pyarrow.compute  # noqa: F401  makes pa.compute available

    try:
        if Path(path, "_delta_log").is_dir():
            from deltalake import DeltaTable

            return DeltaTable(path).to_pyarrow_table()
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read triplets from {path}: {str(error).splitlines()[0]}") from None


def teachable(triplets: list[Triplet], min_recall: float = 0.0) -> tuple[list[Triplet], Counter[str]]:
    """Triplets worth learning from, and how many were left out for which verdict.

    Left out besides what the judge refuses: `missing_field`, a sentence that is empty; `raw_copy`, the raw caption
    verbatim; `low_recall`, less than `min_recall` of the raw caption's names and numbers kept, since a model forgets
    what its teacher forgot.
    """
    kept, left = [], Counter[str]()
    for triplet in triplets:
        judgement = judge(triplet.raw_caption, triplet.synthetic_caption, triplet.fused_caption)
        verdict, recall = judgement.verdict, judgement.grounding.recall
        if not (triplet.raw_caption and triplet.synthetic_caption and triplet.fused_caption):
            verdict = "missing_field"
        elif verdict == ACCEPTED and normalize(triplet.raw_caption) in normalize(triplet.fused_caption):
            verdict = "raw_copy"
        elif verdict == ACCEPTED and recall is not None and recall < min_recall:
            verdict = "low_recall"
        if verdict == ACCEPTED:
            kept.append(triplet)
        else:
            left[verdict] += 1
    return kept, left


def is_held_out(triplet: Triplet, share: float) -> bool:
    """By hash, so that every run and every machine holds out the same pairs."""
    position = int(hashlib.sha256(triplet.pair_id.encode()).hexdigest()[:8], 16) / 16**8
    return position < share
