"""`column`: the data set brings its synthetic captions, as LAION-COCO and CapsFusion-120M do."""

from collections.abc import Sequence
from typing import Any

from capsfusion_etl.engines import Answer, CaptionerConfig


class ColumnCaptioner:
    """Takes the synthetic caption that ingest found in the source."""

    model, revision = "source", "1"

    def __init__(self, config: CaptionerConfig) -> None:
        """Nothing to load."""

    def caption(self, rows: Sequence[dict[str, Any]]) -> list[Answer]:
        """One answer for each row; none where the source's column is empty."""
        texts = [(row["extra"].get("synthetic_caption") or "").strip() for row in rows]
        return [Answer(text or None) for text in texts]
