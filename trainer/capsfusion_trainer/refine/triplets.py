"""Read, judge and split triplets. Echoes, truncated captions and copies are left out, as a model would learn them."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import pair_id
from capsfusion_etl.judge import ACCEPTED, judge, normalize
from capsfusion_etl.judge.lexicon import free_words, lemmas, words

# Names of the (raw, synthetic, fused) columns in known layouts. With a URL column, pair_ids are those of a lake.
LAYOUTS = (
    ("laion_2b", "laion_coco", "capsfusion"),
    ("raw_caption", "synthetic_caption", "caption"),
    ("raw_caption", "synthetic_caption", "fused_caption"),
)


@dataclass(frozen=True, slots=True)
class Triplet:
    """A raw and a synthetic caption, and the fused caption that a teacher made of them."""

    pair_id: str
    raw_caption: str
    synthetic_caption: str
    fused_caption: str


def read_triplets(path: str, *, fused: str | None = None, accepted_only: bool = True) -> list[Triplet]:
    """Return the triplets in a Parquet or JSONL file, a folder of Parquet files, or a Delta table.

    Args:
        path: File or folder, such as LAKE/fused_captions. Null captions become empty ones.
        fused: Name of the third column, if it is not one of `LAYOUTS`.
        accepted_only: If there is a column `verdict`, keep accepted rows only.

    Raises:
        InputError: `path` is missing or unreadable, or has no known layout; the message names its columns.
    """
    table = _load(path)
    layouts = [(raw, synthetic, fused or third) for raw, synthetic, third in LAYOUTS]
    layout = next((names for names in layouts if set(names) <= set(table.column_names)), None)
    if layout is None:
        wanted = " or ".join(", ".join(names) for names in layouts[:2])
        raise InputError(f"{path} has no triplets: it needs {wanted}; it has {', '.join(table.column_names)}")
    if accepted_only and "verdict" in table.column_names:
        table = table.filter(pa.compute.equal(table["verdict"], ACCEPTED))
    for column in layout:
        kind = table[column].type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise InputError(f"{path}: the column {column} holds {kind}, not texts")
    url = next((c for c in ("url", "image_url", "URL") if c in table.column_names), None)
    urls = table[url].to_pylist() if url else [""] * len(table)
    ids = table["pair_id"].to_pylist() if "pair_id" in table.column_names else None
    rows = zip(urls, *([value or "" for value in table[c].to_pylist()] for c in layout), strict=True)
    return [
        Triplet(str(ids[i]) if ids else pair_id(str(u or ""), raw), raw, synthetic, text)
        for i, (u, raw, synthetic, text) in enumerate(rows)
    ]


def _load(path: str) -> pa.Table:
    import pyarrow.compute
    import pyarrow.json

    try:
        if Path(path, "_delta_log").is_dir():
            from deltalake import DeltaTable

            return DeltaTable(path).to_pyarrow_table()
        return pyarrow.json.read_json(path) if path.endswith((".jsonl", ".json")) else pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read triplets from {path}: {str(error).splitlines()[0]}") from None


def teachable(triplets: list[Triplet], min_recall: float = 0.0) -> tuple[list[Triplet], Counter[str]]:
    """Return the triplets worth learning from, and the number left out for each verdict.

    Besides the judge's rejects, this leaves out `missing_field`: a caption is empty; `raw_copy`: the fused caption
    contains the raw one verbatim and nothing of the synthetic one; `low_recall`: less than `min_recall` of the raw
    caption's names and numbers are kept, since a model loses what its teacher lost.
    """
    kept, left = [], Counter[str]()
    for triplet in triplets:
        judgement = judge(triplet.raw_caption, triplet.synthetic_caption, triplet.fused_caption)
        verdict, recall = judgement.verdict, judgement.grounding.recall
        if not (triplet.raw_caption and triplet.synthetic_caption and triplet.fused_caption):
            verdict = "missing_field"
        elif verdict == ACCEPTED and _copies_raw(triplet):
            verdict = "raw_copy"
        elif verdict == ACCEPTED and recall is not None and recall < min_recall:
            verdict = "low_recall"
        if verdict == ACCEPTED:
            kept.append(triplet)
        else:
            left[verdict] += 1
    return kept, left


def _copies_raw(triplet: Triplet) -> bool:
    raw, fused = normalize(triplet.raw_caption), normalize(triplet.fused_caption)
    seen = {form for word in words(triplet.synthetic_caption) if word not in free_words() for form in lemmas(word)}
    if not raw or raw not in fused or not seen:
        return False
    return all(lemmas(word).isdisjoint(seen) for word in fused.replace(raw, " ").split())


def is_held_out(triplet: Triplet, share: float) -> bool:
    """Return whether a triplet is held out: by hash, so that all runs and machines hold out the same pairs."""
    position = int(hashlib.sha256(triplet.pair_id.encode()).hexdigest()[:8], 16) / 16**8
    return position < share
