"""The budget of paid work, kept by the driver: it grants allowances to slices and books what they spent.

A cap counts from one finished run to the next: what a killed or stopped run spent counts for the run that resumes it.
The driver divides what is left among the tasks of a slice, so no task has to ask the driver before a request.
`budget.metered` enforces the allowance within a task. See docs/decisions/0008.
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
    """Caps of a run; null means no cap.

    Attributes:
        max_usd: dollars.
        max_tokens: prompt and completion tokens together.
        max_rows: rows that an engine settles.
        journal: a folder or URL that all executors can reach, which keeps paid requests and responses until their rows
            are committed; null means beside the tables.
    """

    max_usd: float | None = None
    max_tokens: int | None = None
    max_rows: int | None = None
    journal: str | None = None


class Budget:
    """What one stage of one run may spend on the rows of its account.

    Args:
        run: the run that is charged.
        account: the stage, its table and the params_hash of its rows.
        config: the caps.
        paid: whether the engine is paid by the request; its tasks then keep a journal and obey an allowance. The use of
            other engines is only counted, after each slice.
        batched: whether requests go out in batches, which outlive a run: their journals are not leftovers of a crash.
    """

    def __init__(self, run: Run, account: Account, config: BudgetConfig, *, paid: bool, batched: bool = False) -> None:
        self._run, self._account, self._config, self.paid = run, account, config, paid
        self._root = f"{config.journal or run.lake.folder}/journal/{account.stage}-{account.params_hash}"
        self.leftovers = tuple(journal.folders(self._root)) if paid and not batched else ()
        self._counted: dict[str, tuple[int, int, int]] = {}  # first key of the last slice -> `made` from there
        self._settle_leftovers()
        self.tokens, self.usd, self.rows = self._used()

    @property
    def params_hash(self) -> str:
        """Hash that names the engine, prompt and parameters of the rows."""
        return self._account.params_hash

    def _settle_leftovers(self) -> None:
        """Book what killed runs spent; a request in flight may have been paid and counts with its maximum cost."""
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
        # Tokens, dollars and rows of this stage since its last finished run, and of all stages of this run.
        run, stage, caps = self._run, self._account.stage, self._config
        if caps.max_usd is None and caps.max_tokens is None and caps.max_rows is None:
            return 0, 0.0, 0  # without caps nothing reads these figures
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
        """Return how many rows may still be settled; None if rows have no cap."""
        return None if self._config.max_rows is None else max(0, self._config.max_rows - self.rows)

    @property
    def capped(self) -> bool:
        """Whether a slice may leave rows unsettled because it reached a cap on dollars or tokens."""
        return self.paid and (self._config.max_usd is not None or self._config.max_tokens is not None)

    def allowance(self, name: str, tasks: int) -> Allowance | None:
        """Return what each of the `tasks` of the slice `name` may spend; None if the engine is not paid by the request.

        Raises:
            BudgetError: the budget is used up.
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
        """Reserve the most that an open batch can cost."""
        self.tokens, self.usd = self.tokens + tokens, self.usd + usd

    def release(self, tokens: int, usd: float) -> None:
        """Release the reservation of a batch that has ended; `book` then adds its actual cost."""
        self.tokens, self.usd = self.tokens - tokens, self.usd - usd

    def allows(self, tokens: int, usd: float, rows: int) -> bool:
        """Return whether the caps allow a batch of `rows` requests that can cost this much."""
        caps = self._config
        return (
            (caps.max_tokens is None or self.tokens + tokens <= caps.max_tokens)
            and (caps.max_usd is None or self.usd + usd <= caps.max_usd)
            and (caps.max_rows is None or self.rows + rows <= caps.max_rows)
        )

    def book(self, token: str, rows: int) -> None:
        """Book the actual cost of a settled batch. Its journal stays, because later attempts replay it."""
        found = journal.read([self.folder_of(token)])
        self._charge(SliceSpend.of_journal(self._run.run_id, self._account, token, found, rows=rows))

    def folders(self) -> list[str]:
        """Return the folders of all journals of this stage and params_hash."""
        return journal.folders(self._root)

    def folder_of(self, token: str) -> str:
        """Return the folder of a batch's journal.

        Raises:
            InputError: `token` is not a valid name.
        """
        return f"{self._root}/{check_name(token, 'batch')}"

    def _folder(self, name: str) -> str:
        return f"{self._root}/{self._run.run_id}~{name}"

    def settle(self, name: str, *, low: str) -> int:
        """Book the cost of the committed slice `name`, whose keys begin at `low`, and delete its journal.

        Returns:
            The number of rows that the slice settled.
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
        else:  # a kill before this append loses the row of `spend`, but the captions also have their token counts
            self._charge(SliceSpend(run_id, account.stage, name, account.params_hash, rows, read, written))
        return rows

    def _new_since(self, low: str) -> tuple[int, int, int]:
        """Return rows, prompt tokens and completion tokens of the last slice, whose keys begin at `low`.

        They are the totals from `low` on, minus the last totals if the previous slice had the same `low`: the slice
        after one that reached its cap begins at the same key. Leftovers of a killed run can have any key, so after
        them the totals begin at the lowest key.
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
        """Delete the journals of killed runs; call it when their rows are committed."""
        for folder in self.leftovers:
            self.forget(folder)
        self.leftovers = ()

    def forget(self, folder: str) -> None:
        """Delete a journal of this stage; call it when the rows that it paid for are committed."""
        journal.remove(folder, within=self._root)

    def leftover_keys(self) -> list[str]:
        """Return the sorted pair_ids for which the journals of killed runs have answers."""
        return sorted({key[0] for key in journal.read(self.leftovers).answers})

    def used_up(self) -> BudgetError:
        """Return the error to raise when the budget is used up; it names the caps and the options that raise them."""
        caps = {
            "--max-usd": (self._config.max_usd, f"${self.usd:.4f} of ${self._config.max_usd}"),
            "--max-tokens": (self._config.max_tokens, f"{self.tokens} of {self._config.max_tokens} tokens"),
            "--max-rows": (self._config.max_rows, f"{self.rows} of {self._config.max_rows} rows"),
        }
        used = {option: words for option, (cap, words) in caps.items() if cap is not None}
        return BudgetError(
            f"the budget is used up ({', '.join(used.values())}): finished rows are in the tables; "
            f"raise {' or '.join(used)} and run the same command again to resume"
        )
