"""Metered calls to a paid engine from one Spark task.

Each call reserves the most that it can cost, logs the request, sends it, logs the answer, and books the actual cost.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

from capsfusion_etl.budget import journal
from capsfusion_etl.engines import Answer, AsyncEngine
from capsfusion_etl.errors import CapsfusionError, explain
from capsfusion_etl.lake.lease import Lease


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the driver grants to each task of a slice: an equal share of what is left, and where to keep the journal.

    Attributes:
        folder: folder of the slice's journal.
        journals: more folders whose answers need not be paid again.
        tokens: the share of the tokens; None means no limit.
        usd: the share of the dollars; None means no limit.
        asks: whether a task may send requests. If not, it settles the rows that the journals can settle and leaves the
            rest.
    """

    folder: str
    journals: tuple[str, ...] = ()
    tokens: int | None = None
    usd: float | None = None
    asks: bool = True


class MeteredEngine:
    """An AsyncEngine that answers from the journal where it can, and spends no more than its task's allowance.

    The allowance holds if the server respects the token limits of a request. If a server reports more tokens than were
    reserved, later reservations are scaled by the worst overrun seen. The constructor waits for the lease of the task,
    so that two attempts of a task do not pay for the same requests (see `lake.lease` for the limits of a lease).

    Raises:
        CapsfusionError: an earlier attempt of this task logged an error that ends the run.
    """

    def __init__(self, engine: AsyncEngine, allowance: Allowance) -> None:
        self.model, self.revision, self.concurrency = engine.model, engine.revision, engine.concurrency
        self._engine, self._allowance, self.asks = engine, allowance, allowance.asks
        folder = f"{allowance.folder}/{_partition()}"
        # A retry of a task replays the answers of earlier attempts, and their cost counts against its allowance.
        self._lease = Lease(folder) if allowance.asks else None
        mine = journal.read([folder])
        if mine.stopped and (error := explain(RuntimeError(mine.stopped))):
            self._release_lease()
            raise error
        self._known = journal.read(allowance.journals).answers | mine.answers
        if allowance.asks:  # what failed at no cost may work now
            self._known = {
                key: answer for key, answer in self._known.items() if answer.text is not None or _paid(answer)
            }
        self._journal = journal.Journal(folder) if allowance.asks else None
        self._tokens = sum(a.prompt_tokens + a.completion_tokens for a in mine.answers.values())
        self._usd = sum(a.cost_usd for a in mine.answers.values())
        self._tokens += sum(tokens for tokens, _ in mine.lost.values())
        self._usd += sum(usd for _, usd in mine.lost.values())
        self._worst = 1.0

    async def ask(self, question: Any) -> Answer | None:
        """Return the answer, from the journal if it was paid for before; None if the allowance does not suffice."""
        if question.key in self._known:
            return self._known[question.key]
        if self._journal is None:
            return None
        tokens, usd = self.most(question)
        if not self._allows(tokens, usd):
            return None
        self._tokens, self._usd = self._tokens + tokens, self._usd + usd
        self._journal.asked(question.key, tokens, usd)
        try:
            answer = await self._engine.ask(question)
        except CapsfusionError as error:  # not charged: a request that is lost in flight raises CancelledError instead
            self._journal.refused(question.key)
            self._journal.stopped(error)
            raise
        answer = answer or Answer(None, "the engine gave no answer")
        self._journal.answered(question.key, answer)
        took = answer.prompt_tokens + answer.completion_tokens
        self._tokens, self._usd = self._tokens - tokens + took, self._usd - usd + answer.cost_usd
        self._worst = max(self._worst, self._worst * took / max(tokens, 1))
        return answer

    def most(self, question: Any) -> tuple[int, float]:
        """Return the tokens and dollars to reserve for one request."""
        tokens, usd = self._engine.most(question)
        return int(tokens * self._worst), usd * self._worst

    def _allows(self, tokens: int, usd: float) -> bool:
        share = self._allowance
        return (share.tokens is None or self._tokens + tokens <= share.tokens) and (
            share.usd is None or self._usd + usd <= share.usd
        )

    def finish(self) -> None:
        """See AsyncEngine."""
        try:
            self._engine.finish()
        except CapsfusionError as error:
            if self._journal is not None:
                self._journal.stopped(error)
            raise

    async def close(self) -> None:
        """Close the engine's connections and the journal, and release the lease to other attempts of the task."""
        await self._engine.close()
        if self._journal is not None:
            self._journal.close()
        self._release_lease()

    def _release_lease(self) -> None:
        if self._lease is not None:
            self._lease.release()


def _paid(answer: Answer) -> bool:
    return bool(answer.prompt_tokens or answer.completion_tokens or answer.cost_usd)


T = TypeVar("T")


def metered(engine: T | AsyncEngine, allowance: Allowance | None) -> "T | AsyncEngine":
    """Return `engine`, metered if the driver granted an allowance: it does so for engines paid by the request."""
    return MeteredEngine(engine, allowance) if allowance is not None and isinstance(engine, AsyncEngine) else engine


def _partition() -> int:
    from pyspark import TaskContext

    task = TaskContext.get()
    return task.partitionId() if task is not None else 0
