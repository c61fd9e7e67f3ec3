"""Captioner `column`: for data sets that bring synthetic captions, such as LAION-COCO and CapsFusion-120M."""

from collections.abc import Sequence

from capsfusion_etl.engines.base import Answer, Picture
from capsfusion_etl.engines.config import CaptionerConfig


class ColumnCaptioner:
    """Captioner that returns the synthetic caption that ingest read from the source."""

    model, revision = "source", "1"

    def __init__(self, config: CaptionerConfig) -> None:
        """Load nothing; every captioner is built with its settings."""

    def caption(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Return the caption of each row; the text is None where the source's column is empty."""
        return [Answer((p.given or "").strip() or None) for p in pictures]
