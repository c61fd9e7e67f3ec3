"""The budget of paid work, on the driver: what is left, what each slice is granted, what it took.

A cap holds from one finished run to the next: what a run spent that was killed, or stopped at its cap, counts against
the run that goes on for it. All tasks share it through the lake: the driver grants each its part of what is left, and
no task asks the driver before a request. See `purse` for the other side.
"""

from dataclasses import dataclass

from pyspark.sql import functions as F

from capsfusion_etl.budget import journal
from capsfusion_etl.budget.metered import Allowance
from capsfusion_etl.budget.spend import Account, SliceSpend, made, record
from capsfusion_etl.console import say
from capsfusion_etl.errors import BudgetError
from capsfusion_etl.ids import check_name
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import FROM_THE_START


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """Caps of a run, all null by default: dollars, tokens, rows that an engine settles. `journal`: a folder or URL that
    all executors reach, where paid answers are kept until they are committed (null: beside the tables)."""

    max_usd: float | None = None
    max_tokens: int | None = None
    max_rows: int | None = None
    journal: str | None = None


class Budget:
    """What one stage of one run may spend on the rows of its account.

    `paid`: the engine is paid by the request and keeps a journal; others are looked at between slices. `batched`: its
    requests go out in batches, which outlive a run.
    """

    def __init__(self, run: Run, account: Account, config: BudgetConfig, *, paid: bool, batched: bool = False) -> None:
        self._run, self._account, self._config, self.paid = run, account, config, paid
        self._root = f"{config.journal or run.lake.folder}/journal/{account.stage}-{account.params_hash}"
        self.leftovers = tuple(journal.folders(self._root)) if paid and not batched else ()
        self._counted: dict[str, tuple[int, int, int]] = {}  # first key of the last slice -> count from there
        self._settle_leftovers()
        self.tokens, self.usd, self.rows = self._used()

    @property
    def params_hash(self) -> str:
        """Names what makes the rows."""
        return self._account.params_hash

    def _settle_leftovers(self) -> None:
        """What a killed run was answered is paid; what it had in flight may be, and counts as if it were."""
        for folder in self.leftovers:
            run_id, _, name = folder.rpartition("/")[2].partition("~")
            found = journal.read([folder])
            record(self._run, SliceSpend.of_journal(run_id, self._account, name, found, rows=0))
            lost = ""
            if found.lost:
                usd = sum(usd for _, usd in found.lost.values())
                lost = (
                    f"; {len(found.lost)} requests were in flight and may have been paid (${usd:.4f} at most): "
                    "they are sent again"
                )
            say(f"{self._account.stage:9s} {len(found.answers)} answers of a run that was stopped are used{lost}")

    def _used(self) -> tuple[int, float, int]:
        run, stage, caps = self._run, self._account.stage, self._config
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

    def allowance(self, name: str, tasks: int) -> Allowance | None:
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
            Allowance(
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
        self._charge(SliceSpend.of_journal(self._run.run_id, self._account, token, found, rows=rows))

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
        run_id, account = self._run.run_id, self._account
        rows, read, written = self._new_since(low)
        if self.paid:
            found = journal.read([self._folder(name)])
            self._charge(SliceSpend.of_journal(run_id, account, name, found, rows=rows))
            if found.lost:
                usd = sum(usd for _, usd in found.lost.values())
                say(
                    f"{account.stage:9s} a task was lost with {len(found.lost)} requests in flight, which may have "
                    f"been paid (${usd:.4f} at most): they were sent again"
                )
            self.forget(self._folder(name))
        else:  # if a kill comes before this row, SQL over the captions still has their tokens
            self._charge(SliceSpend(run_id, account.stage, name, account.params_hash, rows, read, written))
        return rows

    def _new_since(self, low: str) -> tuple[int, int, int]:
        """Rows of the last slice, which begins at the key `low`, and the tokens they read and wrote.

        Counted from `low` on, less what was counted from there before: a slice that stopped at its cap begins where
        the one before began. Leftovers of a killed run lie anywhere, so that everything is counted once they are in.
        """
        if FROM_THE_START in self._counted:
            low = FROM_THE_START
        now, before = made(self._run, self._account, low=low), self._counted.get(low, (0, 0, 0))
        self._counted = {low: now}
        return now[0] - before[0], now[1] - before[1], now[2] - before[2]

    def _charge(self, spent: SliceSpend) -> None:
        record(self._run, spent)
        self.tokens, self.usd = self.tokens + spent.tokens, self.usd + spent.settled_usd
        self.rows += spent.rows

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
