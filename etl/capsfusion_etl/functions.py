"""SQL functions over captions, for spark.sql and Spark Connect: register them once in a session."""

from dataclasses import asdict

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from capsfusion_etl.judge import judge

GROUNDING = (
    "verdict string, detail string, kept array<string>, lost array<string>, invented_numbers array<string>, "
    "invented_names array<string>, recall double"
)


def register(spark: SparkSession) -> None:
    """Register `capsfusion_grounding(raw, synthetic, fused)`: the judge's verdict and the ledger, as a struct.

    For example: select capsfusion_grounding(raw_caption, synthetic_caption, answer).recall from fused_captions
    """

    @F.pandas_udf(GROUNDING)  # type: ignore[call-overload,untyped-decorator,unused-ignore]
    def grounding(raw: pd.Series, synthetic: pd.Series, fused: pd.Series) -> pd.DataFrame:
        rows = []
        for r, s, f in zip(raw, synthetic, fused, strict=True):
            found = judge(r or "", s or "", f or "")
            recall = found.ledger.recall
            rows.append({**asdict(found.ledger), "verdict": found.verdict, "detail": found.detail, "recall": recall})
        return pd.DataFrame(rows, columns=[part.split()[0] for part in GROUNDING.split(", ")])

    spark.udf.register("capsfusion_grounding", grounding)
