"""Synthetic captions: pictures (or a column of the source) through a captioner, in Arrow batches."""

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
from pyspark.sql import functions as F

from capsfusion_etl.arrow import arrow_schema
from capsfusion_etl.engines import CaptionerConfig, captioner_hash, load_captioner, needs_images
from capsfusion_etl.runlog import Run
from capsfusion_etl.slices import commit_in_slices
from capsfusion_etl.spend import record_spend
from capsfusion_etl.tables import SYNTHETIC_CAPTIONS


def caption_batches(
    batches: Iterator[pa.RecordBatch], config: CaptionerConfig, run_id: str
) -> Iterator[pa.RecordBatch]:
    """mapInArrow: pair_id, image_id, bytes, extra in; rows of synthetic_captions out.

    A row that the engine cannot answer comes out with its error.
    """
    captioner, schema, made_by = load_captioner(config), arrow_schema(SYNTHETIC_CAPTIONS), captioner_hash(config)
    for batch in batches:
        rows = [{**row, "extra": dict(row["extra"] or [])} for row in batch.to_pylist()]
        out = [
            {
                "pair_id": row["pair_id"],
                "image_id": row["image_id"],
                "caption": answer.text,
                "error": answer.error,
                "engine": config.name,
                "model": captioner.model,
                "revision": captioner.revision,
                "params_hash": made_by,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "cost_usd": answer.cost_usd,
                "run_id": run_id,
            }
            for row, answer in zip(rows, captioner.caption(rows), strict=True)
        ]
        yield pa.RecordBatch.from_pylist(out, schema=schema)


def caption(run: Run, config: CaptionerConfig) -> None:
    """Caption every surviving pair that this captioner, with these parameters, has not captioned yet."""
    lake, made_by, looks = run.lake, captioner_hash(config), needs_images(config)
    with run.stage("caption") as counts:
        images = lake.read("images").where("error IS NULL")
        images = images.select(
            "url", "image_id", (F.col("bytes") if looks else F.lit(None).cast("binary")).alias("bytes")
        )
        pairs = lake.alive(before="caption").join(images, "url", "left").select("pair_id", "image_id", "bytes", "extra")
        mine = lake.read("synthetic_captions").where(F.col("params_hash") == made_by)
        counts.rows_in = pairs.count()
        counts.rows_out = commit_in_slices(
            run,
            "caption",
            pairs.join(mine, "pair_id", "left_anti"),
            key="pair_id",
            table="synthetic_captions",
            work=lambda rows: rows.mapInArrow(
                partial(caption_batches, config=config, run_id=run.run_id), SYNTHETIC_CAPTIONS.schema()
            ),
            settled=lambda low: record_spend(run, "caption", low, "synthetic_captions"),
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
