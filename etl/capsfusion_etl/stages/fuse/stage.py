"""Fuse stage, driver side: fuse the pairs that are due, in slices or batches, then raise alarms and write rejects.

Each strategy runs over the same pairs and writes its own rows. Strategies that copy a caption use no model.
"""

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.budget.budget import Budget, BudgetConfig
from capsfusion_etl.budget.forecast import forecast
from capsfusion_etl.budget.metered import Allowance
from capsfusion_etl.budget.spend import Account, of_run
from capsfusion_etl.console import say
from capsfusion_etl.engines import FuserConfig, fuser_hash, is_paid
from capsfusion_etl.engines.base import ENGINE_ERROR
from capsfusion_etl.errors import InputError
from capsfusion_etl.judge import CHECKS
from capsfusion_etl.lake.image_files import image_bytes
from capsfusion_etl.lake.rejects import settle_rejects, surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import SlicedWork, commit_by_key_range, commit_whole
from capsfusion_etl.spark.gpu import map_on_gpu
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.stages.fuse.alarms import raise_alarms
from capsfusion_etl.stages.fuse.attempts import DOUBTED, SHIFTED
from capsfusion_etl.stages.fuse.canaries import ask_canaries, canaries_of
from capsfusion_etl.stages.fuse.worker import fuse_batches
from capsfusion_etl.strategies import copies_caption
from capsfusion_etl.tables import FUSED_CAPTIONS

# Verdicts that another attempt may change, in the order of docs/tables.md.
VERDICTS = (*(check.__name__ for check in CHECKS), DOUBTED, SHIFTED, ENGINE_ERROR)


def pairs_to_fuse(run: Run, captioner_params_hash: str) -> DataFrame:
    """Return the surviving pairs with a synthetic caption: pair_id, url, raw_caption, synthetic_caption.

    Args:
        run: the run.
        captioner_params_hash: params_hash of the synthetic captions to use.
    """
    synthetic = run.lake.read("synthetic_captions").where(F.col("params_hash") == captioner_params_hash)
    synthetic = synthetic.select("pair_id", F.col("caption").alias("synthetic_caption"))
    pairs = surviving(run.lake, before="fuse").join(synthetic, "pair_id")
    return pairs.select("pair_id", "url", "raw_caption", "synthetic_caption")


def due_for_fusion(run: Run, config: FuserConfig, strategy: str, params_hash: str, pairs: DataFrame) -> DataFrame:
    """Return those of `pairs` (see `pairs_to_fuse`) that have no fused caption of `params_hash` yet.

    Returns:
        Columns pair_id, raw_caption, synthetic_caption, and image (bytes) for a fuser that sees it.
    """
    mine = run.lake.live("fused_captions").where(F.col("params_hash") == params_hash)
    due, columns = pairs.join(mine, "pair_id", "left_anti"), ["pair_id", "raw_caption", "synthetic_caption"]
    if config.sees_image and not copies_caption(strategy):
        images = image_bytes(run.lake).select("url", F.col("bytes").alias("image"))
        due, columns = due.join(images, "url", "left"), [*columns, "image"]
    return due.select(*columns)


def fuse(
    run: Run, config: FuserConfig, budget: BudgetConfig, *, captioner_params_hash: str, retry: Collection[str] = ()
) -> None:
    """Make the captions of every strategy, for the surviving pairs that do not have them yet.

    Args:
        run: the run.
        config: the fuser.
        budget: the caps.
        captioner_params_hash: params_hash of the synthetic captions to use.
        retry: verdicts of earlier runs that are forgotten, so that their pairs are due again.

    Raises:
        BudgetError: the budget is used up before all pairs are fused.
        InputError: too few canary rows were fused well, or the server refuses every request.
    """
    with run.stage("fuse") as counts, persisted(pairs_to_fuse(run, captioner_params_hash)) as pairs:
        counts.rows_in = pairs.count()
        hashes = {strategy: fuser_hash(config, captioner_params_hash, strategy) for strategy in config.strategies}
        if retry:
            forgotten = run.lake.read("fused_captions").where(F.col("params_hash").isin(*hashes.values()))
            forgotten = forgotten.where(F.col("verdict").isin(*retry)).select("pair_id", "params_hash")
            run.lake.delete("fused_captions", forgotten, on="t.pair_id = s.pair_id AND t.params_hash = s.params_hash")
        for strategy, params_hash in hashes.items():
            counts.rows_out += _fuse_strategy(run, config, budget, strategy, params_hash, pairs)
        if not all(copies_caption(strategy) for strategy in config.strategies):
            counts.tokens, counts.cost_usd = of_run(run, "fuse")
        fused = run.lake.read("fused_captions")
        dropped = fused.where(F.col("params_hash").isin(*hashes.values()) & F.col("caption").isNull())
        # A pair that one strategy drops is rejected for all, so that strategies are compared over the same pairs.
        without = (
            pairs.select("pair_id")
            .join(dropped, "pair_id")
            .groupBy("pair_id")
            .agg(F.min_by(F.struct("verdict", "verdict_detail"), "strategy").alias("first"))
            .select("pair_id", F.col("first.verdict").alias("reason"), F.col("first.verdict_detail").alias("detail"))
        )
        counts.rows_rejected = settle_rejects(run, "fuse", without)


def _fuse_strategy(
    run: Run, config: FuserConfig, caps: BudgetConfig, strategy: str, params_hash: str, pairs: DataFrame
) -> int:
    due = due_for_fusion(run, config, strategy, params_hash, pairs)

    def work(rows: DataFrame, allowance: Allowance | None) -> DataFrame:
        job = partial(
            fuse_batches,
            config=config,
            strategy=strategy,
            params_hash=params_hash,
            run_id=run.run_id,
            allowance=allowance,
        )
        return map_on_gpu(rows, job, FUSED_CAPTIONS.schema(), {} if copies_caption(strategy) else config.gpu_executor)

    if copies_caption(strategy):
        done = commit_whole(run, due, SlicedWork("fuse", "fused_captions", work), params_hash=params_hash)
        if done:
            raise_alarms(run, params_hash, strategy, None)
        return done
    total = due.count()
    if not total and not run.lake.rows("alarms", "params_hash", among=(params_hash,)):
        return 0
    paid, batched = is_paid(config), config.name == "openai-batch"
    if total and paid and (config.usd_per_million_in or config.usd_per_million_out):
        rows = total + canaries_of(config)
        say(f"fuse      {strategy}, forecast: {forecast(run.lake, config, strategy, due, rows)}")
    budget = Budget(run, Account("fuse", "fused_captions", params_hash), caps, paid=paid, batched=batched)
    unbatched = replace(config, name="openai") if batched else config
    wrong = ask_canaries(run, unbatched, strategy, work, budget)
    if wrong:
        raise_alarms(run, params_hash, strategy, wrong)
        raise InputError(
            f"fuse: {wrong}. Nothing else was asked: check fuser.model and fuser.prompt, or lower fuser.canaries"
        )
    if not total:
        raise_alarms(run, params_hash, strategy, None)  # clears those that no longer hold
        return 0
    if batched:
        from capsfusion_etl.stages.fuse.batch_api import BatchJob

        done = BatchJob(run, config, strategy, due, work, budget).run()
    else:
        done = commit_by_key_range(run, due, SlicedWork("fuse", "fused_captions", work), budget)
    raise_alarms(run, params_hash, strategy, None)
    return done
