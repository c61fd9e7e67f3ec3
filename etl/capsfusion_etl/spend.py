"""What engine work cost, one row in `spend` for each committed slice."""

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from capsfusion_etl.runlog import Run
from capsfusion_etl.tables import SPEND

if TYPE_CHECKING:
    from capsfusion_etl.journal import Read


def made(run: Run, table: str, made_by: str, *, low: str) -> tuple[int, int, int]:
    """Rows that this run has in `table` from the key `low` on, and the tokens they read and wrote.

    A slice is a range of keys, so that Delta's statistics spare the files of the slices before.
    """
    mine = (F.col("run_id") == run.run_id) & (F.col("params_hash") == made_by) & (F.col("pair_id") >= low)
    rows = run.lake.read(table).where(mine)
    count, read, written = rows.agg(F.count("*"), F.sum("prompt_tokens"), F.sum("completion_tokens")).collect()[0]
    return int(count), int(read or 0), int(written or 0)


def of_run(run: Run, stage: str) -> tuple[int, float]:
    """Tokens and dollars that this run's stage took so far."""
    mine = run.lake.read("spend").where((F.col("run_id") == run.run_id) & (F.col("stage") == stage))
    tokens = F.sum(F.col("prompt_tokens") + F.col("completion_tokens"))
    found = mine.agg(tokens.alias("tokens"), F.sum("settled_usd").alias("usd")).collect()[0]
    return int(found["tokens"] or 0), float(found["usd"] or 0.0)


def record_free(run: Run, stage: str, name: str, made_by: str, rows: int, read: int, written: int) -> int:
    """Book the slice `name` of an engine that runs in the worker. If a kill comes before, SQL over the rows still has
    their tokens.

    Returns the tokens.
    """
    _append(run, (run.run_id, stage, name, made_by, rows, read, written, 0, 0.0, 0.0))
    return read + written


def record_paid(
    run: Run, run_id: str, stage: str, name: str, found: "Read", *, rows: int, made_by: str
) -> tuple[int, float]:
    """Book a slice of paid work by its journal: answers with what they took, lost requests with all they could have.

    Done twice it counts once. Returns tokens and dollars.
    """
    answers = found.answers.values()
    read, written = sum(a.prompt_tokens for a in answers), sum(a.completion_tokens for a in answers)
    settled = sum(a.cost_usd for a in answers)
    lost_tokens, lost_usd = (sum(x) for x in zip(*found.lost.values(), strict=True)) if found.lost else (0, 0.0)
    _append(
        run,
        (
            run_id,
            stage,
            name,
            made_by,
            rows,
            read + lost_tokens,
            written,
            len(found.lost),
            lost_usd,
            settled + lost_usd,
        ),
    )
    return read + lost_tokens + written, settled + lost_usd


def _append(run: Run, row: tuple[object, ...]) -> None:
    frame = run.lake.spark.createDataFrame([row], SPEND.schema())
    run.lake.append("spend", frame, app_id=f"{row[0]}/{row[1]}/spend/{row[3]}/{row[2]}", version=0)
