"""Synthetic captions: pictures (or a column of the source) through a captioner, in Arrow batches."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.arrow import arrow_schema
from capsfusion_etl.attempts import ROUND, ask, chunks, closing, in_flight
from capsfusion_etl.budget import Budget, BudgetConfig
from capsfusion_etl.engines import (
    Answer,
    AsyncEngine,
    Captioner,
    CaptionerConfig,
    Picture,
    captioner_hash,
    is_paid,
    load_captioner,
    needs_images,
)
from capsfusion_etl.purse import Grant, Purse
from capsfusion_etl.runlog import Run
from capsfusion_etl.slices import commit_in_slices
from capsfusion_etl.tables import SYNTHETIC_CAPTIONS

Done = tuple[Picture, Answer]


def caption_batches(
    batches: Iterator[pa.RecordBatch], config: CaptionerConfig, run_id: str, grant: Grant | None
) -> Iterator[pa.RecordBatch]:
    """mapInArrow: pair_id, image_id, bytes, extra in; rows of synthetic_captions out.

    A row that the engine cannot answer comes out with its error.
    """
    captioner, schema = load_captioner(config), arrow_schema(SYNTHETIC_CAPTIONS)
    made: dict[str, Any] = {
        "engine": config.name,
        "model": captioner.model,
        "revision": captioner.revision,
        "params_hash": captioner_hash(config),
        "run_id": run_id,
    }
    for part in _answered(captioner, batches, Purse(grant) if grant is not None else None):
        rows = [
            {
                "pair_id": picture.pair_id,
                "image_id": picture.image_id,
                "caption": answer.text,
                "error": answer.error,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "cost_usd": answer.cost_usd,
            }
            | made
            for picture, answer in part
        ]
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def _answered(
    captioner: Captioner | AsyncEngine, batches: Iterator[pa.RecordBatch], purse: Purse | None
) -> Iterator[list[Done]]:
    if not isinstance(captioner, AsyncEngine):
        for batch in batches:
            pictures = list(_pictures(batch))
            yield list(zip(pictures, captioner.caption(pictures), strict=True))
        return

    async def one(picture: Picture) -> Done | None:
        answer = await ask(captioner, (picture.pair_id, "caption", 0), picture, purse)
        return None if answer is None else (replace(picture, image=None), answer)

    pictures_ = (picture for batch in batches for picture in _pictures(batch))
    yield from chunks(in_flight(pictures_, one, captioner.concurrency, closing(captioner, purse)), ROUND)


def caption_all(config: CaptionerConfig, pictures: Sequence[Picture]) -> list[Answer]:
    """Caption without a lake: one answer for each picture, in order."""
    captioner = load_captioner(config)
    if not isinstance(captioner, AsyncEngine):
        return captioner.caption(pictures)

    async def one(picture: Picture) -> Done:
        return picture, await captioner.ask(picture)

    done = {p.pair_id: answer for p, answer in in_flight(pictures, one, captioner.concurrency, captioner.close)}
    return [done[p.pair_id] for p in pictures]


def _pictures(batch: pa.RecordBatch) -> Iterator[Picture]:
    columns = (batch.column(name).to_pylist() for name in ("pair_id", "image_id", "bytes", "extra"))
    for pair_id, image_id, image, extra in zip(*columns, strict=True):
        yield Picture(pair_id, image_id, image, dict(extra or ()))


def due_for_caption(run: Run, config: CaptionerConfig, *, everything: bool = False) -> DataFrame:
    """Surviving pairs that this captioner has not captioned yet (or all), with what it looks at."""
    lake, looks = run.lake, needs_images(config)
    images = lake.read("images").where("error IS NULL")
    images = images.select("url", "image_id", (F.col("bytes") if looks else F.lit(None).cast("binary")).alias("bytes"))
    pairs = lake.alive(before="caption").join(images, "url", "left").select("pair_id", "image_id", "bytes", "extra")
    mine = lake.read("synthetic_captions").where(F.col("params_hash") == captioner_hash(config))
    return pairs if everything else pairs.join(mine, "pair_id", "left_anti")


def caption(run: Run, config: CaptionerConfig, budget: BudgetConfig) -> None:
    """Caption every surviving pair that this captioner, with these parameters, has not captioned yet.

    Raises:
        BudgetError: pairs are left, but nothing to pay them with.
    """
    lake, made_by = run.lake, captioner_hash(config)
    with run.stage("caption") as counts:
        pairs = due_for_caption(run, config, everything=True)
        counts.rows_in = pairs.count()
        counts.rows_out = commit_in_slices(
            run,
            "caption",
            due_for_caption(run, config),
            key="pair_id",
            table="synthetic_captions",
            work=lambda rows, grant: rows.mapInArrow(
                partial(caption_batches, config=config, run_id=run.run_id, grant=grant), SYNTHETIC_CAPTIONS.schema()
            ),
            budget=Budget(run, "caption", "synthetic_captions", made_by, budget, paid=is_paid(config)),
        )
        mine = lake.read("synthetic_captions").where((F.col("params_hash") == made_by) & F.col("caption").isNull())
        rejects = (
            lake.alive(before="caption")
            .join(mine, "pair_id")
            .select(
                "pair_id",
                F.lit("caption").alias("stage"),
                F.when(F.col("error").isNull(), "no_caption").otherwise("engine_error").alias("reason"),
                F.coalesce("error", F.lit("nothing to say")).alias("detail"),
                F.lit(run.run_id).alias("run_id"),
            )
        )
        lake.settle("rejects", rejects, scope="stage = 'caption'", compare=("pair_id", "reason", "detail"))
        counts.rows_rejected = lake.read("rejects").where("stage = 'caption'").count()
