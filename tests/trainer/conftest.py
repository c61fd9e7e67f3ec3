"""Fixtures of the trainer's tests: a small lake with a snapshot, made without Spark."""

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from capsfusion_etl.snapshots.manifest import GateResult, Manifest, describe_files
from deltalake import DeltaTable, WriterProperties, write_deltalake
from PIL import Image

Snapshot = Callable[..., Path]


def image(value: int, kind: str = "PNG") -> bytes:
    """Return a small image of one colour, encoded."""
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (value % 256, 255 - value % 256, 128)).save(out, kind)
    return out.getvalue()


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """Function that makes a lake with a snapshot `first`: `train` pairs, some images broken, and two held out."""

    def make(
        train: int = 9, *, broken: tuple[int, ...] = (3,), files: int = 1, group: int = 4, images: bool = True
    ) -> Path:
        lake = tmp_path / "lake"
        table = lake / "training_pairs"
        rows = [
            {
                "pair_id": f"{i:064x}",
                "image_id": str(i),
                "image": None
                if not images
                else b"broken"
                if i in broken
                else image(20 * i, "JPEG" if i % 2 else "PNG"),
                "caption": f"Picture {i} of the Oslo Book Fair.",
                "caption_from": "fused",
                "strategy": "fused",
                "split": "held_out" if i >= train else "train",
            }
            for i in range(train + 2)
        ]
        each = -(-train // files)
        schema = pa.schema([(name, pa.binary() if name == "image" else pa.string()) for name in rows[0]])
        for start in [*range(0, train, each), train]:
            some = rows[start : min(start + each, train)] if start < train else rows[train:]
            part = pa.Table.from_pylist(some, schema)
            write_deltalake(
                table, part, mode="append", partition_by=["strategy", "split"],
                writer_properties=WriterProperties(max_row_group_size=group, write_batch_size=group),
            )  # fmt: skip
        delta = DeltaTable(table)
        described = describe_files(str(table), delta, "fused")
        gate = GateResult(True, 1, (), "report")
        manifest = Manifest(
            "first", str(table), str(delta.metadata().id), 0, "fused", train + 2, tuple(rows[0]), described, gate
        )
        path = lake / "_capsfusion" / "snapshots" / "first.json"
        path.parent.mkdir(parents=True)
        path.write_text(manifest.text())
        return lake

    return make
