"""What a Spark task may spend, and how it asks without paying twice: reserve, write down, ask, write down, settle."""

from dataclasses import dataclass
from typing import Any

from capsfusion_etl import journal
from capsfusion_etl.engines import Answer, AsyncEngine
from capsfusion_etl.errors import CapsfusionError, explain
from capsfusion_etl.turns import Turn


@dataclass(frozen=True, slots=True)
class Grant:
    """What the driver gives to each task of a slice: where to keep the journal, and its equal share of what is left.

    `tokens` and `usd` of None have no limit. `journals` are folders with answers that need not be paid again.
    `asks`: may a task ask at all? If not, it settles what the journals can settle, and leaves the rest.
    """

    folder: str
    journals: tuple[str, ...] = ()
    tokens: int | None = None
    usd: float | None = None
    asks: bool = True


class Purse:
    """Asks paid engines for one task. The share is never exceeded by servers that keep to the limits they are given.

    A server that takes more than the most that it could have taken is believed from then on: what is reserved for a
    request grows with the worst that was seen.
    """

    def __init__(self, grant: Grant) -> None:
        self._grant, self.asks = grant, grant.asks
        folder = f"{grant.folder}/{_partition()}"
        # A task that Spark starts again has its predecessor's answers, and what that spent is gone from its purse.
        self._turn = Turn(folder) if grant.asks else None
        mine = journal.read([folder])
        if mine.stopped and (error := explain(RuntimeError(mine.stopped))):
            self._end_turn()
            raise error
        self._known = journal.read(grant.journals).answers | mine.answers
        self._journal = journal.Journal(folder) if grant.asks else None
        self._tokens = sum(a.prompt_tokens + a.completion_tokens for a in mine.answers.values())
        self._usd = sum(a.cost_usd for a in mine.answers.values())
        self._tokens += sum(tokens for tokens, _ in mine.lost.values())
        self._usd += sum(usd for _, usd in mine.lost.values())
        self._worst = 1.0

    async def ask(self, engine: AsyncEngine, key: journal.Key, question: Any) -> Answer | None:
        """The answer, from the journal if it was paid for before; None if the share does not allow to ask."""
        if key in self._known:
            return self._known[key]
        if self._journal is None:
            return None
        tokens, usd = engine.most(question)
        tokens, usd = int(tokens * self._worst), usd * self._worst
        if not self._allows(tokens, usd):
            return None
        self._tokens, self._usd = self._tokens + tokens, self._usd + usd
        self._journal.asked(key, tokens, usd)
        try:
            answer = await engine.ask(question)
        except CapsfusionError as error:  # the server took nothing: what is lost in flight comes as a cancellation
            self._journal.refused(key)
            self._journal.stopped(error)
            raise
        self._journal.answered(key, answer)
        took = answer.prompt_tokens + answer.completion_tokens
        self._tokens, self._usd = self._tokens - tokens + took, self._usd - usd + answer.cost_usd
        self._worst = max(self._worst, self._worst * took / max(tokens, 1))
        return answer

    def _allows(self, tokens: int, usd: float) -> bool:
        grant = self._grant
        return (grant.tokens is None or self._tokens + tokens <= grant.tokens) and (
            grant.usd is None or self._usd + usd <= grant.usd
        )

    def close(self) -> None:
        """Close the journal; another attempt may go on from it."""
        if self._journal is not None:
            self._journal.close()
        self._end_turn()

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.end()


def _partition() -> int:
    from pyspark import TaskContext

    task = TaskContext.get()
    return task.partitionId() if task is not None else 0
