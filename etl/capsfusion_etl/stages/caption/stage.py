"""Caption stage, driver side: select the pairs that are due and caption them slice by slice.

The engine `column` copies captions that the source already has, in SQL; every other engine runs in Python workers. With
`captioner.otherwise`, another engine then makes the captions that the source lacks.
"""

from collections.abc import Collection
from functools import partial

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.budget.budget import Budget, BudgetConfig
from capsfusion_etl.budget.metered import Allowance
from capsfusion_etl.budget.spend import Account, of_run
from capsfusion_etl.engines import CaptionerConfig, captioner_hash, is_paid, needs_images
from capsfusion_etl.engines.column import ColumnCaptioner
from capsfusion_etl.lake.image_files import image_bytes
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.rejects import settle_rejects, surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import SlicedWork, commit_by_key_range, commit_whole
from capsfusion_etl.spark.gpu import map_on_gpu
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.stages.caption.worker import REFUSED, caption_batches
from capsfusion_etl.tables import SYNTHETIC_CAPTIONS

_AROUND = r"(?U)^[\s\x1C-\x1F]+|[\s\x1C-\x1F]+$"  # leading and trailing whitespace, as str.strip() defines it


def _given() -> Column:
    return F.regexp_replace(F.coalesce("given", F.lit("")), _AROUND, "")


def _is_given() -> Column:
    return _given() != ""


def from_source(rows: DataFrame, config: CaptionerConfig, run_id: str) -> DataFrame:
    """Return rows of `synthetic_captions` from pair_id, image_id and given: the engine `column` in SQL."""
    text = F.nullif(_given(), F.lit(""))
    made = {
        "caption": text, "error": None, "engine": config.name, "model": ColumnCaptioner.model,
        "revision": ColumnCaptioner.revision, "params_hash": captioner_hash(config), "prompt_tokens": 0,
        "completion_tokens": 0, "cost_usd": 0.0, "run_id": run_id,
    }  # fmt: skip
    given = {name: F.col(name) for name in ("pair_id", "image_id")} | {k: F.lit(v) for k, v in made.items()}
    return rows.select(*(given[name].cast(kind).alias(name) for name, kind, _ in SYNTHETIC_CAPTIONS.columns))


def pairs_to_caption(run: Run) -> DataFrame:
    """Return the surviving pairs: pair_id, url, image_id and given (the caption of the source)."""
    pairs, given = surviving(run.lake, before="caption"), F.col("extra")["synthetic_caption"].alias("given")
    if run.lake.is_empty("images"):
        return pairs.select("pair_id", "url", F.lit(None).cast("string").alias("image_id"), given)
    images = run.lake.read("images").where("error IS NULL").select("url", "image_id")
    return pairs.join(images, "url", "left").select("pair_id", "url", "image_id", given)


def due_for_caption(run: Run, config: CaptionerConfig, pairs: DataFrame) -> DataFrame:
    """Return those of `pairs` that this captioner, with these parameters, has not captioned yet.

    Args:
        run: the run.
        config: the captioner.
        pairs: see `pairs_to_caption`.

    Returns:
        Columns pair_id, image_id, bytes (null if the engine needs no images) and given.
    """
    mine = run.lake.live("synthetic_captions").where(F.col("params_hash") == captioner_hash(config))
    due = pairs.join(mine, "pair_id", "left_anti")
    if needs_images(config):
        due = due.drop("image_id").join(image_bytes(run.lake), "url", "left")
    else:
        due = due.withColumn("bytes", F.lit(None).cast("binary"))
    return due.select("pair_id", "image_id", "bytes", "given")


def caption(run: Run, config: CaptionerConfig, budget: BudgetConfig, retry: Collection[str] = ()) -> None:
    """Caption every surviving pair that this captioner, with these parameters, has not captioned yet.

    Pairs without a caption are rejected as no_caption, bad_caption or engine_error.

    Args:
        run: the run.
        config: the captioner.
        budget: the caps.
        retry: reject reasons of earlier runs that are forgotten, so that their pairs are due again.

    Raises:
        BudgetError: the budget is used up before all pairs are captioned.
    """
    lake, params_hash = run.lake, captioner_hash(config)
    with run.stage("caption") as counts, persisted(pairs_to_caption(run)) as pairs:
        counts.rows_in = pairs.count()
        if retry:
            forgotten = _without_caption(lake, params_hash).where(F.col("reason").isin(*retry))
            lake.delete(
                "synthetic_captions", forgotten.select("pair_id", F.lit(params_hash).alias("params_hash")),
                on="t.pair_id = s.pair_id AND t.params_hash = s.params_hash",
            )  # fmt: skip

        def work(rows: DataFrame, allowance: Allowance | None) -> DataFrame:
            job = partial(caption_batches, config=config, run_id=run.run_id, allowance=allowance)
            return map_on_gpu(rows, job, SYNTHETIC_CAPTIONS.schema(), config.gpu_executor)

        def copy(rows: DataFrame, _: Allowance | None) -> DataFrame:
            return from_source(rows, config, run.run_id)

        due, table = due_for_caption(run, config, pairs), "synthetic_captions"
        if config.name == "column":
            given = due if config.otherwise is None else due.where(_is_given())
            counts.rows_out += commit_whole(run, given, SlicedWork("caption", table, copy), params_hash=params_hash)
        if config.maker.name != "column":
            spending = Budget(
                run, Account("caption", table, params_hash, config.maker.name), budget, paid=is_paid(config.maker)
            )
            counts.rows_out += commit_by_key_range(run, due, SlicedWork("caption", table, work), spending)
            counts.tokens, counts.cost_usd = of_run(run, "caption")
        without = pairs.select("pair_id").join(_without_caption(lake, params_hash), "pair_id")
        counts.rows_rejected = settle_rejects(run, "caption", without)


def _without_caption(lake: Lake, params_hash: str) -> DataFrame:
    """Return pair_id, reason and detail of the rows of `synthetic_captions` that have no caption."""
    mine = lake.read("synthetic_captions").where((F.col("params_hash") == params_hash) & F.col("caption").isNull())
    reason = F.when(F.col("error").isNull(), "no_caption").when(F.col("error").startswith(REFUSED), "bad_caption")
    return mine.select(
        "pair_id",
        reason.otherwise("engine_error").alias("reason"),
        F.coalesce("error", F.lit("the captioner returned no caption")).alias("detail"),
    )
