"""Where the scores and the captions of each cell are kept, as files of their own until all cells are done."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_parquet
from deltalake import DeltaTable, write_deltalake

from capsfusion_trainer.compare.fingerprint import fingerprints
from capsfusion_trainer.compare.grid import Cell, Grid, TrainingRun
from capsfusion_trainer.compare.score import Score
from capsfusion_trainer.compare.suite import Suite
from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.training.claim import is_claimed

_SCORES = pa.schema(
    [("benchmark", pa.string()), ("metric", pa.string()), ("unit", pa.string()), ("value", pa.float64()),
     ("weight", pa.float64())]
)  # fmt: skip
_CAPTIONS = pa.schema([("unit", pa.string()), ("caption", pa.string())])
_CELL = {"strategy": pa.string(), "pairs": pa.int64(), "seed": pa.int64()}


class Files(NamedTuple):
    """Where the scores and the captions of a cell are kept; the names are those of the Delta tables."""

    scores: Path
    captions: Path


def files_of(
    out: Path, grid: Grid, suite: Suite, config: TrainerConfig, manifests: Mapping[str, Manifest]
) -> dict[Cell, Files]:
    """Return the files of each cell.

    They lie in the folder of the cell's run, and so are removed with it. The name of their own folder has the
    fingerprints of the suite and of what the model is made from: scores of anything else are not taken for these.
    """
    suites = suite.fingerprint()  # reads every picture
    folders = {name: f"scored-{suites}-{made}" for name, made in fingerprints(config, manifests).items()}
    places = {c: out / run.name / folders[c.strategy] / str(c.pairs) for run in grid.runs() for c in run.cells}
    return {cell: Files(Path(f"{at}.parquet"), Path(f"{at}.captions.parquet")) for cell, at in places.items()}


def was_brought(run: TrainingRun, folder: Path, files: Mapping[Cell, Files]) -> bool:
    """Return whether another machine made the run: the scores of all its cells are here, but no training."""
    if is_claimed(folder):
        return False
    if all(files[cell].scores.is_file() for cell in run.cells):
        print(f"{run.name}: its scores were brought here, so it is not trained", flush=True)
        return True
    if next(folder.glob("scored-*"), None):
        print(f"{run.name}: the scores in {folder} are of other captions, settings or benchmarks; it is trained anew")
    return False


def keep(files: Files, scores: list[Score], captions: Mapping[str, str]) -> None:
    """Write the captions and then the scores of a cell, which is done once its scores are there."""
    files.scores.parent.mkdir(parents=True, exist_ok=True)
    said = [{"unit": unit, "caption": caption} for unit, caption in captions.items()]
    write_parquet(files.captions, pa.Table.from_pylist(said, _CAPTIONS))
    write_parquet(files.scores, pa.Table.from_pylist([score._asdict() for score in scores], _SCORES))


def read(files: Files) -> list[Score]:
    """Return the scores of a cell."""
    return [Score(**row) for row in pq.read_table(files.scores, schema=_SCORES).to_pylist()]


def write_tables(files: Mapping[Cell, Files], out: Path) -> None:
    """Write the Delta tables `scores` and `captions` of all cells."""
    for name in Files._fields:
        parts = [_with_cell(pq.read_table(getattr(mine, name)), cell) for cell, mine in files.items()]
        write_deltalake(out / name, pa.concat_tables(parts), mode="overwrite", schema_mode="overwrite")


def scores_of(out: Path) -> dict[Cell, list[Score]]:
    """Return the scores of every cell of a comparison that is complete."""
    found: dict[Cell, list[Score]] = {}
    for row in DeltaTable(out / "scores").to_pyarrow_table().to_pylist():
        cell = Cell(*(row.pop(name) for name in _CELL))
        found.setdefault(cell, []).append(Score(**row))
    return found


def _with_cell(table: pa.Table, cell: Cell) -> pa.Table:
    """Return a table with the columns of its cell in front."""
    for at, (name, kind) in enumerate(_CELL.items()):
        table = table.add_column(at, name, pa.array([getattr(cell, name)] * table.num_rows, kind))
    return table
