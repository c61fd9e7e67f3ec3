"""Caption stage, executor side: run a captioner over Arrow batches, or over a list without Spark."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from capsfusion_etl.budget.metered import Allowance, metered
from capsfusion_etl.engines import (
    Answer,
    AsyncEngine,
    Captioner,
    CaptionerConfig,
    Picture,
    captioner_hash,
    load_captioner,
)
from capsfusion_etl.engines.concurrency import ROUND, chunks, in_flight
from capsfusion_etl.engines.unwrap import unwrapped
from capsfusion_etl.judge import fault_of_synthetic
from capsfusion_etl.tables import SYNTHETIC_CAPTIONS
from capsfusion_etl.tables.arrow import arrow_schema, batch_of

REFUSED = "refused by the judge: "  # begins the error of an answer that is no caption


def caption_batches(
    batches: Iterator[pa.RecordBatch], config: CaptionerConfig, run_id: str, allowance: Allowance | None
) -> Iterator[pa.RecordBatch]:
    """Caption Arrow batches (for `mapInArrow`).

    Args:
        batches: columns pair_id, image_id, bytes and given, in this order.
        allowance: what this task may spend, or None for an engine that is not paid by the request.

    Returns:
        Rows of `synthetic_captions`. A row that fails has an `error`; rows beyond the allowance are missing.
    """
    captioner, schema = load_captioner(config.maker), arrow_schema(SYNTHETIC_CAPTIONS)
    made = {
        "engine": config.maker.name,
        "model": captioner.model,
        "revision": captioner.revision,
        "params_hash": captioner_hash(config),
        "run_id": run_id,
    }
    for pair_ids, image_ids, answers in _answered(metered(captioner, allowance), batches, config):
        yield batch_of(
            schema,
            len(answers),
            pair_id=pair_ids,
            image_id=image_ids,
            caption=[a.text for a in answers],
            error=[a.error for a in answers],
            prompt_tokens=[a.prompt_tokens for a in answers],
            completion_tokens=[a.completion_tokens for a in answers],
            cost_usd=[a.cost_usd for a in answers],
            **made,
        )


def _answered(
    captioner: Captioner | AsyncEngine, batches: Iterator[pa.RecordBatch], config: CaptionerConfig
) -> Iterator[tuple[Any, Any, list[Answer]]]:
    """Yield pair_ids, image_ids and answers: one tuple for each Arrow batch, or chunks in the order of completion."""
    if not isinstance(captioner, AsyncEngine):
        for batch in batches:
            answers = [checked(a, config) for a in captioner.caption([picture for picture, _ in _rows(batch)])]
            yield batch.column("pair_id"), batch.column("image_id"), answers
        return

    async def one(row: tuple[Picture, str | None]) -> tuple[str, str | None, Answer] | None:
        picture, image_id = row
        answer = await captioner.ask(picture)
        return None if answer is None else (picture.pair_id, image_id, checked(answer, config))

    rows = (row for batch in batches for row in _rows(batch))
    for part in chunks(in_flight(rows, one, captioner), ROUND):
        pair_ids, image_ids, answers = (list(column) for column in zip(*part, strict=True))
        yield pair_ids, image_ids, answers


def checked(answer: Answer, config: CaptionerConfig) -> Answer:
    """Return an answer with its caption on one line; what is no caption, such as a refusal, becomes an error.

    The captions of a source, which the engine `column` copies, are left as they are.
    """
    if config.maker.name == "column":
        return answer
    answer = unwrapped(answer, config.maker.name)
    text = " ".join((answer.text or "").split())
    if not text:
        return replace(answer, text=None)
    fault = fault_of_synthetic(text)
    return replace(answer, text=text) if fault is None else replace(answer, text=None, error=f"{REFUSED}{fault}")


def caption_all(config: CaptionerConfig, pictures: Sequence[Picture]) -> list[Answer]:
    """Caption without a lake; return one answer for each of `pictures`, in order."""
    captioner = load_captioner(config.maker)
    if not isinstance(captioner, AsyncEngine):
        return [checked(a, config) for a in captioner.caption(pictures)]

    async def one(picture: Picture) -> tuple[str, Answer | None]:
        answer = await captioner.ask(picture)
        return picture.pair_id, None if answer is None else checked(answer, config)

    done = dict(in_flight(pictures, one, captioner))
    return [done[p.pair_id] or Answer(None, "the engine gave no answer") for p in pictures]


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Picture, str | None]]:
    """Yield each row of a batch as a `Picture`, with its image_id."""
    pair_ids, image_ids, images, given = (c.to_pylist() for c in batch.columns)
    for pair_id, image_id, image, text in zip(pair_ids, image_ids, images, given, strict=True):
        yield Picture(pair_id, image, text), image_id
