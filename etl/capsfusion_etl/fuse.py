"""Fusion: raw and synthetic caption through a fuser, each answer judged at once, asked again, or replaced."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import functions as F

from capsfusion_etl.arrow import arrow_schema
from capsfusion_etl.attempts import ROUND, Settled, chunks, settle
from capsfusion_etl.engines import FuserConfig, Question, fuser_hash, load_fuser
from capsfusion_etl.judge import ACCEPTED
from capsfusion_etl.runlog import Run
from capsfusion_etl.slices import commit_in_slices
from capsfusion_etl.spend import record_spend
from capsfusion_etl.tables import FUSED_CAPTIONS

STRATEGY = "fused"


def as_row(settled: Settled, fallback: str) -> dict[str, Any]:
    """The part of a fused_captions row that one pair decides: the answer if accepted, else what the policy says."""
    question, judgement, answer = settled.question, settled.judgement, settled.answer
    sources = {"raw": question.raw_caption, "synthetic": question.synthetic_caption, "drop": None}
    accepted = judgement.verdict == ACCEPTED
    return {
        "pair_id": question.pair_id,
        "strategy": STRATEGY,
        "caption": answer.text if accepted else sources[fallback],
        "caption_from": "fused" if accepted else {"drop": "none"}.get(fallback, fallback),
        "verdict": judgement.verdict,
        "verdict_detail": judgement.detail[:200],
        "answer": answer.text,
        "attempts": settled.attempts,
        "ledger": {**asdict(judgement.ledger), "recall": judgement.ledger.recall},
        "raw_caption": question.raw_caption,
        "synthetic_caption": question.synthetic_caption,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "cost_usd": answer.cost_usd,
    }


def fuse_batches(
    batches: Iterator[pa.RecordBatch], config: FuserConfig, params_hash: str, run_id: str
) -> Iterator[pa.RecordBatch]:
    """mapInArrow: pair_id, raw_caption, synthetic_caption in; rows of fused_captions out."""
    fuser, schema = load_fuser(config), arrow_schema(FUSED_CAPTIONS)
    made_by = {
        "engine": config.name,
        "model": fuser.model,
        "revision": fuser.revision,
        "params_hash": params_hash,
        "run_id": run_id,
    }
    questions = (Question(**row) for batch in batches for row in batch.to_pylist())
    for part in chunks(settle(fuser, questions, config), ROUND):
        yield pa.RecordBatch.from_pylist([as_row(s, config.fallback) | made_by for s in part], schema=schema)


def fuse(run: Run, config: FuserConfig, *, captions_from: str) -> None:
    """Fuse every surviving pair that this fuser, with this prompt and these parameters, has not fused yet.

    `captions_from` is the params_hash of the synthetic captions to use.
    """
    lake, made_by = run.lake, fuser_hash(config, captions_from)
    with run.stage("fuse") as counts:
        synthetic = lake.read("synthetic_captions").where(F.col("params_hash") == captions_from)
        synthetic = synthetic.select("pair_id", F.col("caption").alias("synthetic_caption"))
        pairs = (
            lake.alive(before="fuse").join(synthetic, "pair_id").select("pair_id", "raw_caption", "synthetic_caption")
        )
        mine = lake.read("fused_captions").where(F.col("params_hash") == made_by)
        counts.rows_in = pairs.count()
        counts.rows_out = commit_in_slices(
            run,
            "fuse",
            pairs.join(mine, "pair_id", "left_anti"),
            key="pair_id",
            table="fused_captions",
            work=lambda rows: rows.mapInArrow(
                partial(fuse_batches, config=config, params_hash=made_by, run_id=run.run_id), FUSED_CAPTIONS.schema()
            ),
            settled=lambda low: record_spend(run, "fuse", low, "fused_captions"),
        )
        dropped = lake.read("fused_captions").where((F.col("params_hash") == made_by) & F.col("caption").isNull())
        rejects = (
            lake.alive(before="fuse")
            .select("pair_id")
            .join(dropped, "pair_id")
            .select(
                "pair_id",
                F.lit("fuse").alias("stage"),
                F.col("verdict").alias("reason"),
                F.col("verdict_detail").alias("detail"),
                F.lit(run.run_id).alias("run_id"),
            )
        )
        lake.settle("rejects", rejects, scope="stage = 'fuse'", compare=("pair_id", "reason", "detail"))
        counts.rows_rejected = lake.read("rejects").where("stage = 'fuse'").count()
