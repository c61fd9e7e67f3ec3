"""Write a snapshot without Spark, of what no stage of the product makes: the captioner's own texts, and the oracle."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
from capsfusion_etl.snapshots.manifest import GateResult, Manifest, describe_files
from capsfusion_etl.storage import write_whole
from capsfusion_etl.tables import TRAINING_PAIRS
from capsfusion_etl.tables.arrow import arrow_schema
from deltalake import DeltaTable, WriterProperties, write_deltalake

_GROUP = 128  # rows of a Parquet row group


def publish(lake: Path, name: str, rows: Iterable[tuple[str, bytes, str]]) -> Manifest:
    """Write (pair_id, image, caption) as the strategy and snapshot `name` of a lake; an existing one is kept."""
    path = lake / "_capsfusion" / "snapshots" / f"{name}.json"
    if path.is_file():
        return Manifest.parse(path.read_text(encoding="utf-8"))
    table, schema = lake / "training_pairs", arrow_schema(TRAINING_PAIRS)
    values = {"caption_from": name, "strategy": name, "split": "train"}
    found = [
        values | {"pair_id": pair_id, "image_id": sha256(image).hexdigest(), "image": image, "caption": caption}
        for pair_id, image, caption in rows
    ]
    write_deltalake(
        table, pa.Table.from_pylist(found, schema), mode="overwrite", partition_by=["strategy", "split"],
        predicate=f"strategy = '{name}'" if table.exists() else None,  # a killed run may have written it before
        writer_properties=WriterProperties(max_row_group_size=_GROUP, write_batch_size=_GROUP),
    )  # fmt: skip
    delta = DeltaTable(table)
    files = describe_files(str(table), delta, name)
    gate = GateResult(True, 0, (), "made by the study, not by the pipeline")
    identity = str(delta.metadata().id)
    manifest = Manifest(name, str(table), identity, delta.version(), name, len(found), tuple(schema.names), files, gate)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, manifest.text())
    return manifest
