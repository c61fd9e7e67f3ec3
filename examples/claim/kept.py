"""Captions that took hours to make: a study begins with those in `captions/<size>`, if there are some.

    python examples/claim/kept.py FOLDER SIZE

keeps there what a run in FOLDER has made so far. Delete them, to let captioner and fuser make their own.
"""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from capsfusion_etl.storage import write_json
from deltalake import DeltaTable, write_deltalake

KEPT = Path(__file__).with_name("captions")
_WRITTEN = pa.array(["fused", "language-rewrite"])  # strategies whose captions the language model writes


def keep(folder: Path, kept: Path) -> None:
    """Keep the captions that the captioner and the fuser have made in the folder of a study."""
    kept.mkdir(parents=True, exist_ok=True)
    said = json.loads((folder / "synthetic.json").read_text(encoding="utf-8"))
    pq.write_table(pa.table({"caption": said}), kept / "synthetic.parquet", compression="zstd")
    pq.write_table(_written(folder / "lake"), kept / "fused_captions.parquet", compression="zstd")


def take_synthetic(kept: Path, target: Path) -> None:
    """Write the kept captions of the captioner to `target`, unless it is there."""
    if kept.is_dir() and not target.is_file():
        write_json(target, pq.read_table(kept / "synthetic.parquet")["caption"].to_pylist())


def take_fused(kept: Path, lake: Path) -> None:
    """Bring the kept captions of the fuser to a lake that has none; the stage `fuse` then makes those that lack."""
    if kept.is_dir() and not _written(lake).num_rows:
        write_deltalake(lake / "fused_captions", pq.read_table(kept / "fused_captions.parquet"), mode="append")


def _written(lake: Path) -> pa.Table:
    rows = DeltaTable(lake / "fused_captions").to_pyarrow_table()
    order = [("strategy", "ascending"), ("pair_id", "ascending")]
    return rows.filter(pc.is_in(rows["strategy"], _WRITTEN)).sort_by(order)


if __name__ == "__main__":
    keep(Path(sys.argv[1]) / sys.argv[2], KEPT / sys.argv[2])
