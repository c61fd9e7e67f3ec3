"""Opinion stage, driver side: ask a large model about a share of the accepted captions, slice by slice.

The judge knows words; it does not read. What it accepts is therefore sampled, and a model that reads says how much of
it is true. `quality` bounds and reports the result.
"""

from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.budget.budget import Budget, BudgetConfig
from capsfusion_etl.budget.metered import Allowance
from capsfusion_etl.budget.spend import Account, of_run
from capsfusion_etl.engines import SecondOpinionConfig, fuser_hash, is_paid
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import SlicedWork, commit_by_key_range
from capsfusion_etl.spark.gpu import map_on_gpu
from capsfusion_etl.spark.sampling import position
from capsfusion_etl.stages.opinion.worker import opinion_batches
from capsfusion_etl.tables import OPINIONS


def due_for_opinion(run: Run, share: float, params_hash: str, caption_params_hash: str) -> DataFrame:
    """Return the sampled captions that have no opinion yet: pair_id, raw_caption, synthetic_caption and caption.

    The hash of the pair_id decides whether a caption is sampled, so that a greater share adds to the same sample.

    Args:
        run: the run.
        share: share of the accepted captions to sample, 0 to 1.
        params_hash: names the opinions.
        caption_params_hash: names the captions.
    """
    accepted = (F.col("params_hash") == caption_params_hash) & (F.col("verdict") == "accepted")
    sampled = run.lake.read("fused_captions").where(
        accepted & (position(F.concat(F.lit("opinion"), "pair_id")) < share)
    )
    there = run.lake.live("opinions").where(F.col("params_hash") == params_hash).select("pair_id", "caption")
    wanted = sampled.select("pair_id", "raw_caption", "synthetic_caption", "caption")
    return wanted.join(there, ["pair_id", "caption"], "left_anti").select(*wanted.columns)


def ask_opinions(run: Run, config: SecondOpinionConfig, budget: BudgetConfig, *, caption_params_hash: str) -> None:
    """Ask for opinions on a share of the accepted captions that do not have one yet.

    Args:
        run: the run.
        config: the model, its rubric and the share.
        budget: the caps, which count all paid work of the run.
        caption_params_hash: names the captions.

    Raises:
        BudgetError: the budget is used up before all sampled captions have an opinion.
    """
    params_hash = fuser_hash(config.fuser, caption_params_hash)

    def work(rows: DataFrame, allowance: Allowance | None) -> DataFrame:
        job = partial(
            opinion_batches,
            config=config,
            params_hash=params_hash,
            caption_params_hash=caption_params_hash,
            run_id=run.run_id,
            allowance=allowance,
        )
        return map_on_gpu(rows, job, OPINIONS.schema(), config.gpu_executor)

    with run.stage("opinion") as counts:
        due = due_for_opinion(run, config.share, params_hash, caption_params_hash)
        spending = Budget(run, Account("opinion", "opinions", params_hash), budget, paid=is_paid(config.fuser))
        counts.rows_in = counts.rows_out = commit_by_key_range(
            run, due, SlicedWork("opinion", "opinions", work), spending
        )
        counts.tokens, counts.cost_usd = of_run(run, "opinion")
