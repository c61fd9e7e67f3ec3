"""Send requests to a fuser until an answer is accepted or the attempts are used up."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from capsfusion_etl.budget.metered import MeteredEngine
from capsfusion_etl.engines import Answer, AsyncEngine, Fuser, FuserConfig, Question
from capsfusion_etl.engines.base import ENGINE_ERROR
from capsfusion_etl.engines.concurrency import ROUND, chunks, in_flight
from capsfusion_etl.engines.unwrap import unwrapped
from capsfusion_etl.judge import ACCEPTED, Judgement, judge
from capsfusion_etl.judge.abstain import abstain
from capsfusion_etl.judge.grounding import ground

SHIFTED = "shifted"

# Verdicts that do not come from a check of the judge, beside ENGINE_ERROR.
ABSTAINED, DOUBTED = "abstained", "doubted"


@dataclass(frozen=True, slots=True)
class Settled:
    """A question with its last judgement and answer; the answer carries tokens and cost of all attempts."""

    question: Question
    judgement: Judgement
    answer: Answer
    attempts: int


def settle(fuser: Fuser | AsyncEngine, questions: Iterable[Question], config: FuserConfig) -> Iterator[Settled]:
    """Settle every question and yield the results in any order.

    An AsyncEngine gets up to `concurrency` requests at once, any other fuser rounds of ROUND questions. A question that
    should not be fused gets the verdict `abstained`, one that the engine cannot answer `engine_error`. A question that
    the allowance of a MeteredEngine cannot pay for is left out.
    """
    if isinstance(fuser, AsyncEngine):
        return in_flight(questions, lambda q: _settle_one(fuser, q, config), fuser)
    return (row for part in chunks(questions, ROUND) for row in _settle_round(fuser, part, config))


def _settle_round(fuser: Fuser, questions: list[Question], config: FuserConfig) -> list[Settled]:
    """Send all questions, then retry those whose answers were not accepted."""
    settled = {q.pair_id: kept for q in questions if (kept := _abstained(q, config)) is not None}
    due = [q for q in questions if q.pair_id not in settled]
    for attempt in range(config.retries + 1):
        if not due:
            break
        due = [replace(q, attempt=attempt) for q in due]
        for question, answer in zip(due, fuser.fuse(due), strict=True):
            settled[question.pair_id] = _next(settled.get(question.pair_id), question, answer, config)
        due = [q for q in due if settled[q.pair_id].judgement.verdict != ACCEPTED]
    return [settled[q.pair_id] for q in questions]


async def _settle_one(fuser: AsyncEngine, question: Question, config: FuserConfig) -> Settled | None:
    settled = _abstained(question, config)
    if settled is not None:
        return settled
    for attempt in range(config.retries + 1):
        question = replace(question, attempt=attempt)
        answer = await fuser.ask(question)
        if answer is None:
            # A task that only replays journals leaves the row due: a later batch sends its next attempt.
            only_reads = isinstance(fuser, MeteredEngine) and not fuser.asks
            return None if only_reads else settled
        settled = _next(settled, question, answer, config)
        if settled.judgement.verdict == ACCEPTED:
            break
    return settled


def _abstained(question: Question, config: FuserConfig) -> Settled | None:
    """Settle a question that should not be fused; return None if it should."""
    raw, synthetic = question.raw_caption, question.synthetic_caption
    why = abstain(raw, synthetic) if config.abstain else None
    if why is None:
        return None
    return Settled(question, Judgement(ABSTAINED, why, ground(raw, synthetic, synthetic)), Answer(None), 0)


def _next(before: Settled | None, question: Question, answer: Answer, config: FuserConfig) -> Settled:
    """Judge an answer, and add the tokens and cost of the attempts before it."""
    answer = unwrapped(answer, config.name)
    raw, synthetic = question.raw_caption, question.shown_synthetic
    if answer.text is None:
        judgement = Judgement(ENGINE_ERROR, answer.error or "no answer", ground(raw, synthetic, ""))
    else:
        judgement = judge(raw, synthetic, answer.text, config.limits)
        if judgement.verdict == ACCEPTED and answer.doubt is not None:
            judgement = replace(judgement, verdict=DOUBTED, detail=answer.doubt)
    if before is not None:
        answer = replace(
            answer,
            prompt_tokens=before.answer.prompt_tokens + answer.prompt_tokens,
            completion_tokens=before.answer.completion_tokens + answer.completion_tokens,
            cost_usd=before.answer.cost_usd + answer.cost_usd,
        )
    return Settled(question, judgement, answer, question.attempt + 1)
