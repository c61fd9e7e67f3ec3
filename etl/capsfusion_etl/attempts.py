"""Asking a fuser until its answer is accepted or its attempts are used up: in rounds of a batch, or all at once."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from capsfusion_etl.engines import Answer, AsyncFuser, Fuser, FuserConfig, Question
from capsfusion_etl.judge import ACCEPTED, Judgement, judge
from capsfusion_etl.ledger import ground

ENGINE_ERROR = "engine_error"
ROUND = 256  # questions of a round: enough to sort by length, few enough to hold
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settled:
    """The last judgement and answer on a question; tokens and cost of all its attempts are summed up in the answer."""

    question: Question
    judgement: Judgement
    answer: Answer
    attempts: int


def settle(fuser: Fuser | AsyncFuser, questions: Iterable[Question], config: FuserConfig) -> Iterator[Settled]:
    """Settle every question, in any order; a question that the engine cannot answer has the verdict engine_error."""
    if isinstance(fuser, AsyncFuser):
        return in_flight(questions, lambda q: _settle_one(fuser, q, config), fuser.concurrency, fuser.close)
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


async def _settle_one(fuser: AsyncFuser, question: Question, config: FuserConfig) -> Settled:
    settled: Settled | None = None
    for attempt in range(config.retries + 1):
        question = replace(question, attempt=attempt)
        settled = _next(settled, question, await fuser.ask(question), config)
        if settled.judgement.verdict == ACCEPTED:
            break
    assert settled is not None
    return settled


def _next(before: Settled | None, question: Question, answer: Answer, config: FuserConfig) -> Settled:
    """Judge an answer, and add what the attempts before it took."""
    raw, synthetic = question.raw_caption, question.synthetic_caption
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


def in_flight(
    items: Iterable[T],
    work: Callable[[T], Coroutine[None, None, Settled]],
    limit: int,
    close: Callable[[], Coroutine[None, None, None]],
) -> Iterator[Settled]:
    """Run `work` over all items with at most `limit` at once, across the borders of Arrow batches.

    Results come as they are done: one slow answer holds up nobody. The first exception stops the rest and is raised.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        pending: set[asyncio.Task[Settled]] = set()

        async def first_done() -> list[Settled]:
            nonlocal pending
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            return [task.result() for task in sorted(done, key=lambda task: task.exception() is None)]

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
