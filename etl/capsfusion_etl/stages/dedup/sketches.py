"""Locality-sensitive keys and similarities for near-duplicate detection. Pure: no Spark.

Only rows that share a key are compared.

Images: cut the 64 bits of a perceptual hash into d + 2 blocks. Two hashes that differ in at most d bits agree in at
least two blocks, so each pair of blocks makes a key: no pair within d is missed, and the keys stay selective. Captions:
MinHash over character 5-grams in bands (Broder 1997; Leskovec et al., Mining of Massive Datasets, 3.4), by rensa.
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
BANDS, ROWS = 25, 5  # some band agrees with probability 0.99 at a similarity of 0.7, with 0.06 at 0.3
_SEED = 42
_SPACES = re.compile(r"[\W_]+")
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0x85EBCA77C2B2AE63],
                dtype=np.uint64)  # fmt: skip
SKETCHED = "pair_id string, keys array<bigint>"
COMPARED = "a string, b string, similarity double"
_SKETCHED, _COMPARED = schema_of(SKETCHED), schema_of(COMPARED)


@dataclass(frozen=True, slots=True)
class DedupConfig:
    """Thresholds of near-duplicate detection.

    Attributes:
        near_images: two images are near duplicates if their perceptual hashes differ in at most this many of 64 bits
            (0 to 8). Null rejects only images with equal bytes.
        near_captions: two captions are near duplicates from this Jaccard similarity of their character 5-grams on
            (0.5 to 1). Null does not compare captions.
    """

    near_images: int | None = 3
    near_captions: float | None = None

    def __post_init__(self) -> None:
        if self.near_images is not None and not 0 <= self.near_images <= 8:
            raise InputError("dedup.near_images: set it to 0 to 8 bits, or to null to reject equal bytes only")
        if self.near_captions is not None and not 0.5 <= self.near_captions <= 1:
            raise InputError("dedup.near_captions: set it to 0.5 to 1, or to null to compare no captions")


def shingles(text: str) -> list[str]:
    """Return the character 5-grams of `text`, ignoring case and punctuation; a shorter text is one shingle.

    Repeated ones are listed again: no MinHash changes by that, and a set would take as long as the hashes.
    """
    plain = _SPACES.sub(" ", text.lower()).strip()
    return [plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1))]


def caption_keys(texts: list[str]) -> "np.ndarray[Any, Any]":
    """Return int64 keys of shape (len(texts), BANDS): two texts share a key where a band of their MinHash agrees."""
    import rensa

    digests = rensa.RMinHash.digests_from_token_sets([shingles(t) for t in texts], BANDS * ROWS, _SEED)
    bands = np.array(digests, dtype=np.uint64).reshape(len(texts), BANDS, ROWS)
    mixed: np.ndarray[Any, Any] = (bands * _ODD).sum(axis=2) ^ (np.arange(BANDS, dtype=np.uint64) << np.uint64(56))
    return mixed.view(np.int64)


def image_keys(phashes: list[str], bits: int) -> "np.ndarray[Any, Any]":
    """Return int64 keys of shape (len(phashes), pairs of blocks).

    Two hashes that differ in at most `bits` bits share at least one key.

    Args:
        phashes: 64-bit hashes in hex.
    """
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
    """Sketch captions (for `mapInArrow`): pair_id and raw_caption in, pair_id and keys out."""
    for batch in batches:
        yield _sketched(batch, caption_keys(batch.column("raw_caption").to_pylist()))


def image_batches(batches: Iterator[pa.RecordBatch], bits: int) -> Iterator[pa.RecordBatch]:
    """Sketch images (for `mapInArrow`): pair_id and phash in, pair_id and keys out."""
    for batch in batches:
        yield _sketched(batch, image_keys(batch.column("phash").to_pylist(), bits))


def _sketched(batch: pa.RecordBatch, keys: "np.ndarray[Any, Any]") -> pa.RecordBatch:
    offsets = np.arange(len(batch) + 1, dtype=np.int32) * (keys.shape[1] if len(batch) else 0)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(keys.ravel()))
    return pa.RecordBatch.from_arrays([batch.column("pair_id"), lists], schema=_SKETCHED)


def compare_batches(batches: Iterator[pa.RecordBatch], least: float) -> Iterator[pa.RecordBatch]:
    """Compare captions (for `mapInArrow`): a, b, text_a, text_b in; a, b, similarity out, if at least `least`."""
    for batch in batches:
        rows = zip(*(batch.column(name).to_pylist() for name in ("a", "b", "text_a", "text_b")), strict=True)
        near = [(a, b, found) for a, b, one, other in rows if (found := jaccard(one, other)) >= least]
        columns = zip(*near, strict=True) if near else ((), (), ())
        yield pa.RecordBatch.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, _COMPARED, strict=True)], schema=_COMPARED
        )


def jaccard(one: str, other: str) -> float:
    """Return the Jaccard similarity of the shingles of two texts, 0 to 1."""
    left, right = set(shingles(one)), set(shingles(other))
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)
