"""Opinion stage, executor side: ask a large model about accepted captions, in Arrow batches."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from capsfusion_etl.budget.metered import Allowance, metered
from capsfusion_etl.engines import (
    Answer,
    AsyncEngine,
    Fuser,
    Question,
    SecondOpinionConfig,
    load_fuser,
)
from capsfusion_etl.engines.base import ENGINE_ERROR
from capsfusion_etl.engines.concurrency import ROUND, chunks, in_flight
from capsfusion_etl.judge.opinion import read_opinion
from capsfusion_etl.tables import OPINIONS
from capsfusion_etl.tables.arrow import arrow_schema, batch_of

_LONGEST = 200  # characters of the words at fault


def opinion_batches(
    batches: Iterator[pa.RecordBatch],
    config: SecondOpinionConfig,
    params_hash: str,
    caption_params_hash: str,
    run_id: str,
    allowance: Allowance | None,
) -> Iterator[pa.RecordBatch]:
    """Ask for an opinion on each row of Arrow batches (for `mapInArrow`).

    Args:
        batches: columns pair_id, raw_caption, synthetic_caption and caption, in this order.
        config: the model and its rubric.
        params_hash: names the opinions.
        caption_params_hash: names the captions.
        run_id: the run.
        allowance: what this task may spend, or None for an engine that is not paid by the request.

    Returns:
        Rows of `opinions`. Rows that the allowance cannot pay for are missing.
    """
    fuser = load_fuser(config.fuser)
    questions = (
        Question(pair_id, raw, synthetic, fused_caption=caption)
        for batch in batches
        for pair_id, raw, synthetic, caption in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    )
    for part in chunks(_answered(metered(fuser, allowance), questions), ROUND):
        asked, answers = [question for question, _ in part], [answer for _, answer in part]
        verdicts = [verdict_of(answer) for answer in answers]
        yield batch_of(
            arrow_schema(OPINIONS),
            len(part),
            pair_id=[q.pair_id for q in asked],
            caption=[q.fused_caption for q in asked],
            caption_params_hash=caption_params_hash,
            verdict=[verdict for verdict, _ in verdicts],
            detail=[detail for _, detail in verdicts],
            prompt_tokens=[a.prompt_tokens for a in answers],
            completion_tokens=[a.completion_tokens for a in answers],
            cost_usd=[a.cost_usd for a in answers],
            engine=config.engine,
            model=fuser.model,
            revision=fuser.revision,
            params_hash=params_hash,
            run_id=run_id,
        )


def _answered(fuser: Fuser | AsyncEngine, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
    if not isinstance(fuser, AsyncEngine):
        for part in chunks(questions, ROUND):
            yield from zip(part, fuser.fuse(part), strict=True)
        return

    async def ask(question: Question) -> tuple[Question, Answer] | None:
        answer = await fuser.ask(question)
        return None if answer is None else (question, answer)

    yield from in_flight(questions, ask, fuser)


def verdict_of(answer: Answer) -> tuple[str, str]:
    """Return the verdict of an answer and its detail; `engine_error` and the reason if there is none."""
    if answer.text is None:
        return ENGINE_ERROR, (answer.error or "no answer")[:_LONGEST]
    opinion = read_opinion(answer.text)
    if opinion is None:
        return ENGINE_ERROR, f"no verdict in the answer: {answer.text}"[:_LONGEST]
    return opinion[0], opinion[1][:_LONGEST]
