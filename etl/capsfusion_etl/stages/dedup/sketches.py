"""Near duplicates, the pure part: keys that near ones share, and how near two are. No pair of rows is compared that
shares no key.

Pictures: two perceptual hashes that differ in at most d of 64 bits agree in two of d + 2 blocks, whichever bits differ;
each pair of blocks is a key, so that none within d is missed and keys stay selective. Captions: MinHash over character
5-grams in bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4), by rensa.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from capsfusion_etl.errors import InputError
from capsfusion_etl.tables.arrow import schema_of

SHINGLE = 5  # characters
BANDS, ROWS = 25, 5  # at a similarity of .7 one of the bands agrees with probability .99, at .3 with .06
_SEED = 42
_SPACES = re.compile(r"[\W_]+")
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0x85EBCA77C2B2AE63],
                dtype=np.uint64)  # fmt: skip
SKETCHED = "pair_id string, keys array<bigint>"
COMPARED = "a string, b string, similarity double"
_SKETCHED, _COMPARED = schema_of(SKETCHED), schema_of(COMPARED)


@dataclass(frozen=True, slots=True)
class DedupConfig:
    """`near_images`: bits of 64 in which the perceptual hashes of one picture may differ, 0 to 8; null looks for equal
    bytes alone. `near_captions`: share of character 5-grams (Jaccard) from which two captions are one, .5 to 1; null
    lets similar captions of different pictures be.
    """

    near_images: int | None = 3
    near_captions: float | None = None

    def __post_init__(self) -> None:
        if self.near_images is not None and not 0 <= self.near_images <= 8:
            raise InputError("dedup.near_images: 0 to 8 bits")
        if self.near_captions is not None and not 0.5 <= self.near_captions <= 1:
            raise InputError("dedup.near_captions: 0.5 to 1")


def shingles(text: str) -> set[str]:
    """Character 5-grams of the words, case and punctuation aside; a shorter text is one shingle."""
    plain = _SPACES.sub(" ", text.lower()).strip()
    return {plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1))}


def caption_keys(texts: list[str]) -> "np.ndarray[Any, Any]":
    """(len(texts), BANDS) keys: equal where a band of the MinHash is."""
    import rensa

    digests = rensa.RMinHash.digests_from_token_sets([sorted(shingles(t)) for t in texts], BANDS * ROWS, _SEED)
    bands = np.array(digests, dtype=np.uint64).reshape(len(texts), BANDS, ROWS)
    mixed: np.ndarray[Any, Any] = (bands * _ODD).sum(axis=2) ^ (np.arange(BANDS, dtype=np.uint64) << np.uint64(56))
    return mixed.view(np.int64)


def image_keys(phashes: list[str], bits: int) -> "np.ndarray[Any, Any]":
    """(len(phashes), pairs of blocks) keys: two hashes within `bits` of each other share one at least."""
    values = np.array([int(phash, 16) for phash in phashes], dtype=np.uint64)
    edges = np.linspace(0, 64, bits + 3).round().astype(int)
    blocks = [(values >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1) for low, high in pairwise(edges)]
    width = np.uint64(max(np.diff(edges)))
    keys = [
        (np.uint64(n) << np.uint64(57)) | (one << width) | other
        for n, (one, other) in enumerate(combinations(blocks, 2))
    ]
    return np.stack(keys, axis=1).view(np.int64)


def caption_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """mapInArrow: pair_id, raw_caption in; pair_id, keys out."""
    for batch in batches:
        yield _sketched(batch, caption_keys(batch.column("raw_caption").to_pylist()))


def image_batches(batches: Iterator[pa.RecordBatch], bits: int) -> Iterator[pa.RecordBatch]:
    """mapInArrow: pair_id, phash in; pair_id, keys out."""
    for batch in batches:
        yield _sketched(batch, image_keys(batch.column("phash").to_pylist(), bits))


def _sketched(batch: pa.RecordBatch, keys: "np.ndarray[Any, Any]") -> pa.RecordBatch:
    offsets = np.arange(len(batch) + 1, dtype=np.int32) * (keys.shape[1] if len(batch) else 0)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(keys.ravel()))
    return pa.RecordBatch.from_arrays([batch.column("pair_id"), lists], schema=_SKETCHED)


def compare_batches(batches: Iterator[pa.RecordBatch], least: float) -> Iterator[pa.RecordBatch]:
    """mapInArrow: a, b and their texts in; those of at least this similarity out."""
    for batch in batches:
        rows = zip(*(batch.column(name).to_pylist() for name in ("a", "b", "text_a", "text_b")), strict=True)
        near = [(a, b, found) for a, b, one, other in rows if (found := jaccard(one, other)) >= least]
        columns = zip(*near, strict=True) if near else ((), (), ())
        yield pa.RecordBatch.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, _COMPARED, strict=True)], schema=_COMPARED
        )


def jaccard(one: str, other: str) -> float:
    """Shared shingles of all shingles."""
    left, right = shingles(one), shingles(other)
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)
