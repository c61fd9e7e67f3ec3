"""Ingest stage, executor side: inspect the images of a source like fetched ones."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa

from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.image import ImageRow, RefusedError
from capsfusion_etl.tables import IMAGES
from capsfusion_etl.tables.arrow import arrow_schema, batch_of_rows


def inspect_batches(
    batches: Iterator[pa.RecordBatch], limits: FetchConfig, run_id: str, blocked: frozenset[str]
) -> Iterator[pa.RecordBatch]:
    """Inspect Arrow batches (for `mapInArrow`): url and bytes in, rows of `images` out.

    Args:
        limits: limits on the bytes and pixels, and where large images are stored.
        blocked: image_ids that must not be stored, whatever their URL.
    """
    schema = arrow_schema(IMAGES)
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in ("url", "bytes"))
        found = [_inspected(url, data, limits, blocked).as_row(run_id) for url, data in zip(*columns, strict=True)]
        yield batch_of_rows(schema, found)


def _inspected(url: str, data: bytes | None, limits: FetchConfig, blocked: frozenset[str]) -> ImageRow:
    row = ImageRow(url, fetched_at=datetime.now(UTC))
    try:
        row.describe(data, limits, blocked)
    except RefusedError as refused:
        row.refuse(refused)
    return row
