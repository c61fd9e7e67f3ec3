"""`removed.parquet`: the pairs of an earlier export that a holder of a copy has to remove."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from capsfusion_etl.exports.output import FileRecord, written
from capsfusion_etl.exports.record import GONE
from capsfusion_etl.storage import filesystem_of

REASONS = ("taken_down", "removed", "changed")  # changed: it is exported again, with another caption or picture
_SCHEMA = pa.schema([("pair_id", pa.string()), ("image_id", pa.string()), ("reason", pa.string())])


def write_gone(target: Path, folder: str) -> tuple[FileRecord, dict[str, int]]:
    """Write `removed.parquet`, sorted by pair_id, from the files in `folder`; return it, and how many pairs it has.

    It has pair_id, image_id and reason, no texts and no addresses: the list itself must not show what was taken down.
    """
    files, within = filesystem_of(folder)
    rows = _SCHEMA.empty_table()
    if files.get_file_info(within).type != fs.FileType.NotFound:
        kind = ds.partitioning(pa.schema([("reason", pa.string())]), flavor="hive")
        found = ds.dataset(within, filesystem=files, format="parquet", partitioning=kind)
        rows = found.to_table(columns=_SCHEMA.names).cast(_SCHEMA).sort_by("pair_id") if found.files else rows
    with written(target, GONE) as out:
        pq.write_table(rows, out)
    return out.record(GONE), {reason: pc.sum(pc.equal(rows["reason"], reason)).as_py() or 0 for reason in REASONS}


def read_gone(folder: Path) -> pa.Table:
    """Return the rows of `removed.parquet` in an export of changes."""
    files, path = filesystem_of(str(folder / GONE))
    return pq.read_table(path, filesystem=files)
