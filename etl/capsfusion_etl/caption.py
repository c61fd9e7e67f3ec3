"""Synthetic captions: pictures (or a column of the source) through a captioner, in Arrow batches."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.arrow import arrow_schema, batch_of
from capsfusion_etl.attempts import ROUND, chunks, in_flight
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
from capsfusion_etl.engines.column import ColumnCaptioner
from capsfusion_etl.files import image_bytes
from capsfusion_etl.gpu import map_on_gpu
from capsfusion_etl.purse import Allowance, metered
from capsfusion_etl.rejects import settle_rejects, surviving
from capsfusion_etl.runlog import Run
from capsfusion_etl.slices import SlicedWork, commit_by_key_range, commit_whole
from capsfusion_etl.spend import Account, of_run
from capsfusion_etl.tables import SYNTHETIC_CAPTIONS

_AROUND = r"(?U)^[\s\x1C-\x1F]+|[\s\x1C-\x1F]+$"  # what Python's strip takes away


def caption_batches(
    batches: Iterator[pa.RecordBatch], config: CaptionerConfig, run_id: str, allowance: Allowance | None
) -> Iterator[pa.RecordBatch]:
    """mapInArrow: pair_id, image_id, bytes, given in; rows of synthetic_captions out.

    A row that the engine cannot answer comes out with its error.
    """
    captioner, schema = load_captioner(config), arrow_schema(SYNTHETIC_CAPTIONS)
    made = {
        "engine": config.name,
        "model": captioner.model,
        "revision": captioner.revision,
        "params_hash": captioner_hash(config),
        "run_id": run_id,
    }
    for pair_ids, image_ids, answers in _answered(metered(captioner, allowance), batches):
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
    captioner: Captioner | AsyncEngine, batches: Iterator[pa.RecordBatch]
) -> Iterator[tuple[Any, Any, list[Answer]]]:
    """pair_ids, image_ids and answers: by Arrow batch, or as answers come."""
    if not isinstance(captioner, AsyncEngine):
        for batch in batches:
            answers = captioner.caption([picture for picture, _ in _pictures(batch)])
            yield batch.column("pair_id"), batch.column("image_id"), answers
        return

    async def one(row: tuple[Picture, str | None]) -> tuple[str, str | None, Answer] | None:
        picture, image_id = row
        answer = await captioner.ask(picture)
        return None if answer is None else (picture.pair_id, image_id, answer)

    rows = (row for batch in batches for row in _pictures(batch))
    for part in chunks(in_flight(rows, one, captioner.concurrency, captioner.close), ROUND):
        pair_ids, image_ids, answers = (list(column) for column in zip(*part, strict=True))
        yield pair_ids, image_ids, answers


def caption_all(config: CaptionerConfig, pictures: Sequence[Picture]) -> list[Answer]:
    """Caption without a lake: one answer for each picture, in order."""
    captioner = load_captioner(config)
    if not isinstance(captioner, AsyncEngine):
        return captioner.caption(pictures)

    async def one(picture: Picture) -> tuple[str, Answer | None]:
        return picture.pair_id, await captioner.ask(picture)

    done = dict(in_flight(pictures, one, captioner.concurrency, captioner.close))
    return [done[p.pair_id] or Answer(None, "the engine gave no answer") for p in pictures]


def _pictures(batch: pa.RecordBatch) -> Iterator[tuple[Picture, str | None]]:
    """Each row of a batch, with its image_id."""
    pair_ids, image_ids, images, given = (c.to_pylist() for c in batch.columns)
    for pair_id, image_id, image, text in zip(pair_ids, image_ids, images, given, strict=True):
        yield Picture(pair_id, image, text), image_id


def from_source(rows: DataFrame, config: CaptionerConfig, run_id: str) -> DataFrame:
    """What the engine `column` says, in SQL: pair_id, image_id, given in; rows of synthetic_captions out."""
    text = F.nullif(F.regexp_replace(F.coalesce("given", F.lit("")), _AROUND, ""), F.lit(""))
    made = {
        "caption": text, "error": None, "engine": config.name, "model": ColumnCaptioner.model,
        "revision": ColumnCaptioner.revision, "params_hash": captioner_hash(config), "prompt_tokens": 0,
        "completion_tokens": 0, "cost_usd": 0.0, "run_id": run_id,
    }  # fmt: skip
    given = {name: F.col(name) for name in ("pair_id", "image_id")} | {k: F.lit(v) for k, v in made.items()}
    return rows.select(*(given[name].cast(kind).alias(name) for name, kind, _ in SYNTHETIC_CAPTIONS.columns))


def due_for_caption(run: Run, config: CaptionerConfig, *, everything: bool = False) -> DataFrame:
    """Surviving pairs that this captioner has not captioned yet (or all), with what it looks at."""
    lake, looks = run.lake, needs_images(config)
    images = image_bytes(lake) if looks else lake.read("images").where("error IS NULL")
    images = images.select("url", "image_id", (F.col("bytes") if looks else F.lit(None).cast("binary")).alias("bytes"))
    pairs = surviving(lake, before="caption").join(images, "url", "left")
    pairs = pairs.select("pair_id", "image_id", "bytes", F.col("extra")["synthetic_caption"].alias("given"))
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

        def work(rows: DataFrame, allowance: Allowance | None) -> DataFrame:
            job = partial(caption_batches, config=config, run_id=run.run_id, allowance=allowance)
            return map_on_gpu(rows, job, SYNTHETIC_CAPTIONS.schema(), config.gpu_executor)

        def copy(rows: DataFrame, _: Allowance | None) -> DataFrame:
            return from_source(rows, config, run.run_id)

        due, table = due_for_caption(run, config), "synthetic_captions"
        if config.name == "column":
            counts.rows_out = commit_whole(run, due, SlicedWork("caption", table, copy), label=made_by)
        else:
            spending = Budget(run, Account("caption", table, made_by), budget, paid=is_paid(config))
            counts.rows_out = commit_by_key_range(run, due, SlicedWork("caption", table, work), spending)
            counts.tokens, counts.cost_usd = of_run(run, "caption")
        mine = lake.read("synthetic_captions").where((F.col("params_hash") == made_by) & F.col("caption").isNull())
        without = (
            surviving(lake, before="caption")
            .join(mine, "pair_id")
            .select(
                "pair_id",
                F.when(F.col("error").isNull(), "no_caption").otherwise("engine_error").alias("reason"),
                F.coalesce("error", F.lit("nothing to say")).alias("detail"),
            )
        )
        counts.rows_rejected = settle_rejects(run, "caption", without).count()
