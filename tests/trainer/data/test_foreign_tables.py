"""Test tables that others wrote or damaged: refused by name, or read with the rows that lack something left out."""

from pathlib import Path

import pyarrow as pa
import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import open_snapshot
from deltalake import write_deltalake


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pair_id": "a", "image": b"x"}, "caption must be string, it is missing"),
        ({"pair_id": "a", "image": b"x", "caption": 7}, "caption must be string, it is long"),
        ({"pair_id": "a", "image": "x", "caption": "A dog."}, "image must be binary, it is string"),
    ],
)
def test_tables_that_are_no_training_pairs(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    row = {**columns, "strategy": "fused", "split": "train"}
    location = tmp_path / "lake/training_pairs"
    write_deltalake(location, pa.Table.from_pylist([row]), partition_by=["strategy", "split"])
    with pytest.raises(InputError, match=message):
        open_snapshot(f"{tmp_path}/lake@0", failed_gate=True)


def test_a_damaged_table(tmp_path: Path) -> None:
    row = {"pair_id": "a", "image": b"x", "caption": "A dog.", "strategy": "fused", "split": "train"}
    location = tmp_path / "lake/training_pairs"
    write_deltalake(location, pa.Table.from_pylist([row]), partition_by=["strategy", "split"])
    file = next(location.rglob("*.parquet"))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"parquet of .*training_pairs cannot be read: is it damaged"):
        open_snapshot(f"{tmp_path}/lake@0", failed_gate=True)
    file.write_bytes(data)
    log = location / "_delta_log/00000000000000000000.json"
    log.write_text(log.read_text()[:-40])
    with pytest.raises(InputError, match="cannot read the table"):
        open_snapshot(f"{tmp_path}/lake@0", failed_gate=True)
