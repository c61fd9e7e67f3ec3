"""The budget of paid work, on the driver: what is left, what each slice is granted, what it took.

A cap holds from one finished run to the next: what a run spent that was killed, or stopped at its cap, counts against
the run that goes on for it. All tasks share it through the lake: the driver grants each its part of what is left, and
no task asks the driver before a request. See `purse` for the other side.
"""

from dataclasses import dataclass

from pyspark.sql import functions as F

from capsfusion_etl import journal
from capsfusion_etl.console import say
from capsfusion_etl.errors import BudgetError
from capsfusion_etl.ids import check_name
from capsfusion_etl.purse import Grant
from capsfusion_etl.runlog import Run
from capsfusion_etl.slices import FROM_THE_START
from capsfusion_etl.spend import made, record_free, record_paid


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """Caps of a run, all null by default: dollars, tokens, rows that an engine settles. `journal`: a folder or URL that
    all executors reach, where paid answers are kept until they are committed (null: beside the tables)."""

    max_usd: float | None = None
    max_tokens: int | None = None
    max_rows: int | None = None
    journal: str | None = None


class Budget:
    """What one stage of one run may spend on the rows of `table` that `made_by` names.

    `paid`: an engine that is paid by the request, and keeps a journal; others are looked at between slices. `batched`:
    its requests go out in batches, which outlive a run.
    """

    def __init__(
        self, run: Run, stage: str, table: str, made_by: str, config: BudgetConfig, *, paid: bool, batched: bool = False
    ) -> None:
        lake = run.lake
        self._run, self._stage, self._table, self.made_by, self._config = run, stage, table, made_by, config
        self.paid = paid
        beside = str(lake.folder)
        self._root = f"{config.journal or beside}/journal/{stage}-{made_by}"
        self.leftovers = tuple(journal.folders(self._root)) if paid and not batched else ()
        self._low, self._counted = "", (0, 0, 0)
        self._settle_leftovers()
        self.tokens, self.usd, self.rows = self._used()

    def _settle_leftovers(self) -> None:
        """What a killed run was answered is paid; what it had in flight may be, and counts as if it were."""
        for folder in self.leftovers:
            run_id, _, name = folder.rpartition("/")[2].partition("~")
            found = journal.read([folder])
            record_paid(self._run, run_id, self._stage, name, found, rows=0, made_by=self.made_by)
            lost = ""
            if found.lost:
                usd = sum(usd for _, usd in found.lost.values())
                lost = (
                    f"; {len(found.lost)} requests were in flight and may have been paid (${usd:.4f} at most): "
                    "they are sent again"
                )
            say(f"{self._stage:9s} {len(found.answers)} answers of a run that was stopped are used{lost}")

    def _used(self) -> tuple[int, float, int]:
        run, stage, caps = self._run, self._stage, self._config
        if caps.max_usd is None and caps.max_tokens is None and caps.max_rows is None:
            return 0, 0.0, 0  # nobody will ask
        done = run.lake.read("runs").where((F.col("stage") == stage) & (F.col("status") == "ok"))
        last = done.agg(F.max("run_id")).collect()[0][0] or ""
        counted = ((F.col("stage") == stage) & (F.col("run_id") > last)) | (F.col("run_id") == run.run_id)
        total = run.lake.read("spend").where(counted)
        sums = total.agg(
            F.sum(F.col("prompt_tokens") + F.col("completion_tokens")), F.sum("settled_usd"), F.sum("rows")
        )
        tokens, usd, rows = sums.collect()[0]
        return tokens or 0, usd or 0.0, rows or 0

    def rows_left(self) -> int | None:
        """Rows that may still be settled; None if there is no cap on them."""
        return None if self._config.max_rows is None else max(0, self._config.max_rows - self.rows)

    @property
    def capped(self) -> bool:
        """May a slice come back with rows that could not be paid?"""
        return self.paid and (self._config.max_usd is not None or self._config.max_tokens is not None)

    def grant(self, name: str, tasks: int) -> Grant | None:
        """What each of the `tasks` of the slice `name` may spend; None for an engine that is not paid.

        Raises:
            BudgetError: nothing is left.
        """
        config = self._config
        tokens = None if config.max_tokens is None else config.max_tokens - self.tokens
        usd = None if config.max_usd is None else config.max_usd - self.usd
        if (tokens is not None and tokens <= 0) or (usd is not None and usd <= 0) or self.rows_left() == 0:
            raise self.used_up()
        return (
            Grant(
                folder=self._folder(name),
                journals=self.leftovers,
                tokens=None if tokens is None else tokens // tasks,
                usd=None if usd is None else usd / tasks,
            )
            if self.paid
            else None
        )

    def reserve(self, tokens: int, usd: float) -> None:
        """A batch that can take so much is on its way."""
        self.tokens, self.usd = self.tokens + tokens, self.usd + usd

    def release(self, tokens: int, usd: float) -> None:
        """It has ended; what it took is booked next."""
        self.tokens, self.usd = self.tokens - tokens, self.usd - usd

    def allows(self, tokens: int, usd: float, rows: int) -> bool:
        """May a batch of `rows` take so much?"""
        caps = self._config
        return (
            (caps.max_tokens is None or self.tokens + tokens <= caps.max_tokens)
            and (caps.max_usd is None or self.usd + usd <= caps.max_usd)
            and (caps.max_rows is None or self.rows + rows <= caps.max_rows)
        )

    def book(self, token: str, rows: int) -> None:
        """A batch was settled: book what it took. Its journal stays, for the attempts that follow."""
        found = journal.read([self.folder_of(token)])
        tokens, usd = record_paid(
            self._run, self._run.run_id, self._stage, token, found, rows=rows, made_by=self.made_by
        )
        self.tokens, self.usd, self.rows = self.tokens + tokens, self.usd + usd, self.rows + rows

    def folders(self) -> list[str]:
        """Every journal of this stage and engine."""
        return journal.folders(self._root)

    def folder_of(self, token: str) -> str:
        """The journal of a batch."""
        return f"{self._root}/{check_name(token, 'batch')}"

    def _folder(self, name: str) -> str:
        return f"{self._root}/{self._run.run_id}~{name}"

    def settle(self, name: str, *, low: str) -> int:
        """The slice `name`, whose keys begin at `low`, is committed: book what it took, forget its journal.

        Returns the rows that it settled.
        """
        if self._low == FROM_THE_START:  # leftovers lie anywhere: what comes behind them is told apart by counting on
            low = FROM_THE_START
        rows, read, written = made(self._run, self._table, self.made_by, low=low)
        counted = self._counted if low == self._low else (0, 0, 0)  # by the slice before, which stopped within this one
        self._low, self._counted = low, (rows, read, written)
        rows, read, written = (now - then for now, then in zip(self._counted, counted, strict=True))
        if self.paid:
            found = journal.read([self._folder(name)])
            tokens, usd = record_paid(
                self._run, self._run.run_id, self._stage, name, found, rows=rows, made_by=self.made_by
            )
            if found.lost:
                say(
                    f"{self._stage:9s} a task was lost with {len(found.lost)} requests in flight, which may have been "
                    f"paid (${sum(usd for _, usd in found.lost.values()):.4f} at most): they were sent again"
                )
            self.forget(self._folder(name))
        else:
            tokens, usd = record_free(self._run, self._stage, name, self.made_by, rows, read, written), 0.0
        self.tokens, self.usd, self.rows = self.tokens + tokens, self.usd + usd, self.rows + rows
        return rows

    def forget_leftovers(self) -> None:
        """Their rows are committed."""
        for folder in self.leftovers:
            self.forget(folder)
        self.leftovers = ()

    def forget(self, folder: str) -> None:
        """Remove a journal of this stage: the rows that it paid for are committed."""
        journal.remove(folder, within=self._root)

    def leftover_keys(self) -> list[str]:
        """pair_ids that a killed run was answered for."""
        return sorted({key[0] for key in journal.read(self.leftovers).answers})

    def used_up(self) -> BudgetError:
        """What to raise when nothing is left."""
        caps = {
            "--max-usd": (self._config.max_usd, f"${self.usd:.4f} of ${self._config.max_usd}"),
            "--max-tokens": (self._config.max_tokens, f"{self.tokens} of {self._config.max_tokens} tokens"),
            "--max-rows": (self._config.max_rows, f"{self.rows} of {self._config.max_rows} rows"),
        }
        used = {option: words for option, (cap, words) in caps.items() if cap is not None}
        return BudgetError(
            f"the budget is used up ({', '.join(used.values())}): what was made is in the tables; "
            f"raise {' or '.join(used)} and run the same command again to go on"
        )
