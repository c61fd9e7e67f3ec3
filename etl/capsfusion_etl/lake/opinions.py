"""Second opinions on the captions that are accepted now."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.lake.lake import Lake

# What `newest_opinions` returns, as SQL over the tables `opinions` and `fused`.
NEWEST = """WITH given AS (
  SELECT o.* FROM opinions o JOIN fused f
  ON o.pair_id = f.pair_id AND o.caption = f.caption AND o.caption_params_hash = f.params_hash
  WHERE f.verdict = 'accepted'
)
SELECT * FROM given WHERE params_hash = (SELECT max_by(params_hash, run_id) FROM given)"""


def newest_opinions(lake: Lake, fused: DataFrame) -> DataFrame:
    """Return the rows of `opinions` about accepted captions, of the model and rubric that were asked last.

    Args:
        lake: the lake.
        fused: rows of `fused_captions` of one params_hash.
    """
    if lake.is_empty("opinions"):  # most lakes: no need to read the captions again
        return lake.read("opinions")
    captions = fused.where("verdict = 'accepted'").select(
        "pair_id", "caption", F.col("params_hash").alias("caption_params_hash")
    )
    found = lake.read("opinions").join(captions, ["pair_id", "caption", "caption_params_hash"], "left_semi")
    last = found.agg(F.max_by("params_hash", "run_id").alias("params_hash"))
    return found.join(F.broadcast(last), "params_hash", "left_semi")
