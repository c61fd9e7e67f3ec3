"""Cost of engine work: the table `spend` has one row for each committed slice, batch or replayed journal."""

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Self

from pyspark.sql import functions as F

from capsfusion_etl.lake.run import Run

if TYPE_CHECKING:
    from capsfusion_etl.budget.journal import Replay


@dataclass(frozen=True, slots=True)
class Account:
    """What is charged: a stage, the table that it writes, and the params_hash of its rows.

    `engine` leaves out rows of the same params_hash that another engine made, such as copied ones; None: all count.
    """

    stage: str
    table: str
    params_hash: str
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class SliceSpend:
    """A row of `spend`: the cost of one slice of a run. A lost request counts with its maximum cost."""

    run_id: str
    stage: str
    slice: str
    params_hash: str
    rows: int
    prompt_tokens: int
    completion_tokens: int
    lost_requests: int = 0
    lost_usd: float = 0.0
    settled_usd: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    @classmethod
    def of_journal(cls, run_id: str, account: Account, name: str, found: "Replay", rows: int) -> Self:
        """Return the cost of the slice `name` by its journal: its answers, and its lost requests at maximum cost."""
        answers = found.answers.values()
        read, written = sum(a.prompt_tokens for a in answers), sum(a.completion_tokens for a in answers)
        lost_tokens, lost_usd = (sum(x) for x in zip(*found.lost.values(), strict=True)) if found.lost else (0, 0.0)
        return cls(
            run_id, account.stage, name, account.params_hash, rows, read + lost_tokens, written,
            len(found.lost), lost_usd, sum(a.cost_usd for a in answers) + lost_usd,
        )  # fmt: skip


def record(run: Run, spent: SliceSpend) -> None:
    """Append a row to `spend`. Idempotent: the same slice of the same run is stored once."""
    app_id = f"{spent.run_id}/{spent.stage}/spend/{spent.params_hash}/{spent.slice}"
    run.lake.record("spend", [astuple(spent)], app_id=app_id)


def made(run: Run, account: Account, *, low: str) -> tuple[int, int, int]:
    """Return how many rows this run wrote to the account's table from pair_id `low` on, and their tokens.

    A slice is a range of keys, so Delta's statistics let Spark skip the files of earlier slices.

    Returns:
        Rows, prompt tokens, completion tokens.
    """
    mine = (F.col("run_id") == run.run_id) & (F.col("params_hash") == account.params_hash) & (F.col("pair_id") >= low)
    rows = run.lake.read(account.table).where(mine)
    if account.engine is not None:
        rows = rows.where(F.col("engine") == account.engine)
    count, read, written = rows.agg(F.count("*"), F.sum("prompt_tokens"), F.sum("completion_tokens")).collect()[0]
    return int(count), int(read or 0), int(written or 0)


def of_run(run: Run, stage: str) -> tuple[int, float]:
    """Return the tokens and dollars that `stage` of this run has cost so far."""
    mine = [row for row in run.lake.rows("spend", "run_id", among=(run.run_id,)) if row["stage"] == stage]
    tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in mine)
    return tokens, float(sum(row["settled_usd"] for row in mine))
