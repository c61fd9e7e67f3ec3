"""SQL functions over captions, for spark.sql and Spark Connect; register them once per session."""

from collections.abc import Iterator

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from capsfusion_etl.engines import CaptionerConfig, FuserConfig, Picture, Question
from capsfusion_etl.ids import pair_id
from capsfusion_etl.lake.blocklist import NAMES, names_udf
from capsfusion_etl.queries.grounding import GROUNDING
from capsfusion_etl.queries.grounding import grounding as judged
from capsfusion_etl.stages.caption.worker import caption_all
from capsfusion_etl.stages.fuse.worker import as_batch, fuse_all

FUSION = "caption string, caption_from string, verdict string, verdict_detail string, answer string, attempts int"

_NOT_KEPT = dict.fromkeys(("engine", "model", "revision", "params_hash", "run_id"), "")


def register(spark: SparkSession, captioner: CaptionerConfig | None = None, fuser: FuserConfig | None = None) -> None:
    """Register the SQL functions in a session.

    - `capsfusion_grounding(raw, synthetic, fused)`: the judge's verdict and the grounding, as a struct (GROUNDING)
    - `capsfusion_takedown_names(url)`: by what takedown requests may name a URL, as an array of "kind value"
    - `capsfusion_caption(bytes)`: a synthetic caption; null if the captioner fails
    - `capsfusion_fuse(raw, synthetic)`: caption, verdict, answer and attempts as a struct (FUSION), judged and retried
      as in the job. It stores nothing and has no budget: use it on a few rows, not on a whole table.

    For example: select capsfusion_grounding(raw_caption, synthetic_caption, answer).recall from fused_captions

    Args:
        spark: the session.
        captioner: engine of `capsfusion_caption`; None is the default one.
        fuser: engine of `capsfusion_fuse`; None is the default one.
    """
    captioner, fuser = captioner or CaptionerConfig(), fuser or FuserConfig()

    @F.pandas_udf(GROUNDING)  # type: ignore[call-overload,untyped-decorator,unused-ignore]
    def grounding(raw: pd.Series, synthetic: pd.Series, fused: pd.Series) -> pd.DataFrame:
        rows = [judged(r, s, f) for r, s, f in zip(raw, synthetic, fused, strict=True)]
        return pd.DataFrame(rows, columns=_names(GROUNDING))

    @F.pandas_udf("string")  # type: ignore[call-overload,untyped-decorator,unused-ignore]
    def caption(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for batch in batches:
            pictures = [Picture(str(i), data) for i, data in enumerate(batch)]
            yield pd.Series([answer.text for answer in caption_all(captioner, pictures)], dtype=object)

    @F.pandas_udf(FUSION)  # type: ignore[call-overload,untyped-decorator,unused-ignore]
    def fuse(batches: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        for raws, synthetics in batches:
            sources = zip(raws, synthetics, strict=True)
            questions = [Question(pair_id(str(i), r or ""), r or "", s or "") for i, (r, s) in enumerate(sources)]
            settled = {s.question.pair_id: s for s in fuse_all(fuser, questions)}
            batch = as_batch([settled[q.pair_id] for q in questions], fuser, **_NOT_KEPT)
            yield batch.select(_names(FUSION)).to_pandas()

    spark.udf.register("capsfusion_grounding", grounding)
    spark.udf.register(NAMES, names_udf())
    spark.udf.register("capsfusion_caption", caption)
    spark.udf.register("capsfusion_fuse", fuse)


def _names(schema: str) -> list[str]:
    return [part.split()[0] for part in schema.split(", ")]
