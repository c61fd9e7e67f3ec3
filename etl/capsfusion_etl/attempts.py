"""Asking a fuser until its answer is accepted or its attempts are used up: in rounds of a batch, or all at once."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from capsfusion_etl.engines import Answer, AsyncEngine, Fuser, FuserConfig, Question
from capsfusion_etl.journal import Key
from capsfusion_etl.judge import ACCEPTED, Judgement, judge
from capsfusion_etl.ledger import ground
from capsfusion_etl.purse import Purse

ENGINE_ERROR = "engine_error"
ROUND = 256  # questions of a round: enough to sort by length, few enough to hold
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Settled:
    """The last judgement and answer on a question; tokens and cost of all its attempts are summed up in the answer."""

    question: Question
    judgement: Judgement
    answer: Answer
    attempts: int


def settle(
    fuser: Fuser | AsyncEngine, questions: Iterable[Question], config: FuserConfig, purse: Purse | None = None
) -> Iterator[Settled]:
    """Settle every question, in any order; a question that the engine cannot answer has the verdict engine_error.

    What the `purse` cannot pay for is left out.
    """
    if isinstance(fuser, AsyncEngine):
        return in_flight(
            questions, lambda q: _settle_one(fuser, q, config, purse), fuser.concurrency, closing(fuser, purse)
        )
    return (row for part in chunks(questions, ROUND) for row in _settle_round(fuser, part, config))


def _settle_round(fuser: Fuser, questions: list[Question], config: FuserConfig) -> list[Settled]:
    """Ask them all, then again those that were refused."""
    settled: dict[str, Settled] = {}
    due = questions
    for attempt in range(config.retries + 1):
        due = [replace(q, attempt=attempt) for q in due]
        for question, answer in zip(due, fuser.fuse(due), strict=True):
            settled[question.pair_id] = _next(settled.get(question.pair_id), question, answer, config)
        due = [q for q in due if settled[q.pair_id].judgement.verdict != ACCEPTED]
        if not due:
            break
    return [settled[q.pair_id] for q in questions]


async def _settle_one(
    fuser: AsyncEngine, question: Question, config: FuserConfig, purse: Purse | None
) -> Settled | None:
    settled: Settled | None = None
    for attempt in range(config.retries + 1):
        question = replace(question, attempt=attempt)
        answer = await ask(fuser, (question.pair_id, question.strategy, attempt), question, purse)
        if answer is None:
            return settled if purse is None or purse.asks else None
        settled = _next(settled, question, answer, config)
        if settled.judgement.verdict == ACCEPTED:
            break
    return settled


async def ask(engine: AsyncEngine, key: Key, question: Any, purse: Purse | None) -> Answer | None:
    """Ask an engine behind a network, out of the purse if there is one."""
    return await (engine.ask(question) if purse is None else purse.ask(engine, key, question))


def _next(before: Settled | None, question: Question, answer: Answer, config: FuserConfig) -> Settled:
    """Judge an answer, and add what the attempts before it took."""
    raw = question.raw_caption
    synthetic = question.synthetic_caption if question.strategy == "fused" else ""  # what the model did not see
    if answer.text is None:
        judgement = Judgement(ENGINE_ERROR, answer.error or "no answer", ground(raw, synthetic, ""))
    else:
        judgement = judge(raw, synthetic, answer.text, config.limits)
    if before is not None:
        answer = replace(
            answer,
            prompt_tokens=before.answer.prompt_tokens + answer.prompt_tokens,
            completion_tokens=before.answer.completion_tokens + answer.completion_tokens,
            cost_usd=before.answer.cost_usd + answer.cost_usd,
        )
    return Settled(question, judgement, answer, question.attempt + 1)


def closing(engine: AsyncEngine, purse: Purse | None) -> Callable[[], Coroutine[None, None, None]]:
    """What to do when the last answer is there: close the engine's connections and the journal."""

    async def close() -> None:
        await engine.close()
        if purse is not None:
            purse.close()

    return close


def in_flight(
    items: Iterable[T],
    work: Callable[[T], Coroutine[None, None, R | None]],
    limit: int,
    close: Callable[[], Coroutine[None, None, None]],
) -> Iterator[R]:
    """Run `work` over all items with at most `limit` at once, across the borders of Arrow batches.

    Results come as they are done, those of None are left out: one slow answer holds up nobody. The first exception
    stops the rest and is raised.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        pending: set[asyncio.Task[R | None]] = set()

        async def first_done() -> list[R]:
            nonlocal pending
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            results = [task.result() for task in sorted(done, key=lambda task: task.exception() is None)]
            return [result for result in results if result is not None]

        async def stop() -> None:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            await close()

        try:
            for item in items:
                pending.add(loop.create_task(work(item)))
                if len(pending) >= limit:
                    yield from runner.run(first_done())
            while pending:
                yield from runner.run(first_done())
        finally:
            runner.run(stop())


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
