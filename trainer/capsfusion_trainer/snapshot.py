"""Rows of a pinned snapshot, by its manifest: the very files that the gate let pass, no Spark, no table log."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from capsfusion_etl.errors import InputError
from capsfusion_etl.manifest import Manifest
from capsfusion_etl.memory import folder_of


@dataclass(frozen=True, slots=True)
class Sample:
    """One training pair: `image` are the bytes as fetched."""

    pair_id: str
    image: bytes
    caption: str


def open_snapshot(address: str) -> Manifest:
    """The manifest at `LAKE@NAME`, or at the path of a manifest file.

    Raises:
        InputError: there is none, or its files are gone or changed (each is named).
    """
    lake, at, name = address.rpartition("@")
    path = folder_of(lake) / "snapshots" / f"{name}.json" if at else Path(address)
    try:
        manifest = Manifest.parse(path.read_text(encoding="utf-8"))
    except OSError:
        there = sorted(p.stem for p in path.parent.glob("*.json"))
        raise InputError(f"no snapshot at {address}; there are: {', '.join(there) or 'none'}") from None
    faults = manifest.verify()
    if faults:
        raise InputError(f"snapshot {manifest.name} is broken: {'; '.join(faults[:3])}")
    return manifest


class Rows:
    """Samples of one split of a snapshot with a picture, in the order of their pair_id; read by row group on demand."""

    def __init__(self, manifest: Manifest, split: str) -> None:
        self._paths = {file.path: manifest.locate(file) for file in manifest.files}
        found: list[tuple[str, str, int, int]] = []  # pair_id, file, row group, row in it
        for file in manifest.files:
            parquet = pq.ParquetFile(self._paths[file.path])
            for group in range(parquet.num_row_groups):
                columns = parquet.read_row_group(group, columns=["pair_id", "image_id", "split"]).to_pydict()
                picked = zip(columns["pair_id"], columns["image_id"], columns["split"], strict=True)
                found += [
                    (pair, file.path, group, row)
                    for row, (pair, image, where) in enumerate(picked)
                    if where == split and image is not None
                ]
        self._index = sorted(found)
        # A row group is some 256 pictures: a few of them stay in memory.
        self._group = lru_cache(maxsize=8)(self._read_group)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position: int) -> Sample:
        pair, file, group, row = self._index[position]
        columns = self._group(file, group)
        return Sample(pair, columns["image"][row], columns["caption"][row])

    def _read_group(self, file: str, group: int) -> dict[str, list[Any]]:
        table = pq.ParquetFile(self._paths[file]).read_row_group(group, columns=["image", "caption"])
        return {name: table.column(name).to_pylist() for name in ("image", "caption")}


def write_json(path: Path, value: object) -> None:
    """Write whole or not at all: readers never see half a file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
