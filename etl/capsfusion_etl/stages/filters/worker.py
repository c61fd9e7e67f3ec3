"""Filter stage, executor side: run the filters over Arrow batches, to reject pairs or, in a dry run, to count them."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import pyarrow as pa

from capsfusion_etl.stages.filters.rules import FILTERS, FilterConfig, Pair, first_rejection
from capsfusion_etl.tables.arrow import schema_of

REJECTED = "pair_id string, reason string, detail string"
CENSUS = "reason string, alone bigint, first bigint, examples array<string>"
EXAMPLES = 3
_REJECTED, _COUNTED = schema_of(REJECTED), schema_of(CENSUS)


def reject_batches(batches: Iterator[pa.RecordBatch], config: FilterConfig) -> Iterator[pa.RecordBatch]:
    """Filter Arrow batches (for `mapInArrow`).

    Args:
        batches: columns pair_id, raw_caption, width, height and contrast.

    Returns:
        pair_id, reason and detail (at most 200 characters) of the rejected pairs.
    """
    for batch in batches:
        gone: list[tuple[str, str, str]] = []
        for pair_id, pair in _pairs(batch, config):
            found = first_rejection(pair)
            if found:
                gone.append((pair_id, found[0], found[1][:200]))
        columns = zip(*gone, strict=True) if gone else ((), (), ())
        arrays = [pa.array(column, pa.string()) for column in columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=_REJECTED)


def census_batches(batches: Iterator[pa.RecordBatch], config: FilterConfig) -> Iterator[pa.RecordBatch]:
    """Count rejections (for `mapInArrow`): pairs in; reason, alone, first and examples of each filter out.

    `alone` counts the pairs that the filter rejects, `first` those that no earlier filter rejects.
    """
    alone: Counter[str] = Counter()
    first: Counter[str] = Counter()
    examples: dict[str, list[str]] = defaultdict(list)
    for batch in batches:
        for _, pair in _pairs(batch, config):
            taken = [(check.__name__, detail) for check in FILTERS if (detail := check(pair)) is not None]
            first.update(name for name, _ in taken[:1])
            for name, detail in taken:
                alone[name] += 1
                if len(examples[name]) < EXAMPLES:
                    examples[name].append(f"{' '.join(pair.raw_caption.split())[:80]} [{detail[:40]}]")
    rows = [{"reason": name, "alone": n, "first": first[name], "examples": examples[name]} for name, n in alone.items()]
    yield pa.RecordBatch.from_pylist(rows, schema=_COUNTED)


def _pairs(batch: pa.RecordBatch, config: FilterConfig) -> Iterator[tuple[str, Pair]]:
    names = ("pair_id", "raw_caption", "width", "height", "contrast")
    columns = (batch.column(name).to_pylist() for name in names)
    for pair_id, text, width, height, contrast in zip(*columns, strict=True):
        yield pair_id, Pair(text, width, height, contrast, config)
