"""The language model of a study, and what its models said and scored: another machine goes on with them."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from capsfusion_etl.storage import write_parquet

# Scores come last: a cell is done once they are there.
_TABLES = {"captions": "*/*/scored-*/*.captions.parquet", "scores": "*/*/scored-*/*[0-9].parquet"}


def keep(folder: Path, kept: Path) -> None:
    """Keep the language model of a study in `folder`, and captions and scores of the cells that are done."""
    if (folder / "llm").is_dir():
        shutil.copytree(folder / "llm", kept / "llm", dirs_exist_ok=True)
    for name, cells in _TABLES.items():
        if parts := [_with_place(file, folder) for file in sorted(folder.glob(cells))]:
            write_parquet(_file(kept, name), pa.concat_tables(parts), compression="zstd", compression_level=19)


def take(kept: Path, folder: Path) -> None:
    """Give a study in `folder` what is kept, unless it is there; `compare` trains no model whose scores it finds."""
    if (kept / "llm").is_dir() and not (folder / "llm").is_dir():
        part = folder / "llm.part"
        shutil.copytree(kept / "llm", part, dirs_exist_ok=True)
        part.rename(folder / "llm")
    for name in _TABLES:
        if not _file(kept, name).is_file():
            continue
        rows = pq.read_table(_file(kept, name))
        for file in pc.unique(rows["file"]).to_pylist():
            target = folder / file
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_parquet(target, rows.filter(pc.field("file") == file).drop(["file"]))


def _with_place(file: Path, folder: Path) -> pa.Table:
    rows = pq.read_table(file)
    return rows.append_column("file", pa.repeat(str(file.relative_to(folder)), len(rows)))


def _file(kept: Path, name: str) -> Path:
    return kept / f"models_{name}.parquet"
