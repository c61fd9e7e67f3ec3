"""MDS, the format of MosaicML Streaming, version 2: shards of samples, written and read.

Its library cannot be installed beside transformers 5; a test reads our shards with it. A shard has the number of
samples and the offsets of their ends (uint32), a description of its columns as JSON, and the samples. A sample has the
sizes (uint32) of the values whose size is not fixed, and the values, in the order of the names of the columns. Pure.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from capsfusion_etl.errors import InputError

_MOST = 2**32 - 1  # bytes of a shard
_INTEGERS = {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)} | {
    "int": "int64"
}
_FLOATS = {f"float{bits}": f"float{bits}" for bits in (16, 32, 64)}
_BYTES = ("bytes", "jpeg", "png")
_TEXTS = ("str", "json")
# Encoding of a column -> its type in Spark. Others, such as arrays and pickles, are not read.
SPARK_TYPES = (
    dict.fromkeys(_TEXTS, "string") | dict.fromkeys(_BYTES, "binary") | dict.fromkeys(_INTEGERS, "bigint")
    | dict.fromkeys(_FLOATS, "double")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a shard: names, encodings, and sizes in bytes (None: each value has its own)."""

    names: tuple[str, ...]
    encodings: tuple[str, ...]
    sizes: tuple[int | None, ...]

    @classmethod
    def of(cls, about: dict[str, Any]) -> "Columns":
        """Return the columns that a description of a shard names."""
        return cls(*(tuple(about[f"column_{key}"]) for key in ("names", "encodings", "sizes")))

    @classmethod
    def plain(cls, names: Sequence[str], *, binary: Sequence[str]) -> "Columns":
        """Return columns of texts, but for those that are bytes, sorted as the format wants."""
        ordered = tuple(sorted(names))
        kinds = tuple("bytes" if name in binary else "str" for name in ordered)
        return cls(ordered, kinds, (None,) * len(ordered))

    def told(self) -> dict[str, Any]:
        """Return the description of a shard with these columns."""
        return {
            "version": 2, "format": "mds", "compression": None, "hashes": [], "size_limit": None,
            "column_names": list(self.names), "column_encodings": list(self.encodings),
            "column_sizes": list(self.sizes),
        }  # fmt: skip


def encoded(rows: Iterator[dict[str, Any]], columns: Columns) -> Iterator[bytes]:
    """Yield the bytes of a shard, piece by piece; a null becomes an empty value, as MDS has none.

    Raises:
        InputError: the shard is larger than MDS can address.
    """
    samples = [_sample(row, columns.names) for row in rows]
    head = json.dumps(columns.told(), sort_keys=True).encode()
    ends = 4 + 4 * (len(samples) + 1) + len(head) + np.cumsum([0, *map(len, samples)], dtype=np.int64)
    if ends[-1] > _MOST:
        raise InputError("a shard has more than 4 GB, which MDS cannot address: choose a smaller --shard-mb")
    yield np.uint32(len(samples)).tobytes() + ends.astype(np.uint32).tobytes() + head
    yield from samples


def _sample(row: dict[str, Any], names: Sequence[str]) -> bytes:
    values = [row[name] or "" for name in names]
    data = [value if isinstance(value, bytes) else value.encode() for value in values]
    return b"".join([np.array([len(value) for value in data], np.uint32).tobytes(), *data])


def decoded(data: bytes, columns: Columns, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the samples of a shard as dicts of the columns in `wanted`.

    Raises:
        ValueError: the shard is damaged.
    """
    count = int(np.frombuffer(data, np.uint32, 1)[0])
    ends = np.frombuffer(data, np.uint32, count + 1, 4).tolist()
    if ends[-1] != len(data):
        raise ValueError(f"it has {len(data)} bytes, not {ends[-1]}")
    own = sum(size is None for size in columns.sizes)
    for begin, end in pairwise(ends):
        given = iter(np.frombuffer(data, np.uint32, own, begin).tolist())
        sizes = [next(given) if size is None else size for size in columns.sizes]
        cuts = (begin + 4 * own + np.cumsum([0, *sizes])).tolist()
        if cuts[-1] != end:
            raise ValueError("its samples have other sizes than its offsets say")
        values = zip(columns.names, columns.encodings, pairwise(cuts), strict=True)
        yield {name: _value(data[a:b], kind) for name, kind, (a, b) in values if name in wanted}


def _value(data: bytes, encoding: str) -> Any:
    if encoding in _TEXTS:
        return data.decode("utf-8", "replace")
    if encoding in _BYTES:
        return data
    return np.frombuffer(data, _INTEGERS.get(encoding) or _FLOATS[encoding])[0].item()
