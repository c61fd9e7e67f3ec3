"""`column`: the data set brings its synthetic captions, as LAION-COCO and CapsFusion-120M do."""

from collections.abc import Sequence

from capsfusion_etl.engines.base import Answer, Picture
from capsfusion_etl.engines.config import CaptionerConfig


class ColumnCaptioner:
    """Takes the synthetic caption that ingest found in the source."""

    model, revision = "source", "1"

    def __init__(self, config: CaptionerConfig) -> None:
        """Nothing to load."""

    def caption(self, pictures: Sequence[Picture]) -> list[Answer]:
        """One answer for each row; none where the source's column is empty."""
        return [Answer((p.given or "").strip() or None) for p in pictures]
