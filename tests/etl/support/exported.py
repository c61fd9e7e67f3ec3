"""A published lake with pictures, and what is exported of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capsfusion_etl.exports.config import ExportConfig
from capsfusion_etl.exports.export import export
from capsfusion_etl.exports.record import ExportRecord
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.run import Run
from capsfusion_etl.pipeline import PipelineConfig, run_pipeline
from capsfusion_etl.settings import Settings
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_etl.snapshots.manifest import GateResult

Pairs = dict[str, tuple[str, bytes]]  # pair_id -> caption and picture
PASSED = GateResult(True, 1, (), "", profile={"languages": {"en": 12}, "recall": 0.9})
COLOURS = ("teal", "red", "navy", "olive", "gold", "plum", "peru", "gray", "cyan", "pink", "tan", "lime")
LONG = "The harbour of Lisbon, " + "and the boats in it, " * 240  # some 5,000 characters


@dataclass(frozen=True)
class Published:
    """A lake with snapshots, and how its pairs were made."""

    lake: Lake
    photos: Path
    settings: Settings

    def pairs(self, name: str = "first") -> Pairs:
        """Return pair_id -> caption and picture of the rows of a snapshot, as the lake has them."""
        manifest = open_snapshot(f"{self.lake.root}@{name}")
        rows = self.lake.spark.read.parquet(*(str(manifest.locate(file)) for file in manifest.files)).collect()
        return {row["pair_id"]: (row["caption"], bytes(row["image"])) for row in rows}

    def export(
        self, to: Path | str, form: str, name: str = "first", *, spark: Any = None, **config: Any
    ) -> ExportRecord:
        """Export a snapshot."""
        manifest = open_snapshot(f"{self.lake.root}@{name}", hashes=None)
        return export(self.lake, manifest, str(to), ExportConfig(form, **config), spark)

    def publish(self, name: str) -> None:
        """Read the photos again, and publish a snapshot of them."""
        settings = self.settings | {"publish": {**self.settings["publish"], "name": name}}
        run_pipeline(Run(self.lake), PipelineConfig.of(settings), lambda *_: PASSED)


def photo(folder: Path, number: int, picture: bytes, caption: str) -> None:
    """Write a picture and what is said of it; the picture has a name with letters of other scripts."""
    about = {
        "url": f"http://img{number}.site{number}.example/p.jpg", "caption": caption,
        "synthetic_caption": f"A field of colour number {number}.", "license": "CC-BY-4.0" if number % 2 else None,
    }  # fmt: skip
    (folder / f"größe.{number}.jpg").write_bytes(picture)
    (folder / f"größe.{number}.json").write_text(json.dumps(about))
