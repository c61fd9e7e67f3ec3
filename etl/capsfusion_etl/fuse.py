"""Fusion: raw and synthetic caption through a fuser, each answer judged at once, asked again, or replaced.

Each strategy is made for itself: the same pairs, its own rows. Copying strategies ask no model.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.abstain import abstain
from capsfusion_etl.alarms import mark_shifted, raise_alarms
from capsfusion_etl.arrow import arrow_schema
from capsfusion_etl.attempts import ROUND, Settled, chunks, settle
from capsfusion_etl.budget import Budget, BudgetConfig
from capsfusion_etl.canaries import questions as golden_rows
from capsfusion_etl.engines import Answer, FuserConfig, Question, fuser_hash, is_paid, load_fuser
from capsfusion_etl.forecast import forecast
from capsfusion_etl.judge import ACCEPTED, Judgement
from capsfusion_etl.ledger import ground
from capsfusion_etl.purse import Grant, Purse
from capsfusion_etl.runlog import Run, say
from capsfusion_etl.slices import commit_in_slices
from capsfusion_etl.strategies import copied, source_of
from capsfusion_etl.tables import FUSED_CAPTIONS

ABSTAINED = "abstained"


def as_row(settled: Settled, config: FuserConfig) -> dict[str, Any]:
    """The part of a fused_captions row that one pair decides: the answer if accepted, else what the policy says."""
    question, judgement, answer = settled.question, settled.judgement, settled.answer
    sources = {"raw": question.raw_caption, "synthetic": question.synthetic_caption, "drop": None}
    strategy = question.strategy
    origin = source_of(strategy, question.pair_id, config.mixed_raw) if copied(strategy) else "fused"
    # Who abstains keeps the caption that says something.
    fallback = "synthetic" if judgement.verdict == ABSTAINED else config.fallback
    accepted = judgement.verdict == ACCEPTED
    return {
        "pair_id": question.pair_id,
        "strategy": strategy,
        "caption": answer.text if accepted else sources[fallback],
        "caption_from": origin if accepted else {"drop": "none"}.get(fallback, fallback),
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
    batches: Iterator[pa.RecordBatch],
    config: FuserConfig,
    strategy: str,
    params_hash: str,
    run_id: str,
    grant: Grant | None,
) -> Iterator[pa.RecordBatch]:
    """mapInArrow: pair_id, raw_caption, synthetic_caption (and image) in; rows of fused_captions out."""
    schema, made_by = arrow_schema(FUSED_CAPTIONS), {"params_hash": params_hash, "run_id": run_id}
    questions = (Question(**row, strategy=strategy) for batch in batches for row in batch.to_pylist())
    if copied(strategy):
        made_by |= {"engine": "none", "model": "none", "revision": "none"}
        settled: Iterable[Settled] = (copy(question, config) for question in questions)
    else:
        fuser = load_fuser(config)
        made_by |= {"engine": config.name, "model": fuser.model, "revision": fuser.revision}
        settled = judged(questions, config, lambda asked: settle(fuser, asked, config, Purse(grant) if grant else None))
    for part in chunks(settled, ROUND):
        rows = [as_row(s, config) | made_by for s in mark_shifted(part)]
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def fuse_all(config: FuserConfig, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """Fuse and judge without a lake: rows as of fused_captions, in any order."""
    fuser = load_fuser(config)
    for settled in judged(questions, config, lambda asked: settle(fuser, asked, config)):
        yield as_row(settled, config)


def judged(
    questions: Iterable[Question], config: FuserConfig, ask: Callable[[Iterable[Question]], Iterable[Settled]]
) -> Iterator[Settled]:
    """Settle what should not be asked at all here, and the rest by `ask`."""
    abstained: list[Settled] = []

    def worth_asking() -> Iterator[Question]:
        for question in questions:
            why = abstain(question.raw_caption, question.synthetic_caption) if config.abstain else None
            if why is None:
                yield question
            else:
                ledger = ground(question.raw_caption, question.synthetic_caption, question.synthetic_caption)
                abstained.append(Settled(question, Judgement(ABSTAINED, why, ledger), Answer(None), 0))

    for settled in ask(worth_asking()):
        yield settled
        while abstained:
            yield abstained.pop()
    yield from abstained


def copy(question: Question, config: FuserConfig) -> Settled:
    """The caption of a strategy that copies; it has a ledger like any other, and nothing to refuse."""
    origin = source_of(question.strategy, question.pair_id, config.mixed_raw)
    text = question.raw_caption if origin == "raw" else question.synthetic_caption
    ledger = ground(question.raw_caption, question.synthetic_caption, text)
    return Settled(question, Judgement(ACCEPTED, "", ledger), Answer(text), 0)


def due_for_fusion(
    run: Run, config: FuserConfig, strategy: str, captions_from: str, *, everything: bool = False
) -> DataFrame:
    """Surviving pairs that this fuser, with this prompt and these parameters, has not fused yet (or all)."""
    lake = run.lake
    synthetic = lake.read("synthetic_captions").where(F.col("params_hash") == captions_from)
    synthetic = synthetic.select("pair_id", F.col("caption").alias("synthetic_caption"))
    pairs = lake.alive(before="fuse").join(synthetic, "pair_id")
    columns = ["pair_id", "raw_caption", "synthetic_caption"]
    if config.sees_image and not copied(strategy):
        images = lake.read("images").where("error IS NULL").select("url", F.col("bytes").alias("image"))
        pairs, columns = pairs.join(images, "url", "left"), [*columns, "image"]
    pairs = pairs.select(*columns)
    mine = lake.read("fused_captions").where(F.col("params_hash") == fuser_hash(config, captions_from, strategy))
    return pairs if everything else pairs.join(mine, "pair_id", "left_anti")


def fuse(run: Run, config: FuserConfig, budget: BudgetConfig, *, captions_from: str) -> None:
    """Make the captions of every strategy for every surviving pair that has none of them yet.

    Args:
        captions_from: params_hash of the synthetic captions to use.

    Raises:
        BudgetError: pairs are left, but nothing to pay them with.
    """
    lake = run.lake
    with run.stage("fuse") as counts:
        for strategy in config.strategies:
            counts.rows_in = due_for_fusion(run, config, strategy, captions_from, everything=True).count()
            counts.rows_out += _fuse_strategy(run, config, budget, strategy, captions_from)
        made_by = [fuser_hash(config, captions_from, s) for s in config.strategies]
        dropped = lake.read("fused_captions").where(F.col("params_hash").isin(made_by) & F.col("caption").isNull())
        # A pair that one strategy drops is dropped from all: strategies are compared over the same pairs.
        rejects = (
            lake.alive(before="fuse")
            .select("pair_id")
            .join(dropped, "pair_id")
            .groupBy("pair_id")
            .agg(F.min_by(F.struct("verdict", "verdict_detail"), "strategy").alias("first"))
            .select(
                "pair_id",
                F.lit("fuse").alias("stage"),
                F.col("first.verdict").alias("reason"),
                F.col("first.verdict_detail").alias("detail"),
                F.lit(run.run_id).alias("run_id"),
            )
        )
        lake.settle("rejects", rejects, scope="stage = 'fuse'", compare=("pair_id", "reason", "detail"))
        counts.rows_rejected = lake.read("rejects").where("stage = 'fuse'").count()


def _fuse_strategy(run: Run, config: FuserConfig, caps: BudgetConfig, strategy: str, captions_from: str) -> int:
    made_by = fuser_hash(config, captions_from, strategy)
    due = due_for_fusion(run, config, strategy, captions_from)
    if due.isEmpty():
        return 0

    def work(rows: DataFrame, grant: Grant | None) -> DataFrame:
        job = partial(
            fuse_batches, config=config, strategy=strategy, params_hash=made_by, run_id=run.run_id, grant=grant
        )
        return rows.mapInArrow(job, FUSED_CAPTIONS.schema())

    paid, batched = is_paid(config) and not copied(strategy), config.name == "openai-batch"
    if paid and (config.usd_per_million_in or config.usd_per_million_out):
        say(f"fuse      {strategy}, forecast: {forecast(run.lake, config, strategy, due, due.count())}")
    budget = Budget(run, "fuse", "fused_captions", made_by, caps, paid=paid, batched=batched)
    if batched and not copied(strategy):
        from capsfusion_etl.batches import BatchJob

        canaries = _ask_canaries(run, replace(config, name="openai"), strategy, work, budget)  # at once
        done = BatchJob(run, config, strategy, due, work, budget).run()
    else:
        canaries = _ask_canaries(run, config, strategy, work, budget)
        done = commit_in_slices(run, "fuse", due, key="pair_id", table="fused_captions", work=work, budget=budget)
    raise_alarms(run, made_by, strategy, canaries)
    return done


def _ask_canaries(
    run: Run, config: FuserConfig, strategy: str, work: Callable[[DataFrame, Grant | None], DataFrame], budget: Budget
) -> str | None:
    """What is wrong with the golden rows; None if enough of them were fused well."""
    if copied(strategy) or not config.canaries or config.sees_image:  # they have no pictures
        return None
    rows = [(q.pair_id, q.raw_caption, q.synthetic_caption) for q in golden_rows(strategy)]
    frame = run.lake.spark.createDataFrame(rows, "pair_id string, raw_caption string, synthetic_caption string")
    out = work(frame.coalesce(1), budget.grant("canaries", 1)).select("verdict", "answer").collect()
    budget.settle("canaries", 0, low="z")
    well = sum(row["verdict"] == ACCEPTED for row in out)
    if well >= config.canaries * len(rows):
        return None
    bad = next((row for row in out if row["verdict"] != ACCEPTED), {"verdict": "not asked", "answer": ""})
    return f"{well} of {len(rows)} golden rows were fused well; one was {bad['verdict']}: {str(bad['answer'])[:80]}"
