"""Helper that searches the files of a lake for bytes."""

from pathlib import Path

import pyarrow.parquet as pq


def holding(lake: Path, needle: bytes) -> list[str]:
    """Return the files of a lake that contain `needle`, as raw bytes or in a value of a Parquet file."""
    found = []
    for path in sorted(p for p in lake.rglob("*") if p.is_file()):
        inside = needle in path.read_bytes()
        if not inside and path.suffix == ".parquet":
            values = pq.read_table(path).to_pylist()
            inside = any(
                needle in (v if isinstance(v, bytes) else str(v).encode()) for row in values for v in row.values()
            )
        if inside:
            found.append(str(path.relative_to(lake)))
    return found
